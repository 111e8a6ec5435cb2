"""Drift: members unlike the training data are reported, chance is not."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.data.demo import members
from churnlab.data.drift import remember, score_warnings, warnings


def drift(X: pd.DataFrame, then: pd.DataFrame) -> list[str]:
    """The warnings for members X of a version trained on others; its memory goes through JSON."""
    return list(warnings(X, json.loads(json.dumps(remember(then))), model="version 3"))


@pytest.mark.parametrize("rows", [30, 300, 3000])
@pytest.mark.parametrize("seed", range(8))
def test_another_sample_of_the_same_population_is_no_drift(seed, rows):
    assert drift(members(rows, seed=100 + seed), members(3000, seed=seed)) == []


def test_a_shifted_column_is_reported_with_its_mean_then_and_now():
    then, now = members(2000, seed=1), members(500, seed=2)
    (warning,) = drift(now.assign(Age=now["Age"] + 4), then)
    before, after = then["Age"].mean(), now["Age"].mean() + 4
    assert (
        warning
        == f"drift since version 3 was trained: Age (mean {before:.3g} then, {after:.3g} now)"
    )


def test_a_changed_mix_of_categories_and_new_gaps_are_reported():
    then = pd.DataFrame({"plan": ["a"] * 600 + ["b"] * 300 + ["c"] * 100, "age": np.arange(1000.0)})
    now = pd.DataFrame(
        {"plan": ["a"] * 100 + ["b"] * 250 + ["c"] * 150, "age": np.arange(500.0) * 2}
    ).assign(town="x")
    now.loc[:300, "age"] = np.nan
    (warning,) = drift(now, then)
    assert "plan (a 60% then, 20% now)" in warning
    assert "age (missing 0% then, 60% now; mean 500 then, 800 now)" in warning
    assert "town" not in warning


def test_a_new_category_is_reported():
    then = pd.DataFrame({"plan": ["a", "b"] * 50})
    (warning,) = drift(pd.DataFrame({"plan": ["a", "b"] * 50 + ["c", None]}), then)
    assert warning.endswith("treats as none of those it knows: plan (c: 1 of 102)")


@settings(max_examples=100, deadline=None)
@given(
    then=st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1, max_size=60),
    now=st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1, max_size=60),
)
def test_any_two_columns_can_be_compared_and_one_never_drifts_from_itself(then, now):
    before, after = (pd.DataFrame({"x": values}, dtype="float64") for values in (then, now))
    assert drift(before, before) == []
    assert len(drift(after, before)) <= 1


def test_a_binary_column_is_described_by_its_share():
    then = pd.DataFrame({"near": np.repeat([0.0, 1.0], [160, 840])})
    now = pd.DataFrame({"near": np.repeat([0.0, 1.0], [300, 700])})
    assert drift(now, then) == ["drift since version 3 was trained: near (84% then, 70% now)"]


def test_a_change_of_shape_without_one_of_the_mean_is_described_by_where_it_is_largest():
    rng = np.random.default_rng(0)
    then, now = (pd.DataFrame({"spent": rng.normal(50, sd, 2000)}) for sd in (10, 25))
    (warning,) = drift(now, then)
    assert "spent (at most " in warning
    assert "mean" not in warning


def test_drift_of_the_outcome_is_reported_apart_from_that_of_columns():
    then = members(3000, seed=1).astype("float64")
    now = members(3000, seed=2).astype("float64")
    more = np.random.default_rng(0).random(3000) < 0.2
    left = now.assign(Churn=now["Churn"].mask(more, 1))
    remembered = remember(then)
    assert list(warnings(now, remembered, model="v", target="Churn")) == []
    (outcome,) = warnings(left, remembered, model="v", target="Churn")
    rates = f"{then['Churn'].mean():.1%} of the members had left then, {left['Churn'].mean():.1%} "
    assert outcome.startswith(f"the outcome has drifted since v was trained: {rates}")
    assert "though no column has drifted" in outcome
    older = left.assign(Age=left["Age"] + 4)
    columns, outcome = warnings(older, remembered, model="v", target="Churn")
    assert "Churn" not in columns
    assert "though" not in outcome


def test_predictions_are_compared_with_those_out_of_fold():
    rng = np.random.default_rng(0)
    then, alike, higher = rng.beta(1, 3, 2000), rng.beta(1, 3, 2000), rng.beta(2, 3, 2000)
    remembered = json.loads(json.dumps(remember(members(100, seed=1), scores=then)))
    assert list(score_warnings(alike, remembered, model="v")) == []
    assert list(score_warnings(np.array([]), remembered, model="v")) == []
    (warning,) = score_warnings(higher, remembered, model="v")
    assert f"was {then.mean():.1%} on its training members" in warning
    assert f"is {higher.mean():.1%} now" in warning


def of_an_earlier_release(remembered: dict) -> dict:
    """What versions made before 0.1.0 remember: no points, no deviation, no scores."""
    later = ("points", "cumulative", "sd")
    columns = {
        name: {key: value for key, value in column.items() if key not in later}
        for name, column in remembered["columns"].items()
    }
    return {"rows": remembered["rows"], "columns": columns}


def test_the_memory_of_an_earlier_release_is_read_and_an_earlier_one_can_read_this():
    then, now = members(2000, seed=1), members(500, seed=2)
    remembered = remember(then, scores=np.linspace(0, 1, 50))
    for column in remembered["columns"].values():
        assert {"edges", "mean", "shares"} <= set(column)
        assert len(column["shares"]) == len(column["edges"]) + 2
    earlier = of_an_earlier_release(remembered)
    assert list(warnings(now, earlier, model="v")) == []
    (warning,) = warnings(now.assign(Age=now["Age"] + 4), earlier, model="v")
    assert "Age (mean " in warning
    assert list(score_warnings(np.ones(50), earlier, model="v")) == []
