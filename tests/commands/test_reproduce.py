"""Runs reproduced from their ids: identical if nothing has changed, else the differences."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from churnlab.data import demo
from support.running import SMALL_SEGMENTS, Ended, artifact, churnlab_at

pytestmark = pytest.mark.slow

FOREST = ("model=random_forest", "evaluation.folds=2", "model.estimator.n_estimators=5")


@pytest.fixture(scope="module")
def churnlab(shared_home):
    """Run the commands of this file."""
    return churnlab_at(shared_home)


@pytest.fixture(scope="module")
def table(shared_home, churnlab):
    """Write a member table; return the words that select it by a relative path."""
    path = shared_home.parent / "members.csv"
    demo.members(n=300, seed=0).to_csv(path, index=False)
    return ("dataset=gym", "dataset.path=members.csv")


@pytest.fixture(scope="module")
def made(churnlab, table):
    """Make one run of each kind that can be reproduced; return the result lines by name."""
    commands = {
        "logistic regression": ("train", "dataset.rows=300", "evaluation.folds=2"),
        "forest": ("train", *table, *FOREST),
        "study": ("tune", *table, "evaluation.folds=2", "tune.n_trials=2"),
        "study of two workers": (
            *(
                "tune",
                "dataset.rows=300",
                *FOREST,
                "tune.n_trials=3",
                "engine=processes",
                "engine.workers=2",
            ),
        ),
        "segments": ("segment", *table, *SMALL_SEGMENTS),
    }
    ended = {name: churnlab(*words) for name, words in commands.items()}
    assert {end.code for end in ended.values()} == {0}, [end.err for end in ended.values()]
    return {name: end.line for name, end in ended.items()}


@pytest.fixture(scope="module")
def again(churnlab, made) -> dict[str, Ended]:
    return {name: churnlab("reproduce", line["run_id"]) for name, line in made.items()}


@pytest.fixture(scope="module")
def swept(churnlab, made) -> Ended:
    """Reproduce two runs in one sweep."""
    ids = [made[name]["run_id"] for name in ("logistic regression", "forest")]
    return churnlab("reproduce", "-m", f"run={','.join(ids)}")


@pytest.fixture(scope="module")
def spare(swept):
    """Return a run whose records tests may change."""
    return swept.line["runs"][0]


NAMES = ["logistic regression", "forest", "study", "study of two workers", "segments"]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_reproduced_identically_in_a_new_run_that_names_it(
    again, made, shared_home, client_at, name
):
    ended, before = again[name], made[name]["run_id"]
    assert ended.code == 0, ended.err
    assert (ended.line["identical"], ended.line["differences"], ended.line["changed"]) == (
        True,
        [],
        [],
    )
    client = client_at(shared_home)
    old, new = client.get_run(before), client.get_run(ended.line["run_id"])
    assert before != new.info.run_id
    assert (new.data.tags["churnlab.reproduces"], new.data.tags["churnlab.identical"]) == (
        before,
        "true",
    )
    assert "churnlab.reproduces" not in old.data.tags
    assert json.loads(artifact(new, "reproduction.json").read_text())["reproduces"] == before
    assert (new.info.status, new.info.experiment_id) == ("FINISHED", old.info.experiment_id)
    assert new.data.metrics.keys() == old.data.metrics.keys()
    if name != "segments":
        best = [run.data.tags.get("churnlab.best_run_id", run.info.run_id) for run in (old, new)]
        tables = [
            pd.read_parquet(artifact(client.get_run(run), "predictions/oof.parquet"))
            for run in best
        ]
        assert tables[0].equals(tables[1])


@pytest.mark.parametrize("name", ["study", "study of two workers"])
def test_a_study_is_reproduced_with_trials_of_its_own(again, made, shared_home, runs_at, name):
    found = runs_at(shared_home, command="trial")
    inside = {
        run_id: [run for run in found if run.data.tags["mlflow.parentRunId"] == run_id]
        for run_id in (made[name]["run_id"], again[name].line["run_id"])
    }
    before, after = inside.values()
    assert len(before) == len(after) == made[name]["n_complete"]
    assert not [
        run
        for run in after
        if "churnlab.reused_from" in run.data.tags and run.info.run_id in before
    ]
    assert sorted(map(str, (run.data.params for run in before))) == sorted(
        map(str, (run.data.params for run in after))
    )
    assert {run.data.tags["churnlab.study"] for run in before} != {
        run.data.tags["churnlab.study"] for run in after
    }


def test_the_train_run_of_a_study_that_was_run_again_is_marked_as_a_copy(
    again, made, shared_home, runs_at
):
    trained = {
        run.data.tags["mlflow.parentRunId"]: run
        for run in runs_at(shared_home, command="train")
        if "mlflow.parentRunId" in run.data.tags
    }
    original = made["study"]["run_id"]
    copy = trained[again["study"].line["run_id"]]
    assert copy.data.tags["churnlab.reproduces"] == original  # so that it has no rank
    assert "churnlab.reproduces" not in trained[original].data.tags


def changed(shared_home, change) -> None:
    path = shared_home.parent / "members.csv"
    frame = pd.read_csv(path)
    change(frame)
    frame.to_csv(path, index=False)


@pytest.fixture
def original(shared_home):
    """Keep a copy of the table, and restore it after the test."""
    path = shared_home.parent / "members.csv"
    copy = path.with_suffix(".kept")
    shutil.copy(path, copy)
    yield copy
    shutil.move(copy, path)


def test_a_changed_table_is_reported_by_column_and_rows_and_nothing_is_run(
    churnlab, made, original, shared_home, runs_at
):
    def older(frame: pd.DataFrame) -> None:
        frame.loc[100, "Age"] += 1

    changed(shared_home, older)
    before = len(runs_at(shared_home))
    for name in ("study", "segments"):
        ended = churnlab("reproduce", made[name]["run_id"])
        assert (ended.code, ended.line["run_id"], ended.line["identical"]) == (3, None, False)
        found = [part["what"] for part in ended.line["differences"]]
        assert found == [
            "the table",
            "fingerprint of column Age",
            "rows, at least one in 99 to 101",
        ]
    assert len(runs_at(shared_home)) == before


def test_a_missing_table_is_reported_and_is_read_from_the_path_that_is_given(
    churnlab, made, original, shared_home
):
    (shared_home.parent / "members.csv").unlink()
    gone = churnlab("reproduce", made["forest"]["run_id"])
    assert (gone.code, gone.line["run_id"]) == (3, None)
    (table,) = gone.line["differences"]
    assert table["before"] == str(shared_home.parent / "members.csv")
    assert "dataset.path=FILE" in table["after"]
    found = churnlab("reproduce", made["forest"]["run_id"], f"dataset.path={original}")
    assert (found.code, found.line["identical"]) == (0, True), found.err
    nowhere = churnlab("reproduce", made["forest"]["run_id"], "dataset.path=nowhere.csv")
    assert (nowhere.code, nowhere.out) == (2, "")
    assert "There is no file nowhere.csv" in nowhere.err


def test_what_differs_is_named_to_the_last_bit(churnlab, spare, shared_home, client_at):
    client, run_id = client_at(shared_home), spare
    run = client.get_run(run_id)
    moved = np.nextafter(run.data.metrics["cv_roc_auc"], 1)
    client.log_metric(run_id, "cv_roc_auc", moved)
    path = artifact(run, "predictions/test.parquet")
    frame = pd.read_parquet(path)
    frame.loc[3, "probability"] = np.nextafter(frame.loc[3, "probability"], 1)
    frame.to_parquet(path, index=False)
    client.set_tag(run_id, "churnlab.packages", json.dumps({"python": "2.7.18"}))
    client.set_tag(run_id, "churnlab.code_sha256", "f" * 64)
    ended = churnlab("reproduce", f"run={run_id}")
    assert (ended.code, ended.line["identical"]) == (3, False)
    metric, probability = ended.line["differences"]
    assert metric == {
        "what": "cv_roc_auc",
        "before": moved,
        "after": run.data.metrics["cv_roc_auc"],
    }
    assert probability["what"].startswith(
        "probability in predictions/test.parquet, 1 of 60 rows, by "
    )
    assert probability["what"].endswith("line 3")
    changed = {part["what"]: part for part in ended.line["changed"]}
    assert changed["python"]["before"] == "2.7.18"
    assert changed["code"]["before"].startswith("ffffffffffff")
    assert client.get_run(ended.line["run_id"]).data.tags["churnlab.identical"] == "false"


def test_a_config_that_this_churnlab_cannot_read_is_refused_with_the_code_that_wrote_it(
    churnlab, spare, shared_home, client_at
):
    run = client_at(shared_home).get_run(spare)
    path = artifact(run, "config.yaml")
    kept = path.read_text()
    config = yaml.safe_load(kept)
    del config["evaluation"]["repeats"]
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    ended = churnlab("reproduce", spare)
    path.write_text(kept)
    assert (ended.code, ended.out) == (2, "")
    assert "evaluation.repeats is missing" in ended.err
    assert run.data.tags["churnlab.code_sha256"][:12] in ended.err


def test_runs_that_cannot_be_reproduced_are_refused_with_those_that_can(
    churnlab, made, shared_home, runs_at, client_at
):
    def refused(run_id: str, *words: str) -> str:
        ended = churnlab("reproduce", run_id, *words)
        assert (ended.code, ended.out) == (2, "")
        return ended.err

    client = client_at(shared_home)
    trial = runs_at(shared_home, command="trial")[0]
    assert (
        f"reproduce the study: churnlab reproduce run={trial.data.tags['mlflow.parentRunId']}"
        in refused(trial.info.run_id)
    )
    foreign = client.create_run(trial.info.experiment_id)
    assert "was not made by churnlab" in refused(foreign.info.run_id)
    client.set_terminated(foreign.info.run_id)
    assert "There is no run 0" in refused("0" * 32)
    swept = churnlab(
        "train", "-m", "dataset.rows=300", "evaluation.folds=2", "model=dummy", "seed=1,2"
    ).line
    message = refused(swept["run_id"])
    assert "only train, tune or segment runs can be reproduced" in message
    assert all(run_id in message for run_id in swept["runs"])
    open_run = client.create_run(trial.info.experiment_id, tags={"churnlab.command": "train"})
    assert "is RUNNING" in refused(open_run.info.run_id)
    client.delete_run(open_run.info.run_id)
    assert "were generated" in refused(
        made["logistic regression"]["run_id"], "dataset.path=members.csv"
    )


def test_several_runs_are_reproduced_as_a_sweep_of_their_ids(swept, made):
    ids = [made[name]["run_id"] for name in ("logistic regression", "forest")]
    assert swept.code == 0, swept.err
    assert len(set(swept.line["runs"]) - set(ids) - {None}) == 2
