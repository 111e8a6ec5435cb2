"""Calibration: tried if needed, judged on unseen members, kept only if it helps."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from churnlab.data.contract import Column
from churnlab.data.demo import members
from churnlab.errors import InputError
from churnlab.evaluation import calibration, performance
from churnlab.evaluation.calibration import Choice, choose, miscalibration, with_calibration
from churnlab.evaluation.cross_validation import fold_metrics
from churnlab.models.features import Features
from churnlab.models.pipelines import pipeline
from churnlab.models.splits import make_folds

LIMITS = {"slope": (0.9, 1.1), "ece": 0.02}
ROWS = np.arange(900) + 5000


@pytest.fixture(scope="module")
def table() -> tuple[pd.DataFrame, np.ndarray]:
    drawn = members(900, seed=3)
    y = drawn.pop("Churn").to_numpy()
    return drawn.astype("float64"), y


def model(estimator, X: pd.DataFrame, *, scale: bool = True):
    columns = {name: Column("numeric") for name in X}
    return pipeline(estimator, features=Features(list(X), {}), columns=columns, scale=scale)


def forest(X: pd.DataFrame):
    return model(RandomForestClassifier(15, random_state=0), X, scale=False)


def logistic(X: pd.DataFrame):
    return model(LogisticRegression(), X)


def chosen(made, table, *, method: str, folds: int = 3, **limits) -> Choice:
    X, y = table
    return choose(
        made,
        X,
        y,
        make_folds(y, folds=folds, repeats=1, seed=0),
        rows=ROWS,
        method=method,
        splits=4,
        **LIMITS | limits,
    )


@pytest.fixture(scope="module")
def helped(table) -> Choice:
    return chosen(forest(table[0]), table, method="auto")


def test_a_miscalibrated_forest_gets_the_calibration_with_the_lowest_log_loss(helped):
    tried = helped.table.set_index("method")
    assert tried.index.tolist() == ["none", "isotonic", "sigmoid"]
    assert (
        tried.index[tried["kept"]].tolist() == [tried["log_loss"].idxmin()] == [helped.kept.method]
    )
    assert helped.kept.method != "none"
    assert tried.loc["none", "log_loss"] - tried["log_loss"].min() > 0.01
    assert "is outside 0.9 to 1.1" in helped.reason
    assert helped.summary.startswith(
        f"{helped.kept.method}, because {helped.reason}; it changes the out-of-fold log loss from "
    )


def test_the_scores_are_those_of_the_predictions_that_are_kept(helped):
    oof = helped.kept.oof
    y, p = oof["y"].to_numpy(), oof["probability"].to_numpy()
    expected = performance.calibration_line(y, p)
    per_fold = fold_metrics(oof, threshold=0.5)
    assert helped.kept.scores == expected | {
        "log_loss": np.mean([fold["log_loss"] for fold in per_fold])
    }
    assert sorted(oof["row"]) == ROWS.tolist()


def test_a_calibrated_model_sees_only_the_train_part_of_a_fold(helped, table):
    X, y = table
    fold = make_folds(y, folds=3, repeats=1, seed=0)[1]
    alone = CalibratedClassifierCV(
        RandomForestClassifier(15, random_state=0), method=helped.kept.method, cv=4, ensemble=True
    )
    alone.fit(X.iloc[fold.train].to_numpy(), y[fold.train])
    expected = alone.predict_proba(X.iloc[fold.validation].to_numpy())[:, 1]
    part = helped.kept.oof[helped.kept.oof["fold"] == 1]
    assert part["row"].tolist() == ROWS[fold.validation].tolist()
    np.testing.assert_allclose(part["probability"], expected, atol=1e-12)


def test_calibration_learns_nothing_from_shuffled_outcomes(table):
    X, y = table
    shuffled = np.random.default_rng(0).permutation(y)
    judged = chosen(forest(X), (X, shuffled), method="isotonic").kept
    rate = shuffled.mean()
    knowing_nothing = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    assert judged.scores["log_loss"] > knowing_nothing - 0.005, (
        "a calibrator has seen whom it is judged on"
    )


def test_a_well_calibrated_model_stays_unchanged(table):
    made = logistic(table[0])
    choice = chosen(made, table, method="auto", slope=(0.7, 1.4), ece=0.05)
    assert choice.kept.model is made
    assert (choice.reason, choice.table["method"].tolist()) == ("", ["none"])
    slope = choice.kept.scores["slope"]
    assert choice.summary.startswith(
        f"not shown to be needed (slope {slope:.2f}, calibration error "
    )


def test_calibration_that_does_not_help_is_kept_only_on_request(table, monkeypatch):
    monkeypatch.setattr(calibration, "ALPHA", 1.0)  # it is not needed, so do not test for that
    made = logistic(table[0])
    auto = chosen(made, table, method="auto", slope=(1.0, 1.0), ece=1.0)
    assert "is outside 1 to 1" in auto.reason
    assert auto.table["log_loss"].idxmin() == 0, "choose other members: here calibration helps"
    assert auto.kept.model is made
    assert "does not lower the out-of-fold log loss" in auto.summary
    requested = chosen(made, table, method="isotonic", slope=(0.5, 2.0), ece=1.0)
    assert requested.kept.method == "isotonic"
    assert requested.kept.scores["log_loss"] > requested.tried[0].scores["log_loss"]
    assert requested.summary.startswith(
        "isotonic, as requested, although not needed; it changes the out-of-fold log loss from "
    )


def test_without_a_request_nothing_is_tried_and_the_summary_names_the_key(table):
    choice = chosen(forest(table[0]), table, method="none")
    assert choice.table["method"].tolist() == ["none"]
    assert choice.summary == f"none, although {choice.reason}: try evaluation.calibration=auto"


def test_nobody_is_advised_to_calibrate_a_model_that_predicts_the_same_for_everyone(table):
    constant = model(DummyClassifier(), table[0])
    choice = chosen(constant, table, method="none", slope=(0.9, 1.1), ece=0.0)
    assert choice.reason == ""
    assert choice.summary == (
        "not applicable, because the model predicts the same probability for everyone"
    )


CLEAR = {"slope": 1.0, "p": 0.001, "ece": 0.01, "ece_floor": 0.008, "ece_corrected": 0.006}
"""Scores within the limits of a model that is not perfect for certain."""

TEST = " (perfect calibration: p = 0.0010)"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, ""),
        ({"slope": 0.9}, ""),
        ({"slope": 1.1}, ""),
        ({"slope": 0.89}, f"the out-of-fold slope 0.89 is outside 0.9 to 1.1{TEST}"),
        (
            {"ece": 0.03, "ece_corrected": 0.025},
            f"the out-of-fold calibration error 0.030 (noise floor 0.008) is above 0.02{TEST}",
        ),
        ({"ece": 0.03, "ece_corrected": 0.019}, ""),
        ({"slope": 1.2, "p": 0.05}, ""),
        ({"slope": np.nan, "p": np.nan, "ece": 0.3, "ece_corrected": 0.3}, ""),
    ],
)
def test_a_model_needs_calibration_if_it_is_outside_a_limit_beyond_chance(changed, reason):
    assert miscalibration(CLEAR | changed, **LIMITS) == reason


def test_both_limits_may_be_reasons():
    assert " and " in miscalibration(CLEAR | {"slope": 1.2, "ece_corrected": 0.03}, **LIMITS)


def test_too_few_members_of_one_outcome_for_the_inner_folds_are_refused():
    rng = np.random.default_rng(0)
    X, y = pd.DataFrame({"a": rng.normal(size=60)}), np.array([1] * 5 + [0] * 55)
    folds = make_folds(y, folds=2, repeats=1, seed=0)
    with pytest.raises(
        InputError,
        match=r"calibration_folds=4 .* trains on only 2 members of one outcome.*at least 2",
    ):
        choose(logistic(X), X, y, folds, rows=np.arange(60), method="sigmoid", splits=4, **LIMITS)


def test_the_given_model_is_not_modified(table):
    made = forest(table[0])
    before = clone(made)
    inside = with_calibration(made, method="sigmoid", splits=4)
    assert repr(made) == repr(before)
    assert isinstance(inside["estimator"], CalibratedClassifierCV)
    assert repr(inside["estimator"].estimator) == repr(made["estimator"])
    assert inside["prepare"] == made["prepare"]
