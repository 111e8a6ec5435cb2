"""Readable groups of values: every value is in one group, and its name is true."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.data.contract import Column
from churnlab.explore import binning

NUMERIC, CATEGORY = Column("numeric"), Column("category")


def groups_of(values, column=NUMERIC, n_bins=8):
    codes, names = binning.groups(pd.Series(values), column, n_bins=n_bins)
    return [names[code] for code in codes], names


def belongs(value: float, name: str, *, is_whole: bool) -> bool:
    if number := re.fullmatch(r"(-?[\d.e+-]+?)(?:–| to )(-?[\d.e+-]+)", name):
        low, high = map(float, number.groups())
        return low <= value <= high if is_whole else low < value <= high
    if name.startswith("up to "):
        return value <= float(name.removeprefix("up to "))
    if name.startswith("over "):
        return value > float(name.removeprefix("over "))
    return value == float(name)


def test_few_values_are_shown_one_by_one():
    assert groups_of([1.0, 12.0, 6.0, 1.0]) == (["1", "12", "6", "1"], ["1", "6", "12"])


def test_frequent_whole_numbers_keep_a_group_of_their_own():
    values = np.repeat(np.arange(20.0), [30, 30, 20, *[1] * 17])
    assert groups_of(values, n_bins=4)[1] == ["0", "1", "2", "3–19"]


def test_many_members_at_the_lowest_value_are_a_group_of_their_own():
    values = np.concatenate([np.zeros(20), np.random.default_rng(0).uniform(0, 4, 380)])
    named, names = groups_of(values)
    assert names[0] == "0"
    assert names[1].startswith("up to 0.")
    assert named.count("0") == 20


def test_decimal_numbers_get_groups_of_similar_size():
    values = np.random.default_rng(1).normal(size=2000)
    named, names = groups_of(values)
    assert len(names) == 8
    assert pd.Series(named).value_counts().between(200, 300).all()
    assert all(len(name) < 20 for name in names)


def test_large_whole_numbers_are_written_out():
    assert groups_of([1200000.0, 3.0])[1] == ["3", "1200000"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-3000, 3000), min_size=13, max_size=60, unique=True),
    st.sampled_from([1.0, 0.5, 0.01, 1e-5, 1000.0]),
    st.integers(2, 12),
)
def test_every_value_is_in_the_group_with_the_matching_name(numbers, unit, n_bins):
    values = np.round(np.array(numbers) * unit, 6)
    values = np.concatenate([values, np.repeat(values[:3], 7)])
    named, names = groups_of(values, n_bins=n_bins)
    assert len(set(names)) == len(names)
    for value, name in zip(values, named, strict=True):
        assert belongs(value, name, is_whole=unit >= 1), (value, name)


def test_levels_are_sorted_by_name_and_the_rarest_are_merged():
    few, names = groups_of(["b", "a", "b"], CATEGORY)
    assert (few, names) == (["b", "a", "b"], ["a", "b"])
    many = [f"city {i:02d}" for i in range(30) for _ in range(40 - i)]
    named, names = groups_of(many, CATEGORY)
    assert names == [*(f"city {i:02d}" for i in range(11)), "all others"]
    assert named.count("all others") == sum(40 - i for i in range(11, 30))


def test_edges_of_whole_numbers_lie_between_them():
    edges = binning.even_edges(np.arange(100.0), n_bins=30)
    assert set(np.diff(edges)) == {4.0}
    assert set(edges % 1) == {0.5}
    assert len(edges) - 1 <= 30


def test_edges_have_width_even_if_nearly_all_values_are_equal():
    values = np.concatenate([np.zeros(1000), [0.3, 1.0]])
    edges = binning.even_edges(values, n_bins=10)
    assert [edges[0], edges[-1]] == [0, 1]


@pytest.mark.parametrize(
    ("values", "cut"),
    [
        ([1, 2, 3, 4, 5], 3),
        ([1, 1, 1, 6, 12], 1),
        ([1, 12, 12, 12], 1),
        ([0, 1], 0.5),
        ([0.12345, 0.23456, 0.3], 0.235),
        ([1.000001, 1.000002, 1.000003], 1.000002),
    ],
)
def test_the_median_cut_is_readable_and_leaves_members_on_both_sides(values, cut):
    assert binning.median_cut(np.array(values, dtype=float)) == pytest.approx(cut)


def test_labels_are_the_names_of_the_groups_and_gaps_stay():
    X = pd.DataFrame({"plan": ["a", None, "b"], "months": [1.0, 6.0, 1.0]}, index=[5, 3, 9])
    columns = {"plan": Column("category"), "months": Column("numeric")}
    labels = binning.label_columns(X, columns, n_bins=4)
    assert labels["plan"].tolist()[::2] == ["a", "b"]
    assert labels["plan"].isna().tolist() == [False, True, False]
    assert labels["months"].tolist() == ["1", "6", "1"]
    assert labels.index.equals(X.index)
    words = {"months": {"1": "one"}}
    labels = binning.label_columns(X, columns, n_bins=4, words=words)
    assert labels["months"].tolist() == ["one", "6", "one"]
