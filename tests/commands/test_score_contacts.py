"""``score contacts=true`` as a marketing team uses it: whom to contact, for how much, why not."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from churnlab.data.demo import members
from churnlab.models.decision import COSTS
from support.running import churnlab_at

pytestmark = pytest.mark.slow

FILES = ("", ".summary.json", ".left_out.csv")


@pytest.fixture(scope="module")
def churnlab(promoted):
    return churnlab_at(promoted.home)


@pytest.fixture
def given(tmp_path):
    """A file of members: a card, what each pays, and one row that breaks the contract."""
    table = members(120, seed=7).drop(columns="Churn")
    table.insert(0, "fee", np.random.default_rng(0).integers(20, 90, len(table)))
    table.insert(0, "card", [f"{number:03d}" for number in range(len(table))])
    table.loc[5, "Age"] = 7
    table.to_csv(tmp_path / "members.csv", index=False)
    return tmp_path / "members.csv"


def read(path, **how) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"card": "str"}, **how)


def test_the_list_holds_whom_to_contact_within_the_budget_and_the_rest_is_explained(
    churnlab, given, tmp_path
):
    output = tmp_path / "contacts.csv"
    words = ["score", f"input={given}", "score.on_bad_row=reject", "dataset.id=card"]
    scored = churnlab(*words, f"output={tmp_path / 'scored.csv'}")
    assert scored.code == 0, scored.err
    value = "decision.retained_value='12 * fee'"
    ended = churnlab(
        *words, f"output={output}", "contacts=true", "score.budget=90", *COSTS.split(), value
    )
    assert ended.code == 0, ended.err
    found, left_out = read(output), read(f"{output}.left_out.csv")
    assert (ended.line["rows"], ended.line["rejected"]) == (119, 1)
    assert ended.line["output"] == str(output)
    assert ended.line["listed"] == len(found) > 3
    assert ended.line["left_out"] == len(left_out) == 120 - len(found)
    assert sorted([*found["card"], *left_out["card"]]) == sorted(read(given)["card"])
    assert math.fsum(found["cost"]) == ended.line["cost"] <= 90
    answers = read(tmp_path / "scored.csv").set_index("card").loc[found["card"]]
    assert found["churn_probability"].tolist() == answers["churn_probability"].tolist()
    assert found["segment_name"].tolist() == answers["segment_name"].tolist()
    assert found["value"].tolist() == (12 * answers["fee"]).tolist()
    assert found["reasons"].str.len().min() > 3
    assert found["expected_value"].is_monotonic_decreasing
    summary = json.loads((tmp_path / "contacts.csv.summary.json").read_text(encoding="utf-8"))
    assert summary["version"] == ended.line["version"]
    assert summary["assumptions"]["retained_value"] == "12 * fee"
    assert summary["left_out"]["rejected"] == 1
    assert "to contact, of 120" in ended.err


def test_a_decision_without_costs_names_words_that_work_when_they_are_pasted(
    churnlab, given, tmp_path
):
    words = ["score", f"input={given}", "score.on_bad_row=reject", "contacts=true", "score.top=4"]
    words.append(f"output={tmp_path / 'contacts.parquet'}")
    refused = churnlab(*words)
    assert refused.code == 2, "the demo's champion decides by a fixed threshold"
    assert "has no costs" in refused.err
    advised = refused.err[refused.err.index("decision=") :].split()[:6]
    assert not list(tmp_path.glob("contacts*"))
    ended = churnlab(*words, *advised)
    assert ended.code == 0, ended.err
    found = pd.read_parquet(tmp_path / "contacts.parquet")
    assert list(found)[:3] == ["rank", "line", "churn_probability"]
    assert found["rank"].tolist() == [1, 2, 3, 4]
    assert found["value"].tolist() == [100.0] * 4
    again = churnlab(*words, *advised, "decision.value_column=fee", "decision.retained_value=null")
    assert again.code == 0, again.err
    found = pd.read_parquet(tmp_path / "contacts.parquet")
    fees = dict(zip(range(2, 122), read(given)["fee"], strict=True))
    assert found["value"].tolist() == [fees[int(line)] for line in found["line"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["contacts=true", "score.top=3", "score.budget=50"], "give one of them"),
        (["score.top=3"], "add contacts=true"),
        (["contacts=true", *COSTS.split(), "decision.retained_value=rent"], "the column rent"),
        (["contacts=true", *COSTS.split(), "decision.success=2"], "success=2"),
        (["contacts=true", "score.budget=0"], "score.budget=0"),
    ],
)
def test_what_cannot_be_ranked_is_refused_and_nothing_is_written(
    churnlab, given, tmp_path, words, message
):
    ended = churnlab(
        "score", f"input={given}", f"output={tmp_path / 'c.csv'}", "score.on_bad_row=reject", *words
    )
    assert ended.code == 2, ended.out
    assert message in ended.err
    assert not [
        path for path in tmp_path.iterdir() if path.name in {f"c.csv{end}" for end in FILES}
    ]
    assert not list(tmp_path.glob(".*")), "no parts"


def test_a_version_keeps_the_decision_of_its_churn_run(own_store, tmp_path, given):
    _, churnlab = own_store  # the promoted store is for reading
    trained = churnlab("train", *COSTS.split(), "decision.value_column=fee", "dataset.rows=400")
    assert trained.code == 0, trained.err
    words = ["dataset.rows=400", f"churn_run={trained.line['run_id']}", "segment_run=none"]
    promoted = churnlab("promote", *words, "evaluation.folds=3", "force=true", "reason=costs")
    assert promoted.code == 0, promoted.err
    output = tmp_path / "contacts.csv"
    ended = churnlab(
        *("score", f"input={given}", f"output={output}", "score.on_bad_row=reject"),
        *(f"model_uri=models:/demo-churn/{promoted.line['version']}", "contacts=true"),
    )
    assert ended.code == 0, ended.err
    found = read(output)
    fees = dict(zip(range(2, 122), read(given)["fee"], strict=True))
    assert found["value"].tolist() == [fees[line] for line in found["line"]]
    assert found["segment"].isna().all(), "a version without segments"
