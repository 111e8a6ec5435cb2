"""Open MLflow's table of runs where it answers something: the models of a dataset, best first."""

from __future__ import annotations

import json
from collections.abc import Sequence

import mlflow

from churnlab.evaluation.metric_names import LOWER_IS_BETTER
from churnlab.tracking.names import EXPERIMENTS, Label, Tag

KEY = "churnlab"
"""The name of the view, which MLflow keeps as a tag of the experiment and opens by this key."""


def models_view(
    dataset_name: str, *, metric: str, params: Sequence[str] = (), name: str = KEY
) -> str:
    """Keep a view of the train runs in their experiment, and return its address in the MLflow UI.

    ``params`` are further columns: what a sweep varied; each sweep has a view of its ``name``.
    MLflow has no function for that: its own button "Share view" writes the same tag. The address is
    that of the server, or of a ``mlflow ui`` on this machine.
    """
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(f"{dataset_name}-{EXPERIMENTS['train']}")
    scores = dict.fromkeys([f"cv_{metric}", "cv_log_loss", "cv_roc_auc", "test_roc_auc"])
    if params:  # which MLflow shows to the right of the metrics
        scores = dict.fromkeys([f"cv_{metric}", "cv_roc_auc"])
    labels = [f"tags.`{label}`" for label in (Label.MODEL, Label.FEATURES)]
    state = {
        "searchFilter": f"tags.`{Tag.COMMAND}` = 'train'",
        "orderByKey": f"metrics.`cv_{metric}`",
        "orderByAsc": metric in LOWER_IS_BETTER,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [
            *labels,
            *(f"params.`{param}`" for param in params),
            *(f"metrics.`{score}`" for score in scores),
        ],
    }
    client.set_experiment_tag(
        experiment.experiment_id, f"mlflow.sharedViewState.{name}", json.dumps(state)
    )
    uri = mlflow.get_tracking_uri()
    server = uri.rstrip("/") if uri.startswith("http") else "http://127.0.0.1:5000"
    # Without the type a browser that has not been here opens the view of GenAI applications.
    query = f"viewStateShareKey={name}&workflowType=machine_learning"
    return f"{server}/#/experiments/{experiment.experiment_id}/runs?{query}"
