"""Parquet: folders, names and damaged files."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.data.contract import Column, Contract
from churnlab.data.demo import members
from churnlab.data.reading import read_table
from churnlab.data.validation import check
from churnlab.data.violations import LONGEST_MESSAGE
from churnlab.errors import InputError
from support.shop import FRAME, SHOP, TEXT, error_of, parquet, refusal


def test_a_folder_of_parquet_is_one_table_though_its_parts_have_other_types(tmp_path):
    FRAME.iloc[[0]].astype({"Age": "int64"}).to_parquet(tmp_path / "part-0.parquet")
    FRAME.iloc[1:].to_parquet(tmp_path / "part-1.parquet")
    (tmp_path / "_SUCCESS").touch()
    X, _, ids, _ = check(read_table(str(tmp_path), SHOP), SHOP)
    assert X["Age"].tolist() == [20, 33.5, 41]
    assert ids.tolist() == ["007", "008", "009"]


def test_ambiguous_names_are_refused_in_parquet_too(tmp_path):
    twice = pd.concat([FRAME, FRAME[["Age"]].rename(columns={"Age": "age"})], axis=1)
    contract = Contract(**{**vars(SHOP), "rename": {"age": "Age"}})
    assert "2 columns are called Age" in refusal(parquet(twice), tmp_path / "t.parquet", contract)


def test_a_folder_without_tables_is_refused(tmp_path):
    for content, text in [
        (None, "there is no file in the folder"),
        (TEXT, "t.csv in the folder is not Parquet"),
    ]:
        if content:
            (tmp_path / "t.csv").write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=text):
            read_table(str(tmp_path), SHOP)


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 10_000), byte=st.binary(min_size=1, max_size=3))
def test_damaged_parquet_is_a_table_or_a_user_error(tmp_path_factory, at, byte):
    path = tmp_path_factory.mktemp("damage") / "t.parquet"
    whole = parquet(members(30, seed=1))
    at %= len(whole)
    path.write_bytes(whole[:at] + byte + whole[at + len(byte) :])
    contract = Contract("gym", "Churn", 1, {"Age": Column(kind="numeric")})
    assert len(error_of(str(path), contract) or "") < LONGEST_MESSAGE
