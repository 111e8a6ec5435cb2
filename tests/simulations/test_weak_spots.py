"""How often a slice is named without cause or found with one, and how far a learning curve errs."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from churnlab.data.contract import Column
from churnlab.evaluation.learning_curve import doubling, learning_curve
from churnlab.evaluation.performance import classification_metrics
from churnlab.evaluation.slices import ratio_interval, slice_table, weakest
from churnlab.models.features import Features
from churnlab.models.pipelines import pipeline
from churnlab.models.splits import make_folds
from support.planted import assert_at_least, assert_at_most, count, tables
from support.planted_models import STRONG, WEAK, World

RARE = World(-3.5, 1.2)
"""A world in which a twentieth of the members leave."""


def planted_slices(
    rng: np.random.Generator, members: int, columns: int, world: World, *, off: float = 1.0
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Draw outcomes, the true probabilities, and columns, some of which follow the probability.

    In a tenth of the members, those with a 1 in the column ``weak``, the predicted probabilities
    are ``off`` times the true ones.
    """
    log_odds = rng.normal(*world, members)
    labels = {"weak": (np.arange(members) < members / 10).astype(int)}
    for number in range(1, columns):
        score = rng.normal(size=members) + number % 3 * 0.4 * log_odds
        cuts = np.sort(rng.dirichlet(np.full((2, 4, 4, 8)[number % 4], 1.5)).cumsum()[:-1])
        labels[f"column {number}"] = np.searchsorted(np.quantile(score, cuts), score)
    probability = expit(log_odds)
    y = (rng.random(members) < probability).astype(int)
    return y, np.where(labels["weak"] == 1, off, 1.0) * probability, pd.DataFrame(labels)


@pytest.mark.parametrize(
    ("members", "columns", "world", "short"),
    [(800, 5, WEAK, 20), (800, 50, WEAK, 4), (800, 5, RARE, 20), (3200, 5, STRONG, 10)],
    ids=["few columns", "many columns", "rare churn", "strong"],
)
def test_a_calibrated_model_has_no_weakest_slice(members, columns, world, short):
    def named(rng: np.random.Generator) -> bool:
        return weakest(slice_table(*with_threshold(planted_slices(rng, members, columns, world))))

    many = tables(short, 1000)
    assert_at_most(0.05, count(named, of=many, seed=1), of=many)


def with_threshold(drawn: tuple) -> tuple:
    y, probability, labels = drawn
    return y, probability, 0.5, labels


@pytest.mark.parametrize(("columns", "power"), [(5, 0.8), (50, 0.6)])
def test_a_slice_of_a_tenth_that_is_off_by_a_third_is_found(columns, power):
    """At 3,200 members: predicted two thirds of what is observed in 320 of them."""

    def found(rng: np.random.Generator) -> bool:
        drawn = planted_slices(rng, 3200, columns, WEAK, off=2 / 3)
        return "where weak is 1" in weakest(slice_table(*with_threshold(drawn)))

    many = tables(8 if columns < 10 else 3, 300)
    assert_at_least(power, count(found, of=many, seed=2), of=many)


@pytest.mark.parametrize("shift", [-0.7, 0.0, 0.7])
@pytest.mark.parametrize(("members", "world"), [(40, WEAK), (400, WEAK), (200, RARE)])
def test_the_interval_of_observed_over_predicted_covers(members, world, shift):
    """The predicted log odds are all off by the shift."""

    def covered(rng: np.random.Generator) -> bool:
        log_odds = rng.normal(*world, members)
        truth = expit(log_odds + shift)
        y = (rng.random(members) < truth).astype(int)
        _, low, high, _ = ratio_interval(y, expit(log_odds))
        return low <= truth.sum() / expit(log_odds).sum() <= high

    many = tables(200, 4000)
    assert_at_least(0.94, count(covered, of=many, seed=3), of=many)


Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
WEIGHTS = np.random.default_rng(42).normal(0, 0.5, 13)


def straight(rng: np.random.Generator, members: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw members whose log odds are linear."""
    X = rng.normal(size=(members, 13))
    return X, (rng.random(members) < expit(X @ WEIGHTS - 1.5)).astype(int)


def bent(rng: np.random.Generator, members: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw members whose log odds are not linear, so that the model can never be right."""
    X = rng.normal(size=(members, 13))
    log_odds = X @ WEIGHTS - 2.2 + X[:, 1] * X[:, 3] + 0.7 * X[:, 5] ** 2
    return X, (rng.random(members) < expit(log_odds)).astype(int)


def true_gain(draw: Draw, members: int, *, of: int) -> float:
    """Return the mean fall of the log loss on new members if the training members double."""
    rng, gains = np.random.default_rng(0), []
    new_X, new_y = draw(rng, 40_000)
    for _ in range(of):
        X, y = draw(rng, 2 * members)
        losses = []
        for size in (members, 2 * members):
            scale = StandardScaler().fit(X[:size])
            fitted = LogisticRegression().fit(scale.transform(X[:size]), y[:size])
            probability = fitted.predict_proba(scale.transform(new_X))[:, 1]
            losses.append(classification_metrics(new_y, probability, threshold=0.5)["log_loss"])
        gains.append(losses[0] - losses[1])
    return float(np.mean(gains))


@pytest.mark.parametrize("draw", [straight, bent])
def test_the_predicted_gain_from_twice_the_members_covers_the_true_one(draw):
    members, columns = 800, [f"x{number}" for number in range(13)]
    model = pipeline(
        LogisticRegression(),
        features=Features(columns, {}),
        columns=dict.fromkeys(columns, Column("numeric")),
        scale=True,
    )
    truth, predicted = true_gain(draw, members, of=tables(5, 200)), []

    def covered(rng: np.random.Generator) -> bool:
        X, y = draw(rng, members)
        folds = make_folds(y, folds=5, repeats=1, seed=0)
        curve = learning_curve(model, pd.DataFrame(X, columns=columns), y, folds, seed=0)
        found = doubling(curve, members=members)
        predicted.append(found.gain)
        return found.low <= truth <= found.high

    many = tables(5, 200)
    assert_at_least(0.95, count(covered, of=many, seed=4), of=many)
    assert np.mean(predicted) == pytest.approx(truth, rel=0.5 if many < 100 else 0.15)
    print(
        f"{draw.__name__}: truth {truth:.4f}, mean {np.mean(predicted):.4f}, "
        f"rmse {np.sqrt(np.mean((np.array(predicted) - truth) ** 2)):.4f}"
    )
