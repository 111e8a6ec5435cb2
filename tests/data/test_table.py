"""Totals below a table are members for no command; a member who is called Total is one."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from churnlab.data.contract import Column, Contract
from churnlab.data.table import in_memory
from churnlab.data.validation import check
from churnlab.errors import InputError
from support.totals import LABELS, LIMITS, SEEDS, N, members, sums, with_line

CLUB = Contract(
    "club",
    "Churn",
    "Yes",
    {
        "visits": Column("numeric"),
        "fee": Column("numeric"),
        "plan": Column("category", unknown="accept", values=("gold", "basic")),
    },
    id="member",
)


@LIMITS
@given(
    seed=SEEDS,
    label=st.sampled_from([*LABELS, None]),
    needs_target=st.booleans(),
    last=st.integers(6, N),
)
def test_no_command_takes_totals_for_a_member(seed, label, needs_target, last):
    table = members(seed)
    more = sums(table) if label else sums(table, rows=last)  # of a block label and size decide
    rows = {name: column[:last] for name, column in table.items()}
    line = more | {"member": label, "plan": None, "Churn": "No" if label else None}
    frame = pd.DataFrame(with_line(rows, **line))
    with pytest.raises(InputError, match=f"row {last}, a line of totals \\(") as refused:
        check(in_memory(frame, source="club"), CLUB, needs_target=needs_target)
    assert "this is no member: remove the line" in str(refused.value)


@LIMITS
@given(seed=SEEDS, label=st.sampled_from(LABELS), needs_target=st.booleans())
def test_every_command_takes_a_member_called_so(seed, label, needs_target):
    table = members(seed)
    frame = pd.DataFrame(
        with_line(table, member=label, visits=7, fee=20.5, plan="gold", Churn="No")
    )
    found = check(in_memory(frame, source="club"), CLUB, needs_target=needs_target)
    assert len(found.X) == N + 1
