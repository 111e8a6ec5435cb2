"""Run the workers of a study, or the jobs of a sweep, in this process or in others.

An engine knows neither Optuna nor MLflow: workers coordinate through the study's storage. It
guarantees that a dead worker is reported and replaced, and that no worker outlives the process that
started it.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import NamedTuple

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
        deaths, sent = Deaths(self.workers, on_death), pickle.dumps(work)
        slots: dict[pool.Worker, WorkerSlot] = {}
        try:
            for number in range(self.workers):
                slot = WorkerSlot(number, 0)
                slots[pool.start(_do, sent, slot, keep=keep)] = slot
            while slots:
                for worker in pool.ready(slots, timeout=POLL):
                    slot, words = slots.pop(worker), _last_words(worker)
                    if words:
                        raise pickle.loads(words)
                    if words is None:
                        deaths.add([*slots.values()], cause_of_death(worker.process.exitcode))
                        successor = WorkerSlot(slot.number, slot.deaths + 1)
                        slots[pool.start(_do, sent, successor, keep=keep)] = successor
                watch()
        finally:
            for worker in slots:
                worker.process.kill()  # the caller cleans up after it, as after any other death
            for worker in slots:
                _last_words(worker)

    def warm_up(self, modules: Sequence[str]) -> None:
        """Let the process that workers are forked from import these modules meanwhile."""
        pool.warm_up(modules)

    @contextmanager
    def pool(self, needs: Needs = NOTHING) -> Iterator[pool.Pool]:
        """Open a pool for the jobs of a sweep: worker processes."""
        with pool.worker_processes(self.workers) as processes:
            yield processes


def _do(pipe: Connection, work: bytes, slot: WorkerSlot) -> None:
    """Do the work of a study; send the exception that ended it, or nothing, and exit."""
    try:
        for _ in pickle.loads(work)(slot):
            pass
        pipe.send_bytes(b"")
    except Exception as error:
        pipe.send_bytes(pickled(error))
        os._exit(1)


def _last_words(worker: pool.Worker) -> bytes | None:
    """Wait for a worker's end; return the exception that ended it, empty if it did all its work.

    None: it died.
    """
    with worker.pipe:
        try:
            words = worker.pipe.recv_bytes()
        except (EOFError, OSError):
            words = None
    worker.process.join()
    return words


def cause_of_death(code: int | None) -> str:
    """Say how a process died, by its exit code; None: with the Dask worker that had started it."""
    if code is None:
        return "with its Dask worker"
    if code >= 0:
        return f"with exit code {code}"
    return f"by signal {-code}" + (" (out of memory?)" if code == -9 else "")


def pickled(error: Exception) -> bytes:
    """Pickle an exception; one that cannot be rebuilt becomes a JobError with its text."""
    try:
        text = pickle.dumps(error)
        pickle.loads(text)
    except Exception:  # some exceptions cannot be rebuilt from their arguments
        return pickle.dumps(JobError(f"{type(error).__name__}: {error}"))
    return text
