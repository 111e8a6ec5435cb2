"""Fixtures that all tests share: the real table, commands as processes, stores and their runs."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from support.forked import ONE_THREAD

os.environ |= ONE_THREAD  # before NumPy is loaded: threads that wait for others take CPU

# ruff: isort: split
from support.postgres import Postgres, running_postgres
from support.running import (
    PROMOTED_ROWS,
    THREE_SEGMENTS,
    Ended,
    Promoted,
    churnlab_at,
    make_home,
    run_forked,
    start,
    wait,
)


@pytest.fixture(scope="session")
def gym_csv() -> Path:
    """Return the real table of 4,000 gym members, which is not part of the project."""
    named = os.environ.get("CHURNLAB_GYM")
    if not named:
        pytest.skip("set CHURNLAB_GYM=FILE to run the tests on the real table")
    return Path(named).resolve()


@pytest.fixture(scope="session")
def run_command() -> Callable[..., Ended]:
    """Return ``run_command(home, *words)``: run ``churnlab WORDS`` with its store in ``home``.

    Without ``settings`` the process is forked from one that has imported everything.
    """

    def run(home: Path, *words: str, settings: dict[str, str] | None = None) -> Ended:
        if settings is not None:
            return wait(start(home, *words, settings=settings))
        return run_forked(home, *words)

    return run


@pytest.fixture(scope="session")
def succeed(run_command: Callable[..., Ended]) -> Callable[..., dict[str, Any]]:
    """Return ``succeed(home, *words)``: run a command that must exit with 0; give its result."""

    def run(home: Path, *words: str) -> dict[str, Any]:
        ended = run_command(home, *words)
        assert ended.code == 0, ended.err
        return ended.line

    return run


@pytest.fixture(scope="session")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Promoted:
    """Return a trained, segmented and promoted store for reading, made once for all workers."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    made, home, kept = (root / name for name in ("promoted.json", "promoted/home", "promoted/kept"))
    with FileLock(root / "promoted.lock"):
        if not made.exists():
            commands = [
                ("train", *PROMOTED_ROWS, "evaluation.folds=3"),
                ("segment", *PROMOTED_ROWS, *THREE_SEGMENTS),
                ("promote", *PROMOTED_ROWS, "evaluation.folds=3", "reason=the first one"),
            ]
            churnlab = churnlab_at(home)
            ended = [churnlab(*words) for words in commands]
            assert [end.code for end in ended] == [0, 0, 0], [end.err for end in ended]
            shutil.copytree(home, kept)
            made.write_text(json.dumps([end.line for end in ended]), encoding="utf-8")
    return Promoted(home, kept, *json.loads(made.read_text(encoding="utf-8")))


@pytest.fixture
def moments_of_its_own(request: pytest.FixtureRequest) -> None:
    """Seed the random moments with the test's name, so that they do not depend on other tests."""
    from support.soak import RANDOM, SEED

    RANDOM.seed(f"{SEED} {request.node.name}")


@pytest.fixture
def new_home(tmp_path: Path) -> Path:
    """Return a CHURNLAB_HOME that does not exist yet."""
    return tmp_path / "home"


@pytest.fixture
def home(new_home: Path) -> Path:
    """Return a CHURNLAB_HOME with an empty store."""
    make_home(new_home)
    return new_home


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a CHURNLAB_HOME for expensive runs that the tests of one file share."""
    home = tmp_path_factory.mktemp("shared") / "home"
    make_home(home)
    return home


@pytest.fixture(scope="module")
def own_store(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Callable[..., Ended]]:
    """Return a second store of a file, whose runs are not among the shared ones, and ``churnlab``,
    which runs commands there."""
    home = tmp_path_factory.mktemp("own") / "home"
    return home, churnlab_at(home)


@pytest.fixture(scope="session")
def client_at() -> Callable[[Path], Any]:
    """Return ``client_at(home)``: MLflow's client for the store there."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow import MlflowClient

    return lambda home: MlflowClient(f"sqlite:///{home}/mlflow.db")


@pytest.fixture(scope="session")
def runs_at(client_at: Callable[[Path], Any]) -> Callable[..., list[Any]]:
    """Return ``runs_at(home, command="train")``: the runs of a command there, oldest first."""

    def find(home: Path, *, command: str | None = None) -> list[Any]:
        client = client_at(home)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        found = client.search_runs(
            experiments, order_by=["attributes.start_time ASC"], max_results=1000
        )
        return [
            run
            for run in found
            if command is None or run.data.tags.get("churnlab.command") == command
        ]

    return find


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Yield a real PostgreSQL of these tests' own, started when the first of them needs it:
    ``url(database)``, ``port``, ``stop()``, ``start()``."""
    with running_postgres() as server:
        yield server
