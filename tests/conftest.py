"""What every test shares: the real table if there is one, the command line as a process, a look
into its store."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from support.running import (
    PROMOTED_ROWS,
    THREE_SEGMENTS,
    Ended,
    Promoted,
    opened,
    start,
    wait,
)


@pytest.fixture(scope="session")
def gym_csv() -> Path:
    """The real table of 4,000 gym members; it is not part of the project."""
    named = os.environ.get("CHURNLAB_GYM")
    if not named:
        pytest.skip("set CHURNLAB_GYM=FILE to run the tests on the real table")
    return Path(named).resolve()


@pytest.fixture(scope="session")
def run_command() -> Callable[..., Ended]:
    """``run_command(home, *words)`` runs ``churnlab WORDS`` to its end as a process with its store
    in ``home``."""

    def run(home: Path, *words: str, settings: dict[str, str] | None = None) -> Ended:
        return wait(start(home, *words, settings=settings))

    return run


@pytest.fixture(scope="session")
def succeed(run_command: Callable[..., Ended]) -> Callable[..., dict[str, Any]]:
    """``succeed(home, *words)`` runs a command that must end with exit code 0, and returns its
    result line."""

    def run(home: Path, *words: str) -> dict[str, Any]:
        ended = run_command(home, *words)
        assert ended.code == 0, ended.err
        return ended.line

    return run


@pytest.fixture(scope="session")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Promoted:
    """One trained, segmented and promoted store for every test that only reads it; made once for
    all workers."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    made, home = root / "promoted.json", root / "promoted" / "home"
    with FileLock(root / "promoted.lock"):
        if not made.exists():
            with opened(home) as ask:
                ended = [
                    ask("train", *PROMOTED_ROWS, "evaluation.folds=3"),
                    ask("segment", *PROMOTED_ROWS, *THREE_SEGMENTS),
                    ask("promote", *PROMOTED_ROWS, "evaluation.folds=3", "reason=the first one"),
                ]
            assert [end.code for end in ended] == [0, 0, 0], [end.err for end in ended]
            made.write_text(json.dumps([end.line for end in ended]), encoding="utf-8")
    return Promoted(home, *json.loads(made.read_text(encoding="utf-8")))


@pytest.fixture
def moments_of_its_own(request: pytest.FixtureRequest) -> None:
    """Every test that uses it draws its own random moments, whatever ran before it."""
    from support.killing import RANDOM, SEED

    RANDOM.seed(f"{SEED} {request.node.name}")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A CHURNLAB_HOME that is not there yet."""
    return tmp_path / "home"


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CHURNLAB_HOME for the expensive runs that the tests of one file look at."""
    return tmp_path_factory.mktemp("shared") / "home"


@pytest.fixture(scope="session")
def client_at() -> Callable[[Path], Any]:
    """``client_at(home)`` is MLflow's client of the store there."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow import MlflowClient

    return lambda home: MlflowClient(f"sqlite:///{home}/mlflow.db")


@pytest.fixture(scope="session")
def runs_at(client_at: Callable[[Path], Any]) -> Callable[..., list[Any]]:
    """``runs_at(home, command="train")`` are the runs in the store there with this
    churnlab.command, oldest first."""

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
