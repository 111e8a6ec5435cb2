"""How good a churn model is: hold-out, folds, metrics, their intervals, calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from churnlab.models.metrics import CLIP, group_members, nine_metrics

GROUPS = 4096
"""The bootstrap pools probabilities into this many groups of equal size when more of them are
distinct."""


def classification_metrics(
    y: np.ndarray, probability: np.ndarray, *, threshold: float
) -> dict[str, float]:
    """The nine metrics of a churn model; who has ``probability > threshold`` is said to leave.

    log_loss clips probabilities to [.001, .999]. ece is the mean gap between probability and
    outcome over ten bins of equally many members, where members with one and the same probability
    share their mean outcome, so that the order of the rows does not matter. Precision is 0 where
    nobody is said to leave, recall and f1 are 0 and roc_auc and average_precision nan where there
    is nothing to find.
    """
    groups = group_members(y, probability, threshold)
    values = nine_metrics(groups, groups.left[None, :], groups.stayed[None, :])
    return {name: float(value[0]) for name, value in values.items()}


def bootstrap_intervals(
    y: np.ndarray, probability: np.ndarray, *, threshold: float, resamples: int = 1000, seed: int
) -> dict[str, tuple[float, float]]:
    """95% percentile intervals of the nine metrics over resamples of the members.

    A resample is drawn as multinomial counts over the distinct (probability, outcome) pairs, which
    is the same as drawing members with replacement. With more than GROUPS distinct probabilities,
    neighbours are pooled (never across the threshold), which bounds time and memory and moves a
    limit by less than a hundredth of its interval's width. Resamples without both classes have no
    roc_auc and average_precision and are left out there. Resampling inflates an ece, a sum of
    absolute gaps: its resamples are shifted back to have its mean.
    """
    groups = group_members(y, probability, threshold, most=GROUPS)
    rng = np.random.default_rng(seed)
    counts = np.concatenate([groups.left, groups.stayed])
    filled = np.flatnonzero(counts)
    parts = []
    for done in range(0, resamples, chunk := max(1, 250_000 // len(counts))):
        drawn = np.zeros((min(chunk, resamples - done), len(counts)))
        drawn[:, filled] = rng.multinomial(len(y), counts[filled] / len(y), size=len(drawn))
        parts.append(nine_metrics(groups, *np.split(drawn, 2, axis=1)))
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    said = nine_metrics(groups, groups.left[None, :], groups.stayed[None, :])["ece"]
    values["ece"] = np.clip(values["ece"] - (values["ece"].mean() - said), 0, 1)
    return {name: percentiles(value) for name, value in values.items()}


def calibration_line(y: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Slope and intercept of an unpenalised logistic regression of y on the clipped logit, and the
    ece.

    A perfect model has slope 1 and intercept 0; a slope above 1 says that the probabilities are too
    timid. Where all probabilities or all outcomes are equal, slope and intercept are nan.
    """
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    logit = np.log(clipped / (1 - clipped))
    slope = intercept = np.nan
    if np.ptp(logit) > 0 and np.ptp(y) > 0:
        line = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8).fit(
            logit[:, None], y
        )
        slope, intercept = float(line.coef_[0, 0]), float(line.intercept_[0])
    ece = classification_metrics(y, probability, threshold=0.5)["ece"]
    return {"slope": slope, "intercept": intercept, "ece": ece}


def reliability(y: np.ndarray, probability: np.ndarray, *, bins: int = 10) -> pd.DataFrame:
    """Said against seen, by bins of about equally many members: members, probability, churn_rate,
    low, high.

    ``probability`` is the bin's mean, low and high the 95% Wilson interval of the churn rate.
    Members with one and the same probability stay in one bin.
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
    """What the riskiest members hold: share, members, gain (share of all churners), precision,
    lift.

    A share that ends inside a group of equal probabilities takes that part of the group's churners.
    """
    groups = group_members(y, probability, 0.5)
    members = np.concatenate([[0], np.cumsum(groups.left + groups.stayed)])
    left = np.concatenate([[0], np.cumsum(groups.left)])
    share = np.asarray(shares, dtype=np.float64)
    found = np.interp(share * len(y), members, left)
    gain = found / max(left[-1], 1)
    precision = found / (share * len(y))
    table = {
        "share": share,
        "members": share * len(y),
        "gain": gain,
        "precision": precision,
        "lift": gain / share,
    }
    return pd.DataFrame(table)


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """The ends of the middle 95% of values, NaN left out."""
    known = values[~np.isnan(values)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return float(low), float(high)
