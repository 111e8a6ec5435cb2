"""The main job goes on without segments where a table has none, and says so."""

import json

import numpy as np
import pandas as pd
import pytest

from support.running import artifact, churnlab_at

pytestmark = pytest.mark.slow

LIGHT = (
    *("tune.n_trials=1", "evaluation.folds=3", "evaluation.further_draws=0", "gate.members=20"),
    *("evaluation.learning_curve=false", "evaluation.importance_repeats=2", "gate.one_ms=20000"),
    *("segments.n_init=3", "segments.bootstraps=3", "segments.splits=3", "segments.null_tables=20"),
    *("gate.slices=[segment]", "evaluation.early=false", "~models.random_forest"),
)


def members(kind: str, n: int = 300) -> pd.DataFrame:
    """Members who leave by one number: numbers without structure, or too few combinations."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 4)).round(3)
    x[-20:] = x[:20]  # twins of others
    if kind == "two flags":
        x = (x[:, :2] > 0).astype(int)
    left = rng.random(n) < 1 / (1 + np.exp(-2.5 * (x[:, 0] - x[:, 0].mean()) + 0.5))
    table = pd.DataFrame(x, columns=["visits", "paid", "calls", "age"][: x.shape[1]])
    table.insert(0, "member", [f"M{row:04}" for row in rng.permutation(n)])
    return table.assign(Churn=np.where(left, "Yes", "No"))


@pytest.fixture(scope="module", params=["noise", "two flags"])
def ended(request, tmp_path_factory):
    """How the pipeline of such a table ended, its home, and the process for more commands."""
    home = tmp_path_factory.mktemp("pipeline") / "home"
    members(request.param).to_csv(home.parent / "club.csv", index=False)
    churnlab = churnlab_at(home)
    return churnlab("pipeline", "input=club.csv", *LIGHT), home, churnlab


def test_a_table_without_structure_ends_in_a_champion_without_segments_that_says_so(ended):
    made, *_ = ended
    assert made.code == 0, made.err
    assert (made.line["version"], made.line["segment_run_id"]) == ("1", None)
    assert "warning: the model is promoted without segments: " in made.err


def test_judges_who_are_alike_with_trained_members_are_counted_and_not_left_out(ended, client_at):
    made, home, _ = ended
    client = client_at(home)
    version = client.get_model_version_by_alias("club-churn", "champion")
    gate = json.loads(artifact(client.get_run(version.run_id), "gate.json").read_text())
    assert gate["twins"] > 0
    assert f"{gate['twins']} of the 60 judges are alike in every feature with a member" in made.err
    (left_out,) = [check for check in gate["checks"] if check["name"] == "held_out_members"]
    assert left_out["value"] == 60


@pytest.mark.parametrize("ended", ["two flags"], indirect=True)
def test_a_champion_with_segments_is_not_replaced_by_one_without(ended, client_at):
    _, home, churnlab = ended
    own = ("--config-dir", "my_conf", "dataset=club")
    two = ("segments.k=2", "segments.range=[2,2]", "segments.n_init=3")
    forced = ("force=true", "reason=two kinds", "gate.members=20", "evaluation.folds=3")
    for words in (("segment", *own, *two), ("promote", *own, *forced)):
        done = churnlab(*words)
        assert done.code == 0, done.err
    again = churnlab("pipeline", "input=club.csv", *LIGHT)
    assert again.code in (2, 3), again.err
    assert "the model is promoted without segments" not in again.err
    champion = client_at(home).get_model_version_by_alias("club-churn", "champion")
    assert champion.tags["churnlab.segment_run_id"] != "none"
