import math
from datetime import date

import pytest

from churnlab.formatting import counted, day, lasted, number, percent, setting, spoken, whole


@pytest.mark.parametrize(
    ("value", "digits", "said"),
    [
        (0.26525, 3, "0.265"),
        (-1234.5, 1, "−1,234.5"),
        (-0.0004, 3, "0.000"),
        (math.nan, 2, "–"),
        (math.inf, 2, "∞"),
        (-math.inf, 2, "−∞"),
    ],
)
def test_a_number_has_a_true_minus_thousands_and_no_negative_zero(value, digits, said):
    assert number(value, digits) == said


@pytest.mark.parametrize(
    ("share", "digits", "said"), [(0.26525, 1, "26.5%"), (1, 0, "100%"), (math.nan, 1, "–")]
)
def test_a_share_is_said_in_percent(share, digits, said):
    assert percent(share, digits) == said


def test_one_is_not_many():
    assert [counted(1, "member"), counted(0, "member"), counted(1061, "member")] == [
        "1 member",
        "0 members",
        "1,061 members",
    ]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("0.5547119471592125", "0.555"),
        ("100", "100"),
        ("1000000", "1e+06"),
        ("newton-cholesky", "newton-cholesky"),
    ],
)
def test_a_long_decimal_among_parameters_is_shortened(value, said):
    assert setting(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (7300, "2 h"),
        (86_400 * 1500, "1,500 d"),
    ],
)
def test_a_time_is_said_in_its_largest_unit(seconds, said):
    assert lasted(seconds) == said


def test_names_and_dates_are_said_as_people_say_them():
    assert spoken("Avg_class_frequency_total") == "Avg class frequency total"
    assert day(date(2026, 5, 1)) == "1 May 2026"
    assert whole(4000.0) == "4,000"
