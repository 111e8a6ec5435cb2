"""Confidence intervals of a share of ones and of the difference of two, by error."""

from __future__ import annotations

from collections.abc import Callable
from math import hypot

import numpy as np
from scipy.stats import binomtest

Interval = Callable[[float], tuple[float, float]]
"""Maps an error (0.05) to the ends of the CI that has it (95%)."""


def share_interval(values: np.ndarray) -> Interval:
    """Return Wilson's CI of the share of ones."""
    test = binomtest(int(values.sum()), len(values))
    return lambda error: tuple(test.proportion_ci(1 - error, method="wilson"))


def share_difference(first: np.ndarray, second: np.ndarray) -> Interval:
    """Return Newcombe's hybrid score CI of the first share of ones minus the second.

    Newcombe (1998, Statistics in Medicine 17:873), method 10, combines both shares' Wilson CIs and
    also works for shares of 0 and 1.
    """
    (p, one), (q, other) = ((float(y.mean()), share_interval(y)) for y in (first, second))

    def interval(error: float) -> tuple[float, float]:
        (a, b), (c, d) = one(error), other(error)
        return p - q - hypot(p - a, d - q), p - q + hypot(b - p, q - c)

    return interval
