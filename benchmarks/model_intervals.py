"""Draw members whose churn probability is known, and judge the intervals of models on them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from churnlab.claims import measures
from churnlab.claims.claim import Claim
from churnlab.data.contract import Column
from churnlab.evaluation import comparison, importance, performance, slices, verdicts
from churnlab.evaluation.metric_names import METRICS
from churnlab.models import pipelines, splits
from churnlab.models.decision import ContactEconomics
from churnlab.models.features import Features
from churnlab.registry import against_champion, gate
from tallies import Judged, Kind

POPULATION = 1_000_000
"""Members by which a truth is measured that has no formula."""


class World(NamedTuple):
    """Members whose log odds of leaving are normal."""

    middle: float
    spread: float


WORLDS = {
    "AUC .75, churn 27%": World(-1.208, 1.042),
    "AUC .95, churn 27%": World(-2.631, 3.894),
    "AUC .75, churn 10%": World(-2.565, 1.001),
    "AUC .95, churn 10%": World(-4.870, 3.351),
}
"""By the AUC of the true probabilities, and the share that leaves."""

THRESHOLDS = {name: 0.5 if "AUC .95" in name else 0.3 for name in WORLDS}

COSTS = ContactEconomics(100, 2, 10, success=0.3, accept=0.5)
"""What a contact costs and earns."""

TIMID = 1.15
"""A model's log odds are the true ones divided by this: its calibration slope."""

Drawn = tuple[np.ndarray, np.ndarray]
"""Outcomes and predicted probabilities of the same members."""


def outcomes(rng: np.random.Generator, log_odds: np.ndarray) -> np.ndarray:
    """Draw who leaves."""
    return (rng.random(len(log_odds)) < expit(log_odds)).astype(int)


def predict(log_odds: np.ndarray) -> np.ndarray:
    """Round log odds to sixteenths, and return probabilities.

    A few hundred distinct probabilities, as a forest has, take a tenth of the time.
    """
    return expit(np.round(log_odds * 16) / 16)


def draw(rng: np.random.Generator, n: int, world: World, slope: float = TIMID) -> Drawn:
    """Draw outcomes, and the predictions of a model with this calibration slope."""
    log_odds = rng.normal(*world, n)
    return outcomes(rng, log_odds), predict(log_odds / slope)


@cache
def population(world: World, slope: float = TIMID) -> Drawn:
    """Draw the members of whom truths are measured."""
    return draw(np.random.default_rng(0), POPULATION, world, slope)


@cache
def true_metrics(name: str, slope: float) -> dict[str, float]:
    """Return all metrics in a world."""
    return performance.classification_metrics(
        *population(WORLDS[name], slope), threshold=THRESHOLDS[name], costs=COSTS
    )


def metrics(rng: np.random.Generator, n: int) -> Iterator[Judged]:
    """Judge the bootstrap intervals of all metrics of a timid model."""
    for name, world in WORLDS.items():
        true = true_metrics(name, TIMID)
        found = performance.bootstrap_intervals(
            *draw(rng, n, world), threshold=THRESHOLDS[name], seed=0, costs=COSTS
        )
        for metric, (low, high) in found.items():
            yield f"{metric}, {name}", low, true[metric], high


def ece(rng: np.random.Generator, n: int) -> Iterator[Judged]:
    """Judge the interval of the calibration error of a perfectly calibrated model."""
    for name, world in list(WORLDS.items())[::3]:
        y, probability = draw(rng, n, world, 1.0)
        low, high = performance.bootstrap_intervals(y, probability, threshold=0.5, seed=0)["ece"]
        yield name, low, true_metrics(name, 1.0)["ece"], high


def rivals(rng: np.random.Generator, n: int, world: World) -> tuple[np.ndarray, ...]:
    """Draw outcomes, the predictions of a timid model, and those of one with a noisy input."""
    log_odds = rng.normal(*world, n)
    noise = 0.5 * world.spread
    kept = world.spread**2 / (world.spread**2 + noise**2)
    guess = world.middle + kept * (log_odds + rng.normal(0, noise, n) - world.middle)
    return outcomes(rng, log_odds), predict(log_odds / TIMID), predict(guess)


@cache
def true_differences(name: str) -> dict[str, float]:
    """Return the differences of the rivals' metrics in a world."""
    y, *both = rivals(np.random.default_rng(0), POPULATION, WORLDS[name])
    first, second = (
        performance.classification_metrics(y, probability, threshold=THRESHOLDS[name], costs=COSTS)
        for probability in both
    )
    return {metric: first[metric] - second[metric] for metric in METRICS}


def paired(rng: np.random.Generator, n: int) -> Iterator[Judged]:
    """Judge the paired differences of two models in every metric."""
    for name in list(WORLDS)[::3]:
        y, *both = rivals(rng, n, WORLDS[name])
        thresholds = THRESHOLDS[name], THRESHOLDS[name]
        for metric, true in true_differences(name).items():
            found = comparison.paired_difference(
                y, *both, metric=metric, thresholds=thresholds, seed=0, costs=COSTS
            )
            yield f"{metric}, {name}", found.ci_low, true, found.ci_high


def champions(rng: np.random.Generator, n: int) -> Iterator[Judged]:
    """Judge how much worse the gate says that a candidate is than the champion."""
    for name in list(WORLDS)[::3]:
        y, *both = rivals(rng, n, WORLDS[name])
        thresholds = THRESHOLDS[name], THRESHOLDS[name]
        for metric, sign in {"log_loss": 1, "roc_auc": -1}.items():
            found = against_champion.measure_loss(
                y, *both, metric=metric, thresholds=thresholds, seed=0
            )
            yield f"{metric}, {name}", found.low, sign * true_differences(name)[metric], found.high


def slope(rng: np.random.Generator, n: int) -> Iterator[Judged]:
    """Judge the Wald interval of the calibration slope."""
    for name, world in WORLDS.items():
        y, probability = draw(rng, n, world)
        line = performance.calibration_line(y, probability)
        low, high = gate.slope_interval(
            y, probability, slope=line["slope"], intercept=line["intercept"]
        )
        yield name, low, true_slope(name), high


@cache
def true_slope(name: str) -> float:
    """Return the calibration slope in a world, whose probabilities are rounded and clipped."""
    return performance.calibration_line(*population(WORLDS[name]))["slope"]


def reliability(rng: np.random.Generator, n: int) -> Iterator[Judged]:
    """Judge the churn rate of every bin; that of a perfectly calibrated model is the mean
    probability."""
    for name, world in WORLDS.items():
        log_odds = rng.normal(*world, n)
        table = performance.reliability(outcomes(rng, log_odds), expit(log_odds))
        for row in table.itertuples():
            yield f"ten bins, {name}", row.low, row.probability, row.high


SLICE = 0.1
"""A slice has this share of the members."""


def ratios(rng: np.random.Generator, n: int) -> Iterator[Judged]:
    """Judge observed over predicted churn in a slice where the log odds are off by 0 or 0.4."""
    for name, world in WORLDS.items():
        for shift in (0.0, 0.4):
            log_odds = rng.normal(*world, round(SLICE * n))
            probability = expit(np.clip(log_odds, -6.9, 6.9))
            y = outcomes(rng, log_odds := np.clip(log_odds, -6.9, 6.9) + shift)
            _, low, high, _ = slices.ratio_interval(y, probability)
            true = float(expit(log_odds).sum() / probability.sum())
            yield f"a tenth of the members, off by {shift}, {name}", low, true, high


# Two learners that predict the churn rate of a level seen in training. The first one's column says
# more about churn; training is a count, so that thousands of trainings take seconds.

LEVELS = 8
RATES = expit(-1.2 + 1.2 * np.linspace(-1.5, 1.5, LEVELS))
"""The churn rate of each level of the first column."""

MIXED = 0.2
"""The second column has a random level instead for this share of the members."""

Learned = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Outcomes and both columns."""


def learnable(rng: np.random.Generator, n: int) -> Learned:
    """Draw outcomes and both columns."""
    level = rng.integers(LEVELS, size=n)
    y = (rng.random(n) < RATES[level]).astype(int)
    return y, level, np.where(rng.random(n) < MIXED, rng.integers(LEVELS, size=n), level)


def learn(y: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Return the churn rate of each level, with one more member who left and one who stayed."""
    left = np.bincount(level, y, minlength=LEVELS)
    return (left + 1) / (np.bincount(level, minlength=LEVELS) + 2)


def expected_loss(rates: np.ndarray, true: np.ndarray) -> float:
    """Return the log loss on all members, a level of whom leave at the true rates."""
    return float(-(true * np.log(rates) + (1 - true) * np.log(1 - rates)).mean())


@cache
def true_loss_difference(trained_on: int) -> float:
    """Return the expected log loss of the first learner minus that of the second."""
    mixed = (1 - MIXED) * RATES + MIXED * RATES.mean()
    found = []
    for rng in np.random.default_rng(0).spawn(4000):
        y, *columns = learnable(rng, trained_on)
        found.append(
            np.subtract(
                *(
                    expected_loss(learn(y, x), t)
                    for x, t in zip(columns, (RATES, mixed), strict=True)
                )
            )
        )
    return float(np.mean(found))


FOLDS, DRAWS = 5, 5


def fold_tests(rng: np.random.Generator, n: int) -> Iterator[Judged]:
    """Judge the fold test of two learners, and what a claim makes of it and of the bootstrap."""
    y, *columns = learnable(rng, n)
    true = true_loss_difference(n * (FOLDS - 1) // FOLDS)
    probability, number = np.zeros((2, n, DRAWS)), np.zeros((n, DRAWS), dtype=int)
    scores = []
    for index, fold in enumerate(splits.make_folds(y, folds=FOLDS, repeats=DRAWS, seed=0)):
        draw_number, part = index // FOLDS, fold.validation
        number[part, draw_number] = index % FOLDS
        for side, column in enumerate(columns):
            rates = learn(y[fold.train], column[fold.train])
            probability[side, part, draw_number] = rates[column[part]]
        scores.append([_log_loss(y[part], side[part, draw_number]) for side in probability])
    found = comparison.fold_test(*np.array(scores).T, ratio=1 / (FOLDS - 1))
    yield "fold test, log_loss", found.ci_low, true, found.ci_high
    claim = Claim("", "", "model_difference", "below", of="a", against="b", metric="log_loss")
    context = measures.ClaimContext(
        pd.DataFrame({"left": y}),
        "left",
        probabilities=dict(zip("ab", probability, strict=True)),
        folds=number,
    )
    measured = measures.measure(claim, context)
    yield "claim model_difference, log_loss", measured.low, true, measured.high


def _log_loss(y: np.ndarray, probability: np.ndarray) -> float:
    return performance.classification_metrics(y, probability, threshold=0.5)["log_loss"]


def hold_out_differences(rng: np.random.Generator, n: int) -> Iterator[Judged]:
    """Judge the hold-out difference of two learners that were trained on four times as many."""
    y, *columns = learnable(rng, n)
    trained, *trained_columns = learnable(rng, 4 * n)
    sides = []
    for name, column, seen in zip("ab", columns, trained_columns, strict=True):
        table = pd.DataFrame({"row": np.arange(n), "y": y, "threshold": 0.5})
        table["probability"] = learn(trained, seen)[column]
        sides.append(verdicts.Predictions(name, table, 4 * n))
    found, _ = verdicts.compare_on_hold_out(*sides, metric="log_loss", seed=0)
    yield "log_loss", found.ci_low, true_loss_difference(4 * n), found.ci_high


# Permutation importance


WEIGHTS = np.array([0.7, 0.5, 0.2])


def driven(rng: np.random.Generator, n: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Draw three columns, two of them correlated, and outcomes."""
    X = rng.normal(size=(n, 3)) @ np.array([[1, 0.8, 0], [0, 0.6, 0], [0, 0, 1]])
    return pd.DataFrame(X, columns=list("abc")), outcomes(rng, -1.2 + X @ WEIGHTS)


DRIVERS: dict[str, Any] = {
    "groups": [["a", "b"], ["c"]],
    "columns": {name: Column("numeric") for name in "abc"},
    "repeats": 10,
}


@cache
def trained() -> Any:
    """Fit a logistic regression once."""
    X, y = driven(np.random.default_rng(1), 3200)
    model = pipelines.pipeline(
        LogisticRegression(),
        features=Features(list("abc"), {}),
        columns=DRIVERS["columns"],
        scale=True,
    )
    return pipelines.fit(model, X, y)


@cache
def true_importance() -> dict[str, float]:
    """Return the importance of each group, over as many members as are sampled at most."""
    tables = [
        importance.permutation_importance(trained(), *driven(rng, 15_000), **DRIVERS, seed=0)
        for rng in np.random.default_rng(2).spawn(40)
    ]
    return pd.concat(tables).groupby("driver")["importance"].mean().to_dict()


def importances(rng: np.random.Generator, n: int) -> Iterator[Judged]:
    """Judge the permutation importance of a fixed model on new members."""
    found = importance.permutation_importance(
        trained(), *driven(rng, n), **DRIVERS, seed=int(rng.integers(2**31))
    )
    for row in found.itertuples():
        yield row.driver, row.low, true_importance()[row.driver], row.high


KINDS = {
    "metric": Kind("train", metrics),
    "ece-perfect": Kind("train", ece),
    "paired-difference": Kind("compare, promote", paired, 0.25),
    "champion-difference": Kind("promote", champions, 0.25),
    "slice": Kind("train, promote", ratios),
    "fold-test": Kind("compare, claims", fold_tests, 0.25),
    "hold-out-difference": Kind("compare, tune", hold_out_differences, 0.25),
    "calibration-slope": Kind("promote", slope),
    "reliability": Kind("train", reliability),
    "importance": Kind("train", importances, 0.5),
}
