"""The metrics of a churn model: a new one is one entry of METRICS.

Light to import, because a config is checked before numpy is worth its start-up time: an entry's
``compute`` uses what `churnlab.models.metrics.Counts` offers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias


class MetricEntry(NamedTuple):
    """A metric's label, its computation from Counts to (resample,) values, and its kind.

    ``unit_interval``: its values lie in [0, 1]. ``resampling_bias``: resampling the members
    inflates it, as it does a sum of absolute gaps in [0, 1]; CIs are shifted back by that.
    """

    label: str
    compute: Callable[[Any], Any]
    lower_is_better: bool = False
    unit_interval: bool = True
    resampling_bias: bool = False


METRICS = {
    "roc_auc": MetricEntry("ROC AUC", lambda c: c.roc_auc()),
    "average_precision": MetricEntry("average precision", lambda c: c.average_precision()),
    "log_loss": MetricEntry(
        "log loss", lambda c: c.mean(c.groups.loss), lower_is_better=True, unit_interval=False
    ),
    "brier": MetricEntry("Brier score", lambda c: c.mean(c.groups.square), lower_is_better=True),
    "ece": MetricEntry(
        "calibration error",
        lambda c: c.calibration_error(),
        lower_is_better=True,
        resampling_bias=True,
    ),
    "accuracy": MetricEntry("accuracy", lambda c: (c.hits + c.stayers - c.false_alarms) / c.n),
    "precision": MetricEntry("precision", lambda c: c.ratio(c.hits, c.hits + c.false_alarms)),
    "recall": MetricEntry("recall", lambda c: c.ratio(c.hits, c.churners)),
    "f1": MetricEntry("F1", lambda c: c.ratio(2 * c.hits, c.hits + c.false_alarms + c.churners)),
}

LABELS = {name: metric.label for name, metric in METRICS.items()}
"""How people call each metric."""

LOWER_IS_BETTER = {name for name, metric in METRICS.items() if metric.lower_is_better}
"""Metrics that are losses."""

SHARES = [name for name, metric in METRICS.items() if metric.unit_interval]
"""Metrics in [0, 1]."""

if TYPE_CHECKING:  # mypy knows no Literal made at run time
    Metric: TypeAlias = str
    Score01: TypeAlias = str
else:
    Metric = Literal[tuple(METRICS)]
    Score01 = Literal[tuple(name for name in SHARES if name not in LOWER_IS_BETTER)]
