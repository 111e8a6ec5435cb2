"""Which processes are alive: real ones, killed by real signals."""

import socket
import subprocess
import sys
import time

import psutil
import pytest

from churnlab.tracking.fingerprints import packages
from churnlab.tracking.processes import interruption, is_alive, process, runs

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


FORGETS = """
import os, signal
from churnlab.tracking.processes import interruption, raise_on_signals
raise_on_signals()
assert interruption(ValueError()) is None
try:
    os.kill(os.getpid(), signal.{name})
except BaseException:
    pass
forgotten = ValueError("the C code that raised this has forgotten what it was raised during")
print(type(interruption(forgotten)).__name__)
"""


@pytest.mark.parametrize(
    ("name", "kind"), [("SIGINT", "KeyboardInterrupt"), ("SIGTERM", "Terminated")]
)
def test_an_error_after_a_signal_is_put_down_to_the_signal(name, kind):
    words = [sys.executable, "-c", FORGETS.format(name=name)]
    assert subprocess.run(words, capture_output=True, text=True).stdout == f"{kind}\n"


WAITS = """
import os, signal
from churnlab.errors import Terminated
from churnlab.tracking.processes import finish_first, raise_on_signals
raise_on_signals()
for signals in (1, 2):
    done = []
    try:
        with finish_first():
            for _ in range(signals):
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("went on")
    except Terminated:
        done.append("stopped")
    print(done)
"""


def test_a_signal_waits_until_a_run_is_known_and_a_second_one_does_not():
    words = [sys.executable, "-c", WAITS]
    lines = subprocess.run(words, capture_output=True, text=True).stdout.splitlines()
    assert lines == ["['went on', 'stopped']", "['went on', 'stopped']"]


def test_a_signal_is_found_on_either_way_through_the_causes_of_an_error():
    error = ValueError("while cleaning up")
    error.__cause__ = OSError("an older reason")
    assert interruption(error) is None
    error.__context__ = KeyboardInterrupt()
    assert interruption(error) is error.__context__


def test_packages_that_decide_results_include_python_and_the_machine():
    assert {"python", "machine", "numpy", "scikit-learn", "optuna"} <= packages().keys()
