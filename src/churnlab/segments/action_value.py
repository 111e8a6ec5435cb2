"""What an action costs and is worth, from which effect on it pays, and the test that would prove
the effect.

Nothing here measures an effect: how many it keeps is the playbook's assumption until an A/B test
has been made. The formulas are a few lines of SciPy; statsmodels' power analysis would be a
dependency of its own for two of them.
"""

from __future__ import annotations

from math import ceil, sqrt
from typing import NamedTuple

from scipy.optimize import brentq
from scipy.stats import norm

SIDES, POWER = 0.05, 0.8
"""Two-sided error of the test, and its chance to see an effect that is there."""


class Worth(NamedTuple):
    """An action on ``reach`` members (None: people outside the table), in the currency of the
    playbook's values.

    ``cost`` is for all of them, ``worth`` for those whom it is assumed to keep; ``break_even`` is
    the share of would-be leavers it must keep to pay for itself (above 1: it cannot; None: nobody
    leaves).
    """

    reach: int | None
    cost: float | None
    worth: float | None
    break_even: float | None


class Proof(NamedTuple):
    """The A/B test of an action on one half of ``reach`` members, the other half left alone.

    ``per_arm`` members in each arm would show the assumed effect (None: none is assumed);
    ``smallest_cut`` is the least fall of the churn rate, in points of a share, that the halves can
    show (None: not even all of it).
    """

    per_arm: int | None
    smallest_cut: float | None
    too_small: bool


def worth_of(reach: int | None, rate: float, *, cost: float, keeps: float, value: float) -> Worth:
    """Weigh an action of ``cost`` a member that keeps the share ``keeps`` of the leavers, each
    worth ``value``."""
    break_even = cost / (rate * value) if rate > 0 else None
    if reach is None:
        return Worth(None, None, None, break_even)
    return Worth(reach, reach * cost, reach * rate * keeps * value, break_even)


def proof_of(reach: int | None, rate: float, *, keeps: float) -> Proof:
    """Plan the test of an action that is assumed to cut the churn rate by its share ``keeps``."""
    per_arm = members_per_arm(rate, rate * (1 - keeps)) if rate * keeps > 0 else None
    if reach is None:
        return Proof(per_arm, None, too_small=False)
    return Proof(
        per_arm,
        smallest_cut(rate, reach // 2),
        too_small=per_arm is not None and per_arm > reach // 2,
    )


def members_per_arm(rate: float, treated: float) -> int:
    """Members in each of two equal arms that tell two different churn rates apart, by the normal
    approximation.

    Fleiss, Levin and Paik (2003), section 4.2, without the continuity correction.
    """
    return ceil((_deviations(rate, treated) / (rate - treated)) ** 2)


def smallest_cut(rate: float, per_arm: int) -> float | None:
    """The least fall from ``rate`` that so many members in each arm can show; None: not even a fall
    to nothing."""
    if rate <= 0 or per_arm < 1 or members_per_arm(rate, 0.0) > per_arm:
        return None
    return float(
        brentq(lambda cut: _deviations(rate, rate - cut) - cut * sqrt(per_arm), 1e-9 * rate, rate)
    )


def _deviations(rate: float, treated: float) -> float:
    """How far apart the rates must be, in deviations of their difference with one member in each
    arm."""
    middle = (rate + treated) / 2
    chance = float(norm.ppf(1 - SIDES / 2)) * sqrt(2 * middle * (1 - middle))
    return chance + float(norm.ppf(POWER)) * sqrt(rate * (1 - rate) + treated * (1 - treated))
