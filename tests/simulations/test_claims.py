"""Verdicts on claims are wrong no more often than their 95% CIs promise: 2.5% a side."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from churnlab.claims.claim import Claim, verdict
from churnlab.claims.measures import ClaimContext, measure
from churnlab.claims.multiplicity import q_of_claims
from churnlab.models.splits import make_folds
from support.planted import assert_at_least, assert_at_most, count, tables


def claim(quantity: str, *, direction: str = "above", **keys) -> Claim:
    return Claim("simulated", "So they say.", quantity, direction, **keys)


def decided(stated: Claim, context: ClaimContext) -> str:
    found = measure(stated, context)
    return verdict(stated, found.low, found.high)


def correlated(rng: np.random.Generator, strengths: list[float], n: int = 800) -> ClaimContext:
    """Columns a0, a1 ... that shift by so many standard deviations where members leave."""
    left = (rng.random(n) < 0.3).astype(float)
    columns = {f"a{i}": rng.normal(size=n) + by * left for i, by in enumerate(strengths)}
    return ClaimContext(pd.DataFrame(columns | {"left": left}), "left", resamples=200)


def margin(strong: int, weak: int) -> Claim:
    names = [f"a{i}" for i in range(strong + weak)]
    return claim("correlation_margin", of=names[:strong], against=names[strong:])


MARGINS = {
    "equal": [0.6] * 10,
    "a little more": [0.7] * 5 + [0.65] * 5,
    "one each, no correlation": [0.0, 0.0],
}


@pytest.mark.parametrize("strengths", MARGINS.values(), ids=MARGINS)
def test_a_true_margin_is_called_false_in_few_tables(strengths):
    of, stated = tables(60, 4000), margin(len(strengths) // 2, len(strengths) // 2)
    wrong = count(lambda rng: decided(stated, correlated(rng, strengths)) == "false", of=of, seed=1)
    assert_at_most(0.025, wrong, of=of)


def test_a_margin_that_is_none_holds_in_few_tables_and_a_large_one_in_most():
    of = tables(50, 4000)
    no_margin = count(
        lambda rng: decided(margin(1, 1), correlated(rng, [0.6, 0.6])) == "holds", of=of, seed=2
    )
    assert_at_most(0.025, no_margin, of=of)
    large = count(
        lambda rng: decided(margin(3, 3), correlated(rng, [1.0] * 3 + [0.3] * 3)) == "holds",
        of=of,
        seed=3,
    )
    assert_at_least(0.9, large, of=of)
    contrary = count(
        lambda rng: decided(margin(3, 3), correlated(rng, [0.3] * 3 + [1.0] * 3)) == "false",
        of=of,
        seed=4,
    )
    assert_at_least(0.9, contrary, of=of)


def segmented(
    rng: np.random.Generator, *, n: int = 600, k: int = 4, more: float = 0
) -> ClaimContext:
    """Members in k segments that have nothing to do with leaving; what is spent depends on leaving
    only. In one segment ``more`` leave."""
    group = rng.integers(0, k, n)
    left = (rng.random(n) < 0.3 + more * (group == 0)).astype(float)
    frame = pd.DataFrame({"spent": rng.normal(size=n) + left, "left": left})
    return ClaimContext(frame, "left", {"kinds": group})


ABOUT_SEGMENTS = {
    "the riskiest segment leaves more": claim(
        "risk_ratio", segments="kinds", among={"highest": "left"}
    ),
    "the riskiest segment spends more": claim(
        "mean_difference", of="spent", segments="kinds", among={"highest": "left"}
    ),
    "the segments that leave more spend more": claim(
        "mean_difference", of="spent", segments="kinds", among={"above": "left"}
    ),
    "the riskiest leaves more than the safest": claim(
        "risk_ratio", segments="kinds", among={"highest": "left"}, against={"lowest": "left"}
    ),
}


@pytest.mark.parametrize("stated", ABOUT_SEGMENTS.values(), ids=ABOUT_SEGMENTS)
def test_a_segment_chosen_on_the_members_it_is_measured_on_differs_by_chance_in_few_tables(stated):
    of = tables(40, 4000)
    wrong = count(lambda rng: decided(stated, segmented(rng)) == "holds", of=of, seed=5)
    assert_at_most(0.025, wrong, of=of)


def test_a_segment_that_does_leave_more_is_found():
    of, stated = tables(60, 1000), ABOUT_SEGMENTS["the riskiest segment leaves more"]
    found = count(lambda rng: decided(stated, segmented(rng, more=0.2)) == "holds", of=of, seed=6)
    assert_at_least(0.9, found, of=of)


@pytest.mark.parametrize("n", [60, 600])
def test_a_stated_size_that_is_wrong_holds_in_few_tables_however_vague_the_data(n):
    """Claimed: twice as many leave, give or take a tenth; in truth 1.6 times as many do."""
    stated = claim("risk_ratio", among="a == 1", size=2.0, tolerance=0.1)

    def holds(rng: np.random.Generator) -> bool:
        a = np.arange(n) % 2
        left = rng.random(n) < np.where(a == 1, 0.48, 0.3)
        frame = pd.DataFrame({"a": a, "left": left}, dtype="float64")
        return decided(stated, ClaimContext(frame, "left")) == "holds"

    of = tables(40, 2000)
    assert_at_most(0.025, count(holds, of=of, seed=7), of=of)


def two_models(
    rng: np.random.Generator, *, n: int = 250, draws: int = 1, better: float = 0
) -> ClaimContext:
    """Two regressions of the same quality: each has the two columns that matter and 16 of its own
    that do not. The first one of ``one`` matters, too, if it is to be ``better``."""
    X = rng.normal(size=(n, 34))
    y = (rng.random(n) < 1 / (1 + np.exp(1 - X[:, 0] - X[:, 1] - better * X[:, 2]))).astype(int)
    columns = {"one": [0, 1, *range(2, 18)], "other": [0, 1, *range(18, 34)]}
    probabilities = {name: np.zeros((n, draws)) for name in columns}
    folds = np.zeros((n, draws), int)
    for repeat, fold, train, test in make_folds(y, folds=5, repeats=draws, seed=0):
        folds[test, repeat] = fold
        for name, used in columns.items():
            model = LogisticRegression().fit(X[np.ix_(train, used)], y[train])
            probabilities[name][test, repeat] = model.predict_proba(X[np.ix_(test, used)])[:, 1]
    frame = pd.DataFrame({"left": y}, dtype="float64")
    return ClaimContext(
        frame, "left", probabilities=probabilities, folds=folds, resamples=200, seed=0
    )


@pytest.mark.parametrize(("metric", "draws"), [("log_loss", 1), ("roc_auc", 2)])
def test_of_two_equal_models_one_is_called_better_in_few_tables(metric, draws):
    direction = "below" if metric == "log_loss" else "above"
    stated = claim(
        "model_difference", direction=direction, of="one", against="other", metric=metric
    )
    of = tables(12, 2000)
    wrong = count(
        lambda rng: decided(stated, two_models(rng, draws=draws)) == "holds", of=of, seed=8
    )
    assert_at_most(0.025, wrong, of=of)


def test_a_better_model_is_found():
    stated = claim(
        "model_difference", direction="below", of="one", against="other", metric="log_loss"
    )
    of = tables(6, 500)
    found = count(
        lambda rng: decided(stated, two_models(rng, better=2, draws=5)) == "holds", of=of, seed=9
    )
    assert_at_least(0.8, found, of=of)


def test_of_many_claims_about_nothing_a_q_value_names_one_in_few_tables():
    stated = [
        *(claim("correlation", of=f"a{i}") for i in range(10)),
        *(claim("mean_difference", of=f"a{i}", among="left == 1") for i in range(10, 20)),
        *(claim("risk_ratio", among=f"a{i} > 0.5", direction="below") for i in range(20, 30)),
        *(claim("mean", of=f"a{i} > 0", than=0.5) for i in range(30, 40)),
    ]

    def named(rng: np.random.Generator) -> bool:
        context = correlated(rng, [0.0] * 40, n=400)
        return bool((q_of_claims([measure(each, context).p for each in stated]) < 0.05).any())

    of = tables(5, 1000)
    assert_at_most(0.05, count(named, of=of, seed=10), of=of)
