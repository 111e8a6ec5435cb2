"""What doctor finds after dead processes, one leftover at a time, and how it cleans up."""

import optuna
import pytest
from optuna.distributions import FloatDistribution

from churnlab.tracking import processes
from churnlab.tuning import trials
from support.stores import record_change, states, status, write_run, write_study, write_version

# Runs and models


def test_an_empty_store_and_one_of_finished_runs_have_no_problems(client, problems):
    assert problems() == []
    write_run(client, "train", status="FINISHED")
    assert problems() == []


def test_a_run_of_a_living_process_is_left_alone(client, problems):
    run_id = write_run(client, "train", process=processes.process())
    assert problems(fix=True, elsewhere=True) == []
    assert status(client, run_id) == "RUNNING"


def test_everything_that_a_dead_process_left_open_is_one_problem_and_is_ended(
    client, problems, dead
):
    outer = write_run(client, "pipeline", process=dead)
    inner = write_run(client, "train", process=dead, parent=outer)
    model = client.create_logged_model(
        client.get_run(inner).info.experiment_id, name="model", source_run_id=inner
    )
    (problem,) = problems()
    assert problem.kind == "dead process"
    for part in (
        dead.split()[1],
        "1 pipeline run, 1 train run, still RUNNING",
        f"1 half-written model: {model.model_id}",
    ):
        assert part in problem.what
    assert problems(fix=True) == []
    assert {status(client, run_id) for run_id in (outer, inner)} == {"KILLED"}
    assert client.get_logged_model(model.model_id).status == "FAILED"


def test_runs_of_another_machine_and_of_unknown_processes_are_ended_only_with_elsewhere(
    client, problems, dead
):
    machine, rest = dead.split(" ", 1)
    run_id = write_run(client, "train", process=f"{machine}-2 {rest}")
    unknown = write_run(client, "segment")
    found = {problem.where: problem for problem in problems(fix=True)}
    assert {where: problem.kind for where, problem in found.items()} == {
        run_id: "process on another machine",
        unknown: "unknown process",
    }
    assert f"on {machine}-2, another machine" in found[run_id].what
    assert {status(client, run_id), status(client, unknown)} == {"RUNNING"}
    assert problems(fix=True, elsewhere=True) == []
    assert {status(client, run_id), status(client, unknown)} == {"KILLED"}


def test_a_run_that_is_resumed_while_doctor_looks_goes_on(client, problems, dead):
    run_id = write_run(client, "sweep", process=dead)
    (problem,) = problems()
    client.set_tag(run_id, "churnlab.process", processes.process())
    problem.repair()
    assert status(client, run_id) == "RUNNING"


def test_a_half_written_model_of_an_ended_run_becomes_failed(client, problems, kinds):
    run_id = write_run(client, "train", status="KILLED")
    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment, name="model", source_run_id=run_id)
    assert kinds() == ["half-written model"]
    assert problems(fix=True) == []
    assert client.get_logged_model(model.model_id).status == "FAILED"


def test_the_interrupted_champion_change_of_a_dead_promotion_is_part_of_its_one_problem(
    champion, client, problems, here, dead
):
    run_id = write_run(client, "promote", process=dead)
    record_change(client, 3, "2", write_version(client, here, gate="passed"), run_id=run_id)
    (problem,) = problems()
    assert problem.kind == "dead process"
    assert "an interrupted change of the champion of demo-churn" in problem.what
    assert problems(fix=True) == []
    assert "churnlab.move.000003" not in client.get_registered_model("demo-churn").tags


# Studies


def test_a_dead_study_is_one_problem_and_its_trial_is_enqueued_again(
    client, problems, kinds, storage, dead
):
    study, parent = write_study(storage, client, process=dead)
    trial = write_run(client, "trial", parent=parent, trial="0")
    assert kinds() == ["dead process"]
    assert problems(fix=True) == []
    assert states(study) == ["FAIL", "WAITING"]
    assert {status(client, trial), status(client, parent)} == {"KILLED"}


def test_a_locked_study_is_left_alone_even_if_the_process_of_its_run_is_dead(
    client, problems, storage, dead
):
    study, parent = write_study(storage, client, process=dead)
    with storage.locked("s"):
        assert problems(fix=True) == []
    assert states(study) == ["RUNNING"]
    assert status(client, parent) == "RUNNING"


@pytest.mark.parametrize("kept", [True, False], ids=["its run has ended", "its run is gone"])
def test_orphaned_trials_are_failed(client, problems, kinds, storage, kept):
    study, parent = write_study(storage, client, status="KILLED")
    if not kept:
        client.delete_run(parent)
    assert kinds() == ["orphaned trials"]
    assert problems(fix=True) == []
    assert states(study)[0] == "FAIL"


def test_deleted_trial_runs_are_logged_again_from_the_study(client, problems, kinds, storage):
    study, parent = write_study(storage, client, status="FINISHED")
    trial = study.ask({"x": FloatDistribution(0, 1)})
    trial.set_user_attr(trials.SCORES, {"metrics": {"cv_log_loss": 0.5}, "per_fold": {}})
    study.tell(trial, 0.5)
    study.tell(0, state=optuna.trial.TrialState.FAIL)
    assert kinds() == ["parent without children"]
    assert problems(fix=True) == []
    (logged,) = client.search_runs(
        [client.get_run(parent).info.experiment_id], "tags.`churnlab.command` = 'trial'"
    )
    assert (logged.info.status, logged.data.metrics["cv_log_loss"]) == ("FINISHED", 0.5)
