"""Simulate tables with a planted truth, and hold error rates and coverages to the promise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import binomtest

from support.soak import SOAK

SURE = 0.999
"""A rate is called too high (or too low) when its CI at this level lies beyond the promise: the
suite makes hundreds of such comparisons and must not fail by chance."""


def tables(short: int, long: int) -> int:
    """Return how many tables to simulate: few in the suite, in ``make soak`` the share of the long
    form that KILLS is of 100."""
    return max(short, round(long * min(SOAK, 100) / 100)) if SOAK else short


def count(event: Callable[[np.random.Generator], bool], *, of: int, seed: int) -> int:
    """Count in how many simulated tables an event happens; each table has its own generator."""
    generators = np.random.default_rng(seed).spawn(of)
    return sum(bool(event(rng)) for rng in generators)


def assert_at_most(promised: float, events: int, *, of: int) -> None:
    """Check that an event is no more frequent than promised, within the simulation's own error."""
    low = binomtest(events, of).proportion_ci(SURE, method="exact").low
    assert low <= promised, f"{events} of {of} ({events / of:.1%}), promised at most {promised:.1%}"


def assert_at_least(promised: float, events: int, *, of: int) -> None:
    """Check that an event is no rarer than promised, within the simulation's own error."""
    high = binomtest(events, of).proportion_ci(SURE, method="exact").high
    assert high >= promised, f"{events} of {of} ({events / of:.1%}), promised {promised:.1%}"
