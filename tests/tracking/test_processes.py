"""Which processes are alive: real ones, killed by real signals."""

import socket
import subprocess
import sys
import time

import psutil

from churnlab.tracking.fingerprints import packages
from churnlab.tracking.processes import is_alive, process, runs

PRINT_AND_SLEEP = """
import time
from churnlab.tracking import processes
print(processes.process(), flush=True)
time.sleep(60)
"""


def start() -> subprocess.Popen[str]:
    words = [sys.executable, "-c", PRINT_AND_SLEEP]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def test_a_process_is_alive_until_it_is_killed():
    assert is_alive(process()) is True
    with start() as other:
        identity = other.stdout.readline().strip()
        assert is_alive(identity) is True
        assert runs(other.pid)
        other.kill()
    assert is_alive(identity) is False
    assert not runs(other.pid)


def test_a_zombie_whose_parent_has_not_waited_for_it_is_dead():
    with start() as zombie:
        identity = zombie.stdout.readline().strip()
        zombie.kill()
        deadline = time.monotonic() + 20
        while psutil.Process(zombie.pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
        assert is_alive(identity) is False


def test_a_later_process_with_the_same_number_is_a_different_process():
    machine, pid, since = process().split(" ")
    assert is_alive(f"{machine} {pid} 1{since}") is False


def test_whether_a_process_on_another_machine_is_alive_is_unknown():
    machine, rest = process().split(" ", 1)
    assert machine == socket.gethostname()
    assert is_alive(f"{machine}-2 {rest}") is None


def test_packages_that_decide_results_include_python_and_the_machine():
    assert {"python", "machine", "numpy", "scikit-learn", "optuna"} <= packages().keys()
