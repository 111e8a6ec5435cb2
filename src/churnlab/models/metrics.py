"""The nine metrics of a churn model, for many resamples of the same members at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

CLIP = 0.001
"""Probabilities are moved into [CLIP, 1 - CLIP] where their logarithm is taken."""


class Groups(NamedTuple):
    """Members grouped by probability, the highest first: counts, and means over the members of a
    group.

    ``loss`` and ``square`` are the log-loss and the squared error, [of those who left, of those who
    stayed], ``said`` the probabilities likewise; the first ``marked`` groups are above the
    threshold.
    """

    left: np.ndarray
    stayed: np.ndarray
    loss: np.ndarray
    square: np.ndarray
    said: np.ndarray
    marked: int


def group_members(
    y: np.ndarray, probability: np.ndarray, threshold: float, *, most: int | None = None
) -> Groups:
    """Group members by probability; with more than ``most`` distinct ones, neighbours are pooled
    into about as many.

    Pooled groups are of about equal size, and none lies on both sides of the threshold.
    """
    p = np.asarray(probability, dtype=np.float64)
    assert p.shape == np.shape(y) == (len(y),)
    distinct, inverse, count = np.unique(-p, return_inverse=True, return_counts=True)
    group = inverse
    if most is not None and len(distinct) > most:
        pooled = ((np.cumsum(count) - 1) * most // len(p)) * 2 + ~will_churn(-distinct, threshold)
        _, group = np.unique(pooled[inverse], return_inverse=True)
    size = int(group.max()) + 1
    marked = int(group[will_churn(p, threshold)].max(initial=-1)) + 1
    clipped = np.clip(p, CLIP, 1 - CLIP)
    left, stayed = np.asarray(y) == 1, np.asarray(y) == 0

    def means(of_left: np.ndarray, of_stayed: np.ndarray) -> np.ndarray:
        return np.array(
            [
                _group_means(group[left], of_left[left], size),
                _group_means(group[stayed], of_stayed[stayed], size),
            ]
        )

    return Groups(
        np.bincount(group[left], minlength=size).astype(np.float64),
        np.bincount(group[stayed], minlength=size).astype(np.float64),
        loss=means(-np.log(clipped), -np.log1p(-clipped)),
        square=means((1 - p) ** 2, p**2),
        said=means(p, p),
        marked=marked,
    )


def nine_metrics(groups: Groups, left: np.ndarray, stayed: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics of each resample, whose counts (resample, group) are ``left`` and ``stayed``.

    One resample of ``groups.left`` and ``groups.stayed`` themselves is the sample's own metrics.
    Precision, recall and f1 are 0, and roc_auc and average_precision nan, where there is nothing to
    divide by.
    """
    return {name: metric() for name, metric in _metrics(groups, left, stayed).items()}


def one_metric(groups: Groups, left: np.ndarray, stayed: np.ndarray, *, metric: str) -> np.ndarray:
    """One of the nine metrics of each resample, in a fifth of the time."""
    return _metrics(groups, left, stayed)[metric]()


def _metrics(
    groups: Groups, left: np.ndarray, stayed: np.ndarray
) -> dict[str, Callable[[], np.ndarray]]:
    """How each of the nine is computed from what they share: who is found, and who is wrongly, down
    to each group."""
    found, wrong = np.cumsum(left, axis=1), np.cumsum(stayed, axis=1)
    churners, stayers = found[:, -1], wrong[:, -1]
    n = churners + stayers
    hit, false = (
        (found[:, groups.marked - 1], wrong[:, groups.marked - 1])
        if groups.marked
        else (0 * n, 0 * n)
    )

    def average_precision() -> np.ndarray:
        reached = found + wrong
        precise = np.divide(found, reached, out=np.zeros_like(found), where=reached > 0)
        return _ratio(np.einsum("rg,rg->r", left, precise), churners, np.nan)

    def ece() -> np.ndarray:
        gap = np.cumsum(left * (groups.said[0] - 1) + stayed * groups.said[1], axis=1)
        return np.array([_ece(*row) for row in zip(found + wrong, gap, strict=True)])

    return {
        "roc_auc": lambda: _ratio(
            np.einsum("rg,rg->r", stayed, found - left / 2), churners * stayers, np.nan
        ),
        "average_precision": average_precision,
        "log_loss": lambda: _total(left, groups.loss[0], stayed, groups.loss[1]) / n,
        "brier": lambda: _total(left, groups.square[0], stayed, groups.square[1]) / n,
        "ece": ece,
        "accuracy": lambda: (hit + stayers - false) / n,
        "precision": lambda: _ratio(hit, hit + false, 0.0),
        "recall": lambda: _ratio(hit, churners, 0.0),
        "f1": lambda: _ratio(2 * hit, hit + false + churners, 0.0),
    }


def _ratio(part: np.ndarray, whole: np.ndarray, otherwise: float) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), otherwise), where=whole > 0)


def _total(
    left: np.ndarray, of_left: np.ndarray, stayed: np.ndarray, of_stayed: np.ndarray
) -> np.ndarray:
    return np.einsum("rg,g->r", left, of_left) + np.einsum("rg,g->r", stayed, of_stayed)


def _ece(reached: np.ndarray, gap: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error from the cumulative count and the cumulative (probability -
    outcome)."""
    edges = np.linspace(0, reached[-1], bins + 1)
    at_edges = np.interp(edges, np.concatenate([[0], reached]), np.concatenate([[0], gap]))
    return float(np.abs(np.diff(at_edges)).sum() / reached[-1])


def _group_means(group: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(group, values, minlength=size) / np.maximum(
        np.bincount(group, minlength=size), 1
    )


def will_churn(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Who is said to leave: probability above the threshold (at .5 this is scikit-learn's own
    ``predict``)."""
    return np.asarray(probability) > threshold
