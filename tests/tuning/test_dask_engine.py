"""A Dask cluster does the same work as processes: a dead worker costs its task, nothing is left."""

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from churnlab.errors import InputError, JobError
from churnlab.tuning import pool
from churnlab.tuning.dask_engine import Dask
from churnlab.tuning.needs import Needs
from support import calls
from support.dask_cluster import Cluster, dask_cluster
from support.killing import gone
from support.waiting import PATIENCE

pytestmark = pytest.mark.slow


def fail(place: int, attempts: int, code: int | None):
    raise AssertionError((place, attempts, code))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory):
    with dask_cluster(tmp_path_factory.mktemp("dask"), workers=2) as cluster:
        yield cluster


@pytest.fixture
def engine(cluster: Cluster) -> Dask:
    return Dask(workers=2, address=cluster.address)


def test_results_come_in_the_order_of_the_items_from_processes_that_stay_warm(engine, cluster):
    starts = []
    with engine.pool() as workers:
        found = workers.run(
            calls.pid_and_cores,
            range(6),
            on_death=fail,
            on_start=lambda place, done: starts.append((place, done)),
        )
        again = workers.run(calls.pid_and_cores, [8], on_death=fail)
    assert [item for item, _, _ in found] == list(range(6))
    pids = {pid for _, pid, _ in found}
    assert 1 <= len(pids) <= 2
    assert again[0][0] == 8
    assert sorted(place for place, _ in starts) == list(range(6))
    assert not pids & {os.getpid(), *cluster.pids()}, "a Dask worker runs no code of a command"
    assert not any(map(psutil.pid_exists, pids))


def test_a_call_whose_process_dies_is_made_again(engine, tmp_path):
    deaths = []
    with engine.pool() as workers:
        found = workers.run(
            calls.die_the_first_time,
            [tmp_path / "first", tmp_path / "second"],
            on_death=lambda *death: deaths.append(death),
        )
    assert sorted(deaths) == [(0, 1, -9), (1, 1, -9)]
    assert all(isinstance(pid, int) for pid in found)


def test_a_call_that_kills_every_process_is_given_up_and_the_others_are_done(engine):
    with engine.pool() as workers:
        found = workers.run(calls.die, [0], on_death=lambda place, attempts, code: (attempts, code))
        assert found == [(pool.ATTEMPTS, -9)]
        assert workers.run(calls.pid_and_cores, [5], on_death=fail)[0][0] == 5


def test_a_dask_worker_that_dies_costs_its_call_an_attempt_and_no_other(engine, tmp_path):
    deaths = []
    with engine.pool() as workers:
        found = workers.run(
            calls.kill_the_starter,
            [tmp_path / "once", *[Path(__file__)] * 4],
            on_death=lambda *death: deaths.append(death),
        )
    assert deaths == [(0, 1, None)]
    assert all(isinstance(pid, int) for pid in found)


def test_a_call_that_kills_dask_workers_again_and_again_is_given_up(engine, tmp_path):
    with engine.pool() as workers:
        found = workers.run(
            calls.kill_the_starter,
            [tmp_path, *[Path(__file__)] * 4],
            on_death=lambda place, attempts, code: f"{place} {attempts} {code}",
        )
    assert found[0] == f"0 {pool.ATTEMPTS} None"
    assert all(isinstance(pid, int) for pid in found[1:])


def test_an_exception_in_the_command_ends_its_processes_by_sigterm(engine, tmp_path):
    file = tmp_path / "worker"

    def stop() -> None:
        deadline = time.monotonic() + PATIENCE
        while not (file.exists() and file.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(KeyboardInterrupt), engine.pool() as workers:
        workers.run(calls.wait_for_a_signal, [file], on_death=fail)
    pid, how = file.read_text().split()
    assert how == "terminated"
    assert not psutil.pid_exists(int(pid))


def test_without_an_address_there_is_a_cluster_that_ends_with_the_command(tmp_path):
    before = psutil.Process().children(recursive=True)
    with Dask(workers=2).pool() as workers:
        found = workers.run(
            calls.kill_the_starter,
            [tmp_path / "once", Path(__file__)],
            on_death=lambda *death: None,
        )
        assert all(isinstance(pid, int) for pid in found)
        mine = [
            one
            for one in psutil.Process().children(recursive=True)
            if one not in before and "resource_tracker" not in " ".join(one.cmdline())
        ]
        assert len(mine) >= 3
    assert gone(mine)


@pytest.mark.parametrize("answers", [False, True])
def test_an_address_where_something_else_listens_is_wrong_input(answers, monkeypatch):
    monkeypatch.setattr("churnlab.tuning.dask_cluster.PATIENCE", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as other:

        def refuse() -> None:
            with other.accept()[0] as connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 9)

        refusing = threading.Thread(target=refuse)
        if answers:
            refusing.start()
        engine = Dask(workers=1, address=f"tcp://127.0.0.1:{other.getsockname()[1]}")
        with pytest.raises(InputError, match="No Dask scheduler answers at engine.address=tcp://1"):
            engine.warm_up([])
        if answers:
            refusing.join()


@pytest.mark.parametrize("words", [("train", "model=dummy"), ("tune", "tune.n_trials=2")])
def test_a_command_without_its_scheduler_ends_in_one_paragraph_and_leaves_no_run(
    home, run_command, runs_at, words
):
    given = ("dataset.rows=250", "evaluation.folds=2", "engine=dask", "engine.address=nowhere")
    ended = run_command(home, *words, *given)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("No Dask scheduler answers at engine.address=nowhere.")
    assert ended.err.count("\n") == 1
    assert not (home / "mlflow.db").exists() or runs_at(home) == []


def test_a_scheduler_that_does_not_answer_is_wrong_input():
    with pytest.raises(InputError, match="No Dask scheduler answers at engine.address=tcp://127"):
        Dask(workers=1, address="tcp://127.0.0.1:9").pool().__enter__()
    with pytest.raises(InputError, match="No Dask scheduler answers at engine.address=dask"):
        Dask(workers=1, address="dask").pool().__enter__()


def test_a_cluster_without_workers_is_wrong_input(tmp_path):
    with (
        dask_cluster(tmp_path, workers=0) as empty,
        pytest.raises(InputError, match="has no workers: start some"),
    ):
        Dask(workers=1, address=empty.address).pool().__enter__()


def test_a_scheduler_that_is_killed_is_one_paragraph(tmp_path):
    with dask_cluster(tmp_path, workers=1) as cluster:

        def kill() -> None:
            while not (tmp_path / "call").exists():
                time.sleep(0.05)
            cluster.scheduler.kill()

        threading.Thread(target=kill, daemon=True).start()
        with (
            pytest.raises(JobError, match="The Dask scheduler is gone.*run the same command again"),
            Dask(workers=1, address=cluster.address).pool() as workers,
        ):
            workers.run(calls.wait_for_a_signal, [tmp_path / "call"], on_death=fail)
        text = (tmp_path / "call").read_text()
        assert gone(
            [psutil.Process(pid) for pid in [int(text.split()[0])] if psutil.pid_exists(pid)]
        )
    assert (tmp_path / "call").read_text().endswith(" terminated"), "its Dask worker ended it"


def test_a_folder_that_workers_do_not_see_is_named(engine, tmp_path):
    handle = os.open(tmp_path, os.O_RDONLY)  # under this path only this process sees it
    needs = Needs(folders={Path(f"/proc/self/fd/{handle}"): "where runs are kept. Share it."})
    with pytest.raises(InputError, match=r"does not see /proc/self/fd/\d+, where runs .* Share it"):
        engine.pool(needs).__enter__()
    os.close(handle)
    assert not list(tmp_path.iterdir())
    needs = Needs(folders={Path("/proc/self/task"): ""})
    with pytest.raises(InputError, match="Nothing can be written to /proc/self/task"):
        engine.pool(needs).__enter__()


def test_own_classes_and_their_packages_are_compared(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, f"/proc/self/fd/{os.open(tmp_path, 0)}"])
    (tmp_path / "mine.py").write_text("import psutil\n")
    with (
        pytest.raises(InputError, match=r"mine.py is \w{12} here and missing there"),
        engine.pool(Needs(types=frozenset({"mine.Model"}))),
    ):
        pass


def package(folder: Path, name: str, version: str) -> None:
    """Pretend that another version of a package is installed where this folder comes first."""
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_a_worker_with_another_version_of_a_package_is_refused_by_name(cluster, engine, tmp_path):
    package(tmp_path / "other", "optuna", "0.0.1")
    (tmp_path / "empty" / "churnlab").mkdir(parents=True)
    (tmp_path / "empty" / "churnlab" / "__init__.py").touch()
    for folder, message in (
        ("other", r"worker tcp://\S+ is not .*optuna is 5\S+ here and 0.0.1"),
        ("empty", "cannot run churnlab .*install the same churnlab there"),
    ):
        worker = cluster.worker(PYTHONPATH=str(tmp_path / folder))
        try:
            with pytest.raises(InputError, match=message):
                engine.pool().__enter__()
        finally:
            os.killpg(worker.pid, signal.SIGTERM)
            worker.wait()
