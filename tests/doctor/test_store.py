"""What the doctor finds and mends, one thing at a time: a real store and real studies, and what was
broken by hand."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import mlflow
import optuna
import pytest
from optuna.distributions import FloatDistribution

from churnlab.doctor import store as examination
from churnlab.doctor.problems import Problem
from churnlab.doctor.store import examine, left_over, other_schema
from churnlab.registry import champion as registry
from churnlab.tracking import processes, store
from churnlab.tuning import studies, trials
from support.running import tracked_at

SPACE = {"x": {"_target_": "optuna.distributions.FloatDistribution", "low": 0, "high": 1}}
MOVE = {
    "when": "2026-11-01T00:00:00+00:00",
    "who": "me",
    "why": "",
    "command": "promote",
    "run_id": None,
}


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Path:
    """A store without a run: its schema takes seconds to make."""
    home = tmp_path_factory.mktemp("empty")
    with tracked_at(home):
        store.open_store(f"sqlite:///{home}/mlflow.db", home=home)
    return home / "mlflow.db"


@pytest.fixture(scope="module")
def dead() -> str:
    """A process that has ended."""
    told = "from churnlab.tracking import processes; print(processes.process())"
    return subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def here(empty, tmp_path):
    """The folder of a new store that MLflow is pointed at."""
    shutil.copy(empty, tmp_path / "mlflow.db")
    with tracked_at(tmp_path) as home:
        yield home


@pytest.fixture
def client(here) -> mlflow.MlflowClient:
    return mlflow.MlflowClient()


@pytest.fixture
def storage(here) -> studies.Local:
    return studies.Local(str(here / "studies"))


@pytest.fixture
def problems(storage):
    """``problems(fix=True)``: what is found, after every cure there is was applied."""

    def look(*, fix: bool = False, elsewhere: bool = False) -> list[Problem]:
        found = examine(storage, elsewhere=elsewhere)
        if fix:
            for problem in found:
                if problem.cure is not None:
                    problem.cure()
            found = examine(storage, elsewhere=elsewhere)
        return found

    return look


def kinds(found) -> list[str]:
    return [problem.kind for problem in found]


def a_run(
    client, command: str, *, process: str = "", status: str | None = None, **tags: str
) -> str:
    told = {f"churnlab.{key}": value for key, value in tags.items() if key != "parent"}
    told |= {"churnlab.command": command} | ({"churnlab.process": process} if process else {})
    told |= {"mlflow.parentRunId": tags["parent"]} if "parent" in tags else {}
    run_id = client.create_run(store.experiment_id("demo-churn"), tags=told).info.run_id
    if status is not None:
        client.set_terminated(run_id, status)
    return run_id


def status(client, run_id: str) -> str:
    return client.get_run(run_id).info.status


# Processes


def test_nothing_is_found_in_an_empty_store_and_in_one_of_finished_runs(client, problems):
    assert problems() == []
    a_run(client, "train", status="FINISHED")
    assert problems() == []


def test_a_run_of_a_living_process_is_left_alone(client, problems):
    run_id = a_run(client, "train", process=processes.process())
    assert problems(fix=True, elsewhere=True) == []
    assert status(client, run_id) == "RUNNING"


def test_all_that_a_dead_process_has_left_open_is_one_problem_and_is_ended(client, problems, dead):
    outer = a_run(client, "pipeline", process=dead)
    inner = a_run(client, "train", process=dead, parent=outer)
    model = client.create_logged_model(
        client.get_run(inner).info.experiment_id, name="model", source_run_id=inner
    )
    (problem,) = problems()
    assert problem.kind == "dead process"
    for told in (dead.split()[1], "1 pipeline, 1 train", model.model_id):
        assert told in problem.what
    assert problems(fix=True) == []
    assert {status(client, run_id) for run_id in (outer, inner)} == {"KILLED"}
    assert client.get_logged_model(model.model_id).status == "FAILED"


def test_another_machines_process_is_told_and_ended_only_when_that_is_asked_for(
    client, problems, dead
):
    machine, rest = dead.split(" ", 1)
    run_id, unknown = (
        a_run(client, "train", process=f"{machine}-2 {rest}"),
        a_run(client, "segment"),
    )
    found = problems(fix=True)
    assert kinds(found) == ["process elsewhere", "process elsewhere"]
    told = {problem.where: problem.what for problem in found}
    assert f"on {machine}-2, another machine" in told[run_id]
    assert {status(client, run_id), status(client, unknown)} == {"RUNNING"}
    assert problems(fix=True, elsewhere=True) == []
    assert {status(client, run_id), status(client, unknown)} == {"KILLED"}


def test_a_run_that_was_taken_up_while_the_doctor_looked_goes_on(client, problems, dead, storage):
    run_id = a_run(client, "sweep", process=dead)
    (problem,) = problems()
    client.set_tag(run_id, "churnlab.process", processes.process())
    problem.cure()
    assert status(client, run_id) == "RUNNING"


def test_a_model_of_an_ended_run_that_was_not_written_to_its_end_has_failed(client, problems):
    run_id = a_run(client, "train", status="KILLED")
    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment, name="model", source_run_id=run_id)
    assert kinds(problems()) == ["half-written model"]
    assert problems(fix=True) == []
    assert client.get_logged_model(model.model_id).status == "FAILED"


# Studies


def a_study(storage, client, **tags: str) -> tuple[optuna.Study, str]:
    """A study with one trial under way, and its run."""
    study = studies.open_study(
        storage.open("s"), "s", {"search space": SPACE}, direction="minimize"
    )
    told = {"study": "s", "study_id": study.user_attrs["id"]}
    run_id = a_run(client, "tune", **told, **tags)
    client.set_tag(run_id, "tune.n_trials", "5")
    study.ask({"x": FloatDistribution(0, 1)})
    return study, run_id


def states(study) -> list[str]:
    return [trial.state.name for trial in study.get_trials()]


def test_a_dead_study_is_one_problem_and_its_trial_is_to_be_done_again(
    client, problems, storage, dead
):
    study, parent = a_study(storage, client, process=dead)
    trial = a_run(client, "trial", parent=parent, trial="0")
    assert kinds(problems()) == ["dead process"]
    assert problems(fix=True) == []
    assert states(study) == ["FAIL", "WAITING"]
    assert {status(client, trial), status(client, parent)} == {"KILLED"}


def test_a_study_that_somebody_works_at_is_left_alone_whatever_its_run_says(
    client, problems, storage, dead
):
    study, parent = a_study(storage, client, process=dead)
    with storage.locked("s"):
        assert problems(fix=True) == []
    assert states(study) == ["RUNNING"]
    assert status(client, parent) == "RUNNING"


@pytest.mark.parametrize("kept", [True, False], ids=["its run has ended", "its run is gone"])
def test_trials_under_way_in_a_study_that_nobody_works_at_are_given_up(
    client, problems, storage, kept
):
    study, parent = a_study(storage, client, status="KILLED")
    if not kept:
        client.delete_run(parent)
    assert kinds(problems()) == ["dead trials"]
    assert problems(fix=True) == []
    assert states(study)[0] == "FAIL"


def test_a_study_whose_trial_runs_were_deleted_gets_them_back_from_its_book(
    client, problems, storage
):
    study, parent = a_study(storage, client, status="FINISHED")
    study.trials  # noqa: B018
    trial = study.ask({"x": FloatDistribution(0, 1)})
    trial.set_user_attr(trials.SCORES, {"metrics": {"cv_log_loss": 0.5}, "per_fold": {}})
    study.tell(trial, 0.5)
    study.tell(0, state=optuna.trial.TrialState.FAIL)
    assert kinds(problems()) == ["parent without children"]
    assert problems(fix=True) == []
    (logged,) = client.search_runs(
        [client.get_run(parent).info.experiment_id], "tags.`churnlab.command` = 'trial'"
    )
    assert (logged.info.status, logged.data.metrics["cv_log_loss"]) == ("FINISHED", 0.5)


# Parents and children


def test_children_of_a_deleted_run_are_told_once_with_the_way_to_bring_it_back(client, problems):
    parent = a_run(client, "tune", status="FINISHED", study="s", study_id="1")
    for number in range(3):
        a_run(client, "trial", status="FINISHED", parent=parent, trial=str(number))
    a_run(client, "train", status="FINISHED", parent=parent)
    assert problems() == []
    client.delete_run(parent)
    (problem,) = problems(fix=True)
    assert (problem.kind, problem.where) == ("children without a parent", parent)
    assert "4 runs (train, trial)" in problem.what
    assert f"mlflow runs restore --run-id {parent}" in problem.mend


def test_children_of_a_foreign_run_have_a_parent(client, problems):
    outer = client.create_run(store.experiment_id("mlflow-run")).info.run_id
    a_run(client, "train", status="FINISHED", parent=outer)
    assert problems() == []


def test_orphans_are_found_among_many_studies_too(client, problems, monkeypatch):
    parents = [
        a_run(client, "tune", status="FINISHED", study=str(n), study_id="1") for n in range(4)
    ]
    for parent in parents:
        a_run(client, "trial", status="FINISHED", parent=parent, trial="0")
    client.delete_run(parents[0])
    assert kinds(problems()) == ["children without a parent"]
    monkeypatch.setattr(examination, "JOINS", 2)
    assert kinds(problems()) == ["children without a parent"]


def test_a_study_that_has_lost_its_best_run_and_a_pipeline_without_any_are_told(client, problems):
    best = a_run(client, "train", status="FINISHED")
    parent = a_run(client, "tune", status="FINISHED", study="s", study_id="1", best_run_id=best)
    a_run(client, "trial", status="FINISHED", parent=parent, trial="0")
    assert problems() == []
    client.delete_run(best)
    a_run(client, "pipeline", status="FINISHED")
    assert kinds(problems()) == ["parent without children"] * 2


# The registry


def a_version(client, here, *, name: str = "demo-churn", **tags: str) -> str:
    """A version of one file, made as promote makes it."""
    if not [model for model in client.search_registered_models() if model.name == name]:
        client.create_registered_model(name)
    folder = here / "versions" / f"{name}-{len(client.search_model_versions())}"
    (folder / "artifacts").mkdir(parents=True)
    (folder / "artifacts/served.json").write_text("{}")
    described = "flavors: {python_function: {artifacts: {served: {path: artifacts/served.json}}}}"
    (folder / "MLmodel").write_text(described)
    told = {f"churnlab.{key}": value for key, value in tags.items()}
    return str(client.create_model_version(name, folder.as_uri(), tags=told).version)


def moved(client, number: int, before: str | None, after: str, **more: str) -> None:
    told = json.dumps(MOVE | {"from": before, "to": after} | more)
    client.set_registered_model_tag("demo-churn", f"churnlab.move.{number:06d}", told)


@pytest.fixture
def champion(client, here) -> str:
    """Version 2 is the champion after version 1."""
    numbers = [a_version(client, here, gate="passed") for _ in range(2)]
    for number, pair in enumerate([(None, "1"), ("1", "2")], 1):
        moved(client, number, *pair)
    client.set_registered_model_alias("demo-churn", "previous", "1")
    client.set_registered_model_alias("demo-churn", "champion", "2")
    return numbers[-1]


def aliases(client) -> dict[str, str]:
    return {
        alias: str(number)
        for alias, number in client.get_registered_model("demo-churn").aliases.items()
    }


def test_a_champion_with_a_gate_files_and_a_history_is_in_order(champion, problems):
    assert problems() == []


def test_a_version_whose_files_are_gone_is_told_and_nothing_is_done_to_it(
    champion, client, problems, here
):
    (here / "versions/demo-churn-0/artifacts/served.json").unlink()
    shutil.rmtree(here / "versions/demo-churn-1")
    found = problems(fix=True)
    assert kinds(found) == ["version without files"] * 2
    assert {(problem.where, problem.what.rpartition(": ")[2]) for problem in found} == {
        ("demo-churn/1", "artifacts/served.json"),
        ("demo-churn/2", "MLmodel"),
    }
    assert len(client.search_model_versions()) == 2


@pytest.mark.parametrize("verdict", [{}, {"gate": "refused"}], ids=["never asked", "refused"])
def test_a_champion_that_passed_no_gate_is_told(client, problems, here, verdict):
    version = a_version(client, here, churn_run_id="x", **verdict)
    client.set_registered_model_alias("demo-churn", "champion", version)
    assert kinds(problems(fix=True)) == ["champion without a gate"]


def test_a_move_that_was_not_finished_is_taken_back_with_its_alias(
    champion, client, problems, here
):
    third = a_version(client, here, gate="passed")
    moved(client, 3, "2", third)
    client.set_registered_model_alias("demo-churn", "previous", "2")
    assert kinds(problems()) == ["unfinished move"]
    assert problems(fix=True) == []
    assert aliases(client) == {"champion": "2", "previous": "1"}
    assert sorted(client.get_registered_model("demo-churn").tags) == [
        "churnlab.move.000001",
        "churnlab.move.000002",
    ]


def test_the_unfinished_move_of_a_dead_promotion_is_part_of_its_one_problem(
    champion, client, problems, here, dead
):
    run_id = a_run(client, "promote", process=dead)
    moved(client, 3, "2", a_version(client, here, gate="passed"), run_id=run_id)
    (problem,) = problems()
    assert problem.kind == "dead process"
    assert "an unfinished move of the champion of demo-churn" in problem.what
    assert problems(fix=True) == []
    assert "churnlab.move.000003" not in client.get_registered_model("demo-churn").tags


def test_the_first_move_of_all_is_taken_back_too(client, problems, here):
    moved_to = a_version(client, here, gate="passed")
    moved(client, 1, None, moved_to)
    assert kinds(problems()) == ["unfinished move"]
    assert problems(fix=True) == []
    assert aliases(client) == {}


def test_a_promotion_under_way_is_left_alone_and_one_that_came_in_between_stays(
    champion, client, problems, here
):
    third = a_version(client, here, gate="passed")
    moved(client, 3, "2", third)
    with registry.one_at_a_time():
        assert problems() == []
    (problem,) = problems()
    client.set_registered_model_alias("demo-churn", "champion", third)  # it was slow, not dead
    problem.cure()
    assert "churnlab.move.000003" in client.get_registered_model("demo-churn").tags


def test_a_version_that_was_deleted_by_hand_is_noticed(champion, client, problems):
    client.delete_model_version("demo-churn", "1")
    (problem,) = problems(fix=True)
    assert (problem.kind, problem.where) == ("deleted version", "demo-churn")
    client.delete_model_version("demo-churn", "2")
    (problem,) = problems(fix=True)
    assert "the champion with them" in problem.what


def test_a_champion_that_was_set_by_hand_is_noticed(champion, client, problems, here):
    third = a_version(client, here, gate="passed")
    client.set_registered_model_alias("demo-churn", "champion", third)
    assert kinds(problems(fix=True)) == ["champion moved by hand"]


def test_an_alias_that_points_nowhere_is_taken_away(champion, client, problems, here):
    with (
        closing(sqlite3.connect(here / "mlflow.db")) as database,
        database,
    ):  # MLflow itself takes aliases along
        database.execute("UPDATE registered_model_aliases SET version = 7 WHERE alias = 'previous'")
    assert kinds(problems()) == ["alias to nowhere"]
    assert problems(fix=True) == []
    assert aliases(client) == {"champion": "2"}


# What is not ours, and files


def test_what_others_keep_in_the_store_is_left_alone(client, problems, here):
    experiment = client.create_experiment("theirs", (here / "theirs").as_uri())
    run = client.create_run(experiment, tags={"mlflow.parentRunId": "0" * 32})
    client.create_logged_model(experiment, name="model", source_run_id=run.info.run_id)
    version = a_version(client, here, name="telco-churn")
    client.set_registered_model_alias("telco-churn", "champion", version)
    shutil.rmtree(here / "versions")
    a_run(client, "train", status="FINISHED")
    assert problems(fix=True, elsewhere=True) == []
    assert status(client, run.info.run_id) == "RUNNING"


def test_folders_that_the_store_does_not_know_are_named_and_kept(client, problems, here):
    known = a_run(client, "train", status="FINISHED")
    deleted = a_run(client, "train", status="FINISHED")
    client.delete_run(deleted)
    root = here / "mlartifacts"
    for name in (known, deleted, "f" * 32, "models/m-" + "e" * 32, "7"):
        (root / name).mkdir(parents=True)
    (problem,) = problems(fix=True)
    assert (problem.kind, problem.where) == ("unknown folders", str(root))
    assert "2 folders" in problem.what
    assert (root / ("f" * 32)).is_dir()


def test_a_model_that_is_said_to_be_ready_and_has_no_files_is_told(client, problems):
    run_id = a_run(client, "train", status="FINISHED")
    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment, name="model", source_run_id=run_id)
    client.finalize_logged_model(model.model_id, "READY")
    assert kinds(problems(fix=True)) == ["model without files"]


def test_halves_of_files_are_left_over_when_their_process_is_gone(here, dead):
    (here / "outputs").mkdir()
    gone, alive = dead.split()[1], os.getpid()
    halves = [here / f"mlflow.db.{{}}.tmp{end}" for end in ("", "-journal")] + [
        here / "outputs/.{}.report.html"
    ]
    for half in halves:
        for pid in (gone, alive):
            Path(str(half).format(pid)).write_text("half")
    found = list(left_over(here, here / "mlflow.db"))
    assert sorted(problem.where for problem in found) == sorted(
        str(half).format(gone) for half in halves
    )
    for problem in found:
        problem.cure()
    assert list(left_over(here, here / "mlflow.db")) == []
    assert len(list(here.glob("mlflow.db.*.tmp*"))) == 2


def test_a_store_of_another_schema_is_told_with_what_to_do(here):
    path = here / "mlflow.db"
    found, expected = store.schemas(path)
    assert list(other_schema(path, found, expected)) == []
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'abc'")
    (problem,) = other_schema(path, *store.schemas(path))
    assert problem.kind == "another schema"
    assert "version abc" in problem.what
    assert f"mlflow db upgrade sqlite:///{path}" in problem.mend
    path.write_bytes(b"")
    assert store.schemas(path)[0] is None
