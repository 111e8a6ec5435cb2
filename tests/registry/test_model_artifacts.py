"""How models are logged: what they are called, what they carry, and what that leaves behind."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from churnlab.bundle.skops_types import TRUSTED
from churnlab.data.contract import Column, Contract
from churnlab.data.dataset import Dataset, make_dataset
from churnlab.data.table import in_memory
from churnlab.models.features import Features
from churnlab.models.pipelines import pipeline
from churnlab.registry.model_artifacts import load_pipeline, log_pipeline
from churnlab.tracking import store
from support.champions import store_at
from support.running import environment

TRAINED = """
import json, sys
from churnlab.__main__ import main

code = main(["train", "dataset.rows=300", "evaluation.folds=2"])
from mlflow.utils import requirements_utils

modules = list(sys.modules)
first = modules.index("skops.io") < modules.index("mlflow")
print(json.dumps([code, first, requirements_utils._MODULES_TO_PACKAGES]))
"""


@pytest.mark.slow
def test_a_train_run_reads_no_list_of_packages_and_searches_no_module_of_mlflow(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", TRAINED],
        env=environment(tmp_path / "home"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    *_, result, found = ended.stdout.splitlines()
    assert json.loads(found) == [0, True, None]
    assert "run_id" in json.loads(result)


COLUMNS = {"Age": Column(kind="numeric", min=14, whole=True), "Plan": Column(kind="category")}


@pytest.fixture
def experiment(home: Path) -> Iterator[str]:
    with store_at(home):
        yield store.experiment_id("demo-churn")


@pytest.fixture
def dataset() -> Dataset:
    members = {"Age": [20, 30, 40, 50], "Plan": ["a", "b", "a", "b"], "Churn": [0, 1, 0, 1]}
    contract = Contract("demo", "Churn", 1, COLUMNS)
    return make_dataset(in_memory(pd.DataFrame(members), source="invented"), contract)


def fitted(dataset: Dataset, estimator: Any) -> Pipeline:
    features = Features(list(COLUMNS), {"months": "Age * 12"})
    return pipeline(estimator, features=features, columns=COLUMNS, scale=True).fit(
        dataset.X, dataset.y
    )


def test_a_model_takes_the_name_of_its_run_without_the_signs_that_mlflow_forbids(
    experiment, dataset
):
    name = """клуб/a:b.c%d"e'f #1? C=0.1"""
    with mlflow.start_run(experiment_id=experiment, run_name=name) as run:
        model_id, size = log_pipeline(fitted(dataset, LogisticRegression()), dataset)
    assert mlflow.get_logged_model(model_id).name == "клуб_a_b_c_d_e_f #1? C=0_1"
    assert size > 1000
    assert load_pipeline(run.info.run_id)[-1].n_features_in_ == 4
    loaded = mlflow.pyfunc.load_model(f"models:/{model_id}")
    (age, plan), *others = loaded.input_example[["Age", "Plan"]].to_numpy()
    assert not others
    assert (age, plan) not in {(20, "a"), (30, "b"), (40, "a"), (50, "b")}
    assert loaded.predict(loaded.input_example).shape == (1, 2)


def test_a_run_from_before_whose_model_is_called_model_is_loaded(experiment, dataset):
    model = fitted(dataset, LogisticRegression())
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.sklearn.log_model(
            model,
            name="model",
            pip_requirements=[],
            pyfunc_predict_fn="predict_proba",
            skops_trusted_types=TRUSTED,
        )
    again = load_pipeline(run.info.run_id)
    assert np.array_equal(again.predict_proba(dataset.X), model.predict_proba(dataset.X))


def test_a_class_of_ones_own_is_logged_and_the_import_path_stays(
    experiment, dataset, tmp_path, monkeypatch, capfd
):
    (tmp_path / "mine_logged.py").write_text(
        "from sklearn.linear_model import LogisticRegression\n"
        "class Mine(LogisticRegression):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine, before = importlib.import_module("mine_logged"), [*sys.path]
    with mlflow.start_run(experiment_id=experiment) as run:
        log_pipeline(fitted(dataset, mine.Mine()), dataset, trusted=["mine_logged.Mine"])
    assert sys.path == before
    assert sys.modules["mine_logged"] is mine
    assert type(load_pipeline(run.info.run_id)[-1]).__name__ == "Mine"
    assert "Failed to validate" not in capfd.readouterr().err
