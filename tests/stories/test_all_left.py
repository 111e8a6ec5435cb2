"""A kind of members who have all left: no action in the table, and one for who comes later."""

import json

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml

from support.running import artifact, churnlab_beside, tracked_at

pytestmark = pytest.mark.slow

CLUB = ("--config-dir", "my_conf", "dataset=club")
LIGHT = ("segments.n_init=4", "segments.bootstraps=4", "segments.splits=2", "segments.references=2")
NOBODY = "so there is nobody to address"


def members() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    months = np.concatenate([rng.integers(0, 6, 60), rng.integers(30, 60, 140)])
    left = np.where(months < 6, "Yes", np.where(rng.random(200) < 0.1, "Yes", "No"))
    fee = np.where(months < 6, 20, 50) + rng.normal(0, 2, 200)
    return pd.DataFrame({"months": months, "fee": fee, "Churn": left})


@pytest.fixture(scope="module")
def ended(shared_home):
    """What train, segment, promote and report end with, by command."""
    churnlab = churnlab_beside(shared_home, {"club": members()})
    folder = shared_home.parent / "my_conf" / "dataset"
    folder.mkdir(parents=True)
    club = {"name": "club", "path": "club.csv", "target": "Churn", "positive": "Yes"}
    club |= {"id": None, "columns": dict.fromkeys(["months", "fee"], {"kind": "numeric"})}
    (folder / "club.yaml").write_text(yaml.safe_dump(club | {"rules": {}, "late": []}))
    keys = {
        "train": ("evaluation.folds=3",),
        "segment": ("segments=all", "playbook=any", "segments.k=2", *LIGHT),
        "promote": ("evaluation.folds=3", "gate.members=20", "force=true", "reason=small"),
        "report": ("evaluation.folds=3",),
    }
    return {command: churnlab(command, *CLUB, *words) for command, words in keys.items()}


def test_nobody_is_addressed_in_a_segment_that_all_have_left(ended, shared_home, client_at):
    assert {each.code for each in ended.values()} == {0}, ended
    line = ended["segment"].line
    (gone,) = [segment for segment in line["segments"] if segment["churn_rate"] == 1]
    assert gone["recommended_action"].endswith(NOBODY)
    run = client_at(shared_home).get_run(line["run_id"])
    actions = pd.read_csv(artifact(run, "actions.csv"))
    assert gone["id"] not in set(actions["segment"])
    page = (shared_home / "outputs/report-club.html").read_text(encoding="utf-8")
    for text in (ended["segment"].err, ended["report"].err, page):
        assert NOBODY in text
        assert "retention offer" not in text


def test_a_member_who_comes_to_such_a_segment_later_gets_the_action_of_its_kind(ended, shared_home):
    with tracked_at(shared_home):
        champion = mlflow.pyfunc.load_model("models:/club-churn@champion")
        (answer,) = champion.predict(pd.DataFrame({"months": [2], "fee": [20.0]}))
    assert "test a retention offer" in answer["recommended_action"], json.dumps(answer)
