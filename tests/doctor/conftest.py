"""Stores for doctor's tests: real ones, in which a test breaks one thing."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from churnlab.doctor.problems import Problem
from churnlab.doctor.store import examine
from churnlab.tracking import store
from churnlab.tuning import studies
from support.running import tracked_at
from support.stores import record_change, write_version


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the database of a store without runs: creating its schema takes seconds."""
    home = tmp_path_factory.mktemp("empty")
    with tracked_at(home):
        store.open_store(f"sqlite:///{home}/mlflow.db", home=home)
    return home / "mlflow.db"


@pytest.fixture(scope="module")
def dead() -> str:
    """Return the identity of a process that has ended."""
    code = "from churnlab.tracking import processes; print(processes.process())"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def here(empty: Path, tmp_path: Path) -> Iterator[Path]:
    """Return the folder of a new store, and point MLflow at it."""
    shutil.copy(empty, tmp_path / "mlflow.db")
    with tracked_at(tmp_path) as home:
        yield home


@pytest.fixture
def client(here: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient()


@pytest.fixture
def storage(here: Path) -> studies.Local:
    return studies.Local(str(here / "studies"))


@pytest.fixture
def problems(storage: studies.Local) -> Callable[..., list[Problem]]:
    """Return ``problems(fix=True)``: the problems that are left after all repairs."""

    def look(*, fix: bool = False, elsewhere: bool = False) -> list[Problem]:
        found = examine(storage, elsewhere=elsewhere)
        if fix:
            for problem in found:
                if problem.repair is not None:
                    problem.repair()
            found = examine(storage, elsewhere=elsewhere)
        return found

    return look


@pytest.fixture
def kinds(problems: Callable[..., list[Problem]]) -> Callable[..., list[str]]:
    """Return ``kinds(fix=True)``: the kinds of the problems that are left."""
    return lambda **options: [problem.kind for problem in problems(**options)]


@pytest.fixture
def champion(client: mlflow.MlflowClient, here: Path) -> str:
    """Make version 2 the champion after version 1, and return its number."""
    numbers = [write_version(client, here, gate="passed") for _ in range(2)]
    for number, (before, after) in enumerate([(None, "1"), ("1", "2")], 1):
        record_change(client, number, before, after)
    client.set_registered_model_alias("demo-churn", "previous", "1")
    client.set_registered_model_alias("demo-churn", "champion", "2")
    return numbers[-1]
