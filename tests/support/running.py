"""Run churnlab as users do, as a process, and look into the store that it writes."""

import atexit
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlparse

import pytest

from support.forked import ONE_THREAD, Fork, Forks, churnlab_as, import_all, make_store

SMALL_SEGMENTS = (
    *("segments.n_init=2", "segments.bootstraps=2", "segments.refit_n_init=1", "segments.splits=2"),
    *("segments.references=2", "segments.range=[2,4]"),
)
"""A segmentation that takes seconds: for tests of what it logs, not of what it finds."""


THREE_SEGMENTS = (*SMALL_SEGMENTS, "segments.k=3")
"""A segmentation that can be promoted: so little evidence accepts no k by itself, but a fixed k is
always accepted."""


SMALL_CLAIMS = (
    *("folds=2", "resamples=100", "further_draws=1"),
    "claims.models.random_forest.estimator.n_estimators=10",
    "claims.models.tuned_forest.estimator.estimator.n_estimators=10",
    *(f"claims.segmentations.{name}.n_init=1" for name in ("seed002", "course")),
)
"""The claims about the course's table in half the time: for tests of what they log."""


class Ended(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> dict[str, Any]:
        """Return the result: the last line of stdout."""
        return json.loads(self.out.splitlines()[-1])


def environment(home: Path, **settings: str) -> dict[str, str]:
    """Return the environment of a process with its store in ``home``, without MLflow settings and
    what is set for these tests."""
    ours = ("MLFLOW_", "CHURNLAB_", "PYTHONDONTWRITEBYTECODE", "PYTEST_", *ONE_THREAD)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return inherited | {"CHURNLAB_HOME": str(home)} | settings


@contextmanager
def tracked_at(home: Path) -> Iterator[Path]:
    """Point MLflow in this process at the store in ``home``; restore its settings afterwards."""
    import mlflow

    from churnlab.tracking.store import sqlite_uri

    uri, before = sqlite_uri(home / "mlflow.db"), mlflow.get_tracking_uri()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"MLFLOW_TRACKING_URI": uri, "CHURNLAB_STORE": str(home)}.items():
            patch.setenv(name, value)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        mlflow.set_tracking_uri(uri)
        try:
            yield home
        finally:
            mlflow.set_tracking_uri(before)


@cache
def _empty_store() -> Path:
    """Return a database with MLflow's schema, made once for all tests of this process."""
    home = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, home)
    assert forks().inside(make_store, home) == 0
    return home / "mlflow.db"


def make_home(home: Path) -> None:
    """Make a home with an empty store, if it has none: a copy, because MLflow's migrations take
    most of a second."""
    from churnlab.tracking.moved import ARTIFACTS, connect

    if (home / "mlflow.db").exists():
        return
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_empty_store(), home / "mlflow.db")
    with connect(home / "mlflow.db") as database:
        address = (home / ARTIFACTS / "0").as_uri()
        database.execute("UPDATE experiments SET artifact_location = ?", [address])


def place_of(home: Path) -> Path:
    """Return the folder where a command with its store in ``home`` is started."""
    return next(parent for parent in home.parents if parent.is_dir())


def start(home: Path, *words: str, settings: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start ``churnlab WORDS`` as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "churnlab", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=place_of(home),
        env=environment(home, **(settings or {})),
    )


def wait(process: subprocess.Popen[str], *, timeout: float = 300) -> Ended:
    """Wait for a process; kill it if it does not end."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"the command did not end: {err}")
    return Ended(process.returncode, out, err)


@cache
def forks() -> Forks:
    """Return the process from which commands are forked, which has imported everything."""
    root = Path(tempfile.mkdtemp())
    forks = Forks(root, environment(root, PYTHONPATH=str(Path(__file__).parent)))
    forks.inside(import_all)
    atexit.register(shutil.rmtree, root)
    atexit.register(forks.close)
    return forks


def run_forked(home: Path, *words: str, before: str = "", **settings: str) -> Ended:
    """Run ``churnlab WORDS`` in a fork, after Python that is to run ``before``."""
    output = Path(tempfile.mkdtemp()) / "output"
    given = (place_of(home), environment(home, **settings), before, words)
    command = Fork(forks(), churnlab_as, *given, output=output)
    try:
        code = command.wait()
    finally:
        command.kill()
        printed = [Path(f"{output}.{name}").read_text(encoding="utf-8") for name in ("out", "err")]
        shutil.rmtree(output.parent)
    return Ended(code, *printed)


def churnlab_at(home: Path, *, before: str = "", **settings: str) -> Callable[..., Ended]:
    """Return ``churnlab(*words)``, which runs a command with its store in ``home`` in a fork.

    ``before`` is Python that runs first.
    """
    if "MLFLOW_TRACKING_URI" in settings:
        home.mkdir(parents=True, exist_ok=True)
    else:
        make_home(home)
    return partial(run_forked, home, before=before, **settings)


def churnlab_beside(home: Path, tables: Mapping[str, Any]) -> Callable[..., Ended]:
    """Write frames as NAME.csv into the folder where commands run; return what runs them."""
    home.parent.mkdir(exist_ok=True)
    for name, table in tables.items():
        table.to_csv(home.parent / f"{name}.csv", index=False)
    return churnlab_at(home)


class Promoted(NamedTuple):
    """A store with one champion of generated members, and the result lines of its commands.

    ``kept`` is a copy in which no test runs a command: what is copied has no runs of other tests.
    """

    home: Path
    kept: Path
    train: dict[str, Any]
    segment: dict[str, Any]
    promote: dict[str, Any]


PROMOTED_ROWS = ("dataset.rows=600",)


def version_folder(client: Any, name: str, version: str) -> Path:
    """Return the folder of a registered version's files."""
    return folder(client.get_model_version_download_uri(name, version))


def folder(uri: str) -> Path:
    """Return the folder of a file: URI."""
    return Path(unquote(urlparse(uri).path))


def artifact(run: Any, path: str = "") -> Path:
    """Return the path of a file or folder among a run's artifacts."""
    return folder(run.info.artifact_uri) / path


def model_uri(run: Any) -> str:
    """Return the address of the model that a run logged, whatever its name."""
    (output,) = run.outputs.model_outputs
    return f"models:/{output.model_id}"


def scores_of(run: Any) -> dict[str, float]:
    """Return a train run's metrics and, from its metrics.csv, their deviations, CIs and floors."""
    with open(artifact(run, "metrics.csv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    spreads = {
        f"{row['metric']}_{ending}": float(row[ending])
        for row in rows
        for ending in ("std", "low", "high", "floor")
        if row[ending]
    }
    return run.data.metrics | spreads


def files(run: Any) -> set[str]:
    """Return the relative paths of all artifacts of a run."""
    root = artifact(run)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
