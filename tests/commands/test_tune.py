"""A study runs n_trials trials, each once, can be resumed, and never mixes two questions."""

import os
import pty
import re
import termios
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import yaml
from sklearn.metrics import log_loss

from churnlab.config import validation
from churnlab.config.build import build_pipeline, load_dataset
from churnlab.models.splits import make_split
from support.running import artifact, churnlab_at, files
from support.terminals import read
from support.waiting import PATIENCE

pytestmark = pytest.mark.slow

TUNE = (
    *("tune", "tune.study=mine", "dataset.rows=300", "evaluation.folds=3"),
    *("model=random_forest", "model.estimator.n_estimators=5"),
)


@pytest.fixture(scope="module")
def study(shared_home, succeed, client_at, runs_at):
    """Run three trials; return the result line, the study's run, the best run and the trials."""
    line = succeed(shared_home, *TUNE, "tune.n_trials=3")
    parent, best = (client_at(shared_home).get_run(line[key]) for key in ("run_id", "best_run_id"))
    return line, parent, best, runs_at(shared_home, command="trial")


def test_the_result_has_the_best_value_and_parameters(study):
    line, _, _, trials = study
    assert (line["command"], line["study"], line["n_complete"], line["n_reused"]) == (
        "tune",
        "mine",
        3,
        0,
    )
    best = min(trials, key=lambda run: run.data.metrics["cv_log_loss"])
    assert line["best_value"] == best.data.metrics["cv_log_loss"]
    assert {key: float(value) for key, value in best.data.params.items()} == line["best_params"]
    assert set(line["best_params"]) == {"max_depth", "max_features", "min_samples_leaf"}


def test_every_completed_trial_is_one_finished_child_with_bare_parameters(study):
    line, parent, _, trials = study
    assert [run.info.status for run in trials] == ["FINISHED"] * 3
    assert [run.data.tags["churnlab.trial"] for run in trials] == ["0", "1", "2"]
    for run in trials:
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["churnlab.study"] == line["study"]
        assert {"cv_log_loss", "cv_log_loss_std", "cv_roc_auc", "cv_f1", "fit_seconds"} <= set(
            run.data.metrics
        )
        assert not any(name.startswith("test_") for name in run.data.metrics)
    assert len({tuple(run.data.params.items()) for run in trials}) == 3


def test_the_parent_holds_the_study_and_keys_that_may_change_are_tags(study):
    line, parent, _, _ = study
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["churnlab.command"] == "tune"
    assert parent.data.tags["churnlab.study"] == line["study"]
    assert parent.data.tags["tune.n_trials"] == "3"
    assert "tune.n_trials" not in parent.data.params
    assert parent.data.tags["churnlab.best_run_id"] == line["best_run_id"]
    assert parent.data.params["model.estimator.n_estimators"] == "5"
    assert yaml.safe_load(artifact(parent, "config.yaml").read_text())["tune"] == {
        "n_trials": 3,
        "outer": None,
        "study": "mine",
    }
    assert {"trials.csv", "config.yaml", "figures/history.png", "figures/slices.png"} <= files(
        parent
    )
    table = pd.read_csv(artifact(parent, "trials.csv"))
    assert table["state"].tolist() == ["COMPLETE"] * 3
    assert table["value"].min() == line["best_value"]


def test_the_best_run_is_a_training_with_the_best_parameters_on_the_same_folds(study):
    line, parent, best, trials = study
    assert best.data.tags["churnlab.command"] == "train"
    assert best.data.tags["mlflow.parentRunId"] == parent.info.run_id
    for key, value in line["best_params"].items():
        assert float(best.data.params[f"model.estimator.{key}"]) == value
    assert best.data.metrics["cv_log_loss"] == pytest.approx(line["best_value"], abs=1e-12)
    assert best.data.tags["churnlab.folds_sha256"] == parent.data.tags["churnlab.folds_sha256"]
    assert "test_roc_auc" in best.data.metrics


def test_the_study_says_how_its_model_compares_with_the_untuned_one_on_the_hold_out(study):
    """Fits the parameters of the YAML here, and compares on the members that chose nothing."""
    line, parent, best, _ = study
    config = yaml.safe_load(artifact(parent, "config.yaml").read_text())
    config["storage"] = {"_target_": "churnlab.tuning.studies.Local", "folder": "."}
    settings = validation.read("tune", config).train({}, run_name="")
    dataset = load_dataset(settings.dataset)
    split = make_split(dataset, **settings.evaluation.split, seed=0)
    untuned = build_pipeline(settings.model, dataset, features=settings.features)
    untuned.fit(dataset.X.iloc[split.train], dataset.y[split.train])
    table = pd.read_parquet(artifact(parent, "predictions/untuned.parquet"))
    assert table["row"].tolist() == split.test.tolist()
    expected = untuned.predict_proba(dataset.X.iloc[split.test])[:, 1]
    assert table["probability"].tolist() == expected.tolist()
    delta = best.data.metrics["test_log_loss"] - log_loss(
        dataset.y[split.test], expected.clip(0.001, 0.999)
    )
    metrics = parent.data.metrics
    assert metrics["hold_out_delta"] == pytest.approx(delta, abs=1e-12)
    assert metrics["hold_out_low"] <= delta <= metrics["hold_out_high"]
    assert parent.data.tags["churnlab.hold_out_look"] == "true"
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith(f"Best cv log loss {line['best_value']:.4f}, chosen among 3 trials")
    assert "On the hold-out, which chose nothing, " in note
    assert "luck" not in note
    assert line["nested_value"] is None
    assert not any(name.startswith("nested_") for name in metrics)


def test_the_same_command_again_adds_nothing_and_another_evaluation_trains_once_more(
    study, shared_home, churnlab, runs_at
):
    line, _, _, _ = study
    before = len(runs_at(shared_home))
    again = churnlab(*TUNE, "tune.n_trials=3", "engine=processes", "engine.workers=1")
    assert (again.code, again.line) == (0, line)
    assert len(runs_at(shared_home)) == before
    changed = ("decision=f1", "evaluation.importance_repeats=3")
    other = churnlab(*TUNE, "tune.n_trials=3", *changed)
    assert other.line == line | {"best_run_id": other.line["best_run_id"]}
    assert other.line["best_run_id"] != line["best_run_id"]
    assert len(runs_at(shared_home)) == before + 1


def test_a_trials_run_that_was_deleted_is_logged_again_with_all_its_scores(
    study, shared_home, client_at, churnlab, runs_at
):
    _, parent, _, trials = study
    lost = trials[1]
    client_at(shared_home).delete_run(lost.info.run_id)
    again = churnlab(*TUNE, "tune.n_trials=3")
    assert again.code == 0, again.err
    assert "Found 1 missing run logged again." in again.err
    found = {run.data.tags["churnlab.trial"]: run for run in runs_at(shared_home, command="trial")}
    assert sorted(found) == ["0", "1", "2"]
    assert found["1"].data.params == lost.data.params
    assert found["1"].data.metrics == lost.data.metrics
    assert (found["1"].info.status, found["1"].data.tags["mlflow.parentRunId"]) == (
        "FINISHED",
        parent.info.run_id,
    )


def test_a_smaller_number_adds_nothing_and_a_larger_one_the_difference(
    study, shared_home, succeed, runs_at
):
    line, parent, _, trials = study
    again = succeed(shared_home, *TUNE, "-m", "tune.n_trials=2,5", "run_name=another")
    assert again["runs"] == [parent.info.run_id] * 2
    (resumed,) = runs_at(shared_home, command="tune")
    assert (resumed.info.status, resumed.data.tags["tune.n_trials"]) == ("FINISHED", "5")
    found = runs_at(shared_home, command="trial")
    assert {run.info.run_id for run in trials[::2]} < {run.info.run_id for run in found}
    assert sorted(run.data.tags["churnlab.trial"] for run in found) == ["0", "1", "2", "3", "4"]
    assert [run.info.status for run in found] == ["FINISHED"] * 5
    assert len({tuple(run.data.params.items()) for run in found}) == 5
    best = min(run.data.metrics["cv_log_loss"] for run in found)
    assert resumed.data.metrics["best_cv_log_loss"] == best <= line["best_value"]


def test_a_study_under_a_name_is_not_mixed_with_another_question(
    study, shared_home, run_command, runs_at
):
    before = len(runs_at(shared_home))
    other = run_command(shared_home, *TUNE, "features=early", "metric=roc_auc")
    assert (other.code, other.out) == (2, "")
    differ = "features (raw there, early here); metric (log_loss there, roc_auc here)"
    assert f"tune.study=mine has trials for a different question: {differ}." in other.err
    assert len(runs_at(shared_home)) == before


@pytest.mark.parametrize(
    ("word", "difference"),
    [
        ("seed=1", "seed (0 there, 1 here); split; folds"),
        ("evaluation.folds=4", "folds"),
        ("evaluation.test_size=0.3", "split; folds"),
        ("dataset.rows=301", "data; split; folds"),
        ("model.estimator.n_estimators=6", "fixed estimator parameters (n_estimators)"),
        ("+model.estimator.criterion=entropy", "fixed estimator parameters (criterion)"),
        ("model.space.max_depth.high=9", "search space (max_depth)"),
        ("model=logistic_regression", "model (random_forest there, logistic_regression here)"),
    ],
)
def test_each_part_of_the_question_that_differs_is_named(
    word, difference, study, shared_home, churnlab
):
    words = [other for other in TUNE if other.partition("=")[0] != word.partition("=")[0]]
    if word == "model=logistic_regression":
        words.remove("model.estimator.n_estimators=5")
    other = churnlab(*words, word)
    assert (other.code, other.out) == (2, "")
    assert "tune.study=mine has trials for a different question" in other.err
    assert difference in other.err
    assert len(other.err.splitlines()) == 1


@pytest.fixture(scope="module")
def churnlab(shared_home):
    """Run commands on the store of this file."""
    return churnlab_at(shared_home)


def test_a_finite_space_ends_early_and_a_sweep_of_studies_is_not_run_again(
    home, run_command, runs_at, tmp_path
):
    """A space of one value: the first trial is the last."""
    (tmp_path / "own/model").mkdir(parents=True)
    (tmp_path / "own/model/one.yaml").write_text(
        "defaults: [dummy, _self_]\nname: one\nspace:\n"
        "  strategy: {_target_: optuna.distributions.CategoricalDistribution, choices: [prior]}\n"
    )
    words = [
        "tune",
        "-m",
        "--config-dir",
        "own",
        "dataset.rows=300",
        "evaluation.folds=2",
        "model=one",
    ]
    ended = run_command(home, *words, "tune.n_trials=3", "features=raw,early")
    assert ended.code == 0, ended.err
    assert ended.err.count("The space has 1 point") == 2
    trials, parents = runs_at(home, command="trial"), runs_at(home, command="tune")
    assert [run.info.status for run in trials] == ["FINISHED"] * 2
    assert [run.data.tags["churnlab.study"].rpartition("-")[0] for run in parents] == [
        "demo-one-raw",
        "demo-one-early",
    ]

    count = len(runs_at(home))
    again = run_command(home, *words, "tune.n_trials=3", "features=raw,early")
    assert (again.code, again.line) == (0, ended.line)
    assert len(runs_at(home)) == count


def test_a_study_whose_file_was_deleted_starts_again_next_to_the_old_one(home, succeed, runs_at):
    words = ["tune", "tune.study=gone", "dataset.rows=200", "evaluation.folds=2", "tune.n_trials=2"]
    first = succeed(home, *words)
    (home / "studies/gone.log").unlink()
    second = succeed(home, *words)
    assert second["run_id"] != first["run_id"]
    assert [second[key] for key in ("n_complete", "best_params")] == [
        first[key] for key in ("n_complete", "best_params")
    ]
    parents = [run.data.tags["mlflow.parentRunId"] for run in runs_at(home, command="trial")]
    assert parents == [first["run_id"]] * 2 + [second["run_id"]] * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["engine.workers=2"],
            "engine.workers=2: engine=inline runs in this one process; use engine=processes",
        ),
        (["engine=processes", "engine.workers=0"], "engine.workers=0 is not a number of processes"),
        (
            ["engine=processes", "engine.workers=many"],
            "engine.workers=many is not a number of processes",
        ),
        (["engine=process"], "There is no engine=process. Did you mean engine=processes?"),
        (["model=dummy"], "model=dummy has no search space"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_anything_is_created(
    home, run_command, words, message
):
    ended = run_command(home, "tune", "dataset.rows=200", *words)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (home / "studies").exists()


@pytest.mark.parametrize("engine", [["engine=inline"], ["engine=processes", "engine.workers=1"]])
def test_a_terminal_shows_the_trials_and_a_pipe_does_not(home, engine):
    """Every other test runs without a terminal and would see the live line in stderr."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 120))
    words = ["tune", "dataset.rows=200", "evaluation.folds=2", "tune.n_trials=4", *engine]
    screen = f"import os; os.dup2(os.open({os.ttyname(theirs)!r}, os.O_WRONLY), 2)"
    with ThreadPoolExecutor() as pool:
        output = pool.submit(read, ours, seconds=PATIENCE)
        ended = churnlab_at(home, before=screen)(*words)
        os.close(theirs)
        shown = output.result().replace("\r", "\n")
    os.close(ours)
    assert ended.code == 0
    assert re.search("[34] of 4 trials", shown)  # a trial is fast: not every one is drawn
    assert "best 0." in shown
    assert "0 failed" in shown


# The space on the command line


FEW = ("dataset.rows=300", "evaluation.folds=2")


def space_of(home, client_at, line):
    run = client_at(home).get_run(line["run_id"])
    space = yaml.safe_load(artifact(run, "config.yaml").read_text())["model"]["space"]
    return {
        key: {name: part for name, part in block.items() if name != "_target_"}
        | {"kind": block["_target_"].rpartition(".")[2].removesuffix("Distribution")}
        for key, block in space.items()
    }


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["model.space.C={low: 1, high: 3}"], {"C": {"kind": "Int", "low": 1, "high": 3}}),
        (
            ["model.space={C: [1,2], tol: [0.001]}"],
            {
                "C": {"kind": "Categorical", "choices": [1, 2]},
                "tol": {"kind": "Categorical", "choices": [0.001]},
            },
        ),
    ],
    ids=lambda part: str(part)[:40],
)
def test_a_space_is_given_on_the_command_line(own_store, client_at, words, expected):
    home, churnlab = own_store
    ended = churnlab("tune", *FEW, "tune.n_trials=2", *words)
    assert ended.code == 0, ended.err
    assert space_of(home, client_at, ended.line) == expected
    assert set(ended.line["best_params"]) == set(expected)


def test_a_sweep_runs_a_study_for_each_list_of_choices(own_store, client_at):
    home, churnlab = own_store
    ended = churnlab("tune", "-m", *FEW, "tune.n_trials=2", "model.space.C=[0.1,1],[5,10]")
    assert ended.code == 0, ended.err
    found = [space_of(home, client_at, {"run_id": run}) for run in ended.line["runs"]]
    assert [space["C"]["choices"] for space in found] == [[0.1, 1], [5, 10]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.space.c=[1,2]"], "has no parameter c. Did you mean C? It has"),
        (["model.space.C=[]"], "model.space.C: give a list of choices, [A,B], or a range"),
        (["model.space.C=5"], "model.space.C: give a list of choices, [A,B], or a range"),
        (["model.space.C.lwo=1"], "a range has low, high, step, log, and not lwo"),
        (["model.space.C={low: -1.0, high: 1}"], "model.space.C: The 'C' parameter of"),
        (["model.space.C=[1,2]", "model.space.C.low=1"], "which is also given whole"),
        (["model=random_forest", "model.space.max_depth.low=0.5"], "must be whole numbers"),
        (["model.spaec.C=[1,2]"], "Did you mean model.space?"),
    ],
    ids=lambda part: str(part)[:40],
)
def test_a_wrong_space_is_refused_in_one_line(own_store, words, message):
    ended = own_store[1]("tune", *FEW, *words)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1
    assert "given" not in ended.err or "also given" in ended.err


def test_warnings_of_trials_in_other_processes_are_counted(own_store):
    words = ["model.estimator.max_iter=3", "tune.n_trials=2"]
    ended = own_store[1]("tune", *FEW, *words, "engine=processes", "engine.workers=1")
    assert ended.code == 0, ended.err
    assert "warning: in 2 of 2 trials a library warns (ConvergenceWarning)" in ended.err
    assert ended.line["warnings"] == 2  # of the trials and of the model that is kept
