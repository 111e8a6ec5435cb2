"""The keys of a claim, and the rule of its verdict."""

import math
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from churnlab.claims.claim import (
    NO_EFFECT,
    OPTIONAL,
    REQUIRED,
    Claim,
    Quantity,
    claimed_value,
    count_verdicts,
    format_interval,
    verdict,
)
from churnlab.claims.measures import MEASURES

SOURCE = {"source": "a talk", "statement": "Older members stay."}
RATIO = Claim(**SOURCE, quantity="risk_ratio", among="Age > 30", direction="below")

numbers = st.floats(-5, 5, allow_nan=False).map(lambda value: round(value, 3))
intervals = st.tuples(numbers, numbers).map(sorted)
tolerances = st.floats(0.001, 3).map(lambda value: round(value, 3))


def means(than: float, direction: str, **more) -> Claim:
    return Claim(**SOURCE, quantity="mean", of="Age", than=than, direction=direction, **more)


@given(intervals, numbers)
def test_a_direction_holds_if_the_whole_interval_is_there_and_is_false_if_it_is_on_the_other_side(
    ends, none
):
    low, high = ends
    expected = "holds" if low > none else "false" if high < none else "not shown"
    assert verdict(means(none, "above"), low, high) == expected


@given(intervals, numbers, st.sampled_from([None, 1.5]), tolerances)
def test_below_is_the_mirror_image_of_above(ends, none, farther, tolerance):
    low, high = ends
    above = means(
        none, "above", size=None if farther is None else none + farther, tolerance=tolerance
    )
    below = means(
        -none, "below", size=None if farther is None else -none - farther, tolerance=tolerance
    )
    assert verdict(above, low, high) == verdict(below, -high, -low)


@given(intervals, numbers, tolerances, tolerances)
def test_a_claimed_size_holds_if_the_interval_shows_it_and_is_partly_right_if_it_excludes_it(
    ends, none, farther, tolerance
):
    low, high = ends
    bare = verdict(means(none, "above"), low, high)
    size = none + farther
    sized = verdict(means(none, "above", size=size, tolerance=tolerance), low, high)
    if bare != "holds":
        assert sized == bare
    else:
        excluded = high < size - tolerance or low > size + tolerance
        shown = size - tolerance <= low and high <= size + tolerance
        assert sized == ("partly" if excluded else "holds" if shown else "compatible")


@given(intervals, numbers, tolerances)
def test_no_difference_holds_inside_the_tolerance_is_false_outside_and_not_shown_across_its_edge(
    ends, none, tolerance
):
    low, high = ends
    near, far = none - tolerance, none + tolerance
    inside = near <= low and high <= far
    outside = high < near or low > far
    expected = "holds" if inside else "false" if outside else "not shown"
    assert verdict(means(none, "same", tolerance=tolerance), low, high) == expected


def test_vague_data_never_show_a_size():
    doubled = replace(RATIO, direction="above", size=2, tolerance=0.2)
    assert verdict(doubled, 1.1, 9.0) == "compatible"
    assert verdict(doubled, 1.9, 2.1) == "holds"
    assert verdict(doubled, 1.1, 1.7) == "partly"
    assert verdict(doubled, 0.9, 9.0) == "not shown"


@given(intervals, intervals, numbers, st.sampled_from(["above", "below", "same"]), tolerances)
def test_more_members_never_turn_holds_into_false_or_back(ends, within, none, direction, tolerance):
    """A narrower interval inside the first one may decide what was open, and never reverses what
    was decided."""
    low, high = ends
    narrow = sorted(min(max(end, low), high) for end in within)
    claim = means(none, direction, tolerance=tolerance)
    before = verdict(claim, low, high)
    assume(before != "not shown")
    assert verdict(claim, *narrow) == before


@pytest.mark.parametrize("direction", ["above", "below", "same"])
@pytest.mark.parametrize("ends", [(math.nan, 1.0), (0.0, math.nan), (math.nan, math.nan)])
def test_a_quantity_without_an_interval_is_not_shown(direction, ends):
    assert verdict(means(0, direction, tolerance=1), *ends) == "not shown"


def test_the_value_without_effect_is_the_quantitys_own_unless_the_claim_names_another():
    assert RATIO.no_effect == 1
    assert verdict(RATIO, 0.4, 0.9) == "holds"
    half = replace(RATIO, than=0.5)
    assert verdict(half, 0.4, 0.9) == "not shown"
    assert verdict(half, 0.6, 0.9) == "false"


def test_a_ratio_without_an_end_is_above_one():
    assert verdict(replace(RATIO, direction="above"), 1.2, math.inf) == "holds"


WRONG = {
    "nothing to measure": ({"quantity": "correlation"}, "quantity=correlation needs of"),
    "no groups": ({"quantity": "mean_difference", "of": "Age"}, "needs among"),
    "a mean of nothing in particular": ({"quantity": "mean"}, "needs of and than"),
    "a mean compared with nothing": ({"quantity": "mean", "of": "Age"}, "needs than"),
    "models without a metric": (
        {"quantity": "model_difference", "of": "a", "against": "b"},
        "needs metric",
    ),
    "a metric of a table": (
        {"quantity": "correlation", "of": "Age", "metric": "f1"},
        "takes no metric",
    ),
    "a second group of a mean": (
        {"quantity": "mean", "of": "x", "than": 1, "against": "y"},
        "takes no against",
    ),
    "a list": ({"quantity": "correlation", "of": ["x", "y"]}, "one expression as of, not a list"),
    "a segment without segments": (
        {"quantity": "risk_ratio", "among": {"highest": "x"}},
        "needs segments",
    ),
    "a segment for a column": (
        {"quantity": "correlation", "of": "x", "against": {"highest": "x"}, "segments": "s"},
        "takes no segment as against",
    ),
    "two segments at once": (
        {"quantity": "risk_ratio", "among": {"highest": "x", "lowest": "x"}, "segments": "s"},
        "one of highest, lowest",
    ),
    "no difference from nothing": (
        {"quantity": "correlation", "of": "x", "direction": "same"},
        "needs tolerance",
    ),
    "a size of no difference": (
        {"quantity": "correlation", "of": "x", "direction": "same", "tolerance": 0.1, "size": 0.1},
        "takes no size",
    ),
    "a size on the other side": (
        {"quantity": "correlation", "of": "x", "size": -0.4},
        "size=-0.4 is not above 0",
    ),
    "a tolerance below zero": (
        {"quantity": "correlation", "of": "x", "tolerance": -0.1},
        "below 0",
    ),
}


@pytest.mark.parametrize(("keys", "message"), WRONG.values(), ids=WRONG)
def test_a_claim_that_cannot_be_measured_says_which_key_is_wrong(keys, message):
    with pytest.raises(ValueError, match=message):
        Claim(**SOURCE | {"direction": "above"} | keys)


def test_every_quantity_has_its_keys_its_value_without_effect_and_a_measure():
    assert (
        set(get_args(Quantity)) == set(NO_EFFECT) == set(REQUIRED) == set(OPTIONAL) == set(MEASURES)
    )


def test_a_claimed_and_a_measured_value_are_formatted_with_their_tolerance_or_interval():
    assert claimed_value(means(0, "below", size=-0.44, tolerance=0.005)) == "below 0, −0.44 ± 0.005"
    assert claimed_value(means(1, "same", tolerance=0.1)) == "within 0.1 of 1"
    assert claimed_value(means(0.5, "above")) == "above 0.5"
    assert format_interval(-0.43812, -0.4543, -0.4219) == "−0.438 (−0.454 to −0.422)"
    assert format_interval(0.00444, 0.00127, 0.00758) == "0.0044 (0.0013 to 0.0076)"
    assert format_interval(math.nan, math.nan, math.nan) == "– (– to –)"


def test_verdicts_that_no_claim_has_are_counted_as_zero():
    assert count_verdicts(["holds", "false", "holds"]) == {
        "holds": 2,
        "compatible": 0,
        "partly": 0,
        "not shown": 0,
        "false": 1,
    }
