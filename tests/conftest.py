"""What every test shares: the real table if there is one, the command line as a process, a look into its store."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlparse

import pytest
from filelock import FileLock

SMALL_SEGMENTS = (
    *("segments.n_init=2", "segments.bootstraps=2", "segments.refit_n_init=1", "segments.splits=2"),
    *("segments.references=2", "segments.range=[2,4]"),
)
"""A segmentation of seconds: for tests of what it logs, not of what it finds."""

THREE_SEGMENTS = (*SMALL_SEGMENTS, "segments.k=3")
"""One that can be promoted: a number set by hand is, whatever so little evidence says of it."""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> dict[str, Any]:
        """The result: the last line of stdout."""
        return json.loads(self.out.splitlines()[-1])


@pytest.fixture(scope="session")
def gym_csv() -> Path:
    """The real table of 4,000 gym members; it is not part of the project."""
    named = os.environ.get("CHURNLAB_GYM")
    if not named:
        pytest.skip("set CHURNLAB_GYM=FILE to run the tests on the real table")
    return Path(named).resolve()


def environment(home: Path, **settings: str) -> dict[str, str]:
    """The environment of a process whose store is in ``home``, with nothing of MLflow's from outside."""
    ours = ("MLFLOW_", "CHURNLAB_", "PYTHONDONTWRITEBYTECODE", "PYTEST_")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return inherited | {"CHURNLAB_HOME": str(home)} | settings


@contextmanager
def tracked_at(home: Path) -> Iterator[Path]:
    """Point MLflow at the store of a home within this process; it also tells the environment, which is put back."""
    import mlflow

    uri, before = f"sqlite:///{home}/mlflow.db", mlflow.get_tracking_uri()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"MLFLOW_TRACKING_URI": uri, "CHURNLAB_STORE": str(home)}.items():
            patch.setenv(name, value)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        mlflow.set_tracking_uri(uri)
        try:
            yield home
        finally:
            mlflow.set_tracking_uri(before)


def start(home: Path, *words: str, settings: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start ``churnlab WORDS`` as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "churnlab", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=next(parent for parent in home.parents if parent.is_dir()),
        env=environment(home, **(settings or {})),
    )


def wait(process: subprocess.Popen[str], *, timeout: float = 300) -> Ended:
    """Wait for a process; one that does not end is killed."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"the command did not end; it said: {err}")
    return Ended(process.returncode, out, err)


@pytest.fixture(scope="session")
def run_command() -> Callable[..., Ended]:
    """``run_command(home, *words)`` runs ``churnlab WORDS`` to its end as a process with its store in ``home``."""

    def run(home: Path, *words: str, settings: dict[str, str] | None = None) -> Ended:
        return wait(start(home, *words, settings=settings))

    return run


@pytest.fixture(scope="session")
def succeed(run_command: Callable[..., Ended]) -> Callable[..., dict[str, Any]]:
    """``succeed(home, *words)`` runs a command that must end with exit code 0, and returns its result line."""

    def run(home: Path, *words: str) -> dict[str, Any]:
        ended = run_command(home, *words)
        assert ended.code == 0, ended.err
        return ended.line

    return run


SEVERAL_COMMANDS = """
import json, shlex, sys
from churnlab.__main__ import main
for line in sys.stdin:
    code = main(shlex.split(line))
    sys.stderr.flush()
    print(f"\\nended {code}", flush=True)
"""


@contextmanager
def opened(home: Path, **settings: str) -> Iterator[Callable[..., Ended]]:
    """``ask(*words)`` runs one command after another in one process: most of a short command's time is its imports."""
    home.mkdir(parents=True, exist_ok=True)
    said = home.parent / f"{home.name}.stderr"
    with said.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", SEVERAL_COMMANDS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=next(parent for parent in home.parents if parent.is_dir()),
            env=environment(home, **settings),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        answers = process.stdout

        def ask(*words: str) -> Ended:
            before = said.stat().st_size
            process.stdin.write(shlex.join(words) + "\n")
            process.stdin.flush()
            out = []
            for line in answers:
                if line.startswith("ended "):
                    break
                out.append(line)
            else:
                pytest.fail(f"{words} ended the process: {said.read_text(encoding='utf-8')}")
            return Ended(int(line.split()[1]), "".join(out).rstrip("\n"), said.read_bytes()[before:].decode())

        with process:
            yield ask
            process.stdin.close()


class Promoted(NamedTuple):
    """A store with one champion of generated members, and the result lines of the commands that made it."""

    home: Path
    train: dict[str, Any]
    segment: dict[str, Any]
    promote: dict[str, Any]


PROMOTED_ROWS = ("dataset.rows=600",)


@pytest.fixture(scope="session")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Promoted:
    """One trained, segmented and promoted store for every test that only reads it; made once for all workers."""
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


def version_folder(client: Any, name: str, version: str) -> Path:
    """The files of a registered version."""
    return folder(client.get_model_version_download_uri(name, version))


@pytest.fixture
def moments_of_its_own(request: pytest.FixtureRequest) -> None:
    """Every test that uses it draws its own random moments, whatever ran before it."""
    from books import RANDOM, SEED

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
    """``runs_at(home, command="train")`` are the runs in the store there with this churnlab.command, oldest first."""

    def find(home: Path, *, command: str | None = None) -> list[Any]:
        client = client_at(home)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        found = client.search_runs(experiments, order_by=["attributes.start_time ASC"], max_results=1000)
        return [run for run in found if command is None or run.data.tags.get("churnlab.command") == command]

    return find


def folder(uri: str) -> Path:
    """The folder of a file: address."""
    return Path(unquote(urlparse(uri).path))


def artifact(run: Any, path: str = "") -> Path:
    """A file or folder among a run's artifacts."""
    return folder(run.info.artifact_uri) / path


def files(run: Any) -> set[str]:
    """The paths of all artifacts of a run."""
    root = artifact(run)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
