"""Limits of a column: one statement each, which tables and served models evaluate alike."""

import math

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.data.contract import Column, Contract
from churnlab.data.expressions import evaluate
from churnlab.data.table import in_memory
from churnlab.data.validation import check, row_checks
from churnlab.errors import InputError

COLUMNS = {
    "binary": Column(kind="binary"),
    "listed": Column(kind="numeric", values=(1, 6, 0.5)),
    "whole": Column(kind="numeric", min=-3, max=20, whole=True),
    "low": Column(kind="numeric", min=0.25),
    "free": Column(kind="numeric"),
    "plan": Column(kind="category", values=("basic", "it's", 'a "b"', "a`b", "c`d", "é\n", "\\")),
    "others": Column(kind="category", values=("basic",), unknown="accept"),
}
NUMBERS = st.one_of(
    st.sampled_from([0, 1, 6, 0.5, 0.25, -3, -3.5, 20, 21, 1e15, 2e15, -2e15, np.nan]),
    st.floats(allow_infinity=False, width=32),
)
TEXTS = st.sampled_from([*COLUMNS["plan"].values, "silver", "Basic", "", "`", None])


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(list(COLUMNS)), data=st.data())
def test_a_table_is_refused_for_exactly_the_values_that_a_served_model_refuses(name, data):
    column = COLUMNS[name]
    cells = TEXTS if column.kind == "category" else NUMBERS
    values = data.draw(st.lists(cells, min_size=2, max_size=6))
    dtype = "str" if column.kind == "category" else "float64"
    frame = pd.DataFrame({name: pd.Series(values, dtype=dtype)})
    known = frame[name].replace("", None).notna()  # an empty text is a gap
    contract = Contract("any", "y", 1, {name: column})
    served = [
        known.to_numpy() & (evaluate(check["holds"], frame) == 0) for check in row_checks(contract)
    ]
    y = [number % 2 for number in range(len(values))]
    refused = is_refused(frame.assign(y=y), contract)
    assert refused == (np.any(served) or not known.any())  # an empty column is refused as such


def is_refused(frame: pd.DataFrame, contract: Contract) -> bool:
    try:
        check(in_memory(frame, source="t"), contract)
    except InputError:
        return True
    return False


def test_every_limit_has_its_wording_and_its_key():
    (limit,) = COLUMNS["low"].limits("Visits")[:1]
    assert limit == ("`Visits` >= 0.25", "at least 0.25", "is below 0.25", "min")
    assert [limit.key for limit in COLUMNS["whole"].limits("x")] == ["min", "max", "whole"]
    assert [limit.key for limit in COLUMNS["binary"].limits("x")] == ["kind"]
    assert COLUMNS["others"].limits("x") == []


def test_all_values_are_allowed_in_a_served_message_and_ten_are_listed_in_a_table_message():
    (limit,) = Column(kind="numeric", values=tuple(range(12))).limits("x")
    assert limit.allowed == "one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11"
    assert limit.broken == "is not one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"


@pytest.mark.parametrize("text", ["[]", "[basic, on]", "[yes, no]", "[basic, null]"])
def test_values_that_a_yaml_does_not_read_as_numbers_or_texts_are_refused(text):
    with pytest.raises(ValueError, match="yes, no, on, off and null need quotes"):
        Column(kind="category", values=tuple(yaml.safe_load(text)))


def test_an_infinite_bound_is_no_limit():
    assert Column(kind="numeric", min=-math.inf, max=math.inf).limits("x") == []


@pytest.mark.parametrize("name", ["a b", "naïve, too", 'the "x"', "the 'x'"])
def test_a_column_of_any_name_has_limits_that_can_be_evaluated(name):
    (limit, _) = Column(kind="numeric", min=0, max=1).limits(name)
    assert evaluate(limit.holds, pd.DataFrame({name: [-1.0, 0.5]})).tolist() == [0, 1]


def test_values_with_commas_are_listed_in_quotes():
    (limit,) = Column(kind="category", values=("Basic, Plus", "gold")).limits("Plan")
    assert limit.allowed == 'one of "Basic, Plus", "gold"'
    (limit,) = Column(kind="category", values=("Basic", "gold")).limits("Plan")
    assert limit.allowed == "one of Basic, gold"
