"""Count how often intervals cover the truth in simulated tables."""

from __future__ import annotations

import multiprocessing
import warnings
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from churnlab.threads import one_thread

SURE = 0.99
"""Coverages have an interval of their own at this level."""

ALLOWED = 0.94, 0.975
"""A coverage is off if its interval lies outside these two."""

BATCH = 25
"""Tables that a process simulates at a time."""

Judged = tuple[str, float, float, float]
"""One printed interval: a label, its low end, the truth, its high end."""


class Kind(NamedTuple):
    """A kind of interval: where it is printed, and the intervals of one table of n members.

    ``share``: a slow kind takes this share of the tables.
    """

    printed: str
    simulate: Callable[[np.random.Generator, int], Iterable[Judged]]
    share: float = 1.0


class Tally(NamedTuple):
    """How many intervals cover the truth, lie above it, lie below it, or have no ends (NaN)."""

    covering: int = 0
    above: int = 0
    below: int = 0
    missing: int = 0

    def plus(self, other: Tally) -> Tally:
        """Add two tallies."""
        return Tally(*(one + more for one, more in zip(self, other, strict=True)))

    @property
    def printed(self) -> int:
        """Return the number of intervals that have ends."""
        return self.covering + self.above + self.below

    @property
    def coverage(self) -> tuple[float, float, float]:
        """Return the share that covers the truth, with its CI at SURE."""
        if not self.printed:
            return np.nan, np.nan, np.nan
        found = binomtest(self.covering, self.printed)
        low, high = found.proportion_ci(SURE, method="exact")
        return found.statistic, low, high

    @property
    def verdict(self) -> str:
        """Compare the coverage with ALLOWED."""
        _, low, high = self.coverage
        if high < ALLOWED[0]:
            return "too narrow"
        return "too wide" if low > ALLOWED[1] else "within"


def measure(
    name: str, kind: Kind, n: int, *, tables: int, seed: int, processes: int | None = 1
) -> dict[str, Tally]:
    """Simulate tables of n members, and tally the intervals by label."""
    tables = max(round(tables * kind.share), 1)
    batches = [range(start, min(start + BATCH, tables)) for start in range(0, tables, BATCH)]
    work = partial(_tally, name, kind, n, seed)
    if processes == 1 or len(batches) == 1:
        return _sum(map(work, batches))
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        return _sum(pool.imap(work, batches))


def _tally(name: str, kind: Kind, n: int, seed: int, batch: Iterable[int]) -> dict[str, Tally]:
    """Tally the intervals of a batch of tables; each table has a generator of its own."""
    found: dict[str, Tally] = {}
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for table in batch:
            rng = np.random.default_rng([seed, zlib.crc32(name.encode()), n, table])
            for label, low, truth, high in kind.simulate(rng, n):
                found[label] = found.get(label, Tally()).plus(_judge(low, truth, high))
    return found


def _judge(low: float, truth: float, high: float) -> Tally:
    if np.isnan([low, high]).any():
        return Tally(missing=1)
    rounding = 1e-9 * max(abs(truth), 1e-3)  # of a truth that is computed in another order
    return Tally(above=int(low > truth + rounding), below=int(high < truth - rounding)).plus(
        Tally(covering=int(low <= truth + rounding and truth - rounding <= high))
    )


def _sum(parts: Iterable[dict[str, Tally]]) -> dict[str, Tally]:
    total: dict[str, Tally] = {}
    for part in parts:
        for label, tally in part.items():
            total[label] = total.get(label, Tally()).plus(tally)
    return total
