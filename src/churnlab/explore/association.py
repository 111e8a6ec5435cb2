"""Measure the association of each feature with churn: strength, significance, direction.

Everything is computed from the groups of values of `churnlab.explore.statistics.gradients`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from churnlab.data.contract import Column

MAX_FDR = 0.05
"""False discovery rate: the expected share of false positives among features with a signal."""

DRAWS = 9_999
"""Random tables for the p-value where groups are too small for the chi-squared distribution."""

BEND = 0.1
"""Churn counts as monotonic if at most this share of its chi-squared goes the other way."""

SEPARATED = 0.9
"""Beyond this share of the uncertainty a few more members might show groups that separate all."""

RISES, FALLS = "more churn at higher values", "less churn at higher values"
WITH_IT, WITHOUT_IT = "more churn with it", "less churn with it"
DIFFERS, BENDS = "churn differs between values", "churn differs, not in one direction"
NOTHING_TO_COMPARE = "nothing to compare"

MEASURES = ("mutual_information", "uncertainty_coefficient", "low", "high", "p_value")


def links(gradients: pd.DataFrame, columns: Mapping[str, Column]) -> pd.DataFrame:
    """Measure every feature: n known members, groups, MEASURES, q_value, signal, verdict (words).

    ``mutual_information`` of group and churn is in bits, corrected for the bias in a table of this
    size (Miller, 1955) and never below 0. ``uncertainty_coefficient`` is its share of the entropy
    of churn (Theil's U), with a 95% CI, ``low`` to ``high``, as in ``_interval``. ``p_value`` is
    that of Pearson's chi-squared, which detects any shape; for a number in three groups or more it
    is twice the smaller of that and the trend's (Agresti, Categorical Data Analysis, 3.4), which
    detects a weak slope better.
    ``q_value`` is corrected for the number of features; there is a ``signal`` below MAX_FDR. NaN
    for a single known value. Sorted by the uncertainty coefficient.
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
    table["signal"] = table["q_value"] < MAX_FDR
    table["verdict"] = [
        NOTHING_TO_COMPARE if np.isnan(p) else _verdict(signal, columns[name], *counts[name])
        for name, p, signal in zip(table["feature"], table["p_value"], table["signal"], strict=True)
    ]
    return table.sort_values(
        ["uncertainty_coefficient", "p_value"], ascending=[False, True], ignore_index=True
    )


def q_values(p_values: pd.Series) -> pd.Series:
    """Correct p-values for their number (Benjamini and Hochberg, 1995, JRSS B 57:289), skipping
    NaN."""
    q = p_values.astype("float64").copy()
    known = q.notna()
    if known.any():
        q[known] = stats.false_discovery_control(q[known])
    return q


def smallest_difference(n_with: float, n_without: float, churn_rate: float) -> float:
    """Return the smallest difference of two churn rates detected with 80% power (two-sided, 5%).

    Uses the normal approximation with one rate for both groups (Fleiss, Levin and Paik, 2003,
    Statistical Methods for Rates and Proportions, 4.2).

    >>> round(smallest_difference(2000, 2000, 0.25), 3)
    0.038
    """
    spread = np.sqrt(churn_rate * (1 - churn_rate) * (1 / n_with + 1 / n_without))
    return float((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * spread)


def _measures(n: np.ndarray, churned: np.ndarray, column: Column) -> dict[str, float]:
    """Compute MEASURES from the members and churners of each group."""
    left, members = churned.sum(), n.sum()
    if len(n) < 2 or left in (0, members):
        return dict.fromkeys(MEASURES, np.nan)
    entropy = stats.entropy([left, members - left])
    df = len(n) - 1
    # The likelihood ratio's statistic is 2n times the mutual information in nats.
    table = [churned, n - churned]
    g = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic
    information = max(g - df, 0) / (2 * members)
    low, high = _interval(information / entropy, np.array(table), g=g, df=df)
    p_value = _p_value(n, churned, column)
    values = (information / np.log(2), information / entropy, low, high, p_value)
    return dict(zip(MEASURES, map(float, values), strict=True))


def _interval(u: float, table: np.ndarray, *, g: float, df: int) -> np.ndarray:
    """Return the 95% CI of the uncertainty coefficient u of a table of outcomes by groups.

    G has a noncentral chi-squared distribution if the link is weak (Smithson, 2003, Confidence
    Intervals, ch. 4), whose variance is too large if it is strong. So -log(1 - u), which is u where
    it is small, gets that distribution times the ratio of its delta-method variance (Goodman and
    Kruskal, 1972, JASA 67:415) to the noncentral chi-squared's. The ratio, 1 for weak links, is
    taken from the table with a half added to each count, so that separated groups have a variance.
    """
    p = (table + 0.5) / (table + 0.5).sum()
    outcome, group = p.sum(axis=1, keepdims=True), p.sum(axis=0, keepdims=True)
    entropy, size = stats.entropy(table.sum(axis=1)), 2 * table.sum()
    gain = np.log(p / outcome / group)
    smooth = float((p * gain).sum() / stats.entropy(outcome[:, 0]))
    influence = gain + smooth * np.log(outcome)
    variance = (p * influence**2).sum() - (p * influence).sum() ** 2
    separated = u > max(smooth, SEPARATED)
    u = min(u, smooth) if separated else u
    weak = -2 * np.log1p(-smooth) * (1 - smooth) ** 2 * stats.entropy(outcome[:, 0])
    ratio = variance / weak if smooth > 1e-9 else 1.0
    seen = df - size * entropy * np.log1p(-u) / ratio if u > 0 else g
    ends = np.array([_noncentrality(seen, df, share) for share in (0.975, 0.025)])
    low, high = -np.expm1(-ratio * ends / size / entropy)
    return np.array([low, 1.0 if separated else high])


def _noncentrality(g: float, df: int, share: float) -> float:
    """Return the noncentrality at which this share of chi-squared values is below g, at least 0."""
    return float(special.chndtrinc(g, df, share)) if stats.chi2.cdf(g, df) > share else 0.0


def _p_value(n: np.ndarray, churned: np.ndarray, column: Column) -> float:
    """Return the p-value: asymptotic, or from random tables where expected counts are low."""
    found = _statistics(n, churned)
    margins = n.astype(int), [int(churned.sum()), int((n - churned).sum())]
    expected = np.outer(*margins) / n.sum()
    # Cochran's rule (1954, Biometrics 10:417).
    if expected.min() >= 1 and (expected < 5).mean() <= 0.2:
        p = stats.chi2.sf(found, [len(n) - 1, 1])
    else:
        drawn = stats.random_table(*margins, seed=0).rvs(DRAWS)[..., 0]
        p = (1 + (_statistics(n, drawn) >= found * (1 - 1e-9)).sum(axis=0)) / (1 + DRAWS)
    return float(p[0] if column.kind == "category" or len(n) < 3 else min(1, 2 * p.min()))


def _statistics(n: np.ndarray, churned: np.ndarray) -> np.ndarray:
    """Compute Pearson's chi-squared and the trend's (last axis) of one or many ``churned``."""
    rate = churned.sum(axis=-1, keepdims=True) / n.sum()
    variance = (rate * (1 - rate))[..., 0]
    pearson = ((churned - rate * n) ** 2 / n).sum(axis=-1) / variance
    position = _positions(n)
    trend = (churned @ position) ** 2 / (n @ position**2) / variance * (1 - 1 / n.sum())
    return np.stack([pearson, trend], axis=-1)


def _positions(n: np.ndarray) -> np.ndarray:
    """Return the positions of the groups, centered on the mean over all members."""
    return np.arange(len(n)) - np.average(np.arange(len(n)), weights=n)


def _verdict(signal: bool, column: Column, n: np.ndarray, churned: np.ndarray) -> str:
    """Say in which direction churn changes along a feature."""
    if not signal:
        return f"no significant signal in {n.sum():,.0f} members"
    if column.kind == "category":
        return DIFFERS
    rises = bool(churned @ _positions(n) > 0)
    if column.kind == "binary":
        return WITH_IT if rises else WITHOUT_IT
    return BENDS if _bends(n, churned, rises=rises) else RISES if rises else FALLS


def _bends(n: np.ndarray, churned: np.ndarray, *, rises: bool) -> bool:
    """Return whether the groups deviate from the best monotonic fit by more than chance and BEND.

    Each pair of neighbors that the isotonic regression pools is a degree of freedom.
    """
    rate, share = churned / n, churned.sum() / n.sum()
    nearest = optimize.isotonic_regression(rate, weights=n, increasing=rises)
    against = (n * (rate - nearest.x) ** 2).sum() / (share * (1 - share))
    pooled = len(n) - (len(nearest.blocks) - 1)
    by_chance = stats.chi2.ppf(1 - MAX_FDR, pooled) if pooled else 0
    return bool(against > max(by_chance, BEND * _statistics(n, churned)[0]))
