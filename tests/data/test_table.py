"""Totals below a table are members for no command; a member who is called Total is one."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.data.contract import Column, Contract
from churnlab.data.table import in_memory
from churnlab.data.validation import check
from churnlab.errors import InputError

N = 30
LIMITS = settings(max_examples=15, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)
LABELS = ["Total", "TOTAL:", "Grand Total", "Gesamt", "Summe", "Sum of all", "Итого", "合计"]

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


def members(seed: int) -> dict[str, list]:
    rng = np.random.default_rng(seed)
    return {
        "member": [f"M-{number:03d}" for number in range(N)],
        "visits": rng.integers(0, 30, N).tolist(),
        "fee": rng.uniform(15, 90, N).round(2).tolist(),
        "plan": rng.choice(["gold", "basic"], N).tolist(),
        "Churn": rng.permutation(np.resize(["Yes", "No", "No"], N)).tolist(),
    }


def sums(table: dict[str, list], *, rows: int = N) -> dict[str, float]:
    return {name: round(sum(table[name][:rows]), 2) for name in ("visits", "fee")}


def with_line(table: dict[str, list], **cells) -> dict[str, list]:
    return {name: [*column, cells.get(name, "")] for name, column in table.items()}


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
