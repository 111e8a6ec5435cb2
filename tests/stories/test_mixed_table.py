"""A table of numbers and words: segments of both, champions with and without segments."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml

from support.planted_members import planted
from support.running import artifact, churnlab_beside, tracked_at
from support.servers import post, serving

pytestmark = pytest.mark.slow

EFFORT = (
    *("segments.n_init=8", "segments.bootstraps=4", "segments.splits=2", "segments.references=2"),
    *("segments.null_tables=20", "segments.range=[2,5]"),
)
MIX = ("--config-dir", "my_conf", "dataset=mix")
ALL = ("segments=all", "playbook=any", *EFFORT)
KEYS = ["churn_probability", "will_churn", "segment", "segment_name", "recommended_action"]
SMALL_GATE = ("gate.members=20", "evaluation.folds=3")


def clients() -> tuple[pd.DataFrame, np.ndarray]:
    """Return clients of planted groups, who leave as their group does, and their groups."""
    rng = np.random.default_rng(8)
    table, group = planted(rng, rows=(900, 901))
    table.insert(0, "client", [f"C{i:04d}" for i in range(len(table))])
    left = rng.random(len(table)) < np.linspace(0.05, 0.9, group.max() + 1)[group]
    return table.assign(Churn=np.where(left, "Yes", "No")), group


def contract(table: pd.DataFrame, *, only_words: bool = False) -> dict:
    columns = {name: {"kind": "numeric"} for name in table if name.startswith("number")}
    words = {name: {"kind": "category", "unknown": "accept"} for name in table if "word" in name}
    return {
        "name": "words" if only_words else "mix",
        "path": "mix.csv",
        "target": "Churn",
        "positive": "Yes",
        "id": "client",
        "columns": words if only_words else columns | words,
        "rules": {},
        "late": [],
    }


@pytest.fixture(scope="module")
def churnlab(shared_home):
    """Return what runs commands in the folder of the table and its YAMLs."""
    table, _ = clients()
    run = churnlab_beside(shared_home, {"mix": table})
    folder = shared_home.parent / "my_conf" / "dataset"
    folder.mkdir(parents=True)
    for only_words in (False, True):
        made = contract(table, only_words=only_words)
        (folder / f"{made['name']}.yaml").write_text(yaml.safe_dump(made), encoding="utf-8")
    return run


@pytest.fixture(scope="module")
def lines(churnlab):
    """The result lines of train, segment and promote."""
    train = succeed(churnlab, "train", *MIX, "evaluation.folds=3")
    segment = succeed(churnlab, "segment", *MIX, *ALL)
    return {
        "train": train,
        "segment": segment,
        "promote": succeed(churnlab, "promote", *MIX, *SMALL_GATE),
    }


def succeed(churnlab, *words):
    ended = churnlab(*words)
    assert ended.code == 0, ended.err
    return ended.line


def scored(churnlab, shared_home, name: str) -> pd.DataFrame:
    members = pd.read_csv(shared_home.parent / "mix.csv").drop(columns="Churn")
    members.to_csv(shared_home.parent / "members.csv", index=False)
    succeed(churnlab, "score", *MIX, "input=members.csv", f"output={name}")
    return pd.read_csv(shared_home.parent / name)


def test_words_take_part_and_the_planted_groups_are_found(lines, shared_home, client_at):
    _, group = clients()
    run = client_at(shared_home).get_run(lines["segment"]["run_id"])
    assert lines["segment"]["k"] == len(np.unique(group))
    assert "lowest BIC" in run.data.tags["churnlab.k_reason"]
    assert run.data.tags["churnlab.groups"].startswith("shown to be groups")
    labels = pd.read_parquet(artifact(run, "segments/members.parquet"))["segment"]
    agree = pd.crosstab(group, labels).max(axis=1).sum() / len(group)
    assert agree > 0.9
    assert "bic" in pd.read_csv(artifact(run, "evidence.csv"))
    names = [segment["name"] for segment in lines["segment"]["segments"]]
    assert any("word" in name for name in names), names


def test_served_segments_are_those_of_the_run_also_for_new_words(
    lines, churnlab, shared_home, client_at
):
    run = client_at(shared_home).get_run(lines["segment"]["run_id"])
    labels = pd.read_parquet(artifact(run, "segments/members.parquet"))["segment"]
    answers = scored(churnlab, shared_home, "scored.csv")
    assert answers["segment"].tolist() == labels.tolist()
    members = pd.read_csv(shared_home.parent / "members.csv")
    with tracked_at(shared_home):
        champion = mlflow.pyfunc.load_model("models:/mix-churn@champion")
        new = champion.predict(members.head(1).assign(word0="never seen"))
    assert new[0]["segment"] in set(labels)


def test_a_table_without_numbers_has_segments_of_its_words(churnlab, lines):
    words = ("--config-dir", "my_conf", "dataset=words")
    line = succeed(churnlab, "segment", *words, *ALL)
    assert sum(segment["size"] for segment in line["segments"]) == 900
    left_out = churnlab("segment", *words, *ALL, "segments.words=null")
    assert left_out.code == 2
    assert "clusterer=mixed" in left_out.err
    assert "segment_run=none" in left_out.err


def test_k_means_leaves_words_out_and_says_so(churnlab, lines):
    ended = churnlab("segment", *MIX, *ALL, "segments.words=null")
    assert ended.code == 0, ended.err
    assert "take no part in the segments: word0" in ended.err


def test_a_mixture_of_gaussians_has_a_bic_among_its_criteria(
    churnlab, lines, shared_home, client_at
):
    words = ("clusterer=gaussian_mixture", "segments.words=null")
    line = succeed(churnlab, "segment", *MIX, *ALL, *words)
    run = client_at(shared_home).get_run(line["run_id"])
    evidence = pd.read_csv(artifact(run, "evidence.csv"))
    assert {"bic", "gap", "ward_height_gap"} <= set(evidence)
    assert json.loads(run.data.tags["churnlab.k_alone"])["bic"] in (2, 3, 4, 5)


def test_a_version_without_segments_keeps_the_keys_of_its_answers(
    churnlab, lines, shared_home, client_at
):
    ended = churnlab(
        *("promote", *MIX, *SMALL_GATE, "segment_run=none", "require=not_worse"),
        *("force=true", "reason=no segments wanted"),
    )
    assert ended.code == 0, ended.err
    check = next(one for one in ended.line["checks"] if one["name"] == "stable_segmentation")
    assert (check["value"], check["passed"]) == ("no segments", True)
    assert "the version has no segments" in ended.err
    answers = scored(churnlab, shared_home, "without.csv")
    assert list(answers)[-5:] == KEYS
    nothing = answers[["segment", "segment_name", "recommended_action"]]
    assert nothing.isna().all(axis=None)
    member = pd.read_csv(shared_home.parent / "members.csv").head(1).to_dict("records")
    with serving(shared_home, "models:/mix-churn@champion") as address:
        status, answer = post(address, {"dataframe_records": member})
    assert status == 200, answer
    assert answer["predictions"][0]["segment"] is None
    assert answer["predictions"][0]["recommended_action"] is None
    page = Path(succeed(churnlab, "report", *MIX)["path"])
    assert "It has no segments" in page.read_text(encoding="utf-8")


def test_after_it_segments_get_numbers_that_were_never_used(churnlab, lines, shared_home):
    segment = lines["segment"]
    words = (f"segment_run={segment['run_id']}", "force=true", "reason=segments again")
    succeed(churnlab, "promote", *MIX, *SMALL_GATE, "require=not_worse", *words)
    numbers = set(scored(churnlab, shared_home, "again.csv")["segment"])
    assert numbers == {segment["k"] + one["id"] for one in segment["segments"]}
