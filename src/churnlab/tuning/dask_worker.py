"""Do the work of engine=dask on a Dask worker, for each command in processes of its own.

A Dask worker lives long and serves many commands, so it runs none of their code itself: it starts
processes that do the same as those of engine=processes, and hands on bytes. What is imported, set
and logged there ends with the command, signals end it in order, and a change of code is seen. A
process ends with the task that is no longer wanted, with the Dask worker that has started it, and
with its command.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from distributed import Worker, get_worker
from distributed.core import Status

from churnlab.errors import InputError
from churnlab.tracking.fingerprints import code_sha256
from churnlab.tuning import dask_process, pool
from churnlab.tuning.dask_process import CODE, Setup
from churnlab.tuning.workers import WorkerSlot

POLL = 0.2
"""Seconds between two looks whether a task is still wanted."""

INHERITED = ("CHURNLAB_", "MLFLOW_", "OMP_", "MKL_", "OPENBLAS_")
"""What the variables begin with that the processes of a command take from it."""

SECRET = ("PASSWORD", "TOKEN", "USERNAME", "SECRET", "KEY", "STORAGE_URL")
"""Parts of the names of variables that are not sent: those of the Dask worker itself count."""

LOADED = code_sha256()[:12]
"""The fingerprint of churnlab's code when this process imported it."""


@dataclass(frozen=True)
class Process:
    """A worker process of a command, and the pipe to it if it takes calls."""

    running: subprocess.Popen[bytes]
    pipe: Connection | None = None

    def end(self) -> None:
        """End it by SIGTERM, and after GRACE by SIGKILL."""
        self.running.terminate()
        try:
            self.running.wait(pool.GRACE)
        except subprocess.TimeoutExpired:
            self.running.kill()
            self.running.wait()


_processes: dict[tuple[str, int], Process] = {}
"""The processes on this Dask worker, by command and by the thread that does its tasks."""


def is_inherited(name: str) -> bool:
    """Return whether the processes of a command take this variable from it.

    >>> is_inherited("MLFLOW_TRACKING_URI"), is_inherited("MLFLOW_TRACKING_TOKEN")
    (True, False)
    """
    return name.startswith(INHERITED) and not any(part in name for part in SECRET)


def _start(
    setup: Setup, work: Any, slot: WorkerSlot, worker: Worker, **options: Any
) -> subprocess.Popen[bytes]:
    """Start a process of a command, where the command itself runs if there is such a folder."""
    folder = setup.folder if Path(setup.folder).is_dir() else None
    missing = [place for place in setup.path if place not in sys.path and Path(place).is_dir()]
    pickled = work if isinstance(work, bytes) else pickle.dumps(work)
    process = subprocess.Popen(
        [sys.executable, "-m", "churnlab.tuning.dask_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if setup.forwards else None,
        process_group=0,  # Ctrl-C must reach only the command, which ends its workers itself
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not is_inherited(name)}
        | dict(setup.environment),
        **options,
    )
    _send(
        process,
        [*sys.path, *missing],
        partial(dask_process.checked, setup, worker.address, pickled),
        slot,
    )
    if process.stderr is not None:
        threading.Thread(target=_forward, args=(setup, worker, process.stderr), daemon=True).start()
    return process


def _send(
    process: subprocess.Popen[bytes], path: Sequence[str], work: Any, slot: WorkerSlot
) -> None:
    """Send a process its work, and where to import it from."""
    assert process.stdin is not None
    try:
        # It reads bytes at once and imports what they need later.
        pickle.dump((path, pickle.dumps(work), slot), process.stdin)
        process.stdin.flush()  # left open: when it closes, the process knows that its parent died
    except BrokenPipeError:
        pass  # it died at once: the next poll notices
    except BaseException:
        process.kill()
        process.communicate()
        raise


def _error_of(process: subprocess.Popen[bytes]) -> Exception | None:
    """Return the exception that ended a process; None if there was none."""
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout as stdout:
        pickled = stdout.read()
    return pickle.loads(pickled) if pickled else None


def _forward(setup: Setup, worker: Worker, lines: Any) -> None:
    """Send what a process writes to stderr to its command."""
    with lines:
        for line in lines:
            worker.log_event(setup.command, ["line", line.decode(errors="replace").rstrip("\n")])


async def check(setup: Setup, dask_worker: Worker) -> Exception | None:
    """Return why this Dask worker cannot work for the command, None if it can."""

    def error() -> Exception | None:
        try:
            dask_process.compare(setup, dask_worker.address, {**setup.expected, CODE: LOADED})
        except InputError as error:
            return error
        work = partial(dask_process.look, setup, dask_worker.address)
        process = _start(setup, work, WorkerSlot(0, 0), dask_worker)
        process.wait()
        return _error_of(process)

    return await asyncio.to_thread(error)


def study(setup: Setup, number: int, work: bytes) -> int | Exception:
    """Run a worker of a study; return the exit code of its process, or its exception.

    Dask runs the task again if the Dask worker dies, so each start is a slot of its own. It would
    log what is raised here with the work, in which there may be the password of a database.
    """
    worker, wanted = _this_task()
    slot = WorkerSlot(number, time.time_ns())
    worker.log_event(setup.command, ["start", worker.get_current_task(), *slot])
    process = _start(setup, work, slot, worker)
    place = setup.command, threading.get_ident()
    _processes[place] = Process(process)
    while process.poll() is None:
        time.sleep(POLL)
        if not wanted():
            process.kill()
    _processes.pop(place, None)
    return _error_of(process) or process.returncode


def call(setup: Setup, item: bytes) -> bytes | int | Exception:
    """Make a call in the process of this command; return its result, the code of its death, or
    why the process could not work."""
    worker, wanted = _this_task()
    worker.log_event(setup.command, ["start", worker.get_current_task(), 0, 0])
    place = setup.command, threading.get_ident()
    known = _processes.get(place)
    if known is None or known.running.poll() is not None:
        _forget()
        known = _processes[place] = _taking_calls(setup, worker)
    assert known.pipe is not None
    try:
        known.pipe.send_bytes(item)
        while not known.pipe.poll(POLL):
            if not wanted():
                known.end()
        return known.pipe.recv_bytes()
    except (EOFError, OSError):
        _processes.pop(place, None)
        known.pipe.close()
        code = known.running.wait()
        return _error_of(known.running) or code


def _taking_calls(setup: Setup, worker: Worker) -> Process:
    ours, theirs = Pipe()
    handle = theirs.fileno()
    with theirs:
        work = partial(dask_process.take_calls, handle, setup.at_once)
        return Process(_start(setup, work, WorkerSlot(0, 0), worker, pass_fds=[handle]), ours)


def _this_task() -> tuple[Worker, Callable[[], bool]]:
    """Return the Dask worker of this task, and what says whether the task is still wanted.

    It is not when the command has cancelled it or died, and when the scheduler is gone.
    """
    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        over = (Status.closing, Status.closed, Status.failed)
        return task is not None and task.state != "cancelled" and worker.status not in over

    return worker, wanted


async def end(command: str) -> None:
    """End the processes of a command on this Dask worker."""
    found = [process for (of, _), process in [*_processes.items()] if of == command]
    await asyncio.gather(*[asyncio.to_thread(process.end) for process in found])
    _forget()


def _forget() -> None:
    """Forget processes that have ended, those of killed commands too."""
    for place, process in [*_processes.items()]:
        if process.running.poll() is not None:
            _processes.pop(place, None)


def dask_setup(worker: Worker) -> None:
    """Ignore Ctrl-C, which reaches all processes of a terminal: the command ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
