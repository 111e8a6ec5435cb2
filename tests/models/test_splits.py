"""The hold-out and the folds: scikit-learn's own, with every member in exactly one part."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold, train_test_split

from churnlab.errors import InputError
from churnlab.models.splits import hold_out, make_folds

examples = settings(max_examples=60, deadline=None)


@pytest.mark.parametrize("stratify", [False, True])
def test_the_hold_out_equals_scikit_learns_in_order(stratify):
    y = np.random.default_rng(0).integers(0, 2, 203)
    train, test = hold_out(y, test_size=0.2, stratify=stratify, seed=3)
    frame = pd.DataFrame({"row": np.arange(203)})
    parts = train_test_split(frame, test_size=0.2, random_state=3, stratify=y if stratify else None)
    assert train.tolist() == parts[0]["row"].tolist()
    assert test.tolist() == parts[1]["row"].tolist()


@examples
@given(st.integers(100, 300), st.floats(0.2, 0.8), st.booleans(), st.integers(0, 2**32 - 1))
def test_every_member_is_in_either_training_part_or_hold_out(n, test_size, stratify, seed):
    y = np.arange(n) % 2
    train, test = hold_out(y, test_size=test_size, stratify=stratify, seed=seed)
    assert sorted([*train, *test]) == list(range(n))
    if stratify:
        assert abs(y[test].mean() - y.mean()) <= 1 / len(test)


@pytest.mark.parametrize(
    ("y", "test_size", "stratify"),
    [
        ([0, 1], 0.2, False),
        ([0, 1], 0.2, True),
        ([0] * 50 + [1], 0.2, True),
        ([0] * 50 + [1], 0.2, False),
        ([0, 1] * 50, 0.001, False),
        ([0, 1] * 50, 0.999, True),
        ([0, 1] * 50, 1.5, False),
        ([0, 1] * 50, 0.0, False),
        ([1], 0.2, False),
    ],
)
def test_parts_without_both_outcomes_are_refused(y, test_size, stratify):
    with pytest.raises(InputError, match=r"evaluation\.test_size="):
        hold_out(np.array(y), test_size=test_size, stratify=stratify, seed=0)


@examples
@given(st.integers(2, 6), st.integers(1, 3), st.integers(12, 60), st.integers(0, 1000))
def test_the_folds_of_each_repeat_contain_every_member_once(folds, repeats, n, seed):
    y = np.arange(n) % 2
    made = make_folds(y, folds=folds, repeats=repeats, seed=seed)
    assert [(fold.repeat, fold.fold) for fold in made] == [
        (r, f) for r in range(repeats) for f in range(folds)
    ]
    for repeat in range(repeats):
        parts = [fold for fold in made if fold.repeat == repeat]
        assert sorted(np.concatenate([fold.validation for fold in parts])) == list(range(n))
        for fold in parts:
            assert sorted([*fold.train, *fold.validation]) == list(range(n))
            assert 0 < y[fold.validation].sum() < len(fold.validation)


def test_a_repeat_is_drawn_with_the_seed_plus_its_number():
    y = np.random.default_rng(0).integers(0, 2, 100)
    made = make_folds(y, folds=5, repeats=2, seed=7)
    expected = StratifiedKFold(5, shuffle=True, random_state=8).split(y, y)
    for fold, (train, validation) in zip(made[5:], expected, strict=True):
        assert fold.train.tolist() == train.tolist()
        assert fold.validation.tolist() == validation.tolist()


def test_more_folds_than_members_of_a_class_are_refused():
    with pytest.raises(InputError, match=r"evaluation\.folds=5 .* of whom 4 left.* 2 to 4 folds"):
        make_folds(np.array([1] * 4 + [0] * 50), folds=5, repeats=1, seed=0)


def test_further_draws_are_those_that_more_repeats_would_draw():
    y = np.arange(60) % 3 == 0
    more = make_folds(y.astype(int), folds=3, repeats=4, seed=7)
    further = make_folds(y.astype(int), folds=3, repeats=3, seed=7, first=1)
    for one, other in zip(more[3:], further, strict=True):
        assert (one.repeat, one.fold) == (other.repeat, other.fold)
        assert one.validation.tolist() == other.validation.tolist()


@pytest.mark.parametrize("stratify", [False, True])
def test_all_rows_of_a_member_are_in_one_part_and_one_fold(stratify):
    random = np.random.default_rng(0)
    groups = random.permutation(np.repeat(np.arange(120) * 3, random.integers(1, 6, 120)))
    y = (random.random(len(groups)) < 0.3).astype(int)
    train, test = hold_out(y, test_size=0.25, stratify=stratify, seed=1, groups=groups)
    assert sorted([*train, *test]) == list(range(len(y)))
    assert not set(groups[train]) & set(groups[test])
    assert len(set(groups[test])) == 30
    folds = make_folds(y[train], folds=4, repeats=2, seed=0, groups=groups[train])
    assert [(fold.repeat, fold.fold) for fold in folds] == [
        (r, f) for r in (0, 1) for f in range(4)
    ]
    for fold in folds:
        assert not set(groups[train][fold.train]) & set(groups[train][fold.validation])
        assert len(np.unique(y[train][fold.validation])) == 2


def test_a_member_of_every_leaver_row_leaves_too_few_members_for_folds():
    groups, y = np.r_[np.zeros(20, int), np.arange(1, 81)], np.repeat([1, 0], [20, 80])
    with pytest.raises(InputError, match="do not work for 81 members of whom 1 left"):
        make_folds(y, folds=3, repeats=1, seed=0, groups=groups)
