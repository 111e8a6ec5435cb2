"""Score all blocks of an input, those that an earlier, killed job has finished excepted."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from churnlab.data.reading import readable
from churnlab.errors import InputError, JobError
from churnlab.formatting import PROGRESS
from churnlab.registry import versions
from churnlab.scoring import parts
from churnlab.scoring.blocks import Block, Members
from churnlab.scoring.counts import Counts
from churnlab.scoring.part import Scoring, score
from churnlab.tracking import store
from churnlab.tuning.workers import cause_of_death

log = logging.getLogger(__name__)

EVERY = 0.5
"""Seconds between two messages of how far a job is."""

WIDTH = 20
"""Characters of the progress bar."""


class Task(NamedTuple):
    """What a worker needs for a block: how it is scored, and where its version is loaded from."""

    block: Block
    scoring: Scoring
    taken: list[int]
    tracking: str | None
    unverified: bool


_loaded: dict[str, versions.Served] = {}
"""The version that this process scores with."""


def use(model_uri: str, served: versions.Served) -> None:
    """Score with this version in this process."""
    _loaded.clear()
    _loaded[model_uri] = served


def perform(task: Task) -> Counts | Exception:
    """Score a block and keep the part; return its counts, or what stops the job."""
    scoring = task.scoring
    try:
        if scoring.model_uri not in _loaded:
            store.open_store(task.tracking, home=Path(os.environ["CHURNLAB_HOME"]))
            use(
                scoring.model_uri,
                versions.load_trusted(scoring.model_uri, unverified=task.unverified),
            )
        part = score(task.block, scoring, _loaded[scoring.model_uri], task.taken)
        parts.finish(part, task.block.number, scoring, task.taken)
        return part.counts
    except Exception as error:
        return error


@dataclass
class Earlier:
    """The ids of earlier blocks as hashes: 8 bytes a member, in sorted arrays that double."""

    arrays: list[np.ndarray] = field(default_factory=list)

    def taken(self, hashes: np.ndarray) -> list[int]:
        """Return the positions of the hashes that an earlier block has, 0 excepted."""
        found = np.zeros(len(hashes), bool)
        for known in self.arrays:
            places = np.searchsorted(known, hashes)
            found |= known[np.minimum(places, len(known) - 1)] == hashes
        return np.flatnonzero(found & (hashes != 0)).tolist()

    def add(self, hashes: np.ndarray) -> None:
        """Add the hashes of a block."""
        if not len(hashes):
            return
        self.arrays.append(np.unique(hashes))
        while len(self.arrays) > 1 and len(self.arrays[-2]) <= 2 * len(self.arrays[-1]):
            self.arrays.append(np.union1d(self.arrays.pop(), self.arrays.pop()))


def run(
    members: Members,
    scoring: Scoring,
    pool: Any,
    *,
    tracking: str | None,
    unverified: bool,
    workers: int,
) -> tuple[Counts, int]:
    """Score what is not finished; return all counts, and the number of parts.

    InputError: a row or the file is wrong, or a file has changed meanwhile.
    """
    before, total, earlier, count = members.state, Counts(), Earlier(), 0
    shown, started = time.monotonic(), time.monotonic()
    each = scoring.contract.id is not None and not scoring.contract.repeated_ids
    every = _checked(members, before)
    while blocks := [*islice(every, workers)]:
        tasks = [Task(block, scoring, [], tracking, unverified) for block in blocks]
        todo = [task for task in tasks if parts.finished(scoring.folder, task.block.number) is None]
        _do(pool, todo)
        for task in tasks:
            number = task.block.number
            if each:
                hashes = parts.hashes(scoring.folder, number, "ids")
                taken = earlier.taken(hashes)
                found = parts.finished(scoring.folder, number)
                if found is None or found[0] != taken:
                    _do(pool, [task._replace(taken=taken)])
                earlier.add(hashes)
            found = parts.finished(scoring.folder, number)
            assert found is not None
            total.add(found[1])
            count = number + 1
        if time.monotonic() - shown >= EVERY:
            shown = time.monotonic()
            _report(blocks[-1].read, total, shown - started)
    _check_unchanged(members, before)
    return total, count


def _do(pool: Any, tasks: Sequence[Task]) -> None:
    """Score blocks; raise the first error in their order."""
    results = pool.run(perform, tasks, on_death=_died) if tasks else []
    for result in results:
        if isinstance(result, Exception):
            raise result


def _died(place: int, attempts: int, code: int | None) -> JobError:
    return JobError(
        f"The worker of one part died {attempts} times, the last {cause_of_death(code)}. Use fewer "
        "workers (engine.workers); the same command goes on with the finished parts."
    )


def _checked(members: Members, before: list[Any]) -> Iterator[Block]:
    """Yield the blocks; what goes wrong in a file that changes is put down to the change."""
    try:
        with readable(members.source, key="input"):
            yield from members.blocks()
    except Exception:
        _check_unchanged(members, before)
        raise


def _check_unchanged(members: Members, before: list[Any]) -> None:
    """Refuse files that have changed since the job began."""
    if members.state != before:
        raise InputError(
            f"{members.source} was changed while it was read; run the same command again when "
            "nobody writes to it any more."
        )


def _report(read: float, total: Counts, seconds: float) -> None:
    """Show how far the job is: on a terminal, in its live line."""
    done = int(read * WIDTH)
    bar = f"[{'#' * done}{'-' * (WIDTH - done)}]"
    rate = total.rows / seconds
    rejected = f", {total.rejected:,} rejected" if total.rejected else ""
    log.log(PROGRESS, "%s %.0f%%, %s rows%s, %s a second", bar, 100 * read, f"{total.rows:,}",
            rejected, f"{rate:,.0f}")  # fmt: skip
