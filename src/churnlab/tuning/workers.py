"""Run the workers of a study, or the jobs of a sweep, in this process or in others.

An engine knows neither Optuna nor MLflow: workers coordinate through the study's storage. It
guarantees that a dead worker is reported and replaced, and that no worker outlives the process that
started it.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from churnlab.errors import InputError, JobError
from churnlab.tuning import pool
from churnlab.tuning.needs import NOTHING, Needs

POLL = 0.1
"""Seconds between two looks at the workers."""

DEATHS = 5
"""An engine stops after this many deaths per worker without a finished trial in between."""


class WorkerSlot(NamedTuple):
    """Number a worker's slot and count the earlier deaths in it: slots are reused, pairs are not.

    >>> str(WorkerSlot(number=2, deaths=1))
    '2.1'
    """

    number: int
    deaths: int

    def __str__(self) -> str:
        return f"{self.number}.{self.deaths}"


Work = Callable[[WorkerSlot], Iterator[None]]
"""The work of one worker: a picklable function that yields after each trial until none is left."""

OnDeath = Callable[[Collection[WorkerSlot]], int]
"""Called with the slots still alive when a worker has died; returns the number of finished
trials."""


class Deaths:
    """Count the deaths of workers that finish no trial in between; too many stop the study."""

    def __init__(self, workers: int, on_death: OnDeath) -> None:
        self.most = DEATHS * workers
        self.on_death = on_death
        self.finished = self.in_a_row = 0

    def add(self, living: Collection[WorkerSlot], cause: str) -> None:
        """Report a death; JobError: it is one too many."""
        before, self.finished = self.finished, self.on_death(living)
        self.in_a_row = 1 if self.finished > before else self.in_a_row + 1
        if self.in_a_row >= self.most:
            raise JobError(
                f"{self.in_a_row} workers died in a row without finishing a trial, the last "
                f"{cause}. Use fewer workers (engine.workers) or a smaller model; the same command "
                "then resumes where this one stopped."
            )


def check_workers(workers: object) -> None:
    """Refuse what is not a number of processes."""
    if not isinstance(workers, int) or not 1 <= workers <= 1000:
        raise InputError(
            f"engine.workers={workers} is not a number of processes; give a whole number from 1 to "
            "1000."
        )


@dataclass(frozen=True)
class Inline:
    """Run one worker, in this process."""

    workers: int = 1

    def __post_init__(self) -> None:
        if self.workers != 1:
            raise InputError(
                f"engine.workers={self.workers}: engine=inline runs in this one process; use "
                "engine=processes for several workers."
            )

    def run(
        self,
        work: Work,
        *,
        watch: Callable[[], None],
        on_death: OnDeath,
        keep: Sequence[int] = (),
        needs: Needs = NOTHING,
    ) -> None:
        """Do all the work; call ``watch`` after each trial."""
        for _ in work(WorkerSlot(0, 0)):
            watch()

    def warm_up(self, modules: Sequence[str]) -> None:
        """Import nothing: this process imports what it needs when it needs it."""

    @contextmanager
    def pool(self, needs: Needs = NOTHING) -> Iterator[pool.Pool]:
        """Open a pool for the jobs of a sweep: this process."""
        yield pool.ThisProcess()


@dataclass(frozen=True)
class Processes:
    """Run each of ``workers`` workers in a process of its own on this machine."""

    workers: int

    def __post_init__(self) -> None:
        check_workers(self.workers)

    def run(
        self,
        work: Work,
        *,
        watch: Callable[[], None],
        on_death: OnDeath,
        keep: Sequence[int] = (),
        needs: Needs = NOTHING,
    ) -> None:
        """Start the workers, replace those that die, and return when all have ended.

        ``watch`` is called repeatedly; ``keep`` are file descriptors that the workers inherit, so
        that a lock is held until the last of them has ended. Raises a worker's own exception, and
        JobError when workers keep dying.
        """
        workers: dict[WorkerSlot, subprocess.Popen[bytes]] = {}
        deaths, pickled = Deaths(self.workers, on_death), pickle.dumps(work)
        try:
            for slot in [WorkerSlot(number, 0) for number in range(self.workers)]:
                workers[slot] = start(pickled, slot, pass_fds=keep)
            while workers:
                time.sleep(POLL)
                for slot, process in list(workers.items()):
                    code = process.poll()
                    if code is None:
                        continue
                    del workers[slot]
                    error = worker_error(process)
                    if error is not None:
                        raise error
                    if code == 0:
                        continue
                    deaths.add(list(workers), cause_of_death(code))
                    successor = WorkerSlot(slot.number, slot.deaths + 1)
                    workers[successor] = start(pickled, successor, pass_fds=keep)
                watch()
        finally:
            for process in workers.values():
                process.kill()  # the caller cleans up after it, as after any other death
            for process in workers.values():
                process.communicate()

    def warm_up(self, modules: Sequence[str]) -> None:
        """Let the workers of a sweep import these modules while Hydra composes its jobs."""
        pool.warm_up(modules)

    @contextmanager
    def pool(self, needs: Needs = NOTHING) -> Iterator[pool.Pool]:
        """Open a pool for the jobs of a sweep: worker processes."""
        with pool.worker_processes(self.workers) as processes:
            yield processes


def start(
    work: bytes, slot: WorkerSlot, *, path: Sequence[str] | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """Start a worker process and send it its pickled work, and where to import it from.

    ``path`` is ``sys.path`` there, this process's own by default; ``options`` are Popen's.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "churnlab.tuning.workers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,  # Ctrl-C must reach only this process, which ends its workers itself
        **options,
    )
    assert process.stdin is not None
    try:
        # The worker reads bytes at once and imports what they need later.
        pickle.dump((sys.path if path is None else path, work, slot), process.stdin)
        process.stdin.flush()  # left open: when it closes, the worker knows that its parent died
    except BrokenPipeError:
        pass  # it died at once: the next poll notices
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return process


def worker_error(process: subprocess.Popen[bytes]) -> Exception | None:
    """Return the exception that ended a worker; None if there was none."""
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout as stdout:
        pickled = stdout.read()
    return pickle.loads(pickled) if pickled else None


def cause_of_death(code: int | None) -> str:
    """Say how a process died, by its exit code; None: with the Dask worker that had started it."""
    if code is None:
        return "with its Dask worker"
    if code >= 0:
        return f"with exit code {code}"
    return f"by signal {-code}" + (" (out of memory?)" if code == -9 else "")


def _run_worker() -> None:
    """Read the work from stdin, do it, and write the exception that ended it, if any, to stdout."""
    stdout = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what an estimator prints goes to stderr
    sys.path[:], work, slot = pickle.load(sys.stdin.buffer)  # the user's own modules, too
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        for _ in pickle.loads(work)(slot):
            pass
    except Exception as error:
        stdout.write(pickled(error))
        stdout.close()
        os._exit(1)


def _die_with_parent() -> None:
    """Exit when the process that started this one ends: then the pipe from it closes."""
    os.read(0, 1)
    os._exit(1)


def pickled(error: Exception) -> bytes:
    """Pickle an exception; one that cannot be rebuilt becomes a JobError with its text."""
    try:
        text = pickle.dumps(error)
        pickle.loads(text)
    except Exception:  # some exceptions cannot be rebuilt from their arguments
        return pickle.dumps(JobError(f"{type(error).__name__}: {error}"))
    return text


if __name__ == "__main__":
    # imported under its own name, not __main__, because the work was pickled with it
    from churnlab.tuning.workers import _run_worker as run_worker

    run_worker()
