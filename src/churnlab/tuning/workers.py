"""Where the workers of a study run: copies of one function, in this process or in processes of
their own.

An engine knows neither Optuna nor MLflow: the workers coordinate through the storage of the study.
What it owes them is that a worker which dies is told of and replaced, and that no worker outlives
the process that started it.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from churnlab.errors import InputError, JobError

POLL = 0.1
"""Seconds between two looks at the workers."""

DEATHS = 5
"""So many deaths per worker without a finished trial between them stop an engine."""


class WorkerSlot(NamedTuple):
    """A worker's place and how many have died in it before; a place is taken again, the pair never
    is."""

    number: int
    deaths: int

    def __str__(self) -> str:
        return f"{self.number}.{self.deaths}"


Work = Callable[[WorkerSlot], Iterator[None]]
"""What a worker does: a picklable function that yields after each trial and ends when there are no
more."""

Lost = Callable[[Collection[WorkerSlot]], int]
"""Told which seats are alive after a worker has died; returns how many trials are finished."""


@dataclass(frozen=True)
class Inline:
    """One worker, in this process."""

    workers: int = 1

    def __post_init__(self) -> None:
        if self.workers != 1:
            raise InputError(
                f"engine.workers={self.workers}: engine=inline works in this one process; give "
                "engine=processes."
            )

    def run(
        self, work: Work, *, watch: Callable[[], None], lost: Lost, keep: Sequence[int] = ()
    ) -> None:
        """Do the work to its end; ``watch`` is called after each trial."""
        for _ in work(WorkerSlot(0, 0)):
            watch()


@dataclass(frozen=True)
class Processes:
    """As many workers as asked for, each a process of its own on this machine."""

    workers: int

    def __post_init__(self) -> None:
        if not isinstance(self.workers, int) or not 1 <= self.workers <= 1000:
            raise InputError(
                f"engine.workers={self.workers} is not a number of processes; give one from 1 to "
                "1000."
            )

    def run(
        self, work: Work, *, watch: Callable[[], None], lost: Lost, keep: Sequence[int] = ()
    ) -> None:
        """Start the workers, replace those that die, and return when all have come to their end.

        ``watch`` is called all the time; ``keep`` are file descriptors that the workers hold open,
        too: a lock is theirs until the last of them is gone. Raises a worker's own exception, and
        JobError when workers keep dying.
        """
        seats: dict[WorkerSlot, subprocess.Popen[bytes]] = {}
        finished, deaths = 0, 0
        try:
            for number in range(self.workers):
                seats[WorkerSlot(number, 0)] = _start(work, WorkerSlot(number, 0), keep)
            while seats:
                time.sleep(POLL)
                for seat, process in list(seats.items()):
                    code = process.poll()
                    if code is None:
                        continue
                    del seats[seat]
                    error = _said(process)
                    if error is not None:
                        raise error
                    if code == 0:
                        continue
                    before, finished = finished, lost(list(seats))
                    deaths = 1 if finished > before else deaths + 1
                    if deaths >= DEATHS * self.workers:
                        raise JobError(
                            f"{deaths} workers died one after another without finishing a trial, "
                            f"the last {_ended(code)}. Give fewer workers (engine.workers) or a "
                            "smaller model; the same command then goes on where this one stopped."
                        )
                    again = WorkerSlot(seat.number, seat.deaths + 1)
                    seats[again] = _start(work, again, keep)
                watch()
        finally:
            for process in seats.values():
                process.kill()  # what it was doing is put right by who called, as after any other death
            for process in seats.values():
                process.communicate()


def _start(work: Work, seat: WorkerSlot, keep: Sequence[int]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "churnlab.tuning.workers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=keep,
        process_group=0,  # Ctrl-C is for the process that started it, which ends its workers itself
    )
    assert process.stdin is not None
    try:
        pickle.dump(
            pickle.dumps((work, seat)), process.stdin
        )  # as bytes: what it imports must not hold us up
        process.stdin.flush()  # and left open: that it closes tells the worker that it is alone
    except BrokenPipeError:
        pass  # it died at once: seen at the next look
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return process


def _said(process: subprocess.Popen[bytes]) -> Exception | None:
    """The exception that ended a worker, None when there was none."""
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout as answer:
        said = answer.read()
    return pickle.loads(said) if said else None


def _ended(code: int) -> str:
    return (
        f"by signal {-code}" + (" (out of memory?)" if code == -9 else "")
        if code < 0
        else f"with exit code {code}"
    )


def _work_here() -> None:
    """The worker's side: read the work from stdin, do it, and answer with the exception that ended
    it, if any."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what an estimator prints is for people
    sent = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_when_alone, daemon=True).start()
    work, seat = pickle.loads(sent)
    try:
        for _ in work(seat):
            pass
    except Exception as error:
        answer.write(_pickled(error))
        answer.close()
        os._exit(1)


def _end_when_alone() -> None:
    """Die with the process that started this one: its end of the pipe closes however it ends."""
    os.read(0, 1)
    os._exit(1)


def _pickled(error: Exception) -> bytes:
    try:
        text = pickle.dumps(error)
        pickle.loads(text)
    except Exception:  # some exceptions cannot be made again from their arguments
        return pickle.dumps(JobError(f"{type(error).__name__}: {error}"))
    return text


if __name__ == "__main__":
    # under its own name, by which the work was pickled
    from churnlab.tuning.workers import _work_here as work_here

    work_here()
