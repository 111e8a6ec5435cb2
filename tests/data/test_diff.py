"""Mismatches of results or tables that should be equal: as much as can be known, nothing else."""

import numpy as np
import pandas as pd
import pytest

from churnlab.data import demo
from churnlab.data.contract import Column, Contract
from churnlab.data.dataset import Dataset, make_dataset
from churnlab.data.diff import data_mismatches, table_mismatches, value_mismatches
from churnlab.data.table import in_memory

ROWS = 230
NUMERIC = ("Age", "Lifetime", "Month_to_end_contract")


def dataset(frame: pd.DataFrame) -> Dataset:
    columns = {name: Column(kind="numeric") for name in NUMERIC}
    contract = Contract(
        **{
            "name": "few",
            "target": "Churn",
            "positive": 1,
            "id": "id",
            "columns": columns,
            "rules": {},
            "late": (),
        }
    )
    return make_dataset(in_memory(frame, source="memory"), contract)


@pytest.fixture(scope="module")
def members() -> pd.DataFrame:
    made = demo.members(n=ROWS, seed=0)[[*NUMERIC, "Churn"]]
    return made.assign(id=[f"m{number}" for number in range(ROWS)])


@pytest.fixture(scope="module")
def outcomes(members) -> pd.DataFrame:
    """Outcomes as a run keeps them: row and y, in any order, some rows more than once."""
    kept = pd.DataFrame({"row": np.arange(ROWS), "y": members["Churn"]})
    return pd.concat([kept.sample(frac=1, random_state=0), kept.head(9)])


def found(members, changed, outcomes=None) -> dict[str, tuple]:
    parts = data_mismatches(dataset(members).report(), outcomes, dataset(changed))
    return {part["what"]: (part["before"], part["after"]) for part in parts}


def test_the_same_table_differs_in_nothing(members, outcomes):
    assert found(members, members.copy(), outcomes) == {}


def test_a_changed_cell_is_located_by_its_column_and_block_of_rows(members, outcomes):
    changed = members.copy()
    changed.loc[100, "Age"] += 1
    assert list(found(members, changed, outcomes)) == [
        "fingerprint of column Age",
        "rows, at least one in 99 to 101",
    ]


def test_neighboring_blocks_of_changed_rows_are_one_span(members):
    changed = members.copy()
    changed.loc[[4, 7, 229], "Lifetime"] += 1
    assert list(found(members, changed)) == [
        "fingerprint of column Lifetime",
        "rows, at least one in 3 to 8, 228 to 229",
    ]


def test_a_changed_outcome_is_located_by_its_row(members, outcomes):
    changed = members.copy()
    changed.loc[17, "Churn"] = 1 - changed.loc[17, "Churn"]
    parts = found(members, changed, outcomes)
    assert "fingerprint of column target of the contract" in parts
    left = members["Churn"].sum()
    assert parts["outcomes in rows 17: members who left"] == (left, changed["Churn"].sum())


def test_added_members_are_located_and_the_rows_before_reported_equal(members, outcomes):
    more = pd.concat([members, members.tail(4).assign(id=list("abcd"))], ignore_index=True)
    assert found(members, more, outcomes) == {
        "rows of the table": (ROWS, ROWS + 4),
        f"rows from {ROWS} on; the rows before are equal": (None, None),
    }


def test_members_removed_from_the_end_are_located(members, outcomes):
    assert found(members, members.head(100), outcomes) == {
        "rows of the table": (ROWS, 100),
        "rows from 99 on; the rows before are equal": (None, None),
    }


def test_a_member_removed_from_the_middle_is_located_by_the_first_rows_that_differ(members):
    parts = found(members, members.drop(index=120).reset_index(drop=True))
    assert parts["rows of the table"] == (ROWS, ROWS - 1)
    assert [what for what in parts if what.startswith("rows, at least one in 120 to")]


def test_the_same_members_in_another_order_are_reported_as_such(members):
    parts = found(members, members.iloc[::-1].reset_index(drop=True))
    assert list(parts) == ["order of the rows; the rows themselves are equal"]


def test_values_that_are_missing_now_are_counted_by_column(members):
    changed = members.astype({"Age": "float64"})
    changed.loc[[3, 5], "Age"] = np.nan
    assert found(members, changed)["values missing in Age"] == (None, 2)


def test_of_a_run_without_fingerprints_only_the_counts_are_compared(members):
    report = dataset(members).report()
    del report["fingerprints"]
    parts = data_mismatches(report, None, dataset(members.head(50)))
    assert [part["what"] for part in parts] == ["rows of the table"]


def test_one_bit_of_one_probability_is_a_mismatch_and_a_gap_on_both_sides_is_none():
    before = pd.DataFrame({"row": [0, 1, 2], "probability": [0.1, np.nan, 0.3]})
    assert list(table_mismatches("oof", before, before.copy())) == []
    after = before.copy()
    after.loc[2, "probability"] = np.nextafter(0.3, 1)
    (mismatch,) = table_mismatches("oof", before, after)
    assert mismatch["what"] == "probability in oof, 1 of 3 rows, by 5.55e-17 at most; line 2"
    assert (mismatch["before"], mismatch["after"]) == (0.3, np.nextafter(0.3, 1))


def test_tables_of_other_columns_or_lengths_are_compared_by_those_alone():
    table = pd.DataFrame({"a": [1, 2]})
    assert [part["what"] for part in table_mismatches("t", table, table.head(1))] == [
        "the rows of t"
    ]
    assert [part["what"] for part in table_mismatches("t", table, table.assign(b=1))] == [
        "the columns of t"
    ]


def test_values_on_one_side_only_are_mismatches():
    mismatches = value_mismatches({"a": 1, "b": 2}, {"b": 2, "c": 3}, prefix="metric ")
    assert list(mismatches) == [
        {"what": "metric a", "before": 1, "after": None},
        {"what": "metric c", "before": None, "after": 3},
    ]
