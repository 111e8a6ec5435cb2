"""Compute the metrics of a churn model for many resamples of the same members at once."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

from churnlab.evaluation.metric_names import METRICS, WITHOUT_COSTS
from churnlab.evaluation.profit import expected_maximum_profit
from churnlab.models.decision import ContactEconomics, earned_by

CLIP = 0.001
"""Probabilities are clipped to [CLIP, 1 - CLIP] where their logarithm is taken."""

ECE_BINS = 10
"""The calibration error compares predicted with observed churn in this many bins of equal size."""


class Groups(NamedTuple):
    """Members grouped by probability, the highest first: (group,) counts, (2, group) means.

    ``loss`` and ``square`` are the log loss and the squared error, [of those who left, of those who
    stayed], ``probability`` likewise; the first ``marked`` groups are above the threshold.
    ``costs`` are those of a contact, if the decision has any.
    """

    left: np.ndarray
    stayed: np.ndarray
    loss: np.ndarray
    square: np.ndarray
    probability: np.ndarray
    marked: int
    costs: ContactEconomics | None = None


def group_members(
    y: np.ndarray,
    probability: np.ndarray,
    threshold: float,
    *,
    most: int | None = None,
    costs: ContactEconomics | None = None,
) -> Groups:
    """Group members by probability; pool neighbors if more than ``most`` are distinct.

    Pooled groups are about ``most`` in number and of about equal size; none straddles the
    threshold.
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
        probability=means(p, p),
        marked=marked,
        costs=costs,
    )


class Counts:
    """The members of each resample in each group: what every metric is computed from.

    ``left`` and ``stayed`` are (resample, group). ``n``, ``churners``, ``stayers``, ``hits``
    (churners above the threshold) and ``false_alarms`` (stayers above it) are (resample,) counts.
    """

    def __init__(self, groups: Groups, left: np.ndarray, stayed: np.ndarray) -> None:
        self.groups, self.left, self.stayed = groups, left, stayed
        self.churners, self.stayers = left.sum(axis=1), stayed.sum(axis=1)
        self.n = self.churners + self.stayers

    @cached_property
    def left_so_far(self) -> np.ndarray:
        return np.cumsum(self.left, axis=1)

    @cached_property
    def stayed_so_far(self) -> np.ndarray:
        return np.cumsum(self.stayed, axis=1)

    @cached_property
    def hits(self) -> np.ndarray:
        return self._above_threshold(self.left)

    @cached_property
    def false_alarms(self) -> np.ndarray:
        return self._above_threshold(self.stayed)

    def _above_threshold(self, counts: np.ndarray) -> np.ndarray:
        return counts[:, : self.groups.marked].sum(axis=1)

    def ratio(self, part: np.ndarray, whole: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
        """Divide part by whole; ``otherwise`` where whole is 0."""
        return np.divide(part, whole, out=np.full(len(whole), otherwise), where=whole > 0)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Average over the members; ``values`` is (2, group) as in Groups."""
        of_left, of_stayed = values
        total = np.einsum("rg,g->r", self.left, of_left)
        return (total + np.einsum("rg,g->r", self.stayed, of_stayed)) / self.n

    def roc_auc(self) -> np.ndarray:
        """Return the share of (churner, stayer) pairs in which the churner ranks higher."""
        ordered = np.einsum("rg,rg->r", self.stayed, self.left_so_far - self.left / 2)
        return self.ratio(ordered, self.churners * self.stayers, np.nan)

    def average_precision(self) -> np.ndarray:
        """Return the precision at each churner, averaged over the churners."""
        reached = self.left_so_far + self.stayed_so_far
        precision = np.divide(
            self.left_so_far, reached, out=np.zeros_like(self.left_so_far), where=reached > 0
        )
        return self.ratio(np.einsum("rg,rg->r", self.left, precision), self.churners, np.nan)

    def calibration_error(self) -> np.ndarray:
        """Return the mean gap between probability and outcome over ECE_BINS bins of equal size."""
        of_left, of_stayed = self.groups.probability
        gaps = np.cumsum(self.left * (of_left - 1) + self.stayed * of_stayed, axis=1)
        reached = self.left_so_far + self.stayed_so_far
        return np.array([_calibration_error(*row) for row in zip(reached, gaps, strict=True)])

    def profit(self) -> np.ndarray:
        """Return what contacting the members above the threshold earns, per member."""
        assert self.groups.costs is not None
        return earned_by(self.hits, self.false_alarms, self.groups.costs) / self.n

    def expected_maximum_profit(self) -> np.ndarray:
        """Return the EMPC per member."""
        assert self.groups.costs is not None
        return expected_maximum_profit(self.left, self.stayed, self.groups.costs)


def all_metrics(groups: Groups, left: np.ndarray, stayed: np.ndarray) -> dict[str, np.ndarray]:
    """Return every metric of each resample; ``left`` and ``stayed`` are counts (resample, group).

    One resample of ``groups.left`` and ``groups.stayed`` themselves gives the sample's own metrics.
    Those that need costs are left out where ``groups`` has none.
    Precision, recall and f1 are 0, and roc_auc and average_precision nan, where the denominator
    is 0.
    """
    counts = Counts(groups, left, stayed)
    return {name: METRICS[name].compute(counts) for name in computable(groups)}


def computable(groups: Groups) -> list[str]:
    """Return the metrics that these groups have: without costs not those of money."""
    return WITHOUT_COSTS if groups.costs is None else list(METRICS)


def one_metric(groups: Groups, left: np.ndarray, stayed: np.ndarray, *, metric: str) -> np.ndarray:
    """Return one metric of each resample, in a fifth of the time that all take."""
    return METRICS[metric].compute(Counts(groups, left, stayed))


def _calibration_error(reached: np.ndarray, gaps: np.ndarray) -> float:
    """Return the error of one resample from cumulative members and (probability - outcome)."""
    edges = np.linspace(0, reached[-1], ECE_BINS + 1)
    at_edges = np.interp(edges, np.concatenate([[0], reached]), np.concatenate([[0], gaps]))
    return float(np.abs(np.diff(at_edges)).sum() / reached[-1])


def _group_means(group: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """Average values by group: (size,), 0 for an empty group."""
    return np.bincount(group, values, minlength=size) / np.maximum(
        np.bincount(group, minlength=size), 1
    )


def will_churn(probability: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """Predict churn where probability > threshold (at 0.5 this is scikit-learn's ``predict``).

    >>> will_churn(np.array([0.2, 0.5, 0.8]), 0.5).tolist()
    [False, False, True]
    """
    return np.asarray(probability) > threshold


def log_losses(y: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return the log loss of each member; probability is (members,) or (repeats, members)."""
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    return -np.log(np.where(y == 1, clipped, 1 - clipped))
