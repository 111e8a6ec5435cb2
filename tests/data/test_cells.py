"""Cells as people write them: numbers in any format, dates, truth in words, gaps."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.data.cells import gaps, number_pattern, possible_formats, read_number, read_numbers
from churnlab.data.contract import Column, Contract

MARKS = st.sampled_from(
    [("", "."), (",", "."), (".", ","), (" ", "."), ("\u00a0", ","), ("'", "."), ("", ",")]
)
AFFIXES = st.sampled_from([("", ""), ("$", ""), ("", " €"), ("EUR ", ""), ("", "%"), ("", " kg")])


@settings(max_examples=300, deadline=None)
@given(
    number=st.decimals(-(10**9), 10**9, places=2),
    marks=MARKS,
    affixes=AFFIXES,
    blanks=st.text(" \t", max_size=2),
)
def test_a_number_in_its_format_is_read_to_the_last_bit(number, marks, affixes, blanks):
    (thousands, decimal), (before, after) = marks, affixes
    format = f"{before}1{thousands}234{decimal}5{after}"
    text = f"{abs(number):,.2f}".replace(",", "\0").replace(".", decimal).replace("\0", thousands)
    text = f"{blanks}{'-' if number < 0 else ''}{before}{text}{after}{blanks}"
    assert read_number(text, format) == float(number)
    found = [one for one in possible_formats([text]) if read_number(text, one) == float(number)]
    assert found, "the format is among the guesses"


@settings(max_examples=300, deadline=None)
@given(
    text=st.text("0123456789.,' -+eE$€%k", max_size=9),
    format=st.sampled_from([None, "1,234.5", "1.234,5", "1 234,5 €", "1234,5", "$1,234.5"]),
)
def test_a_number_is_read_with_all_its_digits_or_not_at_all(text, format):
    value = read_number(text, format)
    if not math.isnan(value) and "e" not in text.casefold():
        _, _, decimal = number_pattern(format)
        whole, _, fraction = text.partition(decimal)
        digits = "".join(filter(str.isdigit, whole)) or "0"
        expected = float(f"{digits}.{''.join(filter(str.isdigit, fraction)) or '0'}")
        assert abs(value) == expected, "no separator makes a number smaller or larger"


@pytest.mark.parametrize(
    ("format", "texts"),
    [
        (None, ["8,993", "12 k", "--1", "٣٠", "0x1F", "1_000", "", "nan", "5 kg", "1 000"]),
        ("1,234.5", ["8,99", "12,345,67", "1,2345", "$8", "1.234,5"]),
        ("1.234,5", ["1.23", "8,993.5", "1 234"]),
        ("1 234,5 €", ["1 23", "$5", "5 kg"]),
        ("$1234.5", ["-$-1", "€1", "$1,000"]),
    ],
)
def test_what_is_not_written_in_the_format_is_no_number(format, texts):
    assert [text for text in texts if not math.isnan(read_number(text, format))] == []


@pytest.mark.parametrize("format", ["", "1,234,5", "12.5", "number", "1-234.5", "1 234 5"])
def test_a_format_is_the_number_1234_5_as_the_column_writes_it(format):
    with pytest.raises(ValueError, match="must be the number 1234.5 as the column writes it"):
        Column(kind="numeric", format=format)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"kind": "date"}, "give both, as kind: date, before: 2026-05-01"),
        ({"kind": "numeric", "before": "2026-05-01"}, "give both"),
        ({"kind": "date", "before": "May"}, "Invalid isoformat string"),
        ({"kind": "date", "before": "2026-05-01", "format": "soon"}, "such as DD.MM.YYYY"),
        ({"kind": "category", "format": "1,234.5"}, "format is for numbers and dates"),
        ({"kind": "numeric", "ordered": True}, "ordered and encoding are for categories"),
        ({"kind": "numeric", "fold": True}, "are for categories, not for a numeric"),
        (
            {"kind": "category", "values": ("Paris", "paris "), "fold": True},
            "fold makes one of values that differ in capitals or blanks alone",
        ),
        ({"kind": "category", "ordered": True}, "lists its values in their order"),
        ({"kind": "category", "values": ("a",), "ordered": True, "encoding": "target"}, "no enc"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys, text):
    with pytest.raises(ValueError, match=text):
        Column(**keys)


def test_a_loss_in_brackets_is_negative_and_a_code_in_brackets_no_number():
    assert read_number("(1,234.50)", "1,234.5") == -1234.5
    assert read_number(" ($12) ", "$1234.5") == -12
    assert math.isnan(read_number("(-12)"))
    assert possible_formats(["(1,200)", "3,400"]) == ["1,234.5", "1234,5"]
    assert possible_formats(["(415)", "(510)"]) == []


def test_dates_are_ages_in_days_and_a_number_is_an_age_already():
    cells = pd.Series(["01.05.2026", " 30.04.2026 ", "30.04.2026 ", "", 12.5, "2026-04-30"])
    ages, wrong = read_numbers(cells, "date", format="DD.MM.YYYY", before="2026-05-02")
    np.testing.assert_array_equal(ages, [1, 2, 2, np.nan, 12.5, np.nan])
    assert wrong.tolist() == [False] * 5 + [True]
    typed = pd.Series(pd.to_datetime(["2026-05-01 12:00", None]))
    ages, wrong = read_numbers(typed, "date", before="2026-05-02")
    np.testing.assert_array_equal(ages, [0.5, np.nan])
    assert not wrong.any()


@pytest.mark.parametrize("dtype", ["str", "int64", "float64", object])
def test_a_date_in_digits_is_the_same_date_as_text_and_as_a_number_and_a_small_number_is_an_age(
    dtype,
):
    cells = pd.Series(["20260501", "20260430", "99991231", "17"]).astype(dtype)
    form = {"format": "YYYYMMDD", "before": "2026-05-02", "missing": ["99991231"]}
    ages, wrong = read_numbers(cells, "date", **form)
    np.testing.assert_array_equal(ages[:3], [1, 2, np.nan])
    is_number = dtype in ("int64", "float64")
    np.testing.assert_array_equal(ages[3], 17 if is_number else np.nan)
    assert wrong.tolist() == [False, False, False, not is_number]


@pytest.mark.parametrize("word", ["Yes", "yes", "TRUE", "y", "T", "on", "1", "1.0"])
def test_truth_in_words_is_1_in_a_binary_column_and_no_number_elsewhere(word):
    values, wrong = read_numbers(pd.Series([word, " "]), "binary")
    assert (values[0], wrong.any()) == (1, False)
    _, wrong = read_numbers(pd.Series([word]), "numeric")
    assert wrong[0] == (not word.startswith("1"))


def test_words_that_mean_a_gap_are_those_of_the_column_of_the_dataset_or_of_pandas():
    columns = {
        "plan": Column("category", values=("gold", "None")),
        "town": Column("category"),
        "paid": Column("numeric", missing=("999", "-")),
    }
    cells = pd.Series(["gold", "None", "NA", " ", "-", "999"])
    contract = Contract("club", "left", 1, columns)
    assert gaps(cells, contract.words("plan")).tolist() == [False, False, True, True, False, False]
    assert gaps(cells, contract.words("town")).tolist() == [False, True, True, True, False, False]
    declared = Contract("club", "left", 1, columns, missing=("-",))
    assert gaps(cells, declared.words("town")).tolist() == [False, False, False, True, True, False]
    mixed = pd.Series([7, 999.0, "-"], dtype=object)
    for paid in (pd.Series(["7", "999", "-"]), pd.Series([7, 999, 999]), mixed):
        values, wrong = read_numbers(paid, **declared.reading("paid"))
        np.testing.assert_array_equal(values, [7, np.nan, np.nan])
        assert not wrong.any()
