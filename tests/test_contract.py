"""The contract of a table: what keeps it is read as it is, what breaks it is told with column, line, value and cure."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.contract import Column, Contract, check
from churnlab.demo import members
from churnlab.errors import InputError

CONF = Path(__file__).parents[1] / "conf"
GYM = {
    name: Column(**{key: tuple(value) if key == "values" else value for key, value in keys.items()})
    for name, keys in yaml.safe_load((CONF / "dataset/gym.yaml").read_text())["columns"].items()
}
BANK = Contract(
    name="bank",
    target="Left",
    positive="yes",
    id="Client",
    columns={
        "Near": Column(kind="binary"),
        "Months": Column(kind="numeric", values=(1, 6, 12)),
        "Age": Column(kind="numeric", min=14, max=100, whole=True),
        "Spent": Column(kind="numeric", min=0),
        "Plan": Column(kind="category", values=("basic", "gold")),
        "Town": Column(kind="category"),
        "Remaining": Column(kind="numeric"),
    },
    rules={"in_time": "Remaining <= Months"},
)
TABLE = """\
Client,Near,Months,Age,Spent,Plan,Town,Remaining,Left
007,1,1,20,0,basic,Omsk,1,no
008,0,6,33,12.5,gold,Perm,2.5,yes
009,1,12,100,0.125,basic,Omsk,12,no
010,0,1,14,3,gold,Perm,0,yes
"""


def table(text: str = TABLE) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(BANK.text, "str"))


def changed(line: int, column: str, value: str) -> pd.DataFrame:
    """The table with one cell of its CSV changed; ``line`` is the line of the file."""
    rows = [row.split(",") for row in TABLE.splitlines()]
    rows[line - 1][rows[0].index(column)] = value
    return table("\n".join(",".join(row) for row in rows))


def told(
    frame: pd.DataFrame, contract: Contract = BANK, *, first_line: int | None = 2, needs_target: bool = True
) -> str:
    with pytest.raises(InputError) as raised:
        check(frame, contract, source="members.csv", first_line=first_line, needs_target=needs_target)
    return str(raised.value)


def test_a_table_that_keeps_its_contract_is_read_as_it_is():
    X, y, warnings = check(table(), BANK, source="members.csv", first_line=2)
    assert list(X.columns) == ["Near", "Months", "Age", "Spent", "Plan", "Town", "Remaining"]
    assert X["Spent"].tolist() == [0.0, 12.5, 0.125, 3.0]
    assert X["Plan"].tolist() == ["basic", "gold", "basic", "gold"]
    assert [str(X[name].dtype) for name in ("Near", "Months", "Age", "Spent", "Remaining")] == ["float64"] * 5
    assert y.tolist() == [0, 1, 0, 1]
    assert warnings == []


def test_the_order_of_the_tables_columns_does_not_matter_and_the_rows_are_counted_from_0():
    frame = table().iloc[:, ::-1].set_index(pd.Index([9, 5, 7, 3]))
    X, _, _ = check(frame, BANK, source="members.csv", first_line=2)
    pd.testing.assert_frame_equal(X, check(table(), BANK, source="", first_line=2)[0])


def test_a_column_that_is_not_declared_is_left_out_with_a_warning():
    X, _, warnings = check(table().assign(Shoes=42, Hat=1), BANK, source="members.csv", first_line=2)
    assert "Shoes" not in X.columns
    assert warnings == ["left out columns that the dataset does not declare: Shoes, Hat"]


def test_a_table_to_be_scored_needs_no_target():
    X, y, _ = check(table().drop(columns="Left"), BANK, source="members.csv", first_line=2, needs_target=False)
    assert len(X) == 4
    assert y is None


FAULTS = {
    "two": (3, "Near", "2", "column Near: 2 is not one of 0, 1", "dataset.columns.Near.kind"),
    "a half": (3, "Near", "0.5", "column Near: 0.5 is not one of 0, 1", "dataset.columns.Near.kind"),
    "a number that is not listed": (4, "Months", "7", "column Months: 7 is not one of 1, 6, 12", ".Months.values"),
    "too young": (2, "Age", "13", "column Age: 13 is below 14", "dataset.columns.Age.min"),
    "too old": (5, "Age", "101", "column Age: 101 is above 100", "dataset.columns.Age.max"),
    "half a year": (5, "Age", "20.5", "column Age: 20.5 is not a whole number", "dataset.columns.Age.whole"),
    "a negative sum": (3, "Spent", "-0.01", "column Spent: -0.01 is below 0", "dataset.columns.Spent.min"),
    "a text": (3, "Spent", "much", "column Spent: 'much' is not a number", "kind: category"),
    "a decimal comma": (3, "Spent", '"12;5"', "column Spent: '12;5' is not a number", "correct it"),
    "infinity": (3, "Spent", "inf", "column Spent: inf is not a finite number", "correct it"),
    "nothing": (4, "Spent", "", "column Spent: the value is missing", "fill it in"),
    "no category": (4, "Plan", "", "column Plan: the value is missing", "fill it in"),
    "an unknown category": (4, "Plan", "silver", "column Plan: 'silver' is not one of basic, gold", ".Plan.values"),
    "a broken rule": (2, "Remaining", "3", "rule in_time: Remaining <= Months", "dataset.rules.in_time"),
    "no outcome": (3, "Left", "", "target Left: the value is missing", "fill it in"),
}


@pytest.mark.parametrize(("line", "column", "value", "said", "cure"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_told_with_its_line_column_value_and_cure(line, column, value, said, cure):
    message = told(changed(line, column, value))
    assert message.startswith("members.csv does not keep the contract of dataset bank: ")
    assert f"line {line}, {said}" in message
    assert cure in message.partition("; ")[2]
    assert "more row" not in message


def test_a_rule_is_told_with_the_values_that_break_it():
    assert "(Remaining = 3, Months = 1)" in told(changed(2, "Remaining", "3"))


def test_rows_of_a_table_without_lines_are_counted_from_0():
    assert "row 1, column Age: 13 is below 14" in told(changed(3, "Age", "13"), first_line=None)


def test_the_first_of_several_rows_is_told_with_how_many_more():
    frame = table().assign(Age=[20, 5, 6, 7])
    assert "line 3, column Age: 5 is below 14 (and in 2 more rows)" in told(frame)


@pytest.mark.parametrize(
    ("missing", "said", "cure"),
    [
        (["Age"], "there is no column Age (the table has Client, Near, Months,", "dataset.columns in the YAML of bank"),
        (["Age", "Plan"], "there is no column Age, Plan", "add it"),
        (["Left"], "there is no target column Left", "dataset.target="),
        (["Client"], "there is no id column Client", "dataset.id=null"),
    ],
)
def test_a_missing_column_is_told_with_those_there_are(missing, said, cure):
    message = told(table().drop(columns=missing))
    assert said in message
    assert cure in message


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["no"] * 4, "target Left is never yes (found: no)"),
        (["yes"] * 4, "target Left has one class only: every member has yes"),
        (["no", "yes", "maybe", "no"], "target Left has 3 different values (no, yes, maybe"),
        ([0, 1, 0, 1], "target Left is never yes (found: 0, 1); name the value that means left with dataset.positive="),
    ],
)
def test_a_target_without_two_outcomes_is_refused(values, said):
    assert said in told(table().assign(Left=values))


def test_a_table_without_rows_is_refused():
    assert "a header and no rows" in told(table().iloc[:0])


def test_several_faults_are_told_together():
    frame = changed(3, "Age", "13").assign(Plan="silver", Left=["no", None, "yes", "no"])
    frame.loc[3, "Spent"] = -1
    message = told(frame)
    assert message.startswith("members.csv does not keep the contract of dataset bank, 4 faults.\n")
    for part in ("line 3, column Age", "line 2, column Plan", "line 5, column Spent", "line 3, target Left"):
        assert f"\n  - {part}" in message


def test_of_very_many_faults_the_first_ten_are_told():
    contract = Contract("wide", "y", 1, {f"c{i}": Column(kind="binary") for i in range(30)})
    frame = pd.DataFrame(3, index=range(2), columns=list(contract.columns)).assign(y=[0, 1])
    message = told(frame, contract)
    assert "30 faults. The first 10:" in message
    assert message.count("\n  - ") == 10


def test_categories_that_look_like_numbers_are_text():
    contract = Contract("codes", "y", 1, {"Zone": Column(kind="category", values=(1, 2, "03"))})
    assert contract.text == ["Zone"]
    frame = pd.DataFrame({"Zone": ["1", "03", "2"], "y": [0, 1, 0]})
    assert check(frame, contract, source="", first_line=2)[0]["Zone"].tolist() == ["1", "03", "2"]
    assert check(frame.iloc[[0, 2]].assign(Zone=[1, 2], y=[0, 1]), contract, source="", first_line=2)[0].shape == (2, 1)
    assert "'3' is not one of 1, 2, 03" in told(frame.assign(Zone=["1", "3", "2"]), contract)


@pytest.mark.parametrize(
    "keys",
    [
        {"kind": "numeric", "values": ("a", "b")},
        {"kind": "category", "min": 3},
        {"kind": "category", "whole": True},
    ],
)
def test_a_column_that_contradicts_itself_is_refused(keys):
    with pytest.raises(ValueError, match="give"):
        Column(**keys)


def test_truth_and_falsehood_are_1_and_0():
    frame = changed(2, "Near", "1").assign(Near=[True, False, True, False])
    assert check(frame, BANK, source="", first_line=2)[0]["Near"].tolist() == [1, 0, 1, 0]


def outside(column: Column) -> st.SearchStrategy[float | str]:
    """Values that a column cannot have."""
    if column.kind == "binary":
        return st.one_of(st.just("maybe"), st.integers(2, 9), st.floats(0.01, 0.99), st.integers(-9, -1))
    bad: list[st.SearchStrategy[float | str]] = [st.sampled_from(["much", "12,5", "1 000", "-", "0x1"])]
    if column.values is not None:
        bad.append(st.integers(-20, 20).filter(lambda value: value not in column.values))
    if column.min is not None:
        bad.append(st.floats(column.min - 1e6, column.min - 0.001))
    if column.max is not None:
        bad.append(st.floats(column.max + 0.001, column.max + 1e6))
    if column.whole:
        bad.append(st.floats(15, 90).filter(lambda value: value != round(value)))
    return st.one_of(bad)


ONE_BAD_CELL = st.sampled_from(sorted(GYM)).flatmap(lambda name: st.tuples(st.just(name), outside(GYM[name])))
SOUND = members(40, seed=3)
assert 0 < SOUND["Churn"].sum() < 40


@settings(max_examples=150, deadline=None)
@given(cell=ONE_BAD_CELL, row=st.integers(0, 39))
def test_any_single_impossible_cell_is_found_with_its_line_and_value(cell, row):
    name, value = cell
    frame = SOUND.astype({name: object})
    frame.loc[row, name] = value
    read = pd.read_csv(io.StringIO(frame.to_csv(index=False)))
    message = told(read, Contract("gym", "Churn", 1, GYM))
    assert set(re.findall(r"line (\d+), column (\w+): ", message)) == {(str(row + 2), name)}
    assert str(value) in message or f"{value:g}" in message
    assert "more row" not in message
    assert "; correct it" in message


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from([*GYM, "Churn"]), row=st.integers(0, 39))
def test_any_single_empty_cell_is_found_with_its_line(name, row):
    frame = SOUND.astype({name: object})
    frame.loc[row, name] = None
    message = told(pd.read_csv(io.StringIO(frame.to_csv(index=False))), Contract("gym", "Churn", 1, GYM))
    assert f"line {row + 2}, {'target' if name == 'Churn' else 'column'} {name}: the value is missing" in message


@settings(max_examples=60, deadline=None)
@given(row=st.integers(0, 39), months=st.sampled_from([1, 6]))
def test_any_single_broken_rule_is_found_with_its_line(row, months):
    frame = SOUND.copy()
    frame.loc[row, ["Contract_period", "Month_to_end_contract"]] = [months, 12.0]
    contract = Contract("gym", "Churn", 1, GYM, rules={"left": "Month_to_end_contract <= Contract_period"})
    message = told(frame, contract)
    assert f": line {row + 2}, rule left: Month_to_end_contract <= Contract_period does not hold" in message
    assert f"(Month_to_end_contract = 12, Contract_period = {months})" in message


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(20, 200))
def test_every_generated_table_keeps_the_gyms_contract(seed, n):
    frame = members(n, seed=seed)
    if 0 < frame["Churn"].sum() < n:
        X, y, _ = check(frame, Contract("gym", "Churn", 1, GYM), source="", first_line=2)
        assert np.array_equal(X.to_numpy(), frame[list(GYM)].to_numpy(dtype=np.float64))
        assert y.sum() == frame["Churn"].sum()
