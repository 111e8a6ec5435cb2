"""Outcomes as people write them: the YAML of any of them is accepted by its own table."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.errors import InputError
from support.drafts import drafted, written

N = 48
CODES = [("1", "0"), ("1.0", "0.0"), ("Yes", "No"), ("TRUE", "FALSE"), ("Churned", "Stayed")]
GAPS = ["?", "unknown", "-", "NA", "", " ", "n.a.", "None"]


def rows(left: np.ndarray, codes: tuple[str, str], others: list[str]) -> list[str]:
    """Cells of an outcome; the others stand in the last rows."""
    cells = [codes[0] if gone else codes[1] for gone in left]
    return [*cells[: N - len(others)], *others]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    codes=st.sampled_from(CODES),
    gaps=st.lists(st.sampled_from(GAPS), max_size=3),
    stray=st.sampled_from(["", "Joined", "Trial"]),
    padded=st.booleans(),
    parquet=st.booleans(),
)
def test_the_yaml_of_any_outcome_is_accepted_by_its_own_table(
    tmp_path_factory, seed, codes, gaps, stray, padded, parquet
):
    left = np.random.default_rng(seed).permutation(np.arange(N) % 3 == 0)
    others = [*gaps, *[stray] * bool(stray)]
    cells = rows(left, codes, others)
    if padded:
        cells[0] = f" {cells[0]} "
    ages = np.random.default_rng(seed).integers(18, 80, N).tolist()
    table = {"member": [f"M-{number}" for number in range(N)], "age": ages, "churn": cells}
    folder = tmp_path_factory.mktemp("outcome")
    path = written(table, folder)
    if parquet:
        path = folder / "table.parquet"
        pd.DataFrame(table).to_parquet(path)
    found = drafted(path)
    assert found.keys["target"] == "churn", found.notes
    taking_part = N - len(others)
    assert found.checked.y.tolist() == left[:taking_part].astype(int).tolist()
    assert ("rows_where" in found.keys) == bool(others)


@pytest.mark.parametrize(
    "words", [("yes", "No", "NO"), ("YES", "yes", "no"), ("Churned", "Stayed", "stayed")]
)
@pytest.mark.parametrize("stray", ["", "?"])
def test_capitals_make_no_third_value_of_an_outcome(tmp_path, words, stray):
    cells = [*np.resize(words, N - 1), stray or words[0]]
    table = {"age": [*range(20, 20 + 2 * N, 2)][::-1], "churn": cells}
    found = drafted(written(table, tmp_path))
    gone = [cell.casefold() in ("yes", "churned") for cell in cells if cell != "?"]
    assert found.checked.y.tolist() == gone


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("Did the customer leave?", ("Yes", "No")),
        ("closed", ("Y", "N")),
        ("account_closed", ("1", "0")),
        ("abandono", ("sí", "no")),
        ("baja", ("si", "no")),
    ],
)
def test_names_that_a_colleague_would_be_sure_of_are_the_target(tmp_path, name, codes):
    left = np.arange(N) % 3 == 0
    table = {"age": [*range(20, 20 + 2 * N, 2)][::-1], name: rows(left, codes, [])}
    found = drafted(written(table, tmp_path))
    assert found.keys["target"] == name
    assert found.checked.y.tolist() == left.astype(int).tolist()


@pytest.mark.parametrize("name", ["Status", "customer_status", "churn"])
@pytest.mark.parametrize(
    ("left", "stayed", "others"),
    [
        ("C", "A", ["N"]),
        ("CHU", "ACT", ["NEW"]),
        ("clsd", "open", ["tri", "pend"]),
        ("L", "S", ["J"]),
        ("CAN", "RET", []),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_init_says_what_it_assumed_of_each_code_of_an_outcome(
    tmp_path, name, left, stayed, others, named
):
    cells = np.resize([left, stayed, stayed, *others], N).tolist()
    table = {"age": [*range(20, 20 + 2 * N, 2)][::-1], name: cells}
    found = drafted(written(table, tmp_path), target=name if named else None)
    assert (found.keys["target"], found.keys["positive"]) == (name, left)
    neither = f", {', '.join(others)} as neither" if others else ""
    said = f"not sure: {name} holds codes: {left} is read as left, {stayed} as stayed{neither}"
    assert said in found.notes
    assert ("rows_where" in found.keys) == bool(others)
    assert found.checked.y.tolist() == [cell == left for cell in cells if cell in (left, stayed)]


@pytest.mark.parametrize("codes", [("A", "C", "S"), ("1", "2", "3"), ("X1", "X2", "X3")])
def test_codes_that_nobody_can_know_are_a_question_that_names_rows_where(tmp_path, codes):
    cells = np.resize([codes[0], codes[0], *codes[1:]], N)
    table = {"age": [*range(20, 20 + 2 * N, 2)][::-1], "Status": cells.tolist()}
    path = written(table, tmp_path)
    found = drafted(path)
    assert found.keys["target"] == "???"
    pair = [int(code) if code.isdigit() else code for code in (codes[1], codes[0])]
    advice = f'rows_where: "Status in {pair}"'
    assert advice in found.notes
    with pytest.raises(InputError, match="cannot be the target") as refused:
        drafted(path, target="Status")
    assert advice in str(refused.value)


def test_states_and_marital_status_are_no_outcome(tmp_path):
    table = {"age": [*range(20, 20 + 2 * N, 2)][::-1]}
    table |= {"state": np.resize(["CA", "RI", "TX"], N).tolist()}
    table |= {"marital status": np.resize(["S", "M", "C"], N).tolist()}
    assert drafted(written(table, tmp_path)).keys["target"] == "???"
