"""The table of metrics: names, labels and choices follow from it (values: test_evaluation)."""

import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from sklearn.linear_model import LogisticRegression

from churnlab.evaluation.metric_names import LABELS, LOWER_IS_BETTER, METRICS, Metric, Score01
from churnlab.evaluation.metrics import all_metrics, group_members, one_metric, will_churn
from churnlab.models.decision import ContactEconomics


def test_the_names_of_the_metrics_are_a_contract():
    contract = {"roc_auc", "average_precision", "log_loss", "brier", "ece", "accuracy"}
    assert contract | {"precision", "recall", "f1"} <= METRICS.keys()


def test_everything_about_a_metric_follows_from_its_entry():
    assert get_args(Metric) == tuple(METRICS) == tuple(LABELS)
    assert {"log_loss", "brier", "ece"} <= LOWER_IS_BETTER
    assert set(get_args(Score01)) == {
        name
        for name, metric in METRICS.items()
        if metric.unit_interval and name not in LOWER_IS_BETTER
    }
    assert LABELS["ece"] == "calibration error"


def test_a_name_that_is_no_metric_is_refused_with_all_names():
    assert TypeAdapter(Metric).validate_python("brier") == "brier"
    with pytest.raises(ValidationError, match="'roc_auc', 'average_precision', 'log_loss'"):
        TypeAdapter(Metric).validate_python("auc")
    with pytest.raises(ValidationError):
        TypeAdapter(Score01).validate_python("log_loss")


def test_the_table_of_metrics_imports_no_numpy():
    code = "import sys, churnlab.evaluation.metric_names; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", METRICS)
def test_one_metric_alone_equals_the_same_of_all_in_every_resample(name):
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 200), rng.random(200).round(1)
    groups = group_members(y, p, 0.45, costs=ContactEconomics(100, 2, 10, success=0.3, accept=0.5))
    left, stayed = rng.multinomial(100, np.ones(11) / 11, (2, 30)).astype(float)
    assert len(groups.left) == 11
    alone = one_metric(groups, left, stayed, metric=name)
    assert alone.shape == (30,)
    np.testing.assert_array_equal(alone, all_metrics(groups, left, stayed)[name])
    if METRICS[name].unit_interval:
        assert ((alone >= 0) & (alone <= 1)).all()


def test_churn_above_one_half_is_predicted_as_by_scikit_learn():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 2)), rng.integers(0, 2, 200)
    model = LogisticRegression().fit(X, y)
    np.testing.assert_array_equal(
        will_churn(model.predict_proba(X)[:, 1], 0.5), model.predict(X) == 1
    )
    assert will_churn(np.array([0.5]), 0.5).tolist() == [False]
