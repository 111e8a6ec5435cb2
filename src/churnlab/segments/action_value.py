"""Compute what an action costs, what it is worth, and the A/B test that would prove its effect.

No effect is measured here: the share that an action keeps is the playbook's assumption until an A/B
test has been run. The formulas are a few lines of SciPy; statsmodels would be a dependency for two
of them.
"""

from __future__ import annotations

from math import ceil, sqrt
from typing import NamedTuple

from scipy.optimize import brentq
from scipy.stats import norm

ALPHA, POWER = 0.05, 0.8
"""Two-sided error rate of the test, and its chance to detect an effect that exists."""


class Worth(NamedTuple):
    """Cost and worth of an action on ``reach`` members (None: people outside the table).

    In the currency of the playbook's values: ``cost`` for all of them, ``worth`` of those whom it
    is assumed to keep, from ``worth_low`` to ``worth_high``. ``break_even`` is the share of
    would-be leavers that it must keep to pay for itself (above 1: it cannot; None: nobody leaves).
    """

    reach: int | None
    cost: float | None
    worth: float | None
    break_even: float | None
    worth_low: float | None
    worth_high: float | None


class ABTest(NamedTuple):
    """The A/B test of an action: one random half of ``reach`` members gets it, the other does not.

    ``per_arm`` is the sample size per arm that detects the assumed effect (None: none is assumed);
    ``smallest_cut`` the smallest drop of the churn rate, as a share, that the two halves can detect
    (None: not even a drop to zero).
    """

    per_arm: int | None
    smallest_cut: float | None
    too_small: bool


def value_action(
    reach: int | None, rate: float, *, cost: float, keeps: tuple[float, float], value: float
) -> Worth:
    """Value an action that costs ``cost`` per member, as if it were the only one.

    ``rate`` is the churn rate without it, ``keeps`` the ends of the share of would-be leavers that
    it is assumed to keep (``worth`` is for the middle), ``value`` the worth of a member who stays.

    >>> value_action(200, 0.25, cost=2, keeps=(0.05, 0.15), value=100)
    Worth(reach=200, cost=400, worth=500.0, break_even=0.08, worth_low=250.0, worth_high=750.0)
    """
    break_even = cost / (rate * value) if rate > 0 else None
    if reach is None:
        return Worth(None, None, None, break_even, None, None)
    low, middle, high = (
        reach * rate * kept * value for kept in (keeps[0], sum(keeps) / 2, keeps[1])
    )
    return Worth(reach, reach * cost, middle, break_even, low, high)


def plan_ab_test(reach: int | None, rate: float, *, keeps: float) -> ABTest:
    """Plan the test of an action that is assumed to cut the churn rate by its share ``keeps``."""
    per_arm = members_per_arm(rate, rate * (1 - keeps)) if rate * keeps > 0 else None
    if reach is None:
        return ABTest(per_arm, None, too_small=False)
    half = reach // 2
    return ABTest(per_arm, smallest_cut(rate, half), per_arm is not None and per_arm > half)


def members_per_arm(rate: float, treated: float) -> int:
    """Return the sample size per arm that detects the difference of two churn rates.

    Normal approximation; Fleiss, Levin and Paik (2003), section 4.2, without the continuity
    correction.

    >>> members_per_arm(0.5, 0.4)
    388
    """
    return ceil((_deviations(rate, treated) / (rate - treated)) ** 2)


def smallest_cut(rate: float, per_arm: int) -> float | None:
    """Return the smallest drop from ``rate`` that this many members per arm can detect.

    None: not even a drop to zero.
    """
    if rate <= 0 or per_arm < 1 or members_per_arm(rate, 0.0) > per_arm:
        return None
    return float(
        brentq(lambda cut: _deviations(rate, rate - cut) - cut * sqrt(per_arm), 1e-9 * rate, rate)
    )


def _deviations(rate: float, treated: float) -> float:
    """Return how far apart the rates must be, in standard deviations of their difference with one
    member per arm."""
    middle = (rate + treated) / 2
    chance = float(norm.ppf(1 - ALPHA / 2)) * sqrt(2 * middle * (1 - middle))
    return chance + float(norm.ppf(POWER)) * sqrt(rate * (1 - rate) + treated * (1 - treated))
