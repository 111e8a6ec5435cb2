"""Fork processes that have imported churnlab and run its commands before: a command that a test
runs a hundred times then costs its own work, not the seconds of its imports.

``Forks`` starts this file as a process, the parent of all forks. The first commands run in that
process itself, so that whatever they load is loaded in every fork.
"""

import atexit
import base64
import functools
import gc
import importlib
import io
import os
import pickle
import pkgutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from support.waiting import PATIENCE, until

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""A process with threads cannot be forked safely."""

LATE = (
    *("mlflow.sklearn", "mlflow.store.tracking.sqlalchemy_store", "optuna", "skops.io"),
    *("mlflow.store.model_registry.sqlalchemy_store", "churnlab.cli.launch", "hydra.main"),
    *("matplotlib.backends.backend_agg", "pyarrow.parquet", "sklearn.ensemble", "scipy.stats"),
    *("git", "sqlalchemy.dialects.sqlite", "alembic.command", "opentelemetry.sdk.metrics"),
    *("mlflow.tracing.processor.base_mlflow", "mlflow.store.tracking.sqlalchemy_workspace_store"),
    *("mlflow.store.model_registry.sqlalchemy_workspace_store", "mlflow.models.display_utils"),
    *("mlflow.utils.search_logged_model_utils", "mlflow.pyfunc.utils.environment"),
    *("narwhals._pandas_like.dataframe", "narwhals._interchange.dataframe", "pyarrow.dataset"),
    *("pyarrow.pandas_compat", "optuna.importance", "pydantic.dataclasses", "churnlab.cli.help"),
    *("hydra._internal.core_plugins.basic_sweeper", "PIL.JpegImagePlugin", "PIL.GifImagePlugin"),
    *("churnlab.__main__", "churnlab.cli.drafted", "churnlab.data.demo"),
)
"""What is imported inside of functions, and takes long."""

ATTACHED = 0.02
"""Seconds in which a tracer that the kernel names has stopped its process for the first time."""


class Forks:
    """The parent of forks: ``inside`` calls a function in it, ``start`` in a fork of it."""

    def __init__(self, root: Path, settings: dict[str, str]) -> None:
        self.errors, self.lock = (root / "forks.stderr").open("w"), threading.Lock()
        paths = [str(Path(__file__).absolute().parents[1]), settings.get("PYTHONPATH")]
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=root,
            env=settings | ONE_THREAD | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the parent."""
        self.process.communicate()
        self.errors.close()

    def inside(self, function: Callable[..., int], *arguments: Any) -> int:
        """Call a function in the parent itself; return what it returns."""
        return self._send("inside", function, arguments)

    def start(
        self, function: Callable[..., int], *arguments: Any, output: Path, traced: bool = False
    ) -> int:
        """Call a function in a fork, which exits with what the function returns; return its pid.

        Its output goes to ``output``.out and .err. ``traced``: it waits for a tracer first.
        """
        for name in ("out", "err"):
            Path(f"{output}.{name}").write_text("")  # not what an earlier fork printed
        return self._send("fork", function, arguments, str(output), traced)

    def wait(self, pid: int) -> int:
        """Wait for a fork's end; return its exit code, or minus the signal that killed it."""
        return self._send("wait", None, (pid,))

    def _send(self, *request: Any) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with self.lock:
            self.process.stdin.write(base64.b64encode(pickle.dumps(request)).decode() + "\n")
            self.process.stdin.flush()
            for line in self.process.stdout:  # commands print their results there, too
                if line.startswith("answer "):
                    return int(line.split()[1])
        raise AssertionError(Path(self.errors.name).read_text(encoding="utf-8"))


class Fork:
    """A fork, as subprocess shows a process."""

    def __init__(
        self, forks: Forks, function: Callable[..., int], *arguments: Any, output: Path
    ) -> None:
        self.forks = forks
        self.pid = forks.start(function, *arguments, output=output)
        self._process, self.returncode = psutil.Process(self.pid), None

    def poll(self) -> int | None:
        """Return how it ended; None if it has not."""
        if self.returncode is None and self._process.status() == psutil.STATUS_ZOMBIE:
            self.returncode = self.forks.wait(self.pid)
        return self.returncode

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for its end; return its exit code, or minus the signal that killed it."""
        until(lambda: self.poll() is not None, "its end", seconds=timeout)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def churnlab(home: Path, words: tuple[str, ...]) -> int:
    """Run ``churnlab WORDS`` with its store in ``home``; return the exit code."""
    import churnlab
    from churnlab.__main__ import main
    from churnlab.tracking.processes import process

    importlib.reload(churnlab)  # it sets variables of MLflow
    process.cache_clear()  # a fork is a process of its own
    os.environ["CHURNLAB_HOME"] = str(home)
    return main([*words])


def churnlab_as(folder: Path, settings: dict[str, str], before: str, words: tuple[str, ...]) -> int:
    """Run ``churnlab WORDS`` as if this process had been started in a folder with an environment;
    ``before`` is Python that runs first."""
    paths = os.environ["PYTHONPATH"]
    os.environ.clear()
    os.environ.update(settings | ONE_THREAD | {"PYTHONPATH": paths})
    tempfile.tempdir = None
    os.chdir(folder)
    sys.path[0] = str(folder)
    exec(before, {})
    return churnlab(Path(settings["CHURNLAB_HOME"]), words)


def churnlab_session(*given: Any) -> int:
    """Run a command in a session of its own, so that all its processes can be killed."""
    os.setsid()
    return churnlab_as(*given)


def import_all() -> int:
    """Import what commands import when they need it."""
    import churnlab.commands

    for module in pkgutil.iter_modules(churnlab.commands.__path__, "churnlab.commands."):
        importlib.import_module(module.name)
    for name in LATE:
        importlib.import_module(name)
    return 0


def keep_fonts() -> None:
    """Let matplotlib read fonts from memory: it looks up each letter in the file, and of ten calls
    of a command at which a tracer stops nine would be these."""
    from matplotlib import ft2font

    from_file, kept = ft2font.FT2Font, functools.cache(lambda path: Path(path).read_bytes())

    def from_memory(path: str, *words: Any, **settings: Any) -> Any:
        font = io.BytesIO(kept(path))
        font.name = path  # type: ignore[attr-defined]  # as of a file
        return from_file(font, *words, **settings)

    ft2font.FT2Font = from_memory  # type: ignore[assignment, misc]


def make_store(home: Path) -> int:
    """Make an empty store in a home, as the first command there does."""
    from churnlab.tracking.store import open_store

    open_store(None, home=home)
    return 0


def redirect(output: str | Path) -> None:
    """Send what this process prints from now on to ``output``.out and .err."""
    sys.stdout.flush()
    sys.stderr.flush()
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(f"{output}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(file, number)
        os.close(file)


def _serve() -> None:
    """Answer each request with a number, until the last one."""
    first = dict(os.environ)
    keep_fonts()
    for line in sys.stdin:
        os.environ.clear()
        os.environ.update(first)  # MLflow keeps the store of the last command there
        kind, function, arguments, *where = pickle.loads(base64.b64decode(line))
        if kind == "wait":
            answer = os.waitstatus_to_exitcode(os.waitpid(arguments[0], 0)[1])
        elif kind == "inside":
            answer = function(*arguments)
        else:
            gc.freeze()  # else each fork copies the pages of all objects when it collects garbage
            answer = os.fork()
            if answer == 0:
                _fork(function, arguments, *where)
        print(f"\nanswer {answer}", flush=True)


def _fork(
    function: Callable[..., int], arguments: tuple[Any, ...], output: str, traced: bool
) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    redirect(output)
    while traced and "TracerPid:\t0\n" in Path("/proc/self/status").read_text(encoding="utf-8"):
        time.sleep(0.002)
    time.sleep(ATTACHED if traced else 0)
    code = function(*arguments)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # as the interpreter ends, without freeing all that was imported


if __name__ == "__main__":
    _serve()
