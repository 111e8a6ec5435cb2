"""Coordinates of numbers and words: every column weighs the same, whatever it is written in."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from churnlab.errors import InputError
from churnlab.segments.latent_classes import features
from churnlab.segments.space import feature_columns, space_of, word_columns

TABLE = pd.DataFrame(
    {
        "age": [20.0, 30.0, 60.0, 45.0, 33.0],
        "plan": ["gold", "basic", "basic", "none", "gold"],
        "paid": ["Yes", "No", "No", "Yes", "Yes"],
    }
)
LEVELS = st.lists(st.sampled_from("abcde"), min_size=6, max_size=40)


@given(levels=LEVELS, numbers=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_each_column_has_a_variance_of_one(levels, numbers):
    rng = np.random.default_rng(len(levels))
    frame = pd.DataFrame(rng.normal(size=(len(levels), numbers))).add_prefix("n")
    frame["word"] = levels
    Z, layout = space_of(frame, ["word"])
    sums = [Z[:, block].var(axis=0).sum() for block in layout.blocks]
    assert sums[:numbers] == pytest.approx([1.0] * numbers)
    assert sums[-1] == pytest.approx(1.0 if len(set(levels)) > 1 else 0.0)


def test_yes_and_no_are_as_far_apart_as_one_and_zero():
    words = space_of(TABLE, ["plan", "paid"]).Z
    numbers = space_of(TABLE.assign(paid=(TABLE["paid"] == "Yes").astype(float)), ["plan"]).Z
    assert pdist(words) == pytest.approx(pdist(numbers))


def test_served_features_are_those_of_the_fit():
    for words in (["plan", "paid"], ["plan"]):
        frame = TABLE[["age", *words]]
        space = space_of(frame, words)
        served = feature_columns(frame, words).transform(frame)
        assert served == pytest.approx(features(space.Z, space.layout))


def test_words_without_a_clusterer_for_them_are_refused():
    with pytest.raises(InputError, match="plan, paid contain words.*clusterer=mixed"):
        space_of(TABLE)


def test_a_column_of_one_word_or_of_many_takes_no_part():
    table = TABLE.assign(same="x", city=list("abcde"))
    assert word_columns(table) == ["plan", "paid", "city"]
    many = pd.DataFrame({"city": [f"city {i}" for i in range(30)], "plan": ["a", "b"] * 15})
    assert word_columns(many) == ["plan"]
