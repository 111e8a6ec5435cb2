"""Tables that keep their contract are read unchanged; violations are reported with column, line,
value and fix."""

import io
import math
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from churnlab.data.contract import Column, Contract
from churnlab.data.demo import members
from churnlab.data.reading import read_table
from churnlab.data.table import in_memory
from churnlab.data.validation import Checked, check
from churnlab.errors import InputError

CONF = Path(__file__).parents[2] / "conf"
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


def checked(
    frame: pd.DataFrame,
    contract: Contract = BANK,
    *,
    first_line: int | None = 2,
    needs_target: bool = True,
) -> Checked:
    """The frame checked as if it had been read from a file."""
    table = in_memory(frame, source="members.csv")
    if first_line is not None:
        table = replace(table, lines=range(first_line, first_line + len(frame)))
    return check(table, contract, needs_target=needs_target)


def refusal(
    frame: pd.DataFrame,
    contract: Contract = BANK,
    *,
    first_line: int | None = 2,
    needs_target: bool = True,
) -> str:
    with pytest.raises(InputError) as raised:
        checked(frame, contract, first_line=first_line, needs_target=needs_target)
    return str(raised.value)


def test_a_table_that_keeps_its_contract_is_read_unchanged():
    X, y, _, warnings = checked(table(), BANK)
    assert list(X.columns) == ["Near", "Months", "Age", "Spent", "Plan", "Town", "Remaining"]
    assert X["Spent"].tolist() == [0.0, 12.5, 0.125, 3.0]
    assert X["Plan"].tolist() == ["basic", "gold", "basic", "gold"]
    assert [str(X[name].dtype) for name in ("Near", "Months", "Age", "Spent", "Remaining")] == [
        "float64"
    ] * 5
    assert y.tolist() == [0, 1, 0, 1]
    assert warnings == []


def test_the_order_of_the_tables_columns_does_not_matter_and_the_rows_are_counted_from_0():
    frame = table().iloc[:, ::-1].set_index(pd.Index([9, 5, 7, 3]))
    X, _, _, _ = checked(frame, BANK)
    pd.testing.assert_frame_equal(X, checked(table(), BANK)[0])


def test_a_column_that_is_not_declared_is_left_out_with_a_warning():
    X, _, _, warnings = checked(table().assign(Shoes=42, Hat=1), BANK)
    assert "Shoes" not in X.columns
    assert warnings == ["left out columns that the dataset does not declare: Shoes, Hat"]


def test_a_column_that_is_not_declared_is_refused_where_the_dataset_says_so():
    strict = replace(BANK, extra="refuse")
    assert checked(table(), strict)[3] == [], "target and id are declared"
    message = refusal(table().assign(Shoes=42, Hat=1), strict)
    assert "the dataset does not declare the columns Shoes, Hat; leave them out" in message
    assert "dataset.extra=ignore" in message


def test_a_table_to_be_scored_needs_no_target():
    X, y, _, _ = checked(table().drop(columns="Left"), BANK, needs_target=False)
    assert len(X) == 4
    assert y is None


VIOLATIONS = {
    "two": (3, "Near", "2", "column Near: 2 is not one of 0, 1", "dataset.columns.Near.kind"),
    "a half": (
        3,
        "Near",
        "0.5",
        "column Near: 0.5 is not one of 0, 1",
        "dataset.columns.Near.kind",
    ),
    "a number that is not listed": (
        4,
        "Months",
        "7",
        "column Months: 7 is not one of 1, 6, 12",
        ".Months.values",
    ),
    "too young": (2, "Age", "13", "column Age: 13 is below 14", "dataset.columns.Age.min"),
    "too old": (5, "Age", "101", "column Age: 101 is above 100", "dataset.columns.Age.max"),
    "half a year": (
        5,
        "Age",
        "20.5",
        "column Age: 20.5 is not a whole number",
        "dataset.columns.Age.whole",
    ),
    "a negative sum": (
        3,
        "Spent",
        "-0.01",
        "column Spent: -0.01 is below 0",
        "dataset.columns.Spent.min",
    ),
    "a text": (3, "Spent", "much", "column Spent: 'much' is not a number", "kind: category"),
    "a decimal comma": (3, "Spent", '"12;5"', "column Spent: '12;5' is not a number", "correct it"),
    "infinity": (3, "Spent", "inf", "column Spent: inf is not a finite number", "correct it"),
    "an unknown category": (
        4,
        "Plan",
        "silver",
        "column Plan: 'silver' is not one of basic, gold",
        ".Plan.values",
    ),
    "a broken rule": (
        2,
        "Remaining",
        "3",
        "rule in_time: Remaining <= Months",
        "dataset.rules.in_time",
    ),
    "no outcome": (3, "Left", "", "target Left: the value is missing", "fill it in"),
}


@pytest.mark.parametrize(
    ("line", "column", "value", "text", "fix"), VIOLATIONS.values(), ids=VIOLATIONS
)
def test_a_violation_is_reported_with_line_column_value_and_fix(line, column, value, text, fix):
    message = refusal(changed(line, column, value))
    assert message.startswith("members.csv violates the contract of dataset bank: ")
    assert f"line {line}, {text}" in message
    assert fix in message.partition("; ")[2]
    assert "more row" not in message


def test_a_broken_rule_is_reported_with_the_values_that_break_it():
    assert "(Remaining = 3, Months = 1)" in refusal(changed(2, "Remaining", "3"))


def test_rows_of_a_table_without_lines_are_counted_from_0():
    assert "row 1, column Age: 13 is below 14" in refusal(changed(3, "Age", "13"), first_line=None)


def test_the_first_of_several_rows_is_reported_with_the_number_of_others():
    frame = table().assign(Age=[20, 5, 6, 7])
    assert "line 3, column Age: 5 is below 14 (and in 2 more rows)" in refusal(frame)


@pytest.mark.parametrize(
    ("missing", "text", "fix"),
    [
        (
            ["Age"],
            "there is no column Age (the table has Client, Near, Months,",
            "dataset.columns in the YAML of bank",
        ),
        (["Age", "Plan"], "there are no columns Age, Plan", "add them, or take them out"),
        (["Left"], "there is no target column Left", "dataset.target="),
        (["Client"], "there is no id column Client", "dataset.id=null"),
    ],
)
def test_a_missing_column_is_reported_with_the_columns_of_the_table(missing, text, fix):
    message = refusal(table().drop(columns=missing))
    assert text in message
    assert fix in message


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (["no"] * 4, "target Left is never yes (found: no)"),
        (["yes"] * 4, "target Left has one class only: every member has yes"),
        (["no", "yes", "maybe", "no"], "target Left has 3 different values (no, yes, maybe"),
        (
            [0, 1, 0, 1],
            "target Left is never yes (found: 0, 1); set dataset.positive= to the value that means "
            "left",
        ),
    ],
)
def test_a_target_without_two_outcomes_is_refused(values, text):
    assert text in refusal(table().assign(Left=values))


@pytest.mark.parametrize(
    ("yaml_text", "values"),
    [
        ("positive: yes", ["no", "yes"]),
        ("positive: on", ["off", "ON"]),
        ("positive: no", ["Yes", "No"]),
        ("positive: true", [False, True]),
        ("positive: true", [0, 1]),
        ("positive: y", ["n", "y"]),
    ],
)
def test_truth_without_quotes_in_a_yaml_is_the_word_for_it_in_the_table(yaml_text, values):
    positive = yaml.safe_load(yaml_text)["positive"]
    left = [values[0], values[1], values[0], values[1]]
    y = checked(table().assign(Left=left), replace(BANK, positive=positive)).y
    assert y.tolist() == [0, 1, 0, 1]


def test_truth_without_a_word_for_it_in_the_table_is_refused():
    message = refusal(table().assign(Left=["gone", "here"] * 2), replace(BANK, positive=True))
    assert "target Left is never True (found: gone, here); set dataset.positive=" in message


def test_a_category_to_add_is_shown_in_quotes_since_yaml_reads_007_and_on_otherwise():
    plan = Column(kind="category", values=(7, "basic", "gold"))
    for value in ("007", "on"):
        message = refusal(
            changed(3, "Plan", value), replace(BANK, columns={**BANK.columns, "Plan": plan})
        )
        assert f"'{value}' is not one of 7, basic, gold; correct it, or add '{value}' to" in message


EMPTY = {
    "no target": (replace(BANK, target=""), "there is no target column '' (the table has"),
    "no id": (replace(BANK, id=""), "there is no id column '' (the table has"),
    "no positive value": (replace(BANK, positive=""), "target Left is never '' (found: no, yes)"),
    "a rule without a column": (
        replace(BANK, rules={"odd": "1 < 0"}),
        "rule odd: 1 < 0 does not hold (it names no column)",
    ),
}


@pytest.mark.parametrize(("contract", "text"), EMPTY.values(), ids=EMPTY)
def test_no_message_prints_an_empty_name_or_list(contract, text):
    assert text in refusal(table(), contract)


def test_a_table_without_columns_is_no_empty_list():
    assert "(the table has no columns)" in refusal(pd.DataFrame(index=range(3)))


def test_a_table_without_rows_is_refused():
    assert "a header and no rows" in refusal(table().iloc[:0])


def test_several_violations_are_reported_together():
    frame = changed(3, "Age", "13").assign(Plan="silver", Left=["no", None, "yes", "no"])
    frame.loc[3, "Spent"] = -1
    message = refusal(frame)
    assert message.startswith("members.csv violates the contract of dataset bank (4 problems):\n")
    for part in (
        "line 3, column Age",
        "line 2, column Plan",
        "line 5, column Spent",
        "line 3, target Left",
    ):
        assert f"\n  - {part}" in message


def test_of_very_many_violations_the_first_ten_are_reported():
    contract = Contract("wide", "y", 1, {f"c{i}": Column(kind="binary") for i in range(30)})
    frame = pd.DataFrame(3, index=range(2), columns=list(contract.columns)).assign(y=[0, 1])
    message = refusal(frame, contract)
    assert "(30 problems; the first 10):" in message
    assert message.count("\n  - ") == 10


def test_categories_that_look_like_numbers_are_text():
    contract = Contract("codes", "y", 1, {"Zone": Column(kind="category", values=(1, 2, "03"))})
    assert contract.text == ["Zone"]
    frame = pd.DataFrame({"Zone": ["1", "03", "2"], "y": [0, 1, 0]})
    assert checked(frame, contract)[0]["Zone"].tolist() == ["1", "03", "2"]
    assert checked(frame.iloc[[0, 2]].assign(Zone=[1, 2], y=[0, 1]), contract).X.shape == (2, 1)
    assert "'3' is not one of 1, 2, 03" in refusal(frame.assign(Zone=["1", "3", "2"]), contract)


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
    assert checked(frame, BANK)[0]["Near"].tolist() == [1, 0, 1, 0]


def outside(column: Column) -> st.SearchStrategy[float | str]:
    """Values that a column cannot have."""
    if column.kind == "binary":
        return st.one_of(
            st.just("maybe"), st.integers(2, 9), st.floats(0.01, 0.99), st.integers(-9, -1)
        )
    bad: list[st.SearchStrategy[float | str]] = [
        st.sampled_from(["much", "12,5", "1 000", "-", "0x1"])
    ]
    if column.values is not None:
        bad.append(st.integers(-20, 20).filter(lambda value: value not in column.values))
    if column.min is not None:
        bad.append(st.floats(column.min - 1e6, column.min - 0.001))
    if column.max is not None:
        bad.append(st.floats(column.max + 0.001, column.max + 1e6))
    if column.whole:
        bad.append(st.floats(15, 90).filter(lambda value: value != round(value)))
    return st.one_of(bad)


ONE_BAD_CELL = st.sampled_from(sorted(GYM)).flatmap(
    lambda name: st.tuples(st.just(name), outside(GYM[name]))
)
SOUND = members(40, seed=3)
assert 0 < SOUND["Churn"].sum() < 40


@settings(max_examples=150, deadline=None)
@given(cell=ONE_BAD_CELL, row=st.integers(0, 39))
def test_any_single_impossible_cell_is_found_with_its_line_and_value(cell, row):
    name, value = cell
    frame = SOUND.astype({name: object})
    frame.loc[row, name] = value
    read = pd.read_csv(io.StringIO(frame.to_csv(index=False)))
    message = refusal(read, Contract("gym", "Churn", 1, GYM))
    assert set(re.findall(r"line (\d+), column (\w+): ", message)) == {(str(row + 2), name)}
    assert str(value) in message or f"{value:g}" in message
    assert "more row" not in message
    assert "; correct it" in message


# With at most 7 leavers of 40, leakage is never reported: neither the values that remain nor the
# pattern of the gaps can separate the classes beyond chance.
FEW_LEAVERS = members(40, seed=3, parameters={"churn": 0.1})
assert 0 < FEW_LEAVERS["Churn"].sum() <= 7


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(list(GYM)), rows=st.sets(st.integers(0, 39), min_size=1, max_size=39))
@example(name="Lifetime", rows={0, 1, 2, 3, 4, 20, 31, 34})
@example(name="Age", rows=set(np.flatnonzero(FEW_LEAVERS["Churn"])))
def test_empty_cells_of_a_feature_are_gaps_that_are_counted(name, rows):
    frame = FEW_LEAVERS.astype({name: object})
    frame.loc[list(rows), name] = None
    X, _, _, warnings = checked(
        pd.read_csv(io.StringIO(frame.to_csv(index=False))), Contract("gym", "Churn", 1, GYM)
    )
    assert set(np.flatnonzero(X[name].isna())) == rows
    assert X.drop(columns=name).notna().all(axis=None)
    start = f"missing values, filled with the column's typical value: {name} ({len(rows)} of 40, "
    assert any(warning.startswith(start) for warning in warnings)


def test_an_empty_target_is_found_with_its_line():
    assert "line 4, target Left: the value is missing; fill it in" in refusal(
        changed(4, "Left", "")
    )


def test_a_category_may_be_declared_to_accept_others():
    plan = Column(kind="category", values=("basic", "gold"), unknown="accept")
    contract = replace(BANK, columns={**BANK.columns, "Plan": plan})
    X, _, _, warnings = checked(changed(4, "Plan", "silver"), contract)
    assert X["Plan"].tolist() == ["basic", "gold", "silver", "gold"]
    assert warnings == [
        "Plan: silver in 1 of 4 rows, not listed in dataset.columns.Plan.values; models treat it "
        "as none of the listed categories"
    ]
    assert checked(table(), contract).warnings == []


@settings(max_examples=60, deadline=None)
@given(row=st.integers(0, 39), months=st.sampled_from([1, 6]))
def test_any_single_broken_rule_is_found_with_its_line(row, months):
    frame = SOUND.copy()
    frame.loc[row, ["Contract_period", "Month_to_end_contract"]] = [months, 12.0]
    contract = Contract(
        "gym", "Churn", 1, GYM, rules={"left": "Month_to_end_contract <= Contract_period"}
    )
    message = refusal(frame, contract)
    assert (
        f": line {row + 2}, rule left: Month_to_end_contract <= Contract_period does not hold"
        in message
    )
    assert f"(Month_to_end_contract = 12, Contract_period = {months})" in message


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(20, 200))
def test_every_generated_table_keeps_the_gyms_contract(seed, n):
    frame = members(n, seed=seed)
    if 0 < frame["Churn"].sum() < n:
        X, y, _, _ = checked(frame, Contract("gym", "Churn", 1, GYM))
        assert np.array_equal(X.to_numpy(), frame[list(GYM)].to_numpy(dtype=np.float64))
        assert y.sum() == frame["Churn"].sum()


# --- values that are no numbers, and columns that are no columns


@pytest.mark.parametrize(
    ("column", "values", "text", "fix"),
    [
        (
            "Near",
            ["perhaps", "no", "Yes", "N"],
            "line 2, column Near: 'perhaps' is not a number",
            "kind: category",
        ),
        (
            "Spent",
            [True, False, True, True],
            "line 2, column Spent: True is not a number",
            "write 1 and 0",
        ),
        (
            "Spent",
            ["1", "2", "12,5", "3"],
            "line 4, column Spent: '12,5' is not a number",
            "write 12.5 (format: '1234,5')",
        ),
        (
            "Spent",
            ["2024-05-01"] * 4,
            "column Spent: '2024-05-01' is not a number",
            "kind: date",
        ),
        ("Spent", ["1.5.2024"] * 4, "column Spent: '1.5.2024' is not a number", "kind: date"),
        (
            "Spent",
            pd.to_datetime(["2024-05-01"] * 4),
            "column Spent: 2024-05-01 00:00:00 is not",
            "kind: date",
        ),
        (
            "Spent",
            pd.to_timedelta([1, 2, 3, 4], unit="D"),
            "column Spent: 1 days 00:00:00 is not a number",
            "correct",
        ),
        ("Spent", [[1], [2], [3], [4]], "line 2, column Spent: [1] is not a number", "correct it"),
        (
            "Spent",
            [0, 1, 2, 3e15],
            "line 5, column Spent: 3000000000000000.0 is above 1e+15",
            "dataset.columns.Spent.max",
        ),
        (
            "Remaining",
            [0, -3e15, 1, 0],
            "line 3, column Remaining: -3000000000000000.0 is below -1e+15",
            "Remaining.min",
        ),
        (
            "Spent",
            [None] * 4,
            "column Spent is empty in all 4 rows",
            "take it out of dataset.columns",
        ),
        (
            "Age",
            pd.Series([pd.NaT] * 4),
            "column Age is empty in all 4 rows",
            "take it out of dataset.columns",
        ),
        (
            "Town",
            [None] * 4,
            "column Town is empty in all 4 rows",
            "take it out of dataset.columns",
        ),
        ("Left", [None] * 4, "target Left is empty in all 4 rows", "dataset.target="),
        (
            "Client",
            ["1", "2", "2", "2"],
            "line 4, id Client: '2' occurs in an earlier row, too (and in 1 more row)",
            "keep one row per member, or set dataset.repeated_ids=true",
        ),
    ],
)
def test_a_column_of_another_type_is_reported(column, values, text, fix):
    message = refusal(table().assign(**{column: values}))
    assert text in message
    assert fix in message.partition("; ")[2]
    assert "\n" not in message


def test_members_without_an_id_are_not_the_same_member():
    assert checked(table().assign(Client=["007", None, None, "008"])).ids.isna().sum() == 2


def test_a_limit_in_the_yaml_allows_absurdly_large_numbers():
    contract = replace(
        BANK, columns={**BANK.columns, "Spent": Column(kind="numeric", min=0, max=1e18)}
    )
    assert checked(table().assign(Spent=[0, 1, 2, 3e15]), contract).X["Spent"][3] == 3e15


def test_decimals_of_a_database_and_numbers_written_as_text_are_numbers():
    frame = table().assign(
        Spent=[Decimal("1.5"), Decimal(2), Decimal(3), Decimal(4)], Age=["20", "21", "22", "23"]
    )
    assert checked(frame).X["Spent"].tolist() == [1.5, 2, 3, 4]


def test_a_broken_rule_is_reported_but_not_for_cells_that_break_their_own_limits():
    frame = changed(2, "Remaining", "3").astype({"Months": object, "Age": object})
    frame.loc[1, ["Months", "Age"]] = [7, 13]
    message = refusal(frame)
    assert "3 problems" in message
    assert (
        "line 2, rule in_time: Remaining <= Months does not hold (Remaining = 3, Months = 1); "
        "correct" in message
    )


@pytest.mark.parametrize(
    ("rule", "text"), [("Age >>> 3", "cannot be read"), ("Agee > 3", "needs the column Agee")]
)
def test_a_rule_that_cannot_be_read_is_refused(rule, text):
    for frame in (table(), table().drop(columns="Age")):
        assert text in refusal(frame, replace(BANK, rules={"wrong": rule}))


def test_the_target_of_a_yaml_may_be_the_text_of_a_number_and_the_other_way_round():
    for positive, values in [
        ("1", [0, 1, 0, 1]),
        (1, ["0", "1", "0", "1"]),
        ("True", [False, True, False, True]),
    ]:
        assert checked(
            table().assign(Left=values), replace(BANK, positive=positive)
        ).y.tolist() == [0, 1, 0, 1]


def test_gaps_of_the_target_and_too_many_values_are_reported_together():
    message = refusal(table().assign(Left=["no", None, "yes", "maybe"]))
    assert "line 3, target Left: the value is missing" in message
    assert "target Left has 3 different values (no, yes, maybe)" in message


def test_the_worst_is_reported_first_and_the_message_stays_short():
    long = {
        f"a column with a very long name of which there are many {i:03d}" * 5: Column(kind="binary")
        for i in range(99)
    }
    contract = Contract(
        "wide", "y", 1, {**long, "Missing": Column(kind="binary"), "Bad": Column(kind="binary")}
    )
    frame = pd.DataFrame(
        {**dict.fromkeys(long, ["x" * 9999] * 3), "Bad": [0, 1, 7], "y": [0, 1, 1]}
    )
    message = refusal(frame, contract)
    assert len(message) < 2000
    assert "(101 problems; the first " in message
    assert message.splitlines()[1].startswith("  - there is no column Missing")
    assert "(and in 2 more rows)" in message.splitlines()[2]
    assert "column Bad" not in message


def test_the_demo_and_the_real_table_are_read_without_a_warning(gym_csv):
    contract = Contract(
        "gym", "Churn", 1, GYM, rules={"left": "Month_to_end_contract <= Contract_period"}
    )
    assert check(read_table(str(gym_csv), contract), contract).warnings == []


@pytest.mark.parametrize("seed", [0, 1])
def test_generated_members_are_read_without_a_warning(seed):
    assert checked(members(4000, seed=seed), Contract("gym", "Churn", 1, GYM)).warnings == []


# --- any dataset's YAML


def values_of(column: Column) -> st.SearchStrategy[object]:
    """Cells that a column may have, as they are written in a CSV."""
    if column.kind == "category":
        return st.sampled_from(column.values or ["x", "Köln", 'a "b", c', "7", "0x1", "1e5"])
    if column.kind == "binary":
        return st.sampled_from(["0", "1", "0.0", "1.0"])
    if column.values is not None:
        return st.sampled_from([f"{value:g}" for value in column.values])
    low, high = (
        column.min if column.min is not None else -1e6,
        column.max if column.max is not None else 1e6,
    )
    if column.whole:
        return st.integers(math.ceil(low), math.floor(high)).flatmap(
            lambda n: st.sampled_from([f"{n}", f"{n}.0"])
        )
    return st.floats(low, high, allow_subnormal=False).map(repr)


def wrong_values_of(column: Column) -> st.SearchStrategy[str]:
    """Cells that a column may not have."""
    if column.kind == "category":
        return st.sampled_from(["another"]) if column.values else st.nothing()
    bad = [
        "perhaps",
        "12,5",
        "1 000",
        "2024-05-01",
        "inf",
        "-inf",
        "1e400",
        "abc",
        "1e15000",
        "--1",
    ]
    bad += ["2", "-1", "0.5"] if column.kind == "binary" else ["yes", "true"]
    if column.kind == "binary":
        return st.sampled_from(bad)
    elif column.values is not None:
        bad += [f"{max(column.values) + 1:g}"]
    else:
        low, high = column.bounds
        bad += [repr(low - max(1, abs(low) / 100)), repr(high + max(1, abs(high) / 100))]
        bad += [f"{math.ceil(low) + 0.5}"] if column.whole else []
    return st.sampled_from(bad)


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    """Contracts of a few columns of every kind."""
    few = st.lists(st.integers(-99, 99), min_size=1, max_size=4, unique=True).map(tuple)
    edge = st.one_of(st.none(), st.integers(-99, 0))
    column = st.one_of(
        st.just(Column(kind="binary")),
        few.map(lambda values: Column(kind="numeric", values=values)),
        st.builds(
            Column,
            kind=st.just("numeric"),
            min=edge,
            max=edge.map(lambda n: n and 100 - n),
            whole=st.booleans(),
        ),
        st.just(Column(kind="category")),
        st.just(Column(kind="category", values=("basic", "gold", "Großkunde, alt"))),
    )
    names = draw(
        st.lists(
            st.sampled_from(["Age", "a b", 'the "x"', "naïve, too", "7"]), min_size=1, unique=True
        )
    )
    id_ = draw(st.sampled_from([None, "Client"]))
    return Contract("any", "Left", "yes", {name: draw(column) for name in names}, id=id_)


@st.composite
def tables(draw: st.DrawFn) -> tuple[Contract, pd.DataFrame]:
    """A contract and a table of text that keeps it, columns in any order, with one undeclared."""
    contract, n = draw(contracts()), draw(st.integers(4, 12))
    cells = {
        name: draw(st.lists(values_of(of), min_size=n, max_size=n))
        for name, of in contract.columns.items()
    }
    for (
        column
    ) in cells.values():  # a gap now and then, never in the first row: a column is not all empty
        for row in draw(st.sets(st.integers(1, n - 1), max_size=2)):
            column[row] = None
    more = draw(st.lists(st.sampled_from(["yes", "no"]), min_size=n - 4, max_size=n - 4))
    left = ["yes", "no", "yes", "no", *more]
    for column in cells.values():  # a copy of the outcome is refused
        pairs = {(cell, of) for cell, of in zip(column, left, strict=True) if cell is not None}
        assume(len(pairs) > 2 or len({of for _, of in pairs}) < 2)
    cells |= {"Left": left}
    cells |= {"Client": [f"{number:03d}" for number in range(n)], "Note": ["a\nb"] * n}
    return contract, pd.DataFrame(
        {name: cells[name] for name in draw(st.permutations(list(cells)))}
    )


def written(frame: pd.DataFrame, folder: Path, how: str) -> str:
    path = folder / f"t.{how}"
    if how == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=how == "txt", lineterminator="\r\n" if how == "csv.gz" else "\n")
    return str(path)


WAYS = st.sampled_from(["csv", "csv.gz", "parquet", "txt"])


@settings(max_examples=120, deadline=None)
@given(made=tables(), how=WAYS)
def test_a_good_table_of_any_contract_is_accepted_in_any_format(tmp_path_factory, made, how):
    contract, frame = made
    X, y, _, _ = check(
        read_table(written(frame, tmp_path_factory.mktemp("good"), how), contract), contract
    )
    assert y.tolist() == (frame["Left"] == "yes").astype(int).tolist()
    for name, column in contract.columns.items():
        known = frame[name].notna().to_numpy()
        assert np.array_equal(X[name].notna(), known)
        cells = frame[name][known]
        assert X[name][known].tolist() == (
            list(cells) if column.kind == "category" else list(map(float, cells))
        )


@settings(max_examples=150, deadline=None)
@given(made=tables(), how=WAYS, data=st.data())
def test_a_broken_table_of_any_contract_never_gets_through(tmp_path_factory, made, how, data):
    contract, frame = made
    breakable = [
        name
        for name, column in contract.columns.items()
        if column.kind != "category" or column.values
    ]
    name = data.draw(st.sampled_from([*breakable, "Left"]))
    row = data.draw(st.integers(0, len(frame) - 1))
    wrong = (
        st.sampled_from(["", "maybe"])
        if name == "Left"
        else wrong_values_of(contract.columns[name])
    )
    frame.loc[row, name] = data.draw(wrong) or None
    with pytest.raises(InputError) as raised:
        check(read_table(written(frame, tmp_path_factory.mktemp("bad"), how), contract), contract)
    message = str(raised.value)
    assert name in message
    assert len(message) < 2000
    if name != "Left":
        lines = 2 + 2 * row  # every note takes two lines
        assert ("empty in all" in message) or (
            f"row {row}" if how == "parquet" else f"line {lines}"
        ) in message
