"""Evaluate the predictions of one model: metrics, confidence intervals, calibration, gains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from churnlab.models.metric_names import METRICS
from churnlab.models.metrics import CLIP, all_metrics, group_members

GROUPS = 4096
"""Pool probabilities into this many groups for the bootstrap when more of them are distinct."""


def classification_metrics(
    y: np.ndarray, probability: np.ndarray, *, threshold: float
) -> dict[str, float]:
    """Compute every metric of `metric_names.METRICS`; churn is predicted above the threshold.

    log_loss clips probabilities to [0.001, 0.999]. ece is the mean gap between probability and
    outcome over ten bins of equal size, where members of equal probability share their mean
    outcome, so that the order of the rows does not matter. Precision is 0 where no churn is
    predicted; without churners recall and f1 are 0, roc_auc and average_precision nan.

    >>> scores = classification_metrics(
    ...     np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.6, 0.9]), threshold=0.5
    ... )
    >>> scores["roc_auc"], scores["recall"], round(scores["brier"], 3)
    (0.75, 0.5, 0.185)
    """
    groups = group_members(y, probability, threshold)
    values = all_metrics(groups, groups.left[None, :], groups.stayed[None, :])
    return {name: float(value[0]) for name, value in values.items()}


def bootstrap_intervals(
    y: np.ndarray, probability: np.ndarray, *, threshold: float, resamples: int = 1000, seed: int
) -> dict[str, tuple[float, float]]:
    """Return the 95% percentile CI (low, high) of every metric over resamples of the members.

    A resample is drawn as multinomial counts over the distinct (probability, outcome) pairs, which
    equals drawing members with replacement. With more than GROUPS distinct probabilities, neighbors
    are pooled (never across the threshold), which bounds time and memory and moves a limit by less
    than a hundredth of the CI's width. roc_auc and average_precision skip resamples without both
    classes. Resampling inflates an ece, a sum of absolute gaps: its resamples are shifted to have
    the ece of the sample as their mean.
    """
    groups = group_members(y, probability, threshold, most=GROUPS)
    rng = np.random.default_rng(seed)
    counts = np.concatenate([groups.left, groups.stayed])
    filled = np.flatnonzero(counts)
    parts = []
    for done in range(0, resamples, chunk := max(1, 250_000 // len(counts))):
        drawn = np.zeros((min(chunk, resamples - done), len(counts)))
        drawn[:, filled] = rng.multinomial(len(y), counts[filled] / len(y), size=len(drawn))
        parts.append(all_metrics(groups, *np.split(drawn, 2, axis=1)))
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    observed = all_metrics(groups, groups.left[None, :], groups.stayed[None, :])
    for name, metric in METRICS.items():
        if metric.resampling_bias:
            bias = values[name].mean() - observed[name]
            values[name] = np.clip(values[name] - bias, 0, 1)
    return {name: percentiles(value) for name, value in values.items()}


def calibration_line(y: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Fit the calibration line (Cox, 1958, Biometrika 45:562): slope, intercept, and the ece.

    Slope and intercept are of an unpenalized logistic regression of y on the clipped logit. A
    perfect model has slope 1 and intercept 0; a slope above 1 means that the probabilities are too
    timid. Both are nan where all probabilities or all outcomes are equal.
    """
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    logit = np.log(clipped / (1 - clipped))
    slope = intercept = np.nan
    if np.ptp(logit) > 0 and np.ptp(y) > 0:
        line = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8)
        line.fit(logit[:, None], y)
        slope, intercept = float(line.coef_[0, 0]), float(line.intercept_[0])
    ece = classification_metrics(y, probability, threshold=0.5)["ece"]
    return {"slope": slope, "intercept": intercept, "ece": ece}


def reliability(y: np.ndarray, probability: np.ndarray, *, bins: int = 10) -> pd.DataFrame:
    """Compare predicted with observed churn by bins of about equal size, one row per bin.

    Columns: members, probability (the mean), churn_rate, low and high (its 95% Wilson CI). Members
    of equal probability stay in one bin.
    """
    _, inverse, count = np.unique(probability, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - count / 2
    frame = pd.DataFrame(
        {"bin": (middle * bins / len(y)).astype(int)[inverse], "y": y, "probability": probability}
    )
    table = frame.groupby("bin").agg(
        members=("y", "size"),
        left=("y", "sum"),
        probability=("probability", "mean"),
        churn_rate=("y", "mean"),
    )
    limits = [
        binomtest(int(left), int(members)).proportion_ci(method="wilson")
        for left, members in zip(table.pop("left"), table["members"], strict=True)
    ]
    return table.assign(low=[limit.low for limit in limits], high=[limit.high for limit in limits])


def gains(y: np.ndarray, probability: np.ndarray, *, shares: Sequence[float]) -> pd.DataFrame:
    """Count the churners among the riskiest members, one row per share of the members.

    Columns: share, members, gain (share of all churners), precision, lift. A share that ends inside
    a group of equal probabilities takes that part of the group's churners.
    """
    groups = group_members(y, probability, 0.5)
    members = np.concatenate([[0], np.cumsum(groups.left + groups.stayed)])
    left = np.concatenate([[0], np.cumsum(groups.left)])
    share = np.asarray(shares, dtype=np.float64)
    found = np.interp(share * len(y), members, left)
    gain = found / max(left[-1], 1)
    table = pd.DataFrame({"share": share, "members": share * len(y), "gain": gain})
    return table.assign(precision=found / table["members"], lift=gain / share)


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of values, ignoring NaN."""
    known = values[~np.isnan(values)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return float(low), float(high)
