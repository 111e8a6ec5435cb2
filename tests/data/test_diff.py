"""What is said of two results, or two tables, that should be the same: as much as can be known, and
nothing else."""

import numpy as np
import pandas as pd
import pytest

from churnlab.data import demo
from churnlab.data.contract import Column, Contract
from churnlab.data.dataset import Dataset, make_dataset
from churnlab.data.diff import of_data, of_tables, of_values
from churnlab.data.reading import in_memory

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
    """As a run keeps them: row and y, in any order, some rows more than once."""
    kept = pd.DataFrame({"row": np.arange(ROWS), "y": members["Churn"]})
    return pd.concat([kept.sample(frac=1, random_state=0), kept.head(9)])


def said(members, changed, outcomes=None) -> dict[str, tuple]:
    found = of_data(dataset(members).report(), outcomes, dataset(changed))
    return {part["what"]: (part["before"], part["after"]) for part in found}


def test_the_same_table_differs_in_nothing(members, outcomes):
    assert said(members, members.copy(), outcomes) == {}


def test_a_changed_cell_is_told_by_its_column_and_the_rows_around_it(members, outcomes):
    changed = members.copy()
    changed.loc[100, "Age"] += 1
    assert list(said(members, changed, outcomes)) == [
        "fingerprint of column Age",
        "rows, at least one in 99 to 101",
    ]


def test_neighbouring_blocks_of_changed_rows_are_one_span(members):
    changed = members.copy()
    changed.loc[[4, 7, 229], "Lifetime"] += 1
    assert list(said(members, changed)) == [
        "fingerprint of column Lifetime",
        "rows, at least one in 3 to 8, 228 to 229",
    ]


def test_a_changed_outcome_is_told_by_its_row(members, outcomes):
    changed = members.copy()
    changed.loc[17, "Churn"] = 1 - changed.loc[17, "Churn"]
    found = said(members, changed, outcomes)
    assert "fingerprint of column target of the contract" in found
    left = members["Churn"].sum()
    assert found["outcomes, in rows 17: who left"] == (left, changed["Churn"].sum())


def test_members_that_came_after_are_told_and_that_those_before_are_the_same(members, outcomes):
    more = pd.concat([members, members.tail(4).assign(id=list("abcd"))], ignore_index=True)
    assert said(members, more, outcomes) == {
        "rows of the table": (ROWS, ROWS + 4),
        f"rows from {ROWS} on; those before are the same": (None, None),
    }


def test_members_that_were_taken_from_the_end_are_told(members, outcomes):
    assert said(members, members.head(100), outcomes) == {
        "rows of the table": (ROWS, 100),
        "rows from 99 on; those before are the same": (None, None),
    }


def test_a_member_taken_out_of_the_middle_is_told_by_where_the_rows_begin_to_differ(members):
    found = said(members, members.drop(index=120).reset_index(drop=True))
    assert found["rows of the table"] == (ROWS, ROWS - 1)
    assert [what for what in found if what.startswith("rows, at least one in 120 to")]


def test_the_same_members_in_another_order_are_told_as_that(members):
    found = said(members, members.iloc[::-1].reset_index(drop=True))
    assert list(found) == ["order of the rows, which are the same"]


def test_values_that_are_missing_now_are_counted_by_column(members):
    changed = members.astype({"Age": "float64"})
    changed.loc[[3, 5], "Age"] = np.nan
    assert said(members, changed)["values missing in Age"] == (None, 2)


def test_of_a_run_that_kept_no_fingerprints_only_the_counts_are_told(members):
    report = dataset(members).report()
    del report["fingerprints"]
    found = list(of_data(report, None, dataset(members.head(50))))
    assert [part["what"] for part in found] == ["rows of the table"]


def test_one_bit_of_one_probability_is_a_difference_and_a_gap_on_both_sides_is_none():
    before = pd.DataFrame({"row": [0, 1, 2], "probability": [0.1, np.nan, 0.3]})
    assert list(of_tables("oof", before, before.copy())) == []
    after = before.copy()
    after.loc[2, "probability"] = np.nextafter(0.3, 1)
    (found,) = of_tables("oof", before, after)
    assert found["what"] == "probability in oof, 1 of 3 rows, by 5.55e-17 at most; line 2"
    assert (found["before"], found["after"]) == (0.3, np.nextafter(0.3, 1))


def test_tables_of_other_columns_or_lengths_are_told_by_those():
    table = pd.DataFrame({"a": [1, 2]})
    assert [part["what"] for part in of_tables("t", table, table.head(1))] == ["the rows of t"]
    assert [part["what"] for part in of_tables("t", table, table.assign(b=1))] == [
        "the columns of t"
    ]


def test_values_differ_when_they_are_on_one_side_only():
    found = list(of_values({"a": 1, "b": 2}, {"b": 2, "c": 3}, told="metric "))
    assert found == [
        {"what": "metric a", "before": 1, "after": None},
        {"what": "metric c", "before": None, "after": 3},
    ]
