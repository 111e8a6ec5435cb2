"""The table of the next month: drifted, with gaps, joined twice; what a champion of the old one
makes of it."""

import json

import numpy as np
import pandas as pd
import pytest

from churnlab.data.demo import members
from support.running import THREE_SEGMENTS, artifact, opened, version_folder

pytestmark = pytest.mark.slow

FOLDS = ("evaluation.folds=2",)


def gaps(table: pd.DataFrame) -> pd.DataFrame:
    """The table without some of its ages and contracts."""
    table = table.astype({"Age": "float64", "Contract_period": "float64"})
    table.loc[table.index[::7], "Age"] = np.nan
    table.loc[table.index[::11], "Contract_period"] = np.nan
    return table


TABLES = {
    "complete": members(600, seed=1),
    "gaps": gaps(members(600, seed=2)),
    "older": members(600, seed=3).assign(Age=lambda table: table["Age"] + 5),
    "twice": pd.concat([members(300, seed=4)] * 2, ignore_index=True),
}


@pytest.fixture(scope="module")
def there(shared_home):
    """One process, in the folder where the tables are; the champion is of the complete one."""
    shared_home.parent.mkdir(exist_ok=True)
    for name, table in TABLES.items():
        table.to_csv(shared_home.parent / f"{name}.csv", index=False)
    with opened(shared_home) as churnlab:

        def ask(command, name, *words):
            return churnlab(command, "dataset=gym", f"dataset.path={name}.csv", *words)

        assert [end.code for end in promotion(ask, "complete")] == [0, 0, 0]
        yield ask


def promotion(ask, name):
    """A table's way to a version: how train, segment and promote ended."""
    return [
        ask("train", name, *FOLDS),
        ask("segment", name, *THREE_SEGMENTS),
        ask("promote", name, *FOLDS, "require=not_worse"),
    ]


def test_a_refit_keeps_the_numbers_and_names_that_members_have(there, shared_home, client_at):
    scored = {}
    for version, words in {
        "1": None,
        "2": ["segments.random_state=9"],
        "3": ["segments.k=2"],
    }.items():
        if words is not None:
            assert there("segment", "complete", *THREE_SEGMENTS, *words).code == 0
            assert (
                there("promote", "complete", *FOLDS, "require=not_worse").line["version"] == version
            )
        uri = f"model_uri=models:/gym-churn/{version}"
        assert there("score", "complete", "input=complete.csv", "output=scored.csv", uri).code == 0
        scored[version] = pd.read_csv(shared_home.parent / "scored.csv")
    first, refit, two = scored.values()
    same = first["segment"] == refit["segment"]
    assert same.mean() >= 0.95
    assert (first["segment_name"] == refit["segment_name"])[same].all()
    tags = {
        number: client_at(shared_home).get_model_version("gym-churn", number).tags
        for number in scored
    }
    assert tags["2"]["churnlab.segments"] == (
        f"beside version 1, {(~same).sum()} of 600 members change their segment"
    )
    used = set(first["segment"]) | set(refit["segment"])
    gone = used - set(two["segment"])
    assert f"gone: {', '.join(map(str, sorted(gone)))}" in tags["3"]["churnlab.segments"]
    for number in set(two["segment"]) & used:
        assert ((two["segment"] == number) & (refit["segment"] == number)).sum() > 0
    shown = version_folder(client_at(shared_home), "gym-churn", "3") / "artifacts/segmentation"
    portraits = {
        part["id"]: part
        for part in json.loads((shown / "portraits.json").read_text(encoding="utf-8"))
    }
    assert {number: part["size"] for number, part in portraits.items()} == two[
        "segment"
    ].value_counts().to_dict()
    table = pd.read_csv(shown / "segments.csv").set_index("segment")
    assert table["name"].to_dict() == two.groupby("segment")["segment_name"].first().to_dict()


@pytest.fixture
def report(shared_home, client_at):
    """The data report of a run."""
    client = client_at(shared_home)
    return lambda ended: json.loads(
        artifact(client.get_run(ended.line["run_id"]), "data_report.json").read_text(
            encoding="utf-8"
        )
    )


def test_a_drifted_table_is_told_when_it_is_trained_on_and_when_it_is_scored(there, report):
    trained = there("train", "older", *FOLDS)
    scored = there("score", "complete", "input=older.csv", "output=scored.csv")
    for ended in (trained, scored):
        assert ended.code == 0, ended.err
        (warning,) = report(ended)["warnings"]
        assert f"warning: {warning}" in ended.err
        assert "Age (mean" in warning
        assert ended.line["warnings"] == 1
    assert "the champion (version " in trained.err
    assert "models:/gym-churn@champion" in scored.err


def test_members_held_out_and_trained_on_are_told(there, report):
    ended = there("train", "twice", *FOLDS)
    assert ended.code == 0, ended.err
    repeated, held_out = report(ended)["warnings"]
    assert repeated.startswith("300 of 600 rows repeat an earlier row")
    assert "of the 120 members held out are in the training part, too" in held_out
    assert f"warning: {held_out}" in ended.err
    assert ended.line["warnings"] == 2


def test_a_champion_that_knows_no_gaps_is_compared_on_the_members_it_can_answer_for(
    there, shared_home, client_at
):
    """A gap at scoring is refused by a champion of a complete table, and answered by one that was
    trained on gaps."""
    refused = there("score", "complete", "input=gaps.csv", "output=scored.csv")
    assert (refused.code, refused.out) == (2, "")
    assert (
        "line 2, column Contract_period: the value is missing, which models:/gym-churn@champion "
        "has never" in refused.err
    )
    assert "line 2, column Age: the value is missing" in refused.err
    ended = promotion(there, "gaps")
    assert ended[2].code in (0, 3), ended[2].err
    checks = {check["name"]: check for check in ended[2].line["checks"]}
    assert {"served_equals_trained", "champion_known", "log_loss_against_champion"} <= set(checks)
    assert checks["compatible_signature"]["passed"], (
        "what may be missing now could not be missing before"
    )
    version = ended[2].line["version"]
    scored = there(
        "score",
        "gaps",
        "input=gaps.csv",
        "output=scored.csv",
        f"model_uri=models:/gym-churn/{version}",
    )
    assert scored.code == 0, scored.err
    answers = pd.read_csv(shared_home.parent / "scored.csv")
    assert len(answers) == 600
    assert answers["churn_probability"].between(0, 1).all()
