"""The nine metrics of a churn model: their names, how people call them, and which of them are
losses."""

from __future__ import annotations

from typing import Literal

Score01 = Literal["roc_auc", "average_precision", "accuracy", "precision", "recall", "f1"]


LOWER_IS_BETTER = {"log_loss", "brier", "ece"}
"""Metrics that are losses."""


Metric = Literal[
    "roc_auc",
    "average_precision",
    "log_loss",
    "brier",
    "ece",
    "accuracy",
    "precision",
    "recall",
    "f1",
]


METRICS = {
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
}
