"""Worker processes: each takes calls as it is free, a dead one is replaced, none is left over."""

import os
import threading
import time

import psutil
import pytest

from churnlab.tuning import pool
from support import calls
from support.waiting import PATIENCE


def fail(place: int, attempts: int, code: int):
    raise AssertionError((place, attempts, code))


def test_results_come_in_the_order_of_the_items_from_workers_that_stay_warm():
    starts = []
    with pool.worker_processes(2) as workers:
        found = workers.run(
            calls.pid_and_cores,
            range(8),
            on_death=fail,
            on_start=lambda place, done: starts.append((place, done)),
        )
        again = workers.run(calls.pid_and_cores, [8], on_death=fail)
    assert [item for item, _, _ in found] == list(range(8))
    pids = {pid for _, pid, _ in found}
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert again[0][1] in pids
    assert [place for place, _ in starts] == list(range(8))
    assert starts[:2] == [(0, 0), (1, 0)]
    assert starts[-1][1] >= 5
    assert not any(map(psutil.pid_exists, pids))


def test_workers_share_the_cores():
    with pool.worker_processes(1000) as workers:
        ((_, _, cores),) = workers.run(calls.pid_and_cores, [0], on_death=fail)
    assert cores == 1


def test_a_call_whose_worker_dies_is_made_again_in_another(tmp_path):
    deaths = []
    with pool.worker_processes(2) as workers:
        found = workers.run(
            calls.die_the_first_time,
            [tmp_path / "first", tmp_path / "second"],
            on_death=lambda *death: deaths.append(death),
        )
    assert sorted(deaths) == [(0, 1, -9), (1, 1, -9)]
    assert all(isinstance(pid, int) for pid in found)


def test_a_call_that_kills_every_worker_is_given_up_and_the_others_are_done():
    with pool.worker_processes(2) as workers:
        found = workers.run(calls.die, [0], on_death=lambda place, attempts, code: (attempts, code))
        assert found == [(pool.ATTEMPTS, -9)]
        assert workers.run(calls.pid_and_cores, [5], on_death=fail)[0][0] == 5


def test_an_exception_in_the_process_that_leads_ends_workers_by_sigterm(tmp_path):
    file = tmp_path / "worker"

    def stop() -> None:
        deadline = time.monotonic() + PATIENCE
        while not (file.exists() and file.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(os.getpid(), 2)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(KeyboardInterrupt), pool.worker_processes(1) as workers:
        workers.run(calls.wait_for_a_signal, [file], on_death=fail)
    pid, how = file.read_text().split()
    assert how == "terminated"
    assert not psutil.pid_exists(int(pid))


def test_this_process_makes_calls_one_after_another():
    starts = []
    found = pool.ThisProcess().run(
        calls.pid_and_cores,
        [3, 4],
        on_death=fail,
        on_start=lambda place, done: starts.append((place, done)),
    )
    assert [(item, pid) for item, pid, _ in found] == [(3, os.getpid()), (4, os.getpid())]
    assert starts == [(0, 0), (1, 1)]
