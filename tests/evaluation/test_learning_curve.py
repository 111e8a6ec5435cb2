import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from churnlab.data.contract import Column
from churnlab.evaluation.cross_validation import estimator_metrics, preparation
from churnlab.evaluation.learning_curve import (
    EXPONENTS,
    PARTS,
    Doubling,
    _parts,
    describe,
    doubling,
    learning_curve,
    power_law,
)
from churnlab.models.features import Features
from churnlab.models.pipelines import pipeline
from churnlab.models.splits import make_folds


@pytest.fixture
def X() -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(0).normal(size=(900, 3)), columns=list("abc"))


@pytest.fixture
def y(X) -> np.ndarray:
    odds = np.exp(X["a"] - 1)
    return (np.random.default_rng(1).random(900) < odds / (1 + odds)).astype(int)


@pytest.fixture
def model():
    columns = dict.fromkeys("abc", Column("numeric"))
    return pipeline(
        LogisticRegression(), features=Features(list("abc"), {}), columns=columns, scale=True
    )


def test_the_parts_are_nested_and_have_every_training_member_once(y):
    fold = make_folds(y, folds=3, repeats=1, seed=0)[0]
    parts = [(number, set(part.train.tolist())) for number, part in _parts(fold, y, seed=0)]
    for number in PARTS:
        members = [part for size, part in parts if size == number]
        assert sum(map(len, members)) == len(fold.train) == len(set().union(*members))
        rates = [y[list(part)].mean() for part in members]
        assert np.ptp(rates) < 0.02
    for small in (part for number, part in parts if number == 8):
        assert sum(small <= large for number, large in parts if number == 4) == 1


def test_the_curve_has_a_row_per_fold_and_size(model, X, y):
    folds = make_folds(y, folds=3, repeats=1, seed=0)
    curve = learning_curve(model, X, y, folds, seed=0)
    assert list(curve.columns) == ["fold", "members", "log_loss"]
    assert curve["fold"].value_counts().to_dict() == {0: 4, 1: 4, 2: 4}
    assert sorted(curve["members"].unique()) == [75, 150, 300, 600]
    means = curve.groupby("members")["log_loss"].mean()
    assert means.is_monotonic_decreasing
    pd.testing.assert_frame_equal(curve, learning_curve(model, X, y, folds, seed=0))


def test_too_few_members_give_no_curve(model, X, y):
    folds = make_folds(y, folds=3, repeats=1, seed=0)
    assert learning_curve(model, X, y, folds, seed=0, fewest=50) is None
    assert describe(None) == "The members are too few to tell whether more would help."


@pytest.mark.parametrize("c", [0.3, 0.7, 1.2])
def test_a_planted_power_law_is_found(c):
    size = np.array([0.1, 0.2, 0.4, 0.8])
    assert power_law(size, 0.4 + 0.03 * size**-c) == pytest.approx((0.4, 0.03, c), abs=1e-3)
    assert EXPONENTS[0] <= power_law(size, np.array([0.4, 0.5, 0.4, 0.5]))[2] <= EXPONENTS[1]


def test_doubling_extrapolates_and_is_sure_if_the_folds_agree():
    # sizes of folds differ by a member, where 5 does not divide the number of members
    rows = [
        (fold, number + fold % 2 / 8, 0.4 + 0.01 * fold + 20 / number)
        for fold in range(5)
        for number in (320, 640, 1280, 2560)
    ]
    found = doubling(pd.DataFrame(rows, columns=["fold", "members", "log_loss"]), members=3200)
    assert found.gain == pytest.approx(20 / 3200 - 20 / 6400, abs=2e-5)
    assert found.high - found.low < 1e-4
    assert found.members == 3200


@pytest.mark.parametrize(
    ("ends", "sentence"),
    [
        ((0.03, 0.02, 0.04), "would lower the log loss by about 0.0300 (95% CI 0.0200 to 0.0400)."),
        ((0.003, 0.002, 0.004), "(95% CI 0.0020 to 0.0040). That matters little in practice."),
        ((0.001, -0.002, 0.004), "too little to matter: by -0.0040 to +0.0020 (95% CI)"),
        ((8e-18, 2e-18, 1e-17), "Twice as many members would leave the log loss as it is."),
        ((0.01, -0.01, 0.03), "3,200 members are too few to tell whether more would help: twice"),
    ],
)
def test_the_sentence_says_no_more_than_the_interval(ends, sentence):
    assert sentence in describe(Doubling(*ends, 3200, 0.3, 0.02, 1))


def test_the_log_loss_on_all_training_members_has_the_bits_of_the_cross_validation(model, X, y):
    folds = make_folds(y, folds=3, repeats=1, seed=0)
    curve = learning_curve(model, X, y, folds, seed=0)
    whole = curve.groupby("fold")["log_loss"].first()
    scores = estimator_metrics(model[-1], map(preparation(model, X, y), folds))
    assert whole.tolist() == [score["log_loss"] for score in scores]
