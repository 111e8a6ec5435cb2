"""Null tables keep the margins and the correlations of numbers and words."""

import numpy as np
import pandas as pd
import pytest

from churnlab.segments.null_model import NullModel
from churnlab.segments.space import space_of


def driven(n: int = 2000) -> pd.DataFrame:
    """One factor drives a number, a skewed number and two words, whose order is not that of their
    letters."""
    rng = np.random.default_rng(0)
    factor = rng.normal(size=n)
    noisy = [factor + rng.normal(size=n) for _ in range(4)]
    words = [np.array(list("cab"))[np.digitize(column, [-0.7, 0.9])] for column in noisy[2:]]
    return pd.DataFrame({"a": noisy[0], "b": np.exp(noisy[1]), "plan": words[0], "city": words[1]})


def test_words_stay_words_and_keep_their_shares():
    space = space_of(driven(), ["plan", "city"])
    drawn = NullModel(*space).draw(np.random.default_rng(1))
    for block in space.layout.blocks[2:]:
        held = drawn[:, block] > 0
        assert (held.sum(axis=1) == 1).all()
        assert held.mean(axis=0) == pytest.approx((space.Z[:, block] > 0).mean(axis=0), abs=0.04)


def test_words_keep_their_correlations():
    space = space_of(driven(), ["plan", "city"])
    null = NullModel(*space)
    drawn = np.vstack([null.draw(np.random.default_rng(seed)) for seed in range(5)])
    assert np.corrcoef(drawn.T) == pytest.approx(np.corrcoef(space.Z.T), abs=0.08)


def test_a_table_of_numbers_is_drawn_as_its_own_sorted_values():
    Z = space_of(driven()[["a", "b"]]).Z
    drawn = NullModel(Z).draw(np.random.default_rng(2))
    assert drawn.shape == Z.shape
    assert drawn.mean(axis=0) == pytest.approx([0, 0], abs=1e-12)


def test_columns_with_one_value_change_nothing_of_the_others():
    table = driven()
    whole = space_of(table.assign(level=3.0, club="one"), ["plan", "city", "club"])
    drawn = NullModel(*whole).draw(np.random.default_rng(1))
    known = whole.Z.std(axis=0) > 0
    wanted = np.corrcoef(whole.Z[:, known].T)
    assert np.corrcoef(drawn[:, known].T) == pytest.approx(wanted, abs=0.12)
    assert (drawn[:, ~known] == whole.Z[0, ~known]).all()
