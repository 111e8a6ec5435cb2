"""Contact lists: the right members within the limits, nobody lost, no formula in any cell."""

import csv
import json
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.errors import InputError
from churnlab.models.decision import ContactEconomics
from churnlab.scoring.contacts import ContactList
from churnlab.scoring.ranking import LISTED, rank

NUMBERS = {"contact_cost": 2, "incentive": 10, "success": 0.3, "accept": 0.5}
DECISION = {"_target_": "churnlab.models.decision.expected_value", "retained_value": 100, **NUMBERS}

shares = st.floats(0, 1)
amounts = st.floats(0, 1e4)
economics = st.builds(
    ContactEconomics, amounts, amounts, amounts, success=shares, accept=shares
) | st.builds(ContactEconomics, st.just(200.0), st.just(2.0), st.just(10.0), shares, shares)


@st.composite
def members(draw) -> tuple[np.ndarray, np.ndarray]:
    """Draw probabilities and values, with ties, some values unknown."""
    number = draw(st.integers(0, 60))
    few = st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]) | shares
    some = st.sampled_from([50.0, 200.0, math.nan]) | st.floats(0, 1e6)
    columns = (st.lists(one, min_size=number, max_size=number) for one in (few, some))
    probability, value = (np.array(draw(column), dtype=float) for column in columns)
    return probability, value


@settings(max_examples=300, deadline=None)
@given(members=members(), economics=economics, budget=st.floats(0, 1e5) | st.none(), data=st.data())
def test_a_list_is_within_its_limits_and_nobody_outside_beats_anybody_inside(
    members, economics, budget, data
):
    probability, value = members
    top = data.draw(st.none() if budget is not None else st.integers(0, 70) | st.none())
    found = rank(probability, value, economics, top=top, budget=budget)
    listed, expected, cost = found.listed, found.expected, found.cost
    gain = probability * economics.success * (value - economics.incentive)
    waste = (1 - probability) * economics.accept * economics.incentive
    by_hand = gain - waste - economics.contact_cost
    np.testing.assert_allclose(expected, by_hand, rtol=1e-9, atol=1e-9 * (1 + cost.max(initial=0)))
    assert sorted(listed) == np.flatnonzero(found.why == LISTED).tolist()
    assert (expected[listed] > 0).all()
    assert (np.diff(expected[listed]) <= 0).all()
    able = np.flatnonzero(expected > 0)
    outside = np.setdiff1d(able, listed)
    if budget is None:
        assert len(listed) == min(len(able), len(able) if top is None else top)
        assert expected[outside].max(initial=-np.inf) <= expected[listed].min(initial=np.inf)
        return
    assert math.fsum(cost[listed]) <= budget * (1 + 1e-9)
    with np.errstate(divide="ignore", invalid="ignore"):
        worth = expected / cost
    if len(outside):
        assert worth[outside].max() <= worth[listed].min(initial=np.inf)
        best = outside[np.flatnonzero(worth[outside] == worth[outside].max())]
        assert math.fsum(cost[listed]) + cost[best].max() > budget * (1 - 1e-9), "one more fits"


@settings(max_examples=50, deadline=None)
@given(members=members(), budget=st.floats(0, 500))
def test_members_of_equal_worth_keep_the_order_of_the_table(members, budget):
    probability, value = members
    economics = ContactEconomics(100, 2, 10, 0.3, 0.5)
    twice = [np.tile(one, 2) for one in (probability, value)]
    found = rank(*twice, economics, budget=budget)
    place = {int(member): position for position, member in enumerate(found.listed)}
    for member in range(len(probability)):
        second = member + len(probability)
        assert second not in place or place[member] < place[second]


def answers(probability, **more) -> pd.DataFrame:
    """Return what a version answers."""
    rows = len(probability)
    return pd.DataFrame(
        {
            "churn_probability": probability,
            "will_churn": np.array(probability) > 0.5,
            "segment": np.arange(rows) % 3,
            "segment_name": 'новички, "рядом"',
            "recommended_action": "call; offer",
            "reasons": "visits fell from 1.9 to 0.4 a week",
        }
        | more
    )


@pytest.fixture
def contact_list() -> Iterator[Callable[..., ContactList]]:
    """Open contact lists, and close them in the end."""
    with ExitStack() as stack:
        yield lambda *about, **how: stack.enter_context(ContactList(*about, **how))


def read(path: Path, **how) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"card": "str"}, keep_default_na=False, **how)


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet"])
@pytest.mark.parametrize("batch", [1, 7, 100])
def test_listed_and_left_out_are_all_members_and_the_totals_add_up(
    contact_list, tmp_path, monkeypatch, ending, batch
):
    monkeypatch.setattr("churnlab.scoring.contacts.AT_ONCE", 9)
    rng = np.random.default_rng(0)
    probability, fee = rng.uniform(size=100), rng.integers(0, 300, 100)
    cards = [f"{number:03d}" for number in range(100)]
    output = tmp_path / f"contacts{ending}"
    contacts = contact_list(
        {**DECISION, "value_column": "fee"},
        output,
        identifier="card",
        place="line",
        budget=200.0,
        about={"version": "3"},
    )
    assert contacts.needs == ["card", "fee"]
    for first in range(0, 100, batch):
        part = slice(first, first + batch)
        table = pd.DataFrame({"card": cards[part], "fee": [str(cell) for cell in fee[part]]})
        places = range(first + 2, first + 2 + len(table))
        contacts.add(table, answers(probability[part]), places)
    contacts.reject([102], ["column Age: 7 is below 14"], pd.DataFrame({"card": ["100"]}))
    totals = contacts.write()
    found = pd.read_parquet(output) if ending == ".parquet" else read(output)
    left_out = read(tmp_path / f"contacts{ending}.left_out.csv")
    summary = json.loads((tmp_path / f"contacts{ending}.summary.json").read_text())
    assert list(found) == [
        *("rank", "card", "churn_probability", "segment", "segment_name", "recommended_action"),
        *("reasons", "value", "cost", "expected_value"),
    ]
    assert sorted([*found["card"], *left_out["card"]]) == [*cards, "100"]
    assert found["rank"].tolist() == list(range(1, len(found) + 1))
    rows = [int(card) for card in found["card"]]
    assert found["churn_probability"].tolist() == probability[rows].tolist()
    assert found["value"].tolist() == fee[rows].tolist()
    batches = np.arange(100) % batch % 3 if batch < 100 else np.arange(100) % 3
    assert found["segment"].tolist() == batches[rows].tolist()
    assert set(found["segment_name"]) == {'новички, "рядом"'}
    for name in ("cost", "expected_value"):
        assert summary["totals"][name] == totals[name] == math.fsum(found[name])
    assert summary["totals"]["leavers"] == math.fsum(found["churn_probability"])
    assert (summary["version"], summary["members"]) == ("3", 101)
    assert summary["listed"] == totals["listed"] == len(found) > 5
    assert sum(summary["left_out"].values()) == totals["left_out"] == len(left_out)
    assert summary["left_out"]["rejected"] == 1
    assert left_out["reason"].iloc[-1] == "rejected: column Age: 7 is below 14"
    assert {"no positive expected value", "beyond score.budget"} < set(left_out["reason"])
    assert summary["assumptions"] | NUMBERS == summary["assumptions"]
    assert {path.name for path in tmp_path.iterdir()} == {
        f"contacts{ending}{end}" for end in ("", ".summary.json", ".left_out.csv")
    }


def test_cells_that_a_spreadsheet_would_run_are_escaped_and_numbers_stay_numbers(
    contact_list, tmp_path
):
    cards = [
        "=1+1",
        "@SUM(A1)",
        "-5",
        "-5+cmd|' /C calc'!A0",
        "+49 30 1",
        "\t=1",
        "\r=1",
        "a\r=1",
        "x;=2",
        "\uff1d1",
        "7",
    ]
    contacts = contact_list(DECISION, tmp_path / "list.csv", identifier="card")
    ended = answers([0.9] * len(cards), segment_name="=HYPERLINK(1)", reasons="+1", segment=-1)
    contacts.add(pd.DataFrame({"card": cards}), ended, range(len(cards)))
    contacts.reject([9], ["=2"], pd.DataFrame({"card": ["=cmd"]}))
    contacts.write()
    with (tmp_path / "list.csv").open(encoding="utf-8", newline="") as file:
        assert file.read(1) == "\ufeff", "by which spreadsheets know that umlauts are in UTF-8"
        rows = list(csv.DictReader(file))
    written = [row["card"] for row in rows]
    safe = {
        "-5": "-5",
        "7": "7",
        "\t=1": "'\t'=1",
        "\r=1": "'\n'=1",
        "a\r=1": "a\n'=1",
        "x;=2": "x;'=2",
    }
    assert written == [safe.get(card, f"'{card}") for card in cards]
    assert {row["segment_name"] for row in rows} == {"'=HYPERLINK(1)"}
    assert {row["reasons"] for row in rows} == {"+1"}, "a plain number runs nothing"
    assert {row["segment"] for row in rows} == {"-1"}
    assert "'=cmd" in (tmp_path / "list.csv.left_out.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        ({"value_column": "monthly fee"}, [240.0, 120.0]),
        ({"retained_value": "12 * `monthly fee` + 50 * (Plan in ['gold'])"}, [2930.0, 1440.0]),
        ({}, [100.0, 100.0]),
    ],
)
def test_the_value_of_a_member_is_a_column_an_expression_or_one_number(
    contact_list, tmp_path, decision, expected
):
    decision = {**DECISION, "retained_value": 100} | decision
    if "value_column" in decision:
        decision["retained_value"] = None
    contacts = contact_list(decision, tmp_path / "list.csv", place="line", words=["Plan"])
    table = pd.DataFrame({"monthly fee": ["240", "120"], "Plan": ["gold", "basic"]})
    contacts.add(table, answers([0.9, 0.9]), [2, 3])
    contacts.write()
    found = read(tmp_path / "list.csv")
    assert found["line"].tolist() == [2, 3]
    assert found["value"].tolist() == expected


def test_members_without_a_value_are_left_out_and_an_impossible_one_is_refused(
    contact_list, tmp_path
):
    table = pd.DataFrame({"fee": ["300", "", None, "NA", "300", "350"]})
    for strict in (True, False):
        contacts = contact_list(
            {**DECISION, "value_column": "fee"}, tmp_path / "list.csv", place="line", strict=strict
        )
        contacts.add(table, answers([0.9] * 6), range(2, 8))
        for cell in ("-1", "three", "inf"):
            odd = pd.DataFrame({"fee": ["5", cell]})
            if strict:
                with pytest.raises(InputError, match=rf"line 9: .* \(fee = {cell}\)"):
                    contacts.add(odd, answers([0.9, 0.9]), [8, 9])
            else:
                contacts.add(odd, answers([0.9, 0.9]), [8, 9])
    contacts.write()
    left_out = read(tmp_path / "list.csv.left_out.csv")
    missing = left_out["reason"] == "the value of the member is missing or no number"
    assert left_out["line"][missing].tolist() == [3, 4, 5, 9, 9, 9]
    assert read(tmp_path / "list.csv")["line"].tolist() == [7, 2, 6]


def test_an_id_that_is_missing_is_the_place_of_the_row(contact_list, tmp_path):
    contacts = contact_list(DECISION, tmp_path / "list.csv", identifier="card", place="line")
    contacts.add(pd.DataFrame({"card": ["007", None, " "]}), answers([0.9, 0.8, 0.7]), [2, 3, 4])
    contacts.write()
    assert read(tmp_path / "list.csv")["card"].tolist() == ["007", "line 3", "line 4"]


def test_a_version_without_segments_and_a_table_without_members_make_a_list(contact_list, tmp_path):
    contacts = contact_list(DECISION, tmp_path / "list.csv")
    bare = answers([0.9, 0.8])[["churn_probability"]].assign(segment=None, segment_name=None)
    contacts.add(pd.DataFrame(index=range(2)), bare, [0, 1])
    contacts.write()
    assert read(tmp_path / "list.csv")["segment"].tolist() == ["", ""]
    empty = contact_list(DECISION, tmp_path / "none.csv")
    assert empty.write() == {"listed": 0, "left_out": 0, "cost": 0.0, "expected_value": 0.0}
    assert len(read(tmp_path / "none.csv")) == 0


def test_a_list_is_written_in_the_form_of_its_table(contact_list, tmp_path):
    form = {"sep": ";", "decimal": ","}
    contacts = contact_list({**DECISION, "value_column": "fee"}, tmp_path / "list.csv", form=form)
    contacts.add(pd.DataFrame({"fee": ["300,5"]}), answers([0.9]), [0])
    contacts.write()
    assert read(tmp_path / "list.csv", **form)["value"].tolist() == [300.5]


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        ({"_target_": "churnlab.models.decision.fixed", "value": 0.5}, "decision=expected_value"),
        (DECISION | {"retained_value": "fee", "value_column": "fee"}, "give one of them"),
        (DECISION | {"retained_value": "fee +"}, "cannot be read"),
        (DECISION | {"success": 1.5}, "success=1.5 is not possible"),
    ],
)
def test_a_decision_that_ranks_nobody_is_refused(contact_list, tmp_path, decision, words):
    with pytest.raises(InputError, match=words):
        contact_list(decision, tmp_path / "list.csv")
    assert not list(tmp_path.iterdir())


def test_columns_that_do_not_fit_are_refused(contact_list, tmp_path):
    contacts = contact_list({**DECISION, "retained_value": "12 * fee"}, tmp_path / "list.csv")
    with pytest.raises(InputError, match="needs the column fee"):
        contacts.add(pd.DataFrame({"Fee": [1]}), answers([0.9]), [0])
    contacts.add(pd.DataFrame({"fee": [""]}), answers([0.9]), [0])
    with pytest.raises(InputError, match="No member has a value"):
        contacts.write()
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="rename it"):
        contact_list(DECISION, tmp_path / "list.csv", identifier="rank")
