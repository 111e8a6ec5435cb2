"""Run churnlab as users do, as a process, and look into the store that it leaves."""

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


def environment(home: Path, **settings: str) -> dict[str, str]:
    """The environment of a process whose store is in ``home``, with nothing of MLflow's from
    outside."""
    ours = ("MLFLOW_", "CHURNLAB_", "PYTHONDONTWRITEBYTECODE", "PYTEST_")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return inherited | {"CHURNLAB_HOME": str(home)} | settings


@contextmanager
def tracked_at(home: Path) -> Iterator[Path]:
    """Point MLflow at the store of a home within this process; it also tells the environment, which
    is put back."""
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
    """``ask(*words)`` runs one command after another in one process: most of a short command's time
    is its imports."""
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
            return Ended(
                int(line.split()[1]), "".join(out).rstrip("\n"), said.read_bytes()[before:].decode()
            )

        with process:
            yield ask
            process.stdin.close()


class Promoted(NamedTuple):
    """A store with one champion of generated members, and the result lines of the commands that
    made it."""

    home: Path
    train: dict[str, Any]
    segment: dict[str, Any]
    promote: dict[str, Any]


PROMOTED_ROWS = ("dataset.rows=600",)


def version_folder(client: Any, name: str, version: str) -> Path:
    """The files of a registered version."""
    return folder(client.get_model_version_download_uri(name, version))


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
