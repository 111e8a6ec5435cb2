"""Numbers of segments that stay: over refits, splits and mergers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.data.demo import members
from churnlab.segments.kmeans import fit_segmentation, segment_frame
from churnlab.segments.matching import match

BEHAVIOUR = {
    "tenure": "log1p(Lifetime)",
    "visits": "Avg_class_frequency_current_month",
    "change": "Avg_class_frequency_current_month - Avg_class_frequency_total",
    "contract": "log1p(Contract_period)",
    "near": "Near_Location",
}


@settings(max_examples=100, deadline=None)
@given(order=st.permutations(range(4)), sizes=st.lists(st.integers(1, 30), min_size=4, max_size=4))
def test_the_same_segments_in_another_order_keep_their_numbers(order, sizes):
    before = np.repeat([3, 0, 7, 5], sizes)
    after = np.repeat(order, sizes)
    found = match(before, after, segments=4, free=8)
    assert [found.numbers[label] for label in order] == [3, 0, 7, 5]
    assert (found.new, found.gone, found.moved, found.members) == ([], [], 0, sum(sizes))


@settings(max_examples=200, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=80),
    free=st.integers(6, 20),
)
def test_no_number_is_given_twice_or_used_for_another_kind(pairs, free):
    before, after = map(np.array, zip(*pairs, strict=True))
    found = match(before, after, segments=5, free=free)
    assert sorted(found.numbers) == list(range(5))
    assert len(set(found.numbers.values())) == 5
    for label, number in found.numbers.items():
        if number < free:
            both = ((before == number) & (after == label)).sum()
            assert both >= 0.5 * ((before == number) | (after == label)).sum()
        else:
            assert number in found.new
    assert not set(found.gone) & set(found.numbers.values())
    now = np.array([found.numbers[label] for label in after])
    assert found.moved == (now != before).sum()


def test_the_larger_part_of_a_split_segment_keeps_its_number_and_the_other_is_new():
    before = np.repeat([0, 1], [100, 80])
    after = np.repeat([1, 2, 0], [70, 30, 80])
    found = match(before, after, segments=3, free=2)
    assert found.numbers == {0: 1, 1: 0, 2: 2}
    assert str(found) == "30 of 180 members change their segment; new: 2"


def test_two_that_became_one_leave_one_number_behind():
    found = match(
        np.repeat([0, 1, 2], [90, 20, 50]), np.repeat([0, 1], [110, 50]), segments=2, free=3
    )
    assert found.numbers == {0: 0, 1: 2}
    assert str(found) == "20 of 160 members change their segment; gone: 1"


def test_without_members_in_common_all_are_new():
    nobody = np.array([], dtype=int)
    assert match(nobody, nobody, segments=2, free=4).numbers == {0: 4, 1: 5}


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_refit_with_another_seed_keeps_the_numbers_of_nearly_all_members(seed):
    frame = segment_frame(members(4000, seed=0), BEHAVIOUR)
    before, after = (
        fit_segmentation(frame, 4, n_init=10, random_state=state).predict(frame).astype(int)
        for state in (0, seed)
    )
    assert match(before, after, segments=4, free=4).moved <= 0.05 * len(frame)
