"""The view of MLflow's table of runs that the pipeline and sweeps link to."""

import json

import mlflow

from churnlab.tracking.view import models_view
from support.champions import store_at
from support.stores import write_run


def test_the_view_shows_the_train_runs_best_first_with_their_model_and_scores(home):
    with store_at(home):
        client = mlflow.MlflowClient()
        found = client.get_run(write_run(client, "train", status="FINISHED")).info
        address = models_view("demo", metric="roc_auc")
        tags = client.get_experiment(found.experiment_id).tags
    shown = json.loads(tags["mlflow.sharedViewState.churnlab"])
    assert address == (
        f"http://127.0.0.1:5000/#/experiments/{found.experiment_id}/runs?viewStateShareKey=churnlab"
    )
    assert (shown["orderByKey"], shown["orderByAsc"]) == ("metrics.`cv_roc_auc`", False)
    assert shown["searchFilter"] == "tags.`churnlab.command` = 'train'"
    assert shown["selectedColumns"][:3] == [
        "tags.`model`",
        "tags.`features`",
        "metrics.`cv_roc_auc`",
    ]
