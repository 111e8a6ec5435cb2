"""Next month's table, drifted, with gaps or joined twice, against the champion of this month."""

import json

import numpy as np
import pandas as pd
import pytest

from churnlab.data.demo import members
from support.running import THREE_SEGMENTS, artifact, churnlab_beside, version_folder

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
def churnlab(shared_home):
    """One process, in the folder of the tables; the champion is trained on the complete one."""
    run = churnlab_beside(shared_home, TABLES)

    def run_on(command, name, *words):
        return run(command, "dataset=gym", f"dataset.path={name}.csv", *words)

    assert [end.code for end in promotion(run_on, "complete")] == [0, 0, 0]
    return run_on


def promotion(churnlab, name):
    """How train, segment and promote ended on a table."""
    return [
        churnlab("train", name, *FOLDS),
        churnlab("segment", name, *THREE_SEGMENTS),
        churnlab("promote", name, *FOLDS, "require=not_worse"),
    ]


def test_a_refit_keeps_the_numbers_and_names_that_members_have(churnlab, shared_home, client_at):
    scored = {}
    for version, words in {
        "1": None,
        "2": ["segments.random_state=9"],
        "3": ["segments.k=2"],
    }.items():
        if words is not None:
            assert churnlab("segment", "complete", *THREE_SEGMENTS, *words).code == 0
            assert (
                churnlab("promote", "complete", *FOLDS, "require=not_worse").line["version"]
                == version
            )
        uri = f"model_uri=models:/gym-churn/{version}"
        assert (
            churnlab("score", "complete", "input=complete.csv", "output=scored.csv", uri).code == 0
        )
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
        f"numbered as in version 1: {(~same).sum()} of 600 members change their segment"
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


def test_drift_is_reported_by_training_and_by_scoring(churnlab, report):
    trained = churnlab("train", "older", *FOLDS)
    scored = churnlab("score", "complete", "input=older.csv", "output=scored.csv")
    for ended, predicted in ((trained, 0), (scored, 1)):
        assert ended.code == 0, ended.err
        warning, *others = report(ended)["warnings"]
        assert f"warning: {warning}" in ended.err
        assert "Age (mean" in warning
        assert len(others) == predicted
        assert ended.line["warnings"] == 1 + predicted
        assert all("the predictions of" in other for other in others)
    assert "the champion (version " in trained.err
    assert f"models:/gym-churn/{scored.line['version']} was trained" in scored.err


def test_test_members_that_are_in_the_training_set_are_reported(churnlab, report):
    ended = churnlab("train", "twice", *FOLDS)
    assert ended.code == 0, ended.err
    repeated, overlap = report(ended)["warnings"]
    assert repeated.startswith("300 of 600 rows repeat an earlier row")
    assert "of the 120 test members are in the training set, too" in overlap
    assert f"warning: {overlap}" in ended.err
    assert ended.line["warnings"] == 2


def test_a_champion_trained_without_gaps_is_compared_on_the_members_it_can_score(
    churnlab, shared_home, client_at
):
    """A gap is refused by a champion of a complete table, and scored by one trained on gaps."""
    champion = client_at(shared_home).get_model_version_by_alias("gym-churn", "champion").version
    refused = churnlab("score", "complete", "input=gaps.csv", "output=scored.csv")
    assert (refused.code, refused.out) == (2, "")
    assert (
        "line 2, column Contract_period: the value is missing, and "
        f"models:/gym-churn/{champion} was trained without" in refused.err
    )
    assert "line 2, column Age: the value is missing" in refused.err
    ended = promotion(churnlab, "gaps")
    assert ended[2].code in (0, 3), ended[2].err
    checks = {check["name"]: check for check in ended[2].line["checks"]}
    assert {"served_equals_trained", "champion_known", "log_loss_against_champion"} <= set(checks)
    assert checks["compatible_signature"]["passed"], (
        "what may be missing now could not be missing before"
    )
    version = ended[2].line["version"]
    scored = churnlab(
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
