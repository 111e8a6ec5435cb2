import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from churnlab.data.contract import Column
from churnlab.errors import InputError
from churnlab.models import evaluation
from churnlab.models.cross_validation import (
    cv_metrics,
    estimator_metrics,
    fold_metrics,
    fold_predictions,
    prepare_folds,
)
from churnlab.models.evaluation import (
    bootstrap_intervals,
    calibration_line,
    classification_metrics,
    gains,
    reliability,
)
from churnlab.models.features import Features
from churnlab.models.pipelines import fit, pipeline
from churnlab.models.splits import hold_out, make_folds

examples = settings(max_examples=60, deadline=None)

grid = st.integers(0, 12).map(lambda k: k / 12)
samples = st.integers(4, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda y: 0 < sum(y) < n),
        st.one_of(
            st.lists(grid, min_size=n, max_size=n),
            st.lists(st.floats(0, 1), min_size=n, max_size=n),
        ),
    ).map(lambda pair: (np.array(pair[0]), np.array(pair[1])))
)


def sample(n: int, *, seed: int = 0, noise: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes drawn with logistic probabilities, so that the probabilities are honest."""
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-(rng.normal(-1.5, 2 + noise, n))))
    return (rng.random(n) < p).astype(int), p


def cross_validate(model, X, y, folds, *, threshold: float, rows):
    """Out-of-fold predictions and the metrics of each fold."""
    predictions = pd.concat(fold_predictions(model, X, y, folds, rows=rows), ignore_index=True)
    return predictions, fold_metrics(predictions, threshold=threshold)


def confusion(y: np.ndarray, p: np.ndarray) -> list[int]:
    return [int(count) for count in sk.confusion_matrix(y, p > 0.5).ravel()]


# Hold-out and folds


@pytest.mark.parametrize("stratify", [False, True])
def test_the_hold_out_is_scikit_learns_in_its_order(stratify):
    y = np.random.default_rng(0).integers(0, 2, 203)
    train, test = hold_out(y, test_size=0.2, stratify=stratify, seed=3)
    frame = pd.DataFrame({"row": np.arange(203)})
    parts = train_test_split(frame, test_size=0.2, random_state=3, stratify=y if stratify else None)
    assert train.tolist() == parts[0]["row"].tolist()
    assert test.tolist() == parts[1]["row"].tolist()


@examples
@given(st.integers(100, 300), st.floats(0.2, 0.8), st.booleans(), st.integers(0, 2**32 - 1))
def test_training_part_and_hold_out_are_everybody_once(n, test_size, stratify, seed):
    y = np.arange(n) % 2
    train, test = hold_out(y, test_size=test_size, stratify=stratify, seed=seed)
    assert sorted([*train, *test]) == list(range(n))
    if stratify:
        assert abs(y[test].mean() - y.mean()) <= 1 / len(test)


@pytest.mark.parametrize(
    ("y", "test_size", "stratify"),
    [
        ([0, 1], 0.2, False),
        ([0, 1], 0.2, True),
        ([0] * 50 + [1], 0.2, True),
        ([0] * 50 + [1], 0.2, False),
        ([0, 1] * 50, 0.001, False),
        ([0, 1] * 50, 0.999, True),
        ([0, 1] * 50, 1.5, False),
        ([0, 1] * 50, 0.0, False),
        ([1], 0.2, False),
    ],
)
def test_parts_without_both_outcomes_are_refused(y, test_size, stratify):
    with pytest.raises(InputError, match=r"evaluation\.test_size="):
        hold_out(np.array(y), test_size=test_size, stratify=stratify, seed=0)


@examples
@given(st.integers(2, 6), st.integers(1, 3), st.integers(12, 60), st.integers(0, 1000))
def test_the_folds_of_each_repeat_hold_everybody_once(folds, repeats, n, seed):
    y = np.arange(n) % 2
    made = make_folds(y, folds=folds, repeats=repeats, seed=seed)
    assert [(fold.repeat, fold.fold) for fold in made] == [
        (r, f) for r in range(repeats) for f in range(folds)
    ]
    for repeat in range(repeats):
        parts = [fold for fold in made if fold.repeat == repeat]
        assert sorted(np.concatenate([fold.validation for fold in parts])) == list(range(n))
        for fold in parts:
            assert sorted([*fold.train, *fold.validation]) == list(range(n))
            assert 0 < y[fold.validation].sum() < len(fold.validation)


def test_a_repeat_is_drawn_with_the_seed_plus_its_number():
    y = np.random.default_rng(0).integers(0, 2, 100)
    made = make_folds(y, folds=5, repeats=2, seed=7)
    expected = StratifiedKFold(5, shuffle=True, random_state=8).split(y, y)
    for fold, (train, validation) in zip(made[5:], expected, strict=True):
        assert fold.train.tolist() == train.tolist()
        assert fold.validation.tolist() == validation.tolist()


def test_more_folds_than_members_of_a_class_are_refused():
    with pytest.raises(
        InputError, match=r"evaluation\.folds=5 .* of whom 4 left.* from 2 to 4 folds"
    ):
        make_folds(np.array([1] * 4 + [0] * 50), folds=5, repeats=1, seed=0)


# Metrics


@examples
@given(samples, grid)
def test_the_metrics_are_scikit_learns(drawn, threshold):
    y, p = drawn
    said = classification_metrics(y, p, threshold=threshold)
    marked = p > threshold
    assert list(said) == [
        *(
            "roc_auc",
            "average_precision",
            "log_loss",
            "brier",
            "ece",
            "accuracy",
            "precision",
            "recall",
            "f1",
        )
    ]
    expected = {
        "roc_auc": sk.roc_auc_score(y, p),
        "average_precision": sk.average_precision_score(y, p),
        "log_loss": sk.log_loss(y, np.clip(p, 0.001, 0.999)),
        "brier": sk.brier_score_loss(y, p),
        "accuracy": sk.accuracy_score(y, marked),
        "precision": sk.precision_score(y, marked, zero_division=0),
        "recall": sk.recall_score(y, marked, zero_division=0),
        "f1": sk.f1_score(y, marked, zero_division=0),
    }
    assert {name: said[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_the_calibration_error_is_the_mean_gap_of_ten_equal_bins():
    y, p = sample(200)
    order = np.argsort(p)
    gaps = [abs(p[part].mean() - y[part].mean()) for part in np.array_split(order, 10)]
    assert classification_metrics(y, p, threshold=0.5)["ece"] == pytest.approx(np.mean(gaps))


@examples
@given(samples, st.randoms())
def test_the_metrics_do_not_depend_on_the_order_of_the_rows(drawn, random):
    y, p = drawn
    order = list(range(len(y)))
    random.shuffle(order)
    said = classification_metrics(y, p, threshold=0.5)
    assert classification_metrics(y[order], p[order], threshold=0.5) == pytest.approx(
        said, abs=1e-9
    )


def test_one_probability_for_everybody_is_calibrated_when_it_is_the_churn_rate():
    y = np.array([0, 0, 0, 1] * 25)
    said = classification_metrics(y, np.full(100, 0.25), threshold=0.5)
    assert said["ece"] == pytest.approx(0)
    assert said["roc_auc"] == 0.5
    assert said["average_precision"] == 0.25
    assert said["precision"] == said["recall"] == said["f1"] == 0


def test_members_of_one_kind_only_have_no_ranking():
    for y in [np.zeros(5, int), np.ones(5, int)]:
        said = classification_metrics(y, np.linspace(0, 1, 5), threshold=0.5)
        assert np.isnan(said["roc_auc"])
        assert np.isnan(said["average_precision"]) == (y.sum() == 0)
        assert 0 < said["log_loss"] < 5


# Bootstrap


def test_the_intervals_hold_the_value_and_are_those_of_resampled_members():
    y, p = sample(400)
    said = classification_metrics(y, p, threshold=0.4)
    intervals = bootstrap_intervals(y, p, threshold=0.4, resamples=600, seed=1)
    rng = np.random.default_rng(2)
    drawn = [rng.integers(0, 400, 400) for _ in range(600)]
    slow = pd.DataFrame([classification_metrics(y[rows], p[rows], threshold=0.4) for rows in drawn])
    for name, (low, high) in intervals.items():
        assert low <= said[name] <= high
        if name != "ece":
            expected = np.percentile(slow[name], [2.5, 97.5])
            np.testing.assert_allclose(
                [low, high], expected, atol=0.25 * (expected[1] - expected[0])
            )


@examples
@given(samples)
def test_intervals_are_ordered_and_possible(drawn):
    y, p = drawn
    for name, (low, high) in bootstrap_intervals(y, p, threshold=0.5, resamples=50, seed=0).items():
        assert 0 <= low <= high
        assert high <= (-np.log(0.001) if name == "log_loss" else 1 + 1e-9)


def test_the_same_seed_gives_the_same_intervals():
    y, p = sample(300)
    said = bootstrap_intervals(y, p, threshold=0.5, resamples=100, seed=4)
    assert bootstrap_intervals(y, p, threshold=0.5, resamples=100, seed=4) == said
    assert bootstrap_intervals(y, p, threshold=0.5, resamples=100, seed=5) != said


def test_resamples_of_one_kind_only_are_left_out_of_the_ranking():
    y, p = np.array([1] + [0] * 9), np.linspace(0.9, 0.1, 10)
    assert bootstrap_intervals(y, p, threshold=0.5, seed=0)["roc_auc"] == (1.0, 1.0)
    all_stay = bootstrap_intervals(np.zeros(10, int), p, threshold=0.5, seed=0)
    assert np.isnan(all_stay["roc_auc"]).all()
    assert np.isfinite(all_stay["brier"]).all()


def test_pooling_many_probabilities_changes_next_to_nothing(monkeypatch):
    y, p = sample(3000)
    exact = bootstrap_intervals(y, p, threshold=0.37, resamples=2000, seed=0)
    monkeypatch.setattr(evaluation, "GROUPS", 700)
    pooled = bootstrap_intervals(y, p, threshold=0.37, resamples=2000, seed=0)
    for name, limits in exact.items():
        np.testing.assert_allclose(pooled[name], limits, atol=0.1 * (limits[1] - limits[0]))


def test_a_large_hold_out_is_bounded_in_time_and_memory():
    y, p = sample(200_000)
    low, high = bootstrap_intervals(y, p, threshold=0.5, resamples=20, seed=0)["roc_auc"]
    assert low < sk.roc_auc_score(y, p) < high


# Calibration, reliability, gains


def test_honest_probabilities_have_slope_one_and_timid_ones_more():
    y, p = sample(20_000)
    honest = calibration_line(y, p)
    assert honest["slope"] == pytest.approx(1, abs=0.06)
    assert honest["intercept"] == pytest.approx(0, abs=0.08)
    logit = np.log(p / (1 - p)).clip(-6, 6)
    assert calibration_line(y, 1 / (1 + np.exp(-logit / 2)))["slope"] == pytest.approx(2, abs=0.2)


def test_calibration_of_one_probability_has_no_slope():
    said = calibration_line(np.array([0, 1, 0, 0]), np.full(4, 0.25))
    assert np.isnan(said["slope"])
    assert np.isnan(said["intercept"])
    assert said["ece"] == pytest.approx(0)


@examples
@given(samples)
def test_reliability_counts_every_member_once(drawn):
    y, p = drawn
    table = reliability(y, p)
    assert table["members"].sum() == len(y)
    assert (table["members"] * table["churn_rate"]).sum() == pytest.approx(y.sum())
    assert (table["members"] * table["probability"]).sum() == pytest.approx(p.sum())
    assert (table["low"] <= table["churn_rate"] + 1e-9).all()
    assert (table["churn_rate"] <= table["high"] + 1e-9).all()
    assert len(table) <= 10


def test_gains_say_what_the_riskiest_members_hold():
    y = np.array([1, 1, 0, 1, 0, 0, 0, 0, 0, 0])
    p = np.linspace(1, 0.1, 10)
    table = gains(y, p, shares=[0.1, 0.2, 0.4, 1.0])
    assert table["gain"].tolist() == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert table["precision"].tolist() == pytest.approx([1, 1, 0.75, 0.3])
    assert table["lift"].tolist() == pytest.approx([10 / 3, 10 / 3, 2.5, 1])


def test_gains_of_equal_probabilities_are_those_of_chance():
    table = gains(np.array([1, 0, 0, 1]), np.full(4, 0.5), shares=[0.25, 0.5])
    assert table["gain"].tolist() == pytest.approx([0.25, 0.5])


# Cross-validation


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
def test_out_of_fold_predictions_are_those_of_pipelines_that_never_saw_the_member(members, keep):
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
    """A classifier whose probabilities are no numbers."""

    def predict_proba(self, X):
        return np.full((len(X), 2), np.nan)


def test_probabilities_that_are_no_numbers_are_refused(members):
    X, y = members
    model = pipeline(Silent(), features=Features(["a"], {}), columns=COLUMNS, scale=True)
    folds = make_folds(y, folds=2, repeats=1, seed=0)
    with pytest.raises(InputError, match="Silent gave a probability that is not between 0 and 1"):
        cross_validate(model, X, y, folds, threshold=0.5, rows=np.arange(150))


def test_metrics_over_folds_are_their_mean_and_standard_deviation():
    said = cv_metrics([{"f1": 0.5, "brier": 0.1}, {"f1": 0.7, "brier": 0.1}])
    assert said == pytest.approx(
        {"cv_f1": 0.6, "cv_brier": 0.1, "cv_f1_std": 0.02**0.5, "cv_brier_std": 0}
    )


# The real table (reference numbers of the project)


@pytest.fixture(scope="module")
def gym(gym_csv, pytestconfig):
    conf = pytestconfig.rootpath / "conf"
    dataset = yaml.safe_load((conf / "dataset" / "gym.yaml").read_text())
    table = pd.read_csv(gym_csv)
    columns = {name: Column(said["kind"]) for name, said in dataset["columns"].items()}

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
    said = classification_metrics(y[test], p, threshold=0.5)
    np.testing.assert_allclose(confusion(y[test], p), cells, atol=1)
    assert said["roc_auc"] == pytest.approx(auc, abs=0.0002)
    assert said["log_loss"] == pytest.approx(log_loss, abs=0.0005)


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
    said = classification_metrics(y[test], p, threshold=0.5)
    assert {name: said[name] for name in expected} == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("features", "auc", "log_loss"), [("raw", 0.9757, 0.172), ("behaviour", 0.9908, 0.0995)]
)
def test_cross_validation_reaches_the_acceptance_targets(gym, features, auc, log_loss):
    X, y, model = gym
    train, _ = hold_out(y, test_size=0.2, stratify=True, seed=0)
    folds = make_folds(y[train], folds=5, repeats=1, seed=0)
    made = model(logistic(), features, scale=True)
    _, per_fold = cross_validate(made, X.iloc[train], y[train], folds, threshold=0.5, rows=train)
    said = cv_metrics(per_fold)
    assert said["cv_roc_auc"] == pytest.approx(auc, abs=0.0001)
    assert said["cv_log_loss"] == pytest.approx(log_loss, abs=0.0003)


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
    for prepared in prepare_folds(model, X, y, folds):
        train, validation = (
            X.iloc[rows] for rows in (prepared.fold.train, prepared.fold.validation)
        )
        for rows, made in ((train, prepared.train), (validation, prepared.validation)):
            filled = rows.fillna({"a": train["a"].quantile(interpolation="lower")})
            np.testing.assert_array_equal(
                made, filled.assign(c=filled["a"] * filled["b"]).to_numpy()
            )
    scores = estimator_metrics(model[-1], prepare_folds(model, X, y, folds))
    assert scores == cross_validate(model, X, y, folds, threshold=0.5, rows=np.arange(60))[1]
