"""Log a train run's scores and read them back: values as MLflow metrics, spreads in metrics.csv.

A metric with its deviation and both ends of its interval would be four columns in MLflow's view.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from mlflow.entities import Run

from churnlab.tracking import artifacts
from churnlab.tracking.names import Artifact
from churnlab.tracking.runs import log_metrics

SPREADS = ("std", "low", "high", "floor")
"""Deviation over the folds, ends of the 95% CI, and the noise floor: columns of metrics.csv, and
endings of a score's name (``test_roc_auc_low``)."""


def log_scores(scores: Mapping[str, float], *, model_id: str) -> None:
    """Log all scores in metrics.csv, one row per metric, and those that are no spread in MLflow, as
    the run's and its model's."""
    table: dict[str, dict[str, float]] = {}
    for name, value in scores.items():
        metric, _, ending = name.rpartition("_")
        key = (metric, ending) if ending in SPREADS else (name, "value")
        table.setdefault(key[0], {})[key[1]] = value
    log_metrics({name: row["value"] for name, row in table.items()}, model_id=model_id)
    frame = pd.DataFrame.from_dict(table, orient="index").reindex(columns=["value", *SPREADS])
    artifacts.log_table(frame.rename_axis("metric").reset_index(), Artifact.METRICS)


def cv_scores(run: Run) -> dict[str, float]:
    """Return the cross-validated metrics of a run, which its parents carry, too."""
    endings = tuple(f"_{ending}" for ending in SPREADS)  # metrics of older runs
    return {
        name: value
        for name, value in run.data.metrics.items()
        if name.startswith("cv_") and not name.endswith(endings)
    }


def scores_of(run: Run) -> dict[str, float]:
    """Return a run's metrics together with their spreads; older runs logged all as metrics."""
    table = artifacts.find_table(run.info.run_id, Artifact.METRICS)
    scores = dict(run.data.metrics)
    if table is None:
        return scores
    for row in table.to_dict("records"):
        known = {ending: row[ending] for ending in SPREADS if row[ending] == row[ending]}
        scores |= {f"{row['metric']}_{ending}": value for ending, value in known.items()}
    return scores
