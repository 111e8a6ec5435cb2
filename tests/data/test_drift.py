"""Drift: members unlike the training data are reported, chance is not."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.data.demo import members
from churnlab.data.drift import psi, remember, warnings


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
    assert "age (missing 0% then, 60% now)" in warning
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


def test_the_index_is_that_of_the_textbook():
    was, now = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])
    assert psi(was, now) == pytest.approx(0.1 * np.log(5 / 4) + 0.1 * np.log(4 / 3))
