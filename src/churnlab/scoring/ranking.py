"""Rank members by what contacting them is expected to earn, within a number or a budget."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from churnlab.models.decision import ContactEconomics

LISTED, NO_VALUE, NOT_POSITIVE, BEYOND_TOP, BEYOND_BUDGET = range(5)
WHY = (
    "",
    "the value of the member is missing or no number",
    "no positive expected value",
    "beyond score.top",
    "beyond score.budget",
)
"""Why a member is left out, by the numbers above."""

FORMULAS = {
    "cost": "contact_cost + incentive * (churn_probability * success + (1 - churn_probability) * "
    "accept)",
    "expected_value": "churn_probability * success * value - cost",
}
"""How the columns of the list are computed, for its summary."""


class Ranking(NamedTuple):
    """The listed members' positions, the best first; for every member a number of WHY, and in money
    the expected cost of a contact and its expected value."""

    listed: np.ndarray
    why: np.ndarray
    cost: np.ndarray
    expected: np.ndarray


def rank(
    probability: np.ndarray,
    value: np.ndarray,
    economics: ContactEconomics,
    *,
    top: int | None = None,
    budget: float | None = None,
) -> Ranking:
    """Rank the members by the expected value of a contact, within ``top`` contacts or a ``budget``.

    ``value`` is what each member is worth if kept (nan: unknown). A budget is filled by expected
    value per expected cost: the first member whom it cannot pay for ends the list, so that nobody
    outside it has more value per cost than anybody inside. Members with equal values keep the order
    of the likelier leavers, then of the table.
    """
    cost = economics.expected_cost(probability)
    expected = probability * economics.success * value - cost
    why = np.where(expected > 0, LISTED, NOT_POSITIVE).astype(np.int8)
    why[np.isnan(value)] = NO_VALUE
    able = np.flatnonzero(why == LISTED)
    able = able[np.lexsort((able, -probability[able], -expected[able]))]
    if top is not None:
        why[able[top:]] = BEYOND_TOP
        able = able[:top]
    if budget is not None:
        with np.errstate(divide="ignore"):
            by_worth = able[np.argsort(-expected[able] / cost[able], kind="stable")]
        paid = np.cumsum(cost[by_worth]) <= budget * (1 + 1e-12)
        why[by_worth[~paid]] = BEYOND_BUDGET
        able = able[why[able] == LISTED]
    return Ranking(able, why, cost, expected)
