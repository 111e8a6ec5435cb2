"""Runs that are run again from their ids: identical where nothing has changed, and what differs
where something has."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from churnlab.data import demo
from support.running import SMALL_SEGMENTS, Ended, artifact, opened

pytestmark = pytest.mark.slow

FOREST = ("model=random_forest", "evaluation.folds=2", "model.estimator.n_estimators=5")


@pytest.fixture(scope="module")
def ask(shared_home):
    """One process for all commands of this file."""
    with opened(shared_home) as asked:
        yield asked


@pytest.fixture(scope="module")
def table(shared_home, ask):
    """A member table on disk, named by a path that is not absolute."""
    path = shared_home.parent / "members.csv"
    demo.members(n=300, seed=0).to_csv(path, index=False)
    return ("dataset=gym", "dataset.path=members.csv")


@pytest.fixture(scope="module")
def made(ask, table):
    """One run of everything that can be reproduced, by name."""
    asked = {
        "logistic regression": ("train", "dataset.rows=300", "evaluation.folds=2"),
        "forest": ("train", *table, *FOREST),
        "study": ("tune", *table, "evaluation.folds=2", "tune.n_trials=2"),
        "study of two workers": (
            *(
                "tune",
                "dataset.rows=300",
                *FOREST,
                "tune.n_trials=4",
                "engine=processes",
                "engine.workers=2",
            ),
        ),
        "segments": ("segment", *table, *SMALL_SEGMENTS),
    }
    ended = {name: ask(*words) for name, words in asked.items()}
    assert {end.code for end in ended.values()} == {0}, [end.err for end in ended.values()]
    return {name: end.line for name, end in ended.items()}


@pytest.fixture(scope="module")
def again(ask, made) -> dict[str, Ended]:
    return {name: ask("reproduce", line["run_id"]) for name, line in made.items()}


@pytest.fixture(scope="module")
def spare(ask, made):
    """A run whose records are for tests to spoil."""
    return ask("reproduce", made["logistic regression"]["run_id"]).line["run_id"]


NAMES = ["logistic regression", "forest", "study", "study of two workers", "segments"]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_comes_out_again_identical_in_a_new_run_that_says_whose_it_is(
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


def changed(shared_home, change) -> None:
    path = shared_home.parent / "members.csv"
    frame = pd.read_csv(path)
    change(frame)
    frame.to_csv(path, index=False)


@pytest.fixture
def as_it_was(shared_home):
    """The table is put back after the test."""
    path = shared_home.parent / "members.csv"
    copy = path.with_suffix(".kept")
    shutil.copy(path, copy)
    yield copy
    shutil.move(copy, path)


def test_a_changed_table_is_told_by_column_and_rows_and_nothing_is_run(
    ask, made, as_it_was, shared_home, runs_at
):
    def older(frame: pd.DataFrame) -> None:
        frame.loc[100, "Age"] += 1

    changed(shared_home, older)
    before = len(runs_at(shared_home))
    for name in ("study", "segments"):
        ended = ask("reproduce", made[name]["run_id"])
        assert (ended.code, ended.line["run_id"], ended.line["identical"]) == (3, None, False)
        told = [part["what"] for part in ended.line["differences"]]
        assert told == ["the table", "fingerprint of column Age", "rows, at least one in 99 to 101"]
    assert len(runs_at(shared_home)) == before


def test_a_table_that_is_gone_is_told_with_the_way_to_name_it_and_found_where_it_is_named(
    ask, made, as_it_was, shared_home
):
    (shared_home.parent / "members.csv").unlink()
    gone = ask("reproduce", made["forest"]["run_id"])
    assert (gone.code, gone.line["run_id"]) == (3, None)
    (told,) = gone.line["differences"]
    assert told["before"] == str(shared_home.parent / "members.csv")
    assert "dataset.path=FILE" in told["after"]
    found = ask("reproduce", made["forest"]["run_id"], f"dataset.path={as_it_was}")
    assert (found.code, found.line["identical"]) == (0, True), found.err
    nowhere = ask("reproduce", made["forest"]["run_id"], "dataset.path=nowhere.csv")
    assert (nowhere.code, nowhere.out) == (2, "")
    assert "There is no file nowhere.csv" in nowhere.err


def test_what_differs_is_named_to_the_last_bit(ask, spare, shared_home, client_at):
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
    ended = ask("reproduce", f"run={run_id}")
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
    told = {part["what"]: part for part in ended.line["changed"]}
    assert told["python"]["before"] == "2.7.18"
    assert told["code"]["before"].startswith("ffffffffffff")
    assert client.get_run(ended.line["run_id"]).data.tags["churnlab.identical"] == "false"


def test_a_config_of_another_churnlab_is_refused_with_the_code_that_made_it(
    ask, spare, shared_home, client_at
):
    run = client_at(shared_home).get_run(spare)
    path = artifact(run, "config.yaml")
    kept = path.read_text()
    config = yaml.safe_load(kept)
    del config["evaluation"]["repeats"]
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    ended = ask("reproduce", spare)
    path.write_text(kept)
    assert (ended.code, ended.out) == (2, "")
    assert "evaluation.repeats is missing" in ended.err
    assert run.data.tags["churnlab.code_sha256"][:12] in ended.err


def test_runs_that_cannot_be_run_again_are_refused_with_those_that_can(
    ask, made, shared_home, runs_at, client_at
):
    def refused(run_id: str, *words: str) -> str:
        ended = ask("reproduce", run_id, *words)
        assert (ended.code, ended.out) == (2, "")
        return ended.err

    client = client_at(shared_home)
    trial = runs_at(shared_home, command="trial")[0]
    assert (
        f"reproduce the study: churnlab reproduce run={trial.data.tags['mlflow.parentRunId']}"
        in refused(trial.info.run_id)
    )
    foreign = client.create_run(trial.info.experiment_id)
    assert "is not churnlab's" in refused(foreign.info.run_id)
    client.set_terminated(foreign.info.run_id)
    assert "There is no run 0" in refused("0" * 32)
    swept = ask(
        "train", "-m", "dataset.rows=300", "evaluation.folds=2", "model=dummy", "seed=1,2"
    ).line
    said = refused(swept["run_id"])
    assert "those of train, segment, tune can be reproduced" in said
    assert all(run_id in said for run_id in swept["runs"])
    open_run = client.create_run(trial.info.experiment_id, tags={"churnlab.command": "train"})
    assert "is RUNNING" in refused(open_run.info.run_id)
    client.delete_run(open_run.info.run_id)
    assert "were generated" in refused(
        made["logistic regression"]["run_id"], "dataset.path=members.csv"
    )


def test_several_runs_are_reproduced_as_a_sweep_of_their_ids(ask, made):
    ids = [made[name]["run_id"] for name in ("logistic regression", "forest")]
    ended = ask("reproduce", "-m", f"run={','.join(ids)}")
    assert ended.code == 0, ended.err
    assert len(set(ended.line["runs"]) - set(ids) - {None}) == 2
