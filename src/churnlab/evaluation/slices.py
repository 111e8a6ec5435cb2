"""Find the slices of the members in which a model's probabilities do not hold.

A slice is the members with one value of a column: a segment, a plan, an age group. In each the
observed churn is compared with the predicted one.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import false_discovery_control, norm

from churnlab.evaluation.metrics import CLIP, will_churn
from churnlab.evaluation.performance import classification_metrics
from churnlab.formatting import number, percent, readable

SMALL = 30
"""Values with fewer members are pooled, and left out if they are fewer even together."""

MAX_FDR = 0.05
"""A slice is named only if its q-value is below this."""

FARTHEST = 25.0
"""The largest shift of log odds to search."""


def slice_table(
    y: np.ndarray,
    probability: np.ndarray,
    threshold: float | np.ndarray,
    labels: pd.DataFrame,
) -> pd.DataFrame:
    """Compare observed and predicted churn in every slice, the surest difference first.

    ``labels`` has a row per member and a column per way to slice: a segment, the values or bins of
    a feature. ``threshold`` is a number or that of each member. Columns of the result: slice,
    value, n, observed and predicted churn, ratio of the two with its 95% CI (low, high: see
    ``ratio_interval``), roc_auc, recall and precision (nan where nobody counts), p of "observed
    equals predicted" and q (Benjamini and Hochberg, 1995, JRSS B 57:289) over all slices. Values
    with fewer than SMALL members are pooled into one row, "n rare values".

    >>> y, plan = np.tile([0, 1], 50), pd.DataFrame({"plan": ["basic", "gold"] * 50})
    >>> slice_table(y, np.full(100, 0.4), 0.5, plan)[["slice", "value", "n", "observed"]]
      slice  value   n  observed
    0  plan   gold  50       1.0
    1  plan  basic  50       0.0
    """
    predicted_churn = will_churn(probability, threshold)
    rows = []
    for name in labels.columns:
        for value, members in values(labels[name]):
            found = _compare(y[members], probability[members], predicted_churn[members])
            rows.append({"slice": name, "value": value, **found})
    table = pd.DataFrame(rows, columns=["slice", "value", *_COLUMNS])
    if table.empty:
        return table.assign(q=[])
    table["q"] = false_discovery_control(table["p"])
    return table.sort_values("p", kind="stable", ignore_index=True)


_COLUMNS = [
    *("n", "observed", "predicted", "ratio", "low", "high"),
    *("roc_auc", "recall", "precision", "p"),
]


def weakest(table: pd.DataFrame) -> str:
    """Name the slice in which the probabilities fail most surely; "" if none does beyond chance.

    The table is that of ``slice_table``.
    """
    named = table[table["q"] < MAX_FDR]
    if named.empty:
        return ""
    first = named.iloc[0]
    others = f"; {len(named)} of {len(table)} slices are off (q < {MAX_FDR:g})"
    return (
        f"Weakest where {readable(first['slice'])} is {first['value']} ({first['n']:,} members): "
        f"predicted {percent(first['predicted'])}, observed {percent(first['observed'])}, "
        f"{number(first['ratio'], 2)} times as many (95% CI {number(first['low'], 2)} to "
        f"{number(first['high'], 2)}){others if len(named) > 1 else ''}."
    )


def values(labels: pd.Series) -> list[tuple[str, np.ndarray]]:
    """Return the members (a mask) of each value, and of the rare values together."""
    text = labels.astype(object).where(labels.notna(), "missing").astype(str)
    counts = text.value_counts(sort=False)
    rare = counts.index[counts < SMALL]
    found = [(str(value), (text == value).to_numpy()) for value in counts.index.difference(rare)]
    if counts[rare].sum() >= SMALL:
        found.append((f"one of {len(rare)} rare values", text.isin(rare).to_numpy()))
    return found if len(found) > 1 else []  # one value is everybody, or nearly


def _compare(y: np.ndarray, probability: np.ndarray, flagged: np.ndarray) -> dict[str, float]:
    """Return the row of one slice."""
    ratio, low, high, p = ratio_interval(y, probability)
    left, hits = int(y.sum()), int((flagged & (y == 1)).sum())
    return {
        "n": len(y),
        "observed": float(y.mean()),
        "predicted": float(probability.mean()),
        "ratio": ratio,
        "low": low,
        "high": high,
        "roc_auc": classification_metrics(y, probability, threshold=0.5)["roc_auc"],
        "recall": hits / left if left else math.nan,
        "precision": hits / int(flagged.sum()) if flagged.any() else math.nan,
        "p": p,
    }


def ratio_interval(y: np.ndarray, probability: np.ndarray) -> tuple[float, float, float, float]:
    """Return observed over predicted churn, its 95% CI, and p of "observed equals predicted".

    The test is that of a shift of all log odds (calibration in the large: Cox, 1958, Biometrika
    45:562) by the signed root of the likelihood ratio with Barndorff-Nielsen's correction (1986,
    Biometrika 73:307), which is accurate for a few leavers, too. The CI holds the ratios of the
    shifts that the test does not reject. Probabilities are clipped as for the log loss.

    >>> ratio, low, high, p = ratio_interval(np.repeat([1, 0], [20, 80]), np.full(100, 0.1))
    >>> round(ratio, 2), round(low, 2), round(high, 2), round(p, 3)
    (2.0, 1.31, 2.86, 0.003)
    """
    log_odds = logit(np.clip(probability, CLIP, 1 - CLIP))
    expected, n = float(expit(log_odds).sum()), len(y)
    # Nobody or everybody left: half a member less extreme keeps the shift finite.
    left = float(np.clip(y.sum(), 0.5, n - 0.5))
    goal = math.log(left / (n - left))
    best = brentq(
        lambda shift: logit(expit(log_odds + shift).mean()) - goal, -FARTHEST, FARTHEST, xtol=1e-7
    )
    z = norm.ppf(0.975)

    def end(sign: int) -> float:
        shift = brentq(
            lambda at: _root(log_odds, left, best, at) - sign * z,
            best - sign * FARTHEST,
            best,
            xtol=1e-4,
        )
        return float(expit(log_odds + shift).sum()) / expected

    low = 0.0 if y.sum() == 0 else end(1)
    high = n / expected if y.sum() == n else end(-1)
    p = float(2 * norm.sf(abs(_root(log_odds, left, best, 0.0))))
    return float(y.sum()) / expected, low, high, p


def _root(log_odds: np.ndarray, left: float, best: float, shift: float) -> float:
    """Return the corrected signed root of the likelihood ratio of a shift against the best one."""
    gain = (best - shift) * left - float(
        (np.logaddexp(0, log_odds + best) - np.logaddexp(0, log_odds + shift)).sum()
    )
    root = math.copysign(math.sqrt(2 * max(gain, 0.0)), best - shift)
    if abs(root) < 0.01:  # the correction is 0 / 0 at the best shift, and small around it
        return root
    odds = expit(log_odds + best)
    wald = (best - shift) * math.sqrt(float((odds * (1 - odds)).sum()))
    return root + math.log(wald / root) / root
