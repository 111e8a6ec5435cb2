"""Totals below a table are named with their line; a member who is called Total is a member."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from churnlab.errors import InputError
from support.drafts import drafted, written
from support.totals import LABELS, LIMITS, SEEDS, N, members, sums, with_line


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("totals")


@LIMITS
@given(
    seed=SEEDS,
    label=st.sampled_from([*LABELS, ""]),
    column=st.sampled_from(["member", "plan"]),
    separator=st.sampled_from([",", ";"]),
)
def test_totals_at_the_end_are_named_with_their_line(folder, seed, label, column, separator):
    table = members(seed)
    path = written(with_line(table, **sums(table), **{column: label}), folder, separator=separator)
    with pytest.raises(InputError) as refused:
        drafted(path)
    text = str(refused.value)
    assert f"line {N + 2} holds totals (" in text
    assert f"visits is {sum(table['visits'])}, the sum of the rows above" in text
    assert f"remove it: sed {N + 2}d {path} > " in text


@LIMITS
@given(
    seed=SEEDS,
    label=st.sampled_from([*LABELS, "Average", "media", ""]),
    column=st.sampled_from(["member", "plan"]),
)
def test_a_member_who_is_called_so_is_a_member(folder, seed, label, column):
    rng = np.random.default_rng([seed, 1])
    table = members(seed)
    own = {"member": "M-999", "plan": "gold", "visits": rng.integers(0, 30), "Churn": "No"}
    own |= {"fee": round(rng.uniform(15, 90), 2), column: label}
    found = drafted(written(with_line(table, **own), folder))
    assert len(found.checked.X) == N + 1


def test_sums_and_means_in_two_lines_are_named_both(folder):
    table = members(3)
    total = with_line(table, member="Total", **sums(table))
    means = {name: round(total / N, 2) for name, total in sums(table).items()}
    both = with_line(total, member="Average", **means)
    with pytest.raises(InputError, match=f"lines {N + 2}, {N + 3} hold totals") as refused:
        drafted(written(both, folder))
    assert f"sed '{N + 2}d;{N + 3}d'" in str(refused.value)


def test_totals_of_a_parquet_file_are_named_with_their_row(folder):
    table = members(4)
    frame = pd.DataFrame(with_line(table, member="Total", **sums(table), plan=None, Churn=None))
    frame.to_parquet(folder / "totals.parquet")
    with pytest.raises(InputError, match=f"row {N} holds totals .*; remove it from the file"):
        drafted(folder / "totals.parquet")
