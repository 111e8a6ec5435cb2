"""Doctor after real kills: what it finds and repairs; tests/doctor has single faults."""

import shutil
import sqlite3
from contextlib import closing

import pytest
from mlflow.entities import Run

from churnlab.commands import doctor
from churnlab.config import validation
from churnlab.config.commands import Result
from churnlab.doctor.problems import Problem
from support.killing import Command, notes, own_model, runs, trials
from support.running import PROMOTED_ROWS, churnlab_at

pytestmark = pytest.mark.slow

SMALL = (*PROMOTED_ROWS, "evaluation.folds=3")


@pytest.fixture(scope="module")
def churnlab(left, shared_home):
    return churnlab_at(shared_home)


def killed(home, command: str, *words: str, moment=None) -> str:
    """Kill a command with all its processes while its run is RUNNING; return the run's id.

    A kill that comes when the run has ended is no kill, so the command is started again.
    """
    for _ in range(10):
        earlier = {run.info.run_id for run in runs(home, command)}

        def started(earlier=earlier) -> list[Run]:
            return [run for run in runs(home, command) if run.info.run_id not in earlier]

        with Command(home, command, *words) as process:
            process.until(moment or started, "its run")
            process.kill_everything()
        (run,) = started()
        if run.info.status == "RUNNING":
            return run.info.run_id
    pytest.fail(f"ten kills came too late: {process.err}")


@pytest.fixture(scope="module")
def left(promoted, shared_home):
    """Kill commands in a store with finished runs; return the runs that they left, by command."""
    shutil.copytree(promoted.kept, shared_home, dirs_exist_ok=True)
    churnlab = churnlab_at(shared_home)
    assert churnlab("history").code == 0  # which finds the files of a store that was moved
    home, root = shared_home, shared_home.parent
    model = own_model(root, "sleeper", {"x": (0.0, 1.0)}, seconds=0.3)
    return {
        "train": killed(home, "train", *SMALL, "evaluation.repeats=20"),
        "segment": killed(home, "segment", *PROMOTED_ROWS),
        "promote": killed(home, "promote", *SMALL, "force=true", "reason=a kill"),
        "tune": killed(
            *(home, "tune", *model, "engine=processes", "engine.workers=2", "tune.n_trials=30"),
            moment=lambda: len(notes(root, "sleeper")) >= 6,
        ),
    }


@pytest.fixture(scope="module")
def found(left, churnlab, shared_home):
    ended = churnlab("doctor")
    untouched = {run.info.run_id for run in runs(shared_home) if run.info.status == "RUNNING"}
    assert set(left.values()) <= untouched, "doctor without fix=true must not repair"
    return ended


@pytest.fixture(scope="module")
def repaired(found, churnlab):
    return churnlab("doctor", "fix=true")


def test_every_killed_command_is_one_problem_with_everything_that_it_left(found, left, shared_home):
    assert found.code == 3, found.err
    assert set(found.line) == {"command", "run_id", "problems"}
    assert found.line["run_id"] is None
    # a kill while a file is logged leaves a temporary one, too
    dead = [problem for problem in found.line["problems"] if problem["kind"] != "leftover file"]
    problems = {problem["where"]: problem for problem in dead}
    assert {problem["kind"] for problem in dead} == {"dead process"}
    assert len(problems) == 4
    for command, run_id in left.items():
        (problem,) = [problem for where, problem in problems.items() if run_id in where]
        assert f"1 {command}" in problem["what"]
        assert problem["fix"] == "churnlab doctor fix=true"
    assert "trial" in next(
        problem["what"] for problem in problems.values() if "1 tune" in problem["what"]
    )


def test_after_repairs_nothing_is_running_and_nothing_is_found(
    repaired, found, left, churnlab, shared_home
):
    assert repaired.code == 0, repaired.err
    assert repaired.line["problems"] == found.line["problems"]
    assert repaired.line["left"] == []
    assert {run.info.status for run in runs(shared_home)} <= {"FINISHED", "KILLED"}
    assert not [trial for trial in trials(shared_home) if trial.state.name == "RUNNING"]
    again = churnlab("doctor")
    assert (again.code, again.line["problems"]) == (0, []), again.err


def test_a_study_that_doctor_has_repaired_resumes(repaired, shared_home, churnlab):
    complete = [trial for trial in trials(shared_home) if trial.state.name == "COMPLETE"]
    assert complete
    model = own_model(shared_home.parent, "sleeper", {"x": (0.0, 1.0)}, seconds=0.3)
    n = len(complete) + 2
    ended = churnlab("tune", *model, f"tune.n_trials={n}")
    assert (ended.code, ended.line["n_complete"]) == (0, n), ended.err
    assert churnlab("doctor").line["problems"] == []


@pytest.fixture
def run_doctor(monkeypatch, new_home):
    """Return ``run_doctor(fix=True)``: run doctor on an empty home, in this process."""
    monkeypatch.setenv("CHURNLAB_HOME", str(new_home))
    shared = {"seed": 0, "run_name": None, "force": False, "dry_run": False}
    paths = {
        "tracking": {"uri": f"sqlite:///{new_home}/mlflow.db"},
        "storage": {"folder": str(new_home / "studies")},
    }
    return lambda **keys: doctor.run(
        validation.read("doctor", shared | paths | {"elsewhere": False} | keys)
    )


def test_what_is_repaired_is_listed_without_its_fix(caplog):
    caplog.set_level("INFO")
    problem = Problem("dead process", "it is dead", "a run", "churnlab doctor fix=true")
    for title in ("Found", "Repaired", "Left"):
        doctor._report(title, [problem])
    doctor._report("Found", [])
    listed = ["  dead process: it is dead (a run)", "    Fix: churnlab doctor fix=true"]
    assert caplog.messages == [
        *("Found: 1 problem", *listed),
        *("Repaired: 1 problem", listed[0]),
        *("Left: 1 problem", *listed),
        "Found: nothing",
    ]


def test_a_home_without_a_store_has_no_problems_and_gets_no_store(new_home, run_doctor):
    assert run_doctor(fix=False) == Result({"run_id": None, "problems": []}, then="")
    assert run_doctor(fix=True) == Result({"run_id": None, "problems": [], "left": []})
    assert not new_home.exists()


def test_a_store_with_another_schema_is_reported_and_not_opened(
    repaired, new_home, shared_home, run_doctor
):
    new_home.mkdir()
    shutil.copy(shared_home / "mlflow.db", new_home)
    with closing(sqlite3.connect(new_home / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '0123456789ab'")
    result = run_doctor(fix=True)
    assert (result.yes, result.values["problems"]) == (False, [])
    assert [problem["kind"] for problem in result.values["left"]] == ["incompatible schema"]
