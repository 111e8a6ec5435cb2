"""How each feature goes with leaving: which way, how much of who left it tells, and whether that
may be chance.

Everything is counted from the groups of values that `churnlab.exploration.gradients` has counted.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from churnlab.data.contract import Column

CHANCE = 0.05
"""Of all features that are said to have a signal, no larger share is expected to have none."""

DRAWS = 9_999
"""Where the groups are too small for the chi-squared curve, chance is counted in so many tables
drawn at random."""

BEND = 0.1
"""Churn goes one way along a feature as long as no larger part of its link goes against that way.
"""

RISES, FALLS = "more leave the larger it is", "fewer leave the larger it is"
WITH_IT, WITHOUT_IT = "more leave with it", "fewer leave with it"
DIFFERS, BENDS = "differs between values", "differs between values, not in one direction"
NOTHING_TO_COMPARE = "nothing to compare"

MEASURES = ("mutual_information", "uncertainty_coefficient", "low", "high", "p_value")


def links(gradients: pd.DataFrame, columns: Mapping[str, Column]) -> pd.DataFrame:
    """One row a feature: n known members, groups, MEASURES, q_value, signal and a verdict in words.

    ``mutual_information`` of group and leaving is in bits, less what chance alone gives in a table
    of this size (Miller, 1955), and never below 0. ``uncertainty_coefficient`` is its share of the
    entropy of leaving (Theil's U), with a 95% interval, ``low`` to ``high``, from the noncentral
    chi-squared (Smithson, 2003, Confidence Intervals, ch. 4). ``p_value`` is of Pearson's
    chi-squared, which sees every shape; for a number in three groups or more it is twice the
    smaller of that and the trend's (Agresti, Categorical Data Analysis, 3.4), which sees a weak
    slope better. ``q_value`` is corrected for the number of features; below CHANCE there is a
    ``signal``. NaN where there is one known value only. Sorted by the uncertainty coefficient.
    """
    counts = {
        str(name): rows[["n", "churned"]].to_numpy("float64").T
        for name, rows in gradients.groupby("feature")
    }
    nobody = np.zeros((2, 0))
    rows = []
    for name, column in columns.items():
        n, churned = counts.get(name, nobody)
        rows.append(
            {"feature": name, "n": int(n.sum()), "groups": len(n)} | _measures(n, churned, column)
        )
    table = pd.DataFrame(rows)
    table["q_value"] = q_values(table["p_value"])
    table["signal"] = table["q_value"] < CHANCE
    table["verdict"] = [
        NOTHING_TO_COMPARE if np.isnan(p) else _verdict(signal, columns[name], *counts[name])
        for name, p, signal in zip(table["feature"], table["p_value"], table["signal"], strict=True)
    ]
    return table.sort_values(
        ["uncertainty_coefficient", "p_value"], ascending=[False, True], ignore_index=True
    )


def q_values(p_values: pd.Series) -> pd.Series:
    """The p-values corrected for their number (Benjamini and Hochberg, 1995, JRSS B 57:289); NaN is
    not counted."""
    q = p_values.astype("float64").copy()
    known = q.notna()
    if known.any():
        q[known] = stats.false_discovery_control(q[known])
    return q


def smallest_difference(n_with: float, n_without: float, churn_rate: float) -> float:
    """The smallest difference of two churn rates that four of five tables of this size show
    (two-sided test at 5%).

    The normal approximation with one rate for both (Fleiss, Levin and Paik, 2003, Statistical
    Methods for Rates and Proportions, 4.2).
    """
    spread = np.sqrt(churn_rate * (1 - churn_rate) * (1 / n_with + 1 / n_without))
    return float((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * spread)


def _measures(n: np.ndarray, churned: np.ndarray, column: Column) -> dict[str, float]:
    left, members = churned.sum(), n.sum()
    if len(n) < 2 or left in (0, members):
        return dict.fromkeys(MEASURES, np.nan)
    entropy = stats.entropy([left, members - left])
    df = len(n) - 1
    # The likelihood ratio's statistic is 2n times the mutual information in nats.
    g = stats.chi2_contingency(
        [churned, n - churned], correction=False, lambda_="log-likelihood"
    ).statistic
    information = max(g - df, 0) / (2 * members)
    interval = np.array([_noncentrality(g, df, share) for share in (0.975, 0.025)]) / (2 * members)
    low, high = np.minimum(interval / entropy, 1)
    values = (
        information / np.log(2),
        information / entropy,
        low,
        high,
        _p_value(n, churned, column),
    )
    return dict(zip(MEASURES, map(float, values), strict=True))


def _noncentrality(g: float, df: int, share: float) -> float:
    """The noncentrality at which this share of chi-squared values is below g; 0 where no
    noncentrality is so small."""
    return float(special.chndtrinc(g, df, share)) if stats.chi2.cdf(g, df) > share else 0.0


def _p_value(n: np.ndarray, churned: np.ndarray, column: Column) -> float:
    found, margins = (
        _statistics(n, churned),
        (n.astype(int), [int(churned.sum()), int((n - churned).sum())]),
    )
    expected = np.outer(*margins) / n.sum()
    # Cochran's rule (1954, Biometrics 10:417).
    if expected.min() >= 1 and (expected < 5).mean() <= 0.2:
        p = stats.chi2.sf(found, [len(n) - 1, 1])
    else:
        drawn = stats.random_table(*margins, seed=0).rvs(DRAWS)[..., 0]
        p = (1 + (_statistics(n, drawn) >= found * (1 - 1e-9)).sum(axis=0)) / (1 + DRAWS)
    return float(p[0] if column.kind == "category" or len(n) < 3 else min(1, 2 * p.min()))


def _statistics(n: np.ndarray, churned: np.ndarray) -> np.ndarray:
    """Pearson's chi-squared and that of the trend, on the last axis; ``churned`` may hold many
    tables of these n."""
    rate = churned.sum(axis=-1, keepdims=True) / n.sum()
    variance = (rate * (1 - rate))[..., 0]
    pearson = ((churned - rate * n) ** 2 / n).sum(axis=-1) / variance
    place = _places(n)
    trend = (churned @ place) ** 2 / (n @ place**2) / variance * (1 - 1 / n.sum())
    return np.stack([pearson, trend], axis=-1)


def _places(n: np.ndarray) -> np.ndarray:
    """The numbers of the groups, less the mean over all members."""
    return np.arange(len(n)) - np.average(np.arange(len(n)), weights=n)


def _verdict(signal: bool, column: Column, n: np.ndarray, churned: np.ndarray) -> str:
    if not signal:
        return f"no signal that these {n.sum():,.0f} members can show"
    if column.kind == "category":
        return DIFFERS
    rises = bool(churned @ _places(n) > 0)
    if column.kind == "binary":
        return WITH_IT if rises else WITHOUT_IT
    return BENDS if _bends(n, churned, rises=rises) else RISES if rises else FALLS


def _bends(n: np.ndarray, churned: np.ndarray, *, rises: bool) -> bool:
    """Whether the groups leave the nearest line that only rises (or falls) by more than chance and
    more than a little.

    Each pair of neighbours that the isotonic regression had to put together is a degree of freedom.
    """
    rate, share = churned / n, churned.sum() / n.sum()
    nearest = optimize.isotonic_regression(rate, weights=n, increasing=rises)
    against = (n * (rate - nearest.x) ** 2).sum() / (share * (1 - share))
    put_together = len(n) - (len(nearest.blocks) - 1)
    by_chance = stats.chi2.ppf(1 - CHANCE, put_together) if put_together else 0
    return bool(against > max(by_chance, BEND * _statistics(n, churned)[0]))
