"""Drift: members unlike those of the training are told, chance is not."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.data.demo import members
from churnlab.data.drift import psi, remember, warnings


def told(X: pd.DataFrame, then: pd.DataFrame) -> list[str]:
    """What is said of members when a version remembers others; what it remembers goes through JSON."""
    return list(warnings(X, json.loads(json.dumps(remember(then))), model="version 3"))


@pytest.mark.parametrize("rows", [30, 300, 3000])
@pytest.mark.parametrize("seed", range(8))
def test_other_members_of_the_same_kind_are_no_drift(seed, rows):
    assert told(members(rows, seed=100 + seed), members(3000, seed=seed)) == []


def test_a_column_that_has_moved_is_told_with_its_mean_then_and_now():
    then, now = members(2000, seed=1), members(500, seed=2)
    (said,) = told(now.assign(Age=now["Age"] + 4), then)
    before, after = then["Age"].mean(), now["Age"].mean() + 4
    assert (
        said
        == f"not like the members that version 3 was trained on: Age (mean {before:.3g} then, {after:.3g} now)"
    )


def test_a_changed_mix_of_categories_and_values_gone_missing_are_told():
    then = pd.DataFrame({"plan": ["a"] * 600 + ["b"] * 300 + ["c"] * 100, "age": np.arange(1000.0)})
    now = pd.DataFrame(
        {"plan": ["a"] * 100 + ["b"] * 250 + ["c"] * 150, "age": np.arange(500.0) * 2}
    ).assign(town="x")
    now.loc[:300, "age"] = np.nan
    (said,) = told(now, then)
    assert "plan (a 60% then, 20% now)" in said
    assert "age (missing 0% then, 60% now)" in said
    assert "town" not in said


def test_a_category_that_was_never_seen_is_told():
    then = pd.DataFrame({"plan": ["a", "b"] * 50})
    (said,) = told(pd.DataFrame({"plan": ["a", "b"] * 50 + ["c", None]}), then)
    assert said.endswith("which are to it none of those it knows: plan (c: 1 of 102)")


@settings(max_examples=100, deadline=None)
@given(
    then=st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1, max_size=60),
    now=st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1, max_size=60),
)
def test_any_two_columns_can_be_compared_and_one_never_drifts_from_itself(then, now):
    before, after = (pd.DataFrame({"x": values}, dtype="float64") for values in (then, now))
    assert told(before, before) == []
    assert len(told(after, before)) <= 1


def test_the_index_is_that_of_the_textbook():
    was, now = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])
    assert psi(was, now) == pytest.approx(0.1 * np.log(5 / 4) + 0.1 * np.log(4 / 3))
