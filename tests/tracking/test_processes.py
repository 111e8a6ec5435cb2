"""Which process is alive: real processes, ended by real signals."""

import socket
import subprocess
import sys
import time

import psutil

from churnlab.tracking.fingerprints import packages
from churnlab.tracking.processes import is_alive, process, runs

TOLD = "import time; from churnlab.tracking import processes; print(processes.process(), flush=True); time.sleep(60)"


def test_a_process_is_alive_until_it_is_killed():
    assert is_alive(process()) is True
    with subprocess.Popen([sys.executable, "-c", TOLD], stdout=subprocess.PIPE, text=True) as other:
        told = other.stdout.readline().strip()
        assert is_alive(told) is True
        assert runs(other.pid)
        other.kill()
    assert is_alive(told) is False
    assert not runs(other.pid)


def test_a_process_that_has_ended_and_that_nobody_has_asked_how_is_dead():
    with subprocess.Popen(
        [sys.executable, "-c", TOLD], stdout=subprocess.PIPE, text=True
    ) as zombie:
        told = zombie.stdout.readline().strip()
        zombie.kill()
        deadline = time.monotonic() + 20
        while psutil.Process(zombie.pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
        assert is_alive(told) is False


def test_another_process_of_the_same_number_is_another_process():
    machine, pid, since = process().split(" ")
    assert is_alive(f"{machine} {pid} 1{since}") is False


def test_of_another_machine_nothing_is_known():
    machine, rest = process().split(" ", 1)
    assert machine == socket.gethostname()
    assert is_alive(f"{machine}-2 {rest}") is None


def test_the_packages_that_decide_the_bits_are_told_with_python():
    assert {"python", "machine", "numpy", "scikit-learn", "optuna"} <= packages().keys()
