"""A study: as many finished trials as asked for, once each, resumed and never mixed with another question's."""

import pandas as pd
import pytest
import yaml

from conftest import artifact, files

pytestmark = pytest.mark.slow

ASKED = (
    *("tune", "tune.study=mine", "dataset.rows=300", "evaluation.folds=3"),
    *("model=random_forest", "model.estimator.n_estimators=5"),
)


@pytest.fixture(scope="module")
def study(shared_home, succeed, client_at, runs_at):
    """The study as it was after three trials: its line, its runs, its trials' runs."""
    line = succeed(shared_home, *ASKED, "tune.n_trials=3")
    parent, best = (client_at(shared_home).get_run(line[key]) for key in ("run_id", "best_run_id"))
    return line, parent, best, runs_at(shared_home, command="trial")


def test_the_result_says_what_is_best(study):
    line, _, _, trials = study
    assert (line["command"], line["study"], line["n_complete"], line["n_reused"]) == ("tune", "mine", 3, 0)
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
        assert {"cv_log_loss", "cv_log_loss_std", "cv_roc_auc", "cv_f1", "fit_seconds"} <= set(run.data.metrics)
        assert not any(name.startswith("test_") for name in run.data.metrics)
    assert len({tuple(run.data.params.items()) for run in trials}) == 3


def test_the_parent_holds_the_study_and_what_may_change_later_is_a_tag(study):
    line, parent, _, _ = study
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["churnlab.command"] == "tune"
    assert parent.data.tags["churnlab.study"] == line["study"]
    assert parent.data.tags["tune.n_trials"] == "3"
    assert "tune.n_trials" not in parent.data.params
    assert parent.data.tags["churnlab.best_run_id"] == line["best_run_id"]
    assert parent.data.params["model.estimator.n_estimators"] == "5"
    assert yaml.safe_load(artifact(parent, "config.yaml").read_text())["tune"] == {"n_trials": 3, "study": "mine"}
    assert {"trials.csv", "config.yaml", "figures/history.png", "figures/slices.png"} <= files(parent)
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


def test_a_smaller_number_adds_nothing_and_a_larger_one_the_difference(study, shared_home, succeed, runs_at):
    line, parent, _, trials = study
    again = succeed(shared_home, *ASKED, "-m", "tune.n_trials=2,5", "run_name=another")
    assert again["runs"] == [parent.info.run_id] * 2
    (resumed,) = runs_at(shared_home, command="tune")
    assert (resumed.info.status, resumed.data.tags["tune.n_trials"]) == ("FINISHED", "5")
    found = runs_at(shared_home, command="trial")
    assert [run.info.run_id for run in found[:3]] == [run.info.run_id for run in trials]
    assert [run.info.status for run in found] == ["FINISHED"] * 5
    assert len({tuple(run.data.params.items()) for run in found}) == 5
    best = min(run.data.metrics["cv_log_loss"] for run in found)
    assert resumed.data.metrics["best_cv_log_loss"] == best <= line["best_value"]


def test_a_study_under_a_name_is_not_mixed_with_another_question(study, shared_home, run_command, runs_at):
    before = len(runs_at(shared_home))
    other = run_command(shared_home, *ASKED, "features=early", "metric=roc_auc")
    assert (other.code, other.out) == (2, "")
    assert "tune.study=mine holds trials of another question: features, metric differ" in other.err
    assert len(runs_at(shared_home)) == before


def test_equal_parameters_are_not_fitted_twice_and_a_sweep_of_studies_is_not_run_again(
    home, run_command, runs_at, tmp_path
):
    """A space of one value: every trial after the first takes over its value."""
    (tmp_path / "own/model").mkdir(parents=True)
    (tmp_path / "own/model/one.yaml").write_text(
        "defaults: [dummy, _self_]\nname: one\nspace:\n"
        "  strategy: {_target_: optuna.distributions.CategoricalDistribution, choices: [prior]}\n"
    )
    words = ["tune", "-m", "--config-dir", "own", "dataset.rows=300", "evaluation.folds=2", "model=one"]
    ended = run_command(home, *words, "tune.n_trials=3", "features=raw,early")
    assert ended.code == 0, ended.err
    trials, parents = runs_at(home, command="trial"), runs_at(home, command="tune")
    assert [run.info.status for run in trials] == ["FINISHED"] * 6
    assert [run.data.tags["churnlab.study"].rpartition("-")[0] for run in parents] == ["demo-one-raw", "demo-one-early"]
    for fitted, *others in (trials[:3], trials[3:]):
        assert [run.data.tags["churnlab.reused_from"] for run in others] == [fitted.info.run_id] * 2
        assert {run.data.metrics["cv_log_loss"] for run in others} == {fitted.data.metrics["cv_log_loss"]}

    count = len(runs_at(home))
    again = run_command(home, *words, "tune.n_trials=3", "features=raw,early")
    assert (again.code, again.line) == (0, ended.line)
    assert len(runs_at(home)) == count
