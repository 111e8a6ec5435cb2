"""Points and commas that can be read in two ways: nothing is a thousand times off in silence."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.drafts import drafted, written

N = 60
LIMITS = settings(max_examples=10, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("marks")


def members(seed: int, **columns) -> dict[str, list]:
    """Members with an outcome and the given columns."""
    left = np.random.default_rng(seed).permutation(np.arange(N) % 3 == 0)
    ids = [f"M-{number:03d}" for number in range(N)]
    return {"member": ids, **columns, "Churn": ["Yes" if gone else "No" for gone in left]}


def thousandths(seed: int, low: float, high: float) -> list[float]:
    return np.random.default_rng(seed).uniform(low, high, N).round(3).tolist()


@LIMITS
@given(
    seed=SEEDS, separator=st.sampled_from([",", ";", "\t", "|"]), unit=st.sampled_from(["", "€"])
)
def test_a_zero_before_the_comma_makes_it_a_decimal_comma_for_sure(folder, seed, separator, unit):
    numbers = [0.107, *thousandths(seed, 0.1, 9.9)[1:]]
    cells = [f"{number:.3f}{unit}".replace(".", ",") for number in numbers]
    found = drafted(written(members(seed, cost=cells), folder, separator=separator))
    np.testing.assert_allclose(found.checked.X["cost"], numbers)
    assert "not sure" not in found.notes


@LIMITS
@given(
    seed=SEEDS,
    separator=st.sampled_from([";", "\t", "|"]),
    mark=st.sampled_from(".,"),
    others=st.sampled_from([".", ",", None]),
)
def test_three_digits_behind_a_mark_are_what_the_other_columns_and_the_separator_say(
    folder, seed, separator, mark, others
):
    numbers = thousandths(seed, 1.1, 9.9)
    columns = {"weight": [f"{number:.3f}".replace(".", mark) for number in numbers]}
    if others:
        fees = np.random.default_rng([seed, 1]).uniform(1, 99, N)
        columns["fee"] = [f"{fee:.2f}".replace(".", others) for fee in fees]
    found = drafted(written(members(seed, **columns), folder, separator=separator))
    thousand = 1000 if others not in (None, mark) else 1
    np.testing.assert_allclose(found.checked.X["weight"], np.array(numbers) * thousand)
    assert ("weight: not sure: if " in found.notes) == (not (mark == others == "."))


@LIMITS
@given(
    seed=SEEDS,
    style=st.sampled_from(["${:,}", "{:,} €", "USD {:,}", "{:,} kr"]),
    mark=st.sampled_from(",."),
    others=st.sampled_from([",", "."]),
)
def test_money_with_three_digits_behind_every_mark_is_in_thousands(
    folder, seed, style, mark, others
):
    numbers = np.random.default_rng(seed).integers(1000, 90_000, N)
    cells = [style.format(number).replace(",", mark) for number in numbers]
    fees = [f"{fee:.2f}".replace(".", others) for fee in thousandths(seed, 1, 99)]
    table = members(seed, income=cells, fee=fees)
    found = drafted(written(table, folder, separator=";"))
    assert found.checked.X["income"].tolist() == numbers.tolist()
    assert "income: not sure: if " in found.notes


@LIMITS
@given(seed=SEEDS, mark=st.sampled_from(",."), separator=st.sampled_from([",", ";"]))
def test_beside_whole_numbers_below_1000_a_mark_separates_thousands(folder, seed, mark, separator):
    numbers = np.random.default_rng(seed).integers(200, 5000, N).tolist()
    cells = [f"{number:,}".replace(",", mark) for number in numbers]
    found = drafted(written(members(seed, visits=cells), folder, separator=separator))
    assert found.checked.X["visits"].tolist() == numbers
    assert "visits: not sure: if " in found.notes


@pytest.mark.parametrize(
    "cells", [["0.123", "0.456"], ["7.125", "3.250"], ["1.333", "2", "2.667"], ["7.5", "1.125"]]
)
def test_plain_decimals_of_a_comma_file_raise_no_question(folder, cells):
    rows = np.resize(cells, N).tolist()
    found = drafted(written(members(1, rate=rows), folder))
    assert found.checked.X["rate"].tolist() == [float(cell) for cell in rows]
    assert "not sure" not in found.notes


@LIMITS
@given(seed=SEEDS, digits=st.integers(0, 6))
def test_exponents_in_a_file_of_decimal_commas_are_read_as_they_are(folder, seed, digits):
    numbers = np.random.default_rng(seed).uniform(1e9, 9e9, N)
    cells = [f"{number:.{digits}e}" for number in numbers]
    fees = [f"{fee:.2f}".replace(".", ",") for fee in thousandths(seed, 1, 99)]
    found = drafted(written(members(seed, spent=cells, fee=fees), folder, separator=";"))
    if "spent" in found.columns:
        assert found.checked.X["spent"].tolist() == [float(cell) for cell in cells]
    assert found.keys["decimal"] == ","


@LIMITS
@given(
    seed=SEEDS,
    unit=st.sampled_from(["%", " %", " GB", " €"]),
    share=st.sampled_from([0.02, 0.1, 0.5, 0.9]),
)
def test_a_unit_that_only_some_cells_have_is_named_where_the_sizes_differ(
    folder, seed, unit, share
):
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.2, 0.95, N)
    bare = rng.permutation(N) < max(1, round(share * N))
    cells = [
        f"{rate:.2f}" if plain else f"{100 * rate:.0f}{unit}"
        for rate, plain in zip(rates, bare, strict=True)
    ]
    found = drafted(written(members(seed, usage=cells, fee=thousandths(seed, 1.1, 9)), folder))
    said = f"not sure: {N - bare.sum()} cells have {unit.strip()}, {bare.sum()} have none"
    assert f"usage: {said}" in found.notes
    assert ("usage" in found.columns) == (min(bare.mean(), 1 - bare.mean()) < 0.05)
    if "usage" in found.columns:
        assert f"written as {cells[int(np.flatnonzero(~bare)[0])]}, which" in found.notes


def test_a_unit_that_some_cells_lack_is_no_question_where_the_sizes_are_alike(folder):
    rng = np.random.default_rng(3)
    cells = [f"{fee:.2f}{'' if rng.random() < 0.5 else ' €'}" for fee in rng.uniform(10, 40, N)]
    found = drafted(written(members(3, fee=cells), folder))
    assert found.columns["fee"]["format"] == "1234.5 €"
    assert "not sure" not in found.notes
    assert " €, which is read as" in found.notes
