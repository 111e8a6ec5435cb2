"""The doctor after real kills: what is found, mended, and then no longer there; test_examination
has single faults."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from churnlab.commands import doctor
from churnlab.config import validation
from churnlab.config.commands import Result
from support.killing import SUPPORT, Command, notes, own_model, runs, trials
from support.running import SMALL_SEGMENTS, opened

pytestmark = pytest.mark.slow

SMALL = ("dataset.rows=300", "evaluation.folds=2")


@pytest.fixture(scope="module")
def ask(shared_home):
    with opened(shared_home, PYTHONPATH=str(SUPPORT)) as asked:
        yield asked


def killed(home, command: str, *words: str, moment=None) -> str:
    """Kill a command and all it has started while its run is RUNNING; gives the run's id."""
    earlier = {run.info.run_id for run in runs(home, command)}

    def under_way() -> list[str]:
        return [run.info.run_id for run in runs(home, command) if run.info.run_id not in earlier]

    with Command(home, command, *words) as process:
        assert process.until(moment or under_way, "its run"), process.err
        process.kill_everything()
    (run,) = [run for run in runs(home, command) if run.info.run_id not in earlier]
    assert run.info.status == "RUNNING", "the kill came too late"
    return run.info.run_id


@pytest.fixture(scope="module")
def left(shared_home, ask):
    """The runs of commands that were killed at work, by command, in a store where others have
    finished."""
    for words in (("train", *SMALL), ("segment", "dataset.rows=300", *SMALL_SEGMENTS)):
        ended = ask(*words)
        assert ended.code == 0, ended.err
    home, root = shared_home, shared_home.parent
    model = own_model(root, "sleeper", {"x": (0.0, 1.0)}, seconds=0.3)
    return {
        "train": killed(home, "train", *SMALL, "evaluation.repeats=20"),
        "segment": killed(home, "segment", "dataset.rows=300"),
        "promote": killed(home, "promote", *SMALL),
        "tune": killed(
            *(home, "tune", *model, "engine=processes", "engine.workers=2", "tune.n_trials=30"),
            moment=lambda: len(notes(root, "sleeper")) >= 6,
        ),
    }


@pytest.fixture(scope="module")
def found(left, ask, shared_home):
    ended = ask("doctor")
    untouched = {run.info.run_id for run in runs(shared_home) if run.info.status == "RUNNING"}
    assert set(left.values()) <= untouched, "nobody had asked to mend"
    return ended


@pytest.fixture(scope="module")
def mended(found, ask):
    return ask("doctor", "fix=true")


def test_every_killed_command_is_one_problem_with_all_that_it_left(found, left, shared_home):
    assert found.code == 3, found.err
    assert set(found.line) == {"command", "run_id", "problems"}
    assert found.line["run_id"] is None
    problems = {problem["where"]: problem for problem in found.line["problems"]}
    assert {problem["kind"] for problem in problems.values()} == {"dead process"}
    assert len(problems) == 4
    for command, run_id in left.items():
        (problem,) = [problem for where, problem in problems.items() if run_id in where]
        assert f"1 {command}" in problem["what"]
        assert problem["mend"] == "churnlab doctor fix=true"
    assert "trial" in next(
        problem["what"] for problem in problems.values() if "1 tune" in problem["what"]
    )


def test_after_the_cure_nothing_is_running_and_nothing_is_found(
    mended, found, left, ask, shared_home
):
    assert mended.code == 0, mended.err
    assert mended.line["problems"] == found.line["problems"]
    assert mended.line["left"] == []
    assert {run.info.status for run in runs(shared_home)} <= {"FINISHED", "KILLED"}
    assert not [trial for trial in trials(shared_home) if trial.state.name == "RUNNING"]
    again = ask("doctor")
    assert (again.code, again.line["problems"]) == (0, []), again.err


def test_a_study_that_the_doctor_has_mended_goes_on_where_it_was(mended, shared_home, ask):
    complete = [trial for trial in trials(shared_home) if trial.state.name == "COMPLETE"]
    assert complete
    model = own_model(shared_home.parent, "sleeper", {"x": (0.0, 1.0)}, seconds=0.3)
    n = len(complete) + 2
    ended = ask("tune", *model, "engine=processes", "engine.workers=2", f"tune.n_trials={n}")
    assert (ended.code, ended.line["n_complete"]) == (0, n), ended.err
    assert ask("doctor").line["problems"] == []


@pytest.fixture
def ask_at(monkeypatch, home):
    """``ask_at(fix=True)``: the doctor's answer on another home, in this process."""
    monkeypatch.setenv("CHURNLAB_HOME", str(home))
    shared = {"seed": 0, "run_name": None, "force": False, "dry_run": False}
    paths = {
        "tracking": {"uri": f"sqlite:///{home}/mlflow.db"},
        "storage": {"folder": str(home / "studies")},
    }
    return lambda **keys: doctor.run(
        validation.read("doctor", shared | paths | {"elsewhere": False} | keys)
    )


def test_a_place_without_a_store_has_no_problems_and_gets_no_store(home, ask_at):
    assert ask_at(fix=False) == Result({"run_id": None, "problems": []})
    assert ask_at(fix=True) == Result({"run_id": None, "problems": [], "left": []})
    assert not home.exists()


def test_a_store_of_another_schema_is_told_and_not_opened(mended, home, shared_home, ask_at):
    home.mkdir()
    shutil.copy(shared_home / "mlflow.db", home)
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '0123456789ab'")
    result = ask_at(fix=True)
    assert (result.yes, result.values["problems"]) == (False, [])
    assert [problem["kind"] for problem in result.values["left"]] == ["another schema"]
