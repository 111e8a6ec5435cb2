import math
from datetime import date

import pandas as pd
import pytest

from churnlab.formatting import (
    Lines,
    Table,
    clipped,
    counted,
    day,
    duration,
    elided,
    listed,
    number,
    percent,
    readable,
    short_value,
    signed,
    whole,
)


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (0.26525, 3, "0.265"),
        (-1234.5, 1, "−1,234.5"),
        (-0.0004, 3, "0.000"),
        (math.nan, 2, "–"),
        (math.inf, 2, "∞"),
        (-math.inf, 2, "−∞"),
    ],
)
def test_a_number_has_a_true_minus_thousands_and_no_negative_zero(value, digits, expected):
    assert number(value, digits) == expected


@pytest.mark.parametrize(
    ("share", "digits", "expected"), [(0.26525, 1, "26.5%"), (1, 0, "100%"), (math.nan, 1, "–")]
)
def test_a_share_is_formatted_as_a_percentage(share, digits, expected):
    assert percent(share, digits) == expected


def test_a_noun_is_plural_unless_there_is_one():
    assert [counted(1, "member"), counted(0, "member"), counted(1061, "member")] == [
        "1 member",
        "0 members",
        "1,061 members",
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.5547119471592125", "0.555"),
        ("100", "100"),
        ("1000000", "1e+06"),
        ("newton-cholesky", "newton-cholesky"),
    ],
)
def test_a_long_decimal_among_parameters_is_shortened(value, expected):
    assert short_value(value) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (7300, "2 h"),
        (86_400 * 1500, "1,500 d"),
    ],
)
def test_a_time_is_formatted_in_its_largest_unit(seconds, expected):
    assert duration(seconds) == expected


def test_names_dates_and_counts_are_formatted_as_people_write_them():
    assert readable("Avg_class_frequency_total") == "Avg class frequency total"
    assert day(date(2026, 5, 1)) == "1 May 2026"
    assert whole(4000.0) == "4,000"


def test_a_sign_is_always_written_but_not_for_zero():
    assert [signed(value, 1) for value in (0.44, -0.44, 0.04, -0.04, 10)] == [
        *("+0.4", "−0.4", "0.0", "0.0", "+10.0")
    ]


def test_a_long_text_is_cut_at_its_end_or_in_its_middle():
    assert clipped("x" * 41) == "x" * 37 + "..."
    names = [elided(f"another_measure_with_a_long_name_{i}", 20) for i in range(12)]
    assert len(set(names)) == 12
    assert max(map(len, names)) == 20
    assert elided("short", 20) == "short"


def test_of_many_names_the_first_are_listed_and_the_rest_counted():
    assert listed(["a", 1.0, "c"]) == "a, 1, c"
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"


def test_a_table_is_plain_text_that_keeps_its_cells_as_people_read_them():
    frame = pd.DataFrame({"name": ["a", None], "auc": [0.5, math.nan], "rank": [1, 2]})
    table = Table.of(frame, missing="-", floats="{:.4f}".format)
    assert table == frame.to_string(index=False, na_rep="-", float_format="{:.4f}".format)
    assert table.columns == ["name", "auc", "rank"]
    assert table.rows == [["a", "0.5000", "1"], ["-", "-", "2"]]
    assert table.numeric == [False, True, True]


def test_lines_keep_their_tables():
    table = Table.of(pd.DataFrame({"x": [1]}))
    lines = Lines.of(["One table:", table])
    assert lines == f"One table:\n{table}"
    assert lines.parts[1] is table
