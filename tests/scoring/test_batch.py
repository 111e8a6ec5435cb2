"""Rows that are read at once mean what they mean when they are read as every CSV file is."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.data.contract import Contract
from churnlab.data.validation import inspect
from churnlab.scoring.batch import _any, _plain
from churnlab.scoring.blocks import CsvBlock
from support.shop import SHOP

HEAD = "Client,Age,Plan\n"

cells = st.sampled_from(
    ["7", "007", "33.5", "1e2", " 4", "x", "", " ", "NA", "nan", "None", "gold"]
)
lines = st.lists(cells, min_size=3, max_size=3).map(",".join)
odd = st.sampled_from(["", " ", "\t", "1,2", "1,2,3,4", "a\0b,1,x", "1,2,x\r3,4,y", ",,"])
ends = st.sampled_from(["\n", "\n", "\n", "\r\n", "\r", ""])


def read_so(read, rows: str, contract: Contract):
    """Return what a way of reading gives: features, ids and lines; None: it gives nothing."""
    batch = read(CsvBlock(0, "t.csv", HEAD, rows, 2, 1.0), contract)
    if batch is None:
        return None
    (X, _, ids, _), violations = inspect(batch.table, contract, needs_target=False)
    return X, ids, list(batch.table.lines), [str(one) for one in violations]


@pytest.mark.parametrize("typed", [True, False])
@settings(max_examples=300, deadline=None)
@given(rows=st.lists(st.tuples(lines | lines | lines | odd, ends), min_size=1, max_size=6))
def test_rows_that_are_read_at_once_are_those_that_are_read_as_every_file_is(typed, rows):
    text = "".join(line + end for line, end in rows)
    at_once = read_so(lambda block, contract: _plain(block, contract, typed=typed), text, SHOP)
    if at_once is None:
        return
    X, ids, places, violations = read_so(_any, text, SHOP)
    pd.testing.assert_frame_equal(at_once[0], X)
    assert at_once[1].tolist() == ids.tolist() or np.array_equal(at_once[1].isna(), ids.isna())
    assert (at_once[2], at_once[3]) == (places, violations)


def test_most_files_are_read_at_once():
    rows = "007,33.5,gold\n8,,None\n9,1e2,basic"
    for typed in (True, False):
        found = read_so(lambda block, contract: _plain(block, contract, typed=typed), rows, SHOP)  # noqa: B023
        assert found is not None
        assert found[2] == [2, 3, 4]
