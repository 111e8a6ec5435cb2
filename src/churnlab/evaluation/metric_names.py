"""The metrics of a churn model: a new one is one entry of METRICS.

Light to import, because a config is checked before numpy is worth its start-up time: an entry's
``compute`` uses what `churnlab.evaluation.metrics.Counts` offers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from churnlab.models.decision import ContactEconomics


class MetricEntry(NamedTuple):
    """A metric's label, its computation from Counts to (resample,) values, and its kind.

    ``margin``: a smaller difference between two models does not matter in practice.
    ``thresholded``: it depends only on who is above the threshold. ``unit_interval``: its values
    lie in [0, 1]. ``resampling_bias``: resampling the members inflates it, as it does a sum of
    absolute gaps in [0, 1]: it has a CI of its own. ``share_of`` returns part and whole of a metric
    that is a share of members, or that ``from_share`` computes from such a share. ``needs_costs``:
    it is an amount of money per member, which only a decision with the costs of a contact gives;
    its margin is a share of what a member who stays is worth.
    """

    label: str
    compute: Callable[[Any], Any]
    margin: float = 0.02
    thresholded: bool = False
    lower_is_better: bool = False
    unit_interval: bool = True
    resampling_bias: bool = False
    share_of: Callable[[Any], tuple[Any, Any]] | None = None
    from_share: Callable[[float], float] = float
    needs_costs: bool = False


METRICS = {
    "roc_auc": MetricEntry("ROC AUC", lambda c: c.roc_auc(), margin=0.01),
    "average_precision": MetricEntry("average precision", lambda c: c.average_precision()),
    "log_loss": MetricEntry(
        "log loss",
        lambda c: c.mean(c.groups.loss),
        margin=0.01,
        lower_is_better=True,
        unit_interval=False,
    ),
    "brier": MetricEntry(
        "Brier score", lambda c: c.mean(c.groups.square), margin=0.005, lower_is_better=True
    ),
    "ece": MetricEntry(
        "calibration error",
        lambda c: c.calibration_error(),
        lower_is_better=True,
        resampling_bias=True,
    ),
    "accuracy": MetricEntry(
        "accuracy",
        lambda c: (c.hits + c.stayers - c.false_alarms) / c.n,
        thresholded=True,
        share_of=lambda c: (c.hits + c.stayers - c.false_alarms, c.n),
    ),
    "precision": MetricEntry(
        "precision",
        lambda c: c.ratio(c.hits, c.hits + c.false_alarms),
        thresholded=True,
        share_of=lambda c: (c.hits, c.hits + c.false_alarms),
    ),
    "recall": MetricEntry(
        "recall",
        lambda c: c.ratio(c.hits, c.churners),
        thresholded=True,
        share_of=lambda c: (c.hits, c.churners),
    ),
    # The share of hits among those who left or are predicted to leave, J, gives F1 = 2 J / (1 + J)
    # (Hand, Christen and Kirielle, 2021, Machine Learning 110:451).
    "f1": MetricEntry(
        "F1",
        lambda c: c.ratio(2 * c.hits, c.hits + c.false_alarms + c.churners),
        thresholded=True,
        share_of=lambda c: (c.hits, c.false_alarms + c.churners),
        from_share=lambda share: 2 * share / (1 + share),
    ),
    "profit": MetricEntry(
        "profit per member",
        lambda c: c.profit(),
        margin=0.002,
        thresholded=True,
        unit_interval=False,
        needs_costs=True,
    ),
    "empc": MetricEntry(
        "expected maximum profit per member",
        lambda c: c.expected_maximum_profit(),
        margin=0.002,
        unit_interval=False,
        needs_costs=True,
    ),
}


def practical_margin(metric: str, costs: ContactEconomics | None = None) -> float:
    """Return the difference in a metric, in its own unit, below which two models are equal in
    practice; ``costs`` are those of a contact.

    >>> practical_margin("log_loss")
    0.01
    """
    entry = METRICS[metric]
    if not entry.needs_costs or costs is None:
        return entry.margin
    return entry.margin * costs.retained_value


LABELS = {name: metric.label for name, metric in METRICS.items()}
"""How people call each metric."""

LOWER_IS_BETTER = {name for name, metric in METRICS.items() if metric.lower_is_better}
"""Metrics that are losses."""

WITHOUT_COSTS = [name for name, metric in METRICS.items() if not metric.needs_costs]
"""Metrics that every model has, whatever its decision."""

SHARES = [name for name, metric in METRICS.items() if metric.unit_interval]
"""Metrics in [0, 1]."""

if TYPE_CHECKING:  # mypy knows no Literal made at run time
    Metric: TypeAlias = str
    MetricWithoutCosts: TypeAlias = str
    Score01: TypeAlias = str
else:
    Metric = Literal[tuple(METRICS)]
    MetricWithoutCosts = Literal[tuple(WITHOUT_COSTS)]
    Score01 = Literal[tuple(name for name in SHARES if name not in LOWER_IS_BETTER)]
