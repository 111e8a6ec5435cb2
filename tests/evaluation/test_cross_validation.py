"""Out-of-fold predictions and metrics, and the reference numbers of the real table."""

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn import metrics as sk
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from churnlab.data.contract import Column
from churnlab.errors import InputError
from churnlab.evaluation.cross_validation import (
    cross_fitted_thresholds,
    cv_metrics,
    estimator_metrics,
    fold_metrics,
    fold_predictions,
    preparation,
)
from churnlab.evaluation.performance import classification_metrics
from churnlab.models.features import Features
from churnlab.models.pipelines import fit, pipeline
from churnlab.models.splits import hold_out, make_folds


def cross_validate(model, X, y, folds, *, threshold: float, rows):
    """Out-of-fold predictions and the metrics of each fold."""
    predictions = fold_predictions(model, X, y, folds, rows=rows)
    return predictions, fold_metrics(predictions, threshold=threshold)


def confusion(y: np.ndarray, p: np.ndarray) -> list[int]:
    return [int(count) for count in sk.confusion_matrix(y, p > 0.5).ravel()]


@pytest.fixture(scope="module")
def members() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(5)
    X = pd.DataFrame(
        {"a": rng.normal(size=150), "b": rng.normal(size=150), "plan": rng.choice(["x", "y"], 150)}
    )
    y = (X["a"] + 2 * (X["b"].abs() > 1) + rng.normal(size=150) > 0.8).astype(int).to_numpy()
    return X, y


COLUMNS = {
    "a": Column("numeric"),
    "b": Column("numeric"),
    "plan": Column("category", values=("x", "y")),
}


@pytest.mark.parametrize("keep", [["a", "b"], ["a", "plan", "b"]])
def test_out_of_fold_predictions_come_from_pipelines_that_never_saw_the_member(members, keep):
    X, y = members
    rows = np.arange(1000, 1150)
    model = pipeline(
        LogisticRegression(),
        features=Features(keep, {"size": "abs(b)"}),
        columns=COLUMNS,
        scale=True,
    )
    folds = make_folds(y, folds=4, repeats=2, seed=0)
    predictions, per_fold = cross_validate(model, X, y, folds, threshold=0.5, rows=rows)
    assert predictions.columns.tolist() == ["row", "y", "probability", "fold", "repeat"]
    assert not hasattr(model["estimator"], "coef_")
    for repeat, part in predictions.groupby("repeat"):
        assert sorted(part["row"]) == rows.tolist(), repeat
        assert part.sort_values("row")["y"].tolist() == y.tolist()
    fold = folds[5]
    expected = fit(model, X.iloc[fold.train], y[fold.train]).predict_proba(X.iloc[fold.validation])[
        :, 1
    ]
    part = predictions[(predictions["repeat"] == 1) & (predictions["fold"] == 1)]
    assert part["row"].tolist() == rows[fold.validation].tolist()
    np.testing.assert_allclose(part["probability"], expected, rtol=1e-12)
    assert per_fold[5] == classification_metrics(
        y[fold.validation], part["probability"].to_numpy(), threshold=0.5
    )
    assert fold_metrics(predictions, threshold=0.5) == per_fold


def test_cross_validation_gives_the_same_bits_twice(members):
    X, y = members
    forest = RandomForestClassifier(10, random_state=0)
    model = pipeline(forest, features=Features(["a", "b"], {}), columns=COLUMNS, scale=False)
    folds = make_folds(y, folds=3, repeats=1, seed=0)
    first, _ = cross_validate(model, X, y, folds, threshold=0.5, rows=np.arange(150))
    second, _ = cross_validate(model, X, y, folds, threshold=0.5, rows=np.arange(150))
    pd.testing.assert_frame_equal(first, second, check_exact=True)


class Silent(LogisticRegression):
    """A classifier whose probabilities are nan."""

    def predict_proba(self, X):
        return np.full((len(X), 2), np.nan)


def test_probabilities_of_nan_are_refused(members):
    X, y = members
    model = pipeline(Silent(), features=Features(["a"], {}), columns=COLUMNS, scale=True)
    folds = make_folds(y, folds=2, repeats=1, seed=0)
    with pytest.raises(InputError, match="Silent gave a probability that is not between 0 and 1"):
        cross_validate(model, X, y, folds, threshold=0.5, rows=np.arange(150))


def test_metrics_over_folds_are_their_mean_and_standard_deviation():
    metrics = cv_metrics([{"f1": 0.5, "brier": 0.1}, {"f1": 0.7, "brier": 0.1}])
    assert metrics == pytest.approx(
        {"cv_f1": 0.6, "cv_brier": 0.1, "cv_f1_std": 0.02**0.5, "cv_brier_std": 0}
    )


# The real table (reference numbers of the project)


@pytest.fixture(scope="module")
def gym(gym_csv, pytestconfig):
    conf = pytestconfig.rootpath / "conf"
    dataset = yaml.safe_load((conf / "dataset" / "gym.yaml").read_text())
    table = pd.read_csv(gym_csv)
    columns = {name: Column(keys["kind"]) for name, keys in dataset["columns"].items()}

    def model(estimator, features: str = "raw", *, scale: bool):
        derive = yaml.safe_load((conf / "features" / f"{features}.yaml").read_text())["derive"]
        return pipeline(
            estimator, features=Features(list(columns), derive), columns=columns, scale=scale
        )

    return table[list(columns)].astype("float64"), table[dataset["target"]].to_numpy(), model


def logistic() -> LogisticRegression:
    return LogisticRegression(max_iter=1000, random_state=0)


@pytest.mark.parametrize(
    ("stratify", "scale", "cells", "auc", "log_loss"),
    [
        (False, True, [574, 28, 34, 164], 0.9706, 0.1832),
        (False, False, [575, 27, 34, 164], 0.9708, 0.1839),
        (True, True, [567, 21, 31, 181], 0.9780, 0.1656),
        (True, False, [566, 22, 32, 180], 0.9780, 0.1648),
    ],
)
def test_logistic_regression_reproduces_the_courses_table(
    gym, stratify, scale, cells, auc, log_loss
):
    X, y, model = gym
    train, test = hold_out(y, test_size=0.2, stratify=stratify, seed=0)
    p = fit(model(logistic(), scale=scale), X.iloc[train], y[train]).predict_proba(X.iloc[test])[
        :, 1
    ]
    metrics = classification_metrics(y[test], p, threshold=0.5)
    np.testing.assert_allclose(confusion(y[test], p), cells, atol=1)
    assert metrics["roc_auc"] == pytest.approx(auc, abs=0.0002)
    assert metrics["log_loss"] == pytest.approx(log_loss, abs=0.0005)


@pytest.mark.parametrize(
    ("stratify", "expected"),
    [
        (
            False,
            {
                "accuracy": 0.915,
                "precision": 0.8385,
                "recall": 0.8131,
                "f1": 0.8256,
                "roc_auc": 0.968,
            },
        ),
        (
            True,
            {
                "accuracy": 0.9225,
                "precision": 0.875,
                "recall": 0.8255,
                "f1": 0.8495,
                "roc_auc": 0.9703,
            },
        ),
    ],
)
def test_the_random_forest_reproduces_the_courses_table(gym, stratify, expected):
    X, y, model = gym
    train, test = hold_out(y, test_size=0.2, stratify=stratify, seed=0)
    forest = model(RandomForestClassifier(100, random_state=0), scale=False)
    p = fit(forest, X.iloc[train], y[train]).predict_proba(X.iloc[test])[:, 1]
    metrics = classification_metrics(y[test], p, threshold=0.5)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("features", "auc", "log_loss"), [("raw", 0.9757, 0.172), ("behaviour", 0.9908, 0.0995)]
)
def test_cross_validation_reaches_the_acceptance_targets(gym, features, auc, log_loss):
    X, y, model = gym
    train, _ = hold_out(y, test_size=0.2, stratify=True, seed=0)
    folds = make_folds(y[train], folds=5, repeats=1, seed=0)
    made = model(logistic(), features, scale=True)
    _, per_fold = cross_validate(made, X.iloc[train], y[train], folds, threshold=0.5, rows=train)
    metrics = cv_metrics(per_fold)
    assert metrics["cv_roc_auc"] == pytest.approx(auc, abs=0.0001)
    assert metrics["cv_log_loss"] == pytest.approx(log_loss, abs=0.0003)


def test_cross_validation_agrees_with_scikit_learn_on_the_real_table(gym):
    X, y, model = gym
    folds = make_folds(y, folds=5, repeats=1, seed=0)
    rows = np.arange(len(y))
    predictions, _ = cross_validate(
        model(logistic(), scale=True), X, y, folds, threshold=0.5, rows=rows
    )
    plain = make_pipeline(StandardScaler(), logistic())
    for fold in folds:
        expected = plain.fit(X.iloc[fold.train], y[fold.train]).predict_proba(
            X.iloc[fold.validation]
        )[:, 1]
        np.testing.assert_allclose(
            predictions.loc[predictions["fold"] == fold.fold, "probability"], expected, atol=1e-6
        )


def test_gaps_are_filled_from_the_train_part_of_each_fold_alone():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.normal(size=60), "b": rng.normal(size=60)})
    y = (X["a"] + rng.normal(size=60) > 0).astype(int).to_numpy()
    X.loc[rng.choice(60, 9, replace=False), "a"] = np.nan
    features = Features(["a", "b"], {"c": "a * b"})
    columns = {name: Column(kind="numeric") for name in X}
    model = pipeline(LogisticRegression(), features=features, columns=columns, scale=False)
    folds = make_folds(y, folds=3, repeats=1, seed=0)
    for prepared in map(preparation(model, X, y), folds):
        train, validation = (
            X.iloc[rows] for rows in (prepared.fold.train, prepared.fold.validation)
        )
        for rows, made in ((train, prepared.train), (validation, prepared.validation)):
            filled = rows.fillna({"a": train["a"].quantile(interpolation="lower")})
            np.testing.assert_array_equal(
                made, filled.assign(c=filled["a"] * filled["b"]).to_numpy()
            )
    scores = estimator_metrics(model[-1], map(preparation(model, X, y), folds))
    assert scores == cross_validate(model, X, y, folds, threshold=0.5, rows=np.arange(60))[1]


def test_each_folds_threshold_is_chosen_on_the_other_folds_of_its_draw():
    seen = []

    def choose(y: np.ndarray, probability: np.ndarray) -> float:
        seen.append(sorted(probability))
        return float(probability.max())

    table = pd.DataFrame(
        {
            "y": [0, 1, 0, 1],
            "probability": [0.1, 0.2, 0.3, 0.4],
            "fold": [0, 1, 0, 1],
            "repeat": [0, 0, 1, 1],
        }
    )
    assert cross_fitted_thresholds(table, choose).tolist() == [0.2, 0.1, 0.4, 0.3]
    assert seen == [[0.2], [0.1], [0.4], [0.3]]


def test_metrics_of_folds_are_at_their_own_thresholds():
    table = pd.DataFrame(
        {"y": [0, 1, 0, 1], "probability": [0.4, 0.6] * 2, "fold": [0, 0, 1, 1], "repeat": 0}
    )
    own = fold_metrics(table.assign(threshold=[0.5, 0.5, 0.7, 0.7]))
    assert [scores["recall"] for scores in own] == [1, 0]
    assert own[0] == fold_metrics(table, threshold=0.5)[0]
    assert fold_metrics(table.assign(threshold=0.5)) == fold_metrics(table, threshold=0.5)
