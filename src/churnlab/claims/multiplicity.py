"""Say how sure a verdict is by a p-value, and what the number of claims does to it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from churnlab.claims.claim import Claim, Verdict, verdict
from churnlab.explore.association import MAX_FDR, q_values
from churnlab.formatting import number
from churnlab.segments.shares import Interval

LEVEL = 0.05
"""The error of the CIs that decide."""

SMALLEST = 1e-12
"""Smaller p-values are all given as this one."""


def p_value(claim: Claim, interval: Interval) -> float:
    """Return the smallest error at which the CI still gives a verdict other than "not shown".

    So p < .05 exactly if the claim is decided, one way or the other. NaN without a CI.

    >>> older = Claim("a talk", "They are older.", "mean_difference", "above", of="x", among="y")
    >>> round(p_value(older, lambda error: (2 - 4 * (1 - error), 2 + 4 * (1 - error))), 3)
    0.5
    """
    if any(map(math.isnan, interval(LEVEL))):
        return math.nan

    def decided(exponent: float) -> bool:
        return verdict(claim, *interval(10**exponent)) != "not shown"

    open_end, decided_end = math.log10(SMALLEST), 0.0
    if decided(open_end):
        return SMALLEST
    if not decided(-1e-9):
        return 1.0
    for _ in range(40):
        middle = (open_end + decided_end) / 2
        open_end, decided_end = (open_end, middle) if decided(middle) else (middle, decided_end)
    return float(10**decided_end)


def q_of_claims(p: Sequence[float]) -> np.ndarray:
    """Correct the p-values of one file of claims for their number (Benjamini and Hochberg)."""
    return q_values(pd.Series(p, dtype="float64")).to_numpy()


def by_chance(verdicts: Sequence[Verdict], q: Sequence[float]) -> str:
    """Say how many claims would be decided if all were about nothing, and how many survive q."""
    known = int(np.isfinite(q).sum())
    decided = sum(each != "not shown" for each in verdicts)
    sure = int((np.asarray(q) < MAX_FDR).sum())
    chance = (
        f"Were all {known} about nothing, {number(LEVEL * known, 1)} would come out by chance "
        "(hold or be false)"
    )
    if decided == 0:
        return f"{chance}; none did."
    return (
        f"{chance}; of the {decided} that did, {sure} have q < .05, the p-value corrected for "
        "their number."
    )
