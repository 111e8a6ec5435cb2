"""Numbers and days that stand for unknown: named, and gaps only where nothing else is possible."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.data.cells import read_numbers
from churnlab.formatting import counted
from support.drafts import drafted, written

N = 60
LIMITS = settings(max_examples=12, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("unknown")


def members(seed: int, **columns) -> dict[str, list]:
    left = np.random.default_rng(seed).permutation(np.arange(N) % 3 == 0)
    ids = [f"M-{number:03d}" for number in range(N)]
    return {"member": ids, **columns, "Churn": ["Yes" if gone else "No" for gone in left]}


def with_code(seed: int, code, count: int, low: int, high: int) -> list:
    rng = np.random.default_rng([seed, 1])
    cells = rng.integers(low, high, N).astype(object)
    cells[rng.permutation(N)[:count]] = code
    return cells.tolist()


@LIMITS
@given(
    seed=SEEDS,
    name_code=st.sampled_from(
        [("age", 999), ("Customer Age", -1), ("Alter", 9999), ("tenure", -1), ("calls", -999)]
        + [("months_on_book", -9), ("Age", 99999)]
    ),
    count=st.integers(2, 20),
    form=st.sampled_from(["{}", "{}.0"]),
)
def test_a_repeated_impossible_number_far_from_the_others_counts_as_missing(
    folder, seed, name_code, count, form
):
    name, code = name_code
    cells = with_code(seed, code, count, 18, 80)
    found = drafted(written(members(seed, **{name: [form.format(one) for one in cells]}), folder))
    word = form.format(code)
    assert found.columns[name]["missing"] == [word]
    assert found.columns[name]["max"] < 200
    assert f"{name}: numbers but for {word!r} in {counted(count, 'cell')}" in found.notes
    gone = [one == code for one in cells]
    assert found.checked.X[name].isna().tolist() == gone
    for numbers in (pd.Series(cells, dtype="float64"), pd.Series(cells, dtype=object)):
        read, wrong = read_numbers(numbers, "numeric", missing=[word])  # a notebook, JSON
        assert (np.isnan(read).tolist(), wrong.any()) == (gone, False)


@LIMITS
@given(
    seed=SEEDS,
    column=st.sampled_from(
        [("wage", 999, 10, 90), ("days_to_renewal", -1, 0, 90), ("balance", -1, 0, 90)]
        + [("tenure", 999, 0, 72), ("rating", 99, 1, 6), ("miles", 99999, 0, 9000)]
    ),
    count=st.integers(1, 20),
)
def test_a_number_that_may_be_unknown_is_a_question(folder, seed, column, count):
    name, code, low, high = column
    found = drafted(
        written(members(seed, **{name: with_code(seed, code, count, low, high)}), folder)
    )
    assert "missing" not in found.columns[name]
    have = "1 member has" if count == 1 else f"{count} members have"
    question = f'{name}: {have} {code}; if this means unknown, write missing: ["{code}"]'
    assert question in found.notes
    assert found.checked.X[name].notna().all()


@LIMITS
@given(
    seed=SEEDS,
    column=st.sampled_from(
        [("change", -1, -20, 20), ("score", 999, 0, 1500), ("percent", 99, 0, 101)]
        + [("income", 9999, 0, 90_000), ("either", 1, 0, 2)]
    ),
    count=st.integers(0, 3),
)
def test_an_ordinary_number_is_no_question(folder, seed, column, count):
    name, code, low, high = column
    found = drafted(
        written(members(seed, **{name: with_code(seed, code, count, low, high)}), folder)
    )
    assert "if this means unknown" not in found.notes
    assert "missing" not in found.columns[name]


def test_a_code_beside_one_and_zero_would_make_the_column_binary(folder):
    found = drafted(written(members(1, active=with_code(1, -1, 4, 0, 2)), folder))
    advice = 'if this means unknown, write {kind: binary, missing: ["-1"]}'
    assert advice in found.notes


def test_several_codes_are_one_statement(folder):
    cells = with_code(2, 999, 4, 20, 70)
    cells[:3], cells[3:5] = [-1] * 3, ["NA"] * 2
    found = drafted(written(members(2, age=cells), folder))
    assert {*found.columns["age"]["missing"]} == {"-1", "999", "NA"}


@LIMITS
@given(
    seed=SEEDS,
    day=st.sampled_from(["1900-01-01", "1899-12-30", "1800-01-01"]),
    style=st.sampled_from(["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%Y-%m-%d %H:%M:%S"]),
    count=st.integers(2, 20),
)
def test_a_day_before_all_members_counts_as_missing(folder, seed, day, style, count):
    days = np.random.default_rng(seed).integers(0, 3000, N)
    dates = pd.Series(pd.Timestamp("2015-01-31") + pd.to_timedelta(days, unit="D"))
    dates[:count] = pd.Timestamp(day)
    found = drafted(written(members(seed, joined=dates.dt.strftime(style).tolist()), folder))
    declared = found.columns["joined"]
    assert f"in {count} cells, which count as missing" in found.notes
    gone = [row < count for row in range(N)]
    assert found.checked.X["joined"].isna().tolist() == gone
    keys = {key: declared.get(key) for key in ("format", "before", "missing")}
    typed, wrong = read_numbers(dates, "date", **keys)  # a notebook
    assert (np.isnan(typed).tolist(), wrong.any()) == (gone, False)


@pytest.mark.parametrize("day", ["1970-01-01", "2099-12-31"])
def test_a_day_that_may_be_none_is_a_question(folder, day):
    dates = pd.Series(pd.date_range("2016-01-01", periods=N, freq="17D").strftime("%Y-%m-%d"))
    dates[:4] = day
    found = drafted(written(members(3, joined=dates.tolist()), folder))
    question = f'4 members have {day}; if this means unknown, write missing: ["{day}"]'
    assert f"joined: {question}" in found.notes
    assert found.checked.X["joined"].notna().all()
