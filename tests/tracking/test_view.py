"""What the MLflow UI shows: the view that the pipeline and sweeps link to, and the models."""

import json

import mlflow
import pytest

from churnlab.tracking.view import models_view
from support.champions import store_at
from support.servers import post, ui
from support.stores import write_run


def test_the_view_shows_the_train_runs_best_first_with_their_model_and_scores(home):
    with store_at(home):
        client = mlflow.MlflowClient()
        found = client.get_run(write_run(client, "train", status="FINISHED")).info
        address = models_view("demo", metric="roc_auc")
        tags = client.get_experiment(found.experiment_id).tags
    shown = json.loads(tags["mlflow.sharedViewState.churnlab"])
    assert address == (
        f"http://127.0.0.1:5000/#/experiments/{found.experiment_id}/runs?"
        "viewStateShareKey=churnlab&workflowType=machine_learning"
    )
    assert (shown["orderByKey"], shown["orderByAsc"]) == ("metrics.`cv_roc_auc`", False)
    assert shown["searchFilter"] == "tags.`churnlab.command` = 'train'"
    assert shown["selectedColumns"][:3] == [
        "tags.`model`",
        "tags.`features`",
        "metrics.`cv_roc_auc`",
    ]


def test_each_sweep_has_a_view_with_the_parameters_that_it_varied(home):
    with store_at(home):
        client = mlflow.MlflowClient()
        found = client.get_run(write_run(client, "train", status="FINISHED")).info
        models_view("demo", metric="log_loss")
        varied = {"params": ["model.estimator.C", "seed"], "name": "churnlab-abc"}
        address = models_view("demo", metric="log_loss", **varied)
        tags = client.get_experiment(found.experiment_id).tags
    assert "viewStateShareKey=churnlab-abc&" in address
    columns = {
        key: json.loads(tags[f"mlflow.sharedViewState.{key}"])["selectedColumns"]
        for key in ("churnlab", "churnlab-abc")
    }
    assert columns["churnlab-abc"][2:4] == ["params.`model.estimator.C`", "params.`seed`"]
    assert [name for name in columns["churnlab-abc"] if name not in columns["churnlab"]] == [
        "params.`model.estimator.C`",
        "params.`seed`",
    ]


@pytest.mark.slow
def test_the_tab_of_models_names_each_after_its_run_with_the_scores_on_the_dataset(
    promoted, client_at
):
    client = client_at(promoted.home)
    with ui(promoted.home) as address:
        for line in (promoted.train, promoted.segment):
            run = client.get_run(line["run_id"])
            where = {"experiment_ids": [run.info.experiment_id]}
            code, found = post(address, where, path="api/2.0/mlflow/logged-models/search")
            assert code == 200
            (model,) = found["models"]
            info, data = model["info"], model["data"]
            assert (info["name"], info["source_run_id"]) == (run.info.run_name, run.info.run_id)
            assert info["status"] == "LOGGED_MODEL_READY"
            assert {one["key"]: one["value"] for one in data["params"]} == run.data.params
            of_the_table = {one["key"] for one in data["metrics"] if one["dataset_name"] == "demo"}
            assert {"cv_log_loss", "test_log_loss"} <= of_the_table or "silhouette" in of_the_table
            assert len(of_the_table) == len(data["metrics"]) > 10
