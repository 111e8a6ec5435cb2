"""Compute the expected maximum profit of contacting members, with an uncertain success (EMPC).

Verbraken, Verbeke and Baesens, 2013, A novel profit maximizing metric for measuring classification
performance of customer churn prediction models, IEEE TKDE 25(5):961.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import betaincc

from churnlab.models.decision import ContactEconomics

CERTAINTY = 20
"""The success is Beta distributed around the decision's number as if so many leavers had been
offered something: at 0.3 it is the paper's Beta(6, 14)."""


def expected_maximum_profit(
    left: np.ndarray, stayed: np.ndarray, economics: ContactEconomics
) -> np.ndarray:
    """Return the EMPC per member of each resample; ``left`` and ``stayed`` count the members of
    each group, the highest probability first: (resample, group).

    For every success the profit is largest at a corner of the ROC curve's convex hull. The groups
    between two corners, pooled by isotonic regression, are contacted from one success on, so that
    the integral over the success is a sum of incomplete beta functions. With ``retained_value=200,
    incentive=10, contact_cost=1, success=0.3, accept=1`` it is the paper's; ``accept`` is the share
    of stayers who take the offer, which the paper takes to be all.

    >>> paper = ContactEconomics(200, 1, 10, success=0.3, accept=1)
    >>> found = expected_maximum_profit(np.array([[2.0, 1.0]]), np.array([[1.0, 6.0]]), paper)
    >>> round(float(found[0]), 4)
    10.4867
    """
    return np.array([_of_one(*counts, economics) for counts in zip(left, stayed, strict=True)])


def _of_one(left: np.ndarray, stayed: np.ndarray, economics: ContactEconomics) -> float:
    members = left + stayed
    some = members > 0
    pooled = isotonic_regression(
        left[some] / members[some], weights=members[some], increasing=False
    )
    weight, churn_rate = pooled.weights, pooled.x[pooled.blocks[:-1]]
    spent = economics.contact_cost + (1 - churn_rate) * economics.accept * economics.incentive
    gain = churn_rate * (economics.retained_value - economics.incentive)
    with np.errstate(divide="ignore", invalid="ignore"):
        pays_from = np.where(gain > 0, spent / gain, np.inf)
    share, mean = _above(pays_from, economics.success)
    return float(weight @ (gain * mean - spent * share) / weight.sum())


def _above(limit: np.ndarray, success: float) -> tuple[np.ndarray, np.ndarray]:
    """Return how likely the success is above a limit, and its mean there times that."""
    if success in (0, 1):
        share = (success > limit).astype(np.float64)
        return share, success * share
    limit, a, b = np.minimum(limit, 1), CERTAINTY * success, CERTAINTY * (1 - success)
    return betaincc(a, b, limit), success * betaincc(a + 1, b, limit)
