"""Sweeps: one parent, a child per job, what is finished is not run again, what fails or is killed
is run next time."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from churnlab.data.demo import members
from support.killing import PATIENCE, SOAK
from support.running import artifact, start, wait

pytestmark = pytest.mark.slow

SMALL = ("dataset.rows=300", "evaluation.folds=3")
JOBS = 20 if SOAK else 3
GRID = ("train", "-m", *SMALL, "model=dummy,logistic_regression", "features=raw,early")


def what(run) -> tuple[str, str]:
    return run.data.params["model.name"], run.data.params["features.name"]


def parents(runs) -> list:
    return [run for run in runs if run.data.tags["churnlab.command"] == "sweep"]


@pytest.fixture(scope="module")
def grid(shared_home, run_command):
    return run_command(shared_home, *GRID)


def test_a_sweep_is_one_parent_with_a_finished_child_per_job(grid, shared_home, client_at):
    assert grid.code == 0, grid.err
    assert set(grid.line) == {"command", "run_id", "runs"}
    assert len(grid.out.splitlines()) == 1
    client = client_at(shared_home)
    parent, children = (
        client.get_run(grid.line["run_id"]),
        [client.get_run(run_id) for run_id in grid.line["runs"]],
    )
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["churnlab.command"] == "sweep"
    assert parent.data.tags["churnlab.data_sha256"] == children[0].data.tags["churnlab.data_sha256"]
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}
    assert {child.info.status for child in children} == {"FINISHED"}
    assert [what(child) for child in children] == [
        ("dummy", "raw"),
        ("dummy", "early"),
        ("logistic_regression", "raw"),
        ("logistic_regression", "early"),
    ]


def test_the_same_sweep_again_fits_nothing(grid, shared_home, run_command, runs_at):
    before = {run.info.run_id: run.info.end_time for run in runs_at(shared_home, command="train")}
    again = run_command(shared_home, *GRID, "run_name=another")
    assert (again.code, again.line) == (0, grid.line)
    after = {run.info.run_id: run.info.end_time for run in runs_at(shared_home, command="train")}
    assert after == before
    assert [run.info.status for run in parents(runs_at(shared_home))] == ["FINISHED"]


def test_force_runs_a_finished_job_again(grid, shared_home, run_command, runs_at):
    before = {run.info.run_id for run in runs_at(shared_home, command="train")}
    forced = run_command(
        shared_home, "train", "-m", *SMALL, "model=dummy", "features=raw", "force=true"
    )
    assert forced.code == 0, forced.err
    assert len(forced.line["runs"]) == 1
    assert not set(forced.line["runs"]) & before


def test_an_experiment_that_is_a_sweep_needs_no_m(home, run_command):
    ended = run_command(home, "train", "experiment=forest_size", "dry_run=true")
    assert ended.code == 0, ended.err
    assert len(ended.line["runs"]) == 4


def test_failing_jobs_do_not_stop_the_others_and_are_listed_with_the_command_that_repeats_only_them(
    home, run_command, runs_at
):
    words = ("train", "-m", *SMALL, "model.scale=7,true", "+model.estimator.C=-1,1")
    ended = run_command(home, *words)
    assert (ended.code, ended.out) == (1, "")
    assert "Traceback" not in ended.err
    assert "3 of 4 jobs failed:" in ended.err
    assert "model.scale=7 is not possible" in ended.err
    assert (
        "The 'C' parameter of LogisticRegression must be a float in the range (0.0, inf]. Got -1"
        in ended.err
    )
    assert (
        f"  churnlab train {' '.join(SMALL)} model.scale=True +model.estimator.C=-1\n" in ended.err
    )

    first, jobs = runs_at(home)[0], runs_at(home, command="train")
    assert (first.data.tags["churnlab.command"], first.info.status) == ("sweep", "FAILED")
    assert "Got -1" in first.data.tags["mlflow.note.content"]
    assert sorted(run.info.status for run in jobs) == ["FAILED", "FAILED", "FAILED", "FINISHED"]
    assert {run.data.tags["mlflow.parentRunId"] for run in jobs} == {first.info.run_id}
    for run in jobs:
        assert artifact(run, "config.yaml").exists()
        if run.info.status == "FAILED":
            assert run.data.tags["mlflow.note.content"] in ended.err


def test_the_same_sweep_after_a_correction_runs_only_what_had_failed(
    home, run_command, runs_at, tmp_path
):
    tables = [tmp_path / "first.csv", tmp_path / "second.csv"]
    members(300, seed=1).to_csv(tables[0], index=False)
    words = ["train", "-m", "model=dummy", "dataset=gym", f"dataset.path={tables[0]},{tables[1]}"]
    broken = run_command(home, *words)
    assert broken.code == 1
    assert f"There is no file {tables[1]}" in broken.err
    (finished,) = [
        run.info.run_id for run in runs_at(home, command="train") if run.info.status == "FINISHED"
    ]

    members(300, seed=2).to_csv(tables[1], index=False)
    corrected = run_command(home, *words)
    assert corrected.code == 0, corrected.err
    assert corrected.line["runs"][0] == finished
    statuses = [run.info.status for run in runs_at(home, command="train")]
    assert sorted(statuses) == ["FAILED", "FINISHED", "FINISHED"]
    (parent,) = parents(runs_at(home))
    assert (parent.info.run_id, parent.info.status) == (corrected.line["run_id"], "FINISHED")


def killed(home: Path, words: list[str], until, *, by: signal.Signals = signal.SIGTERM) -> None:
    """Start a sweep and send it a signal as soon as something holds of its store."""
    process: subprocess.Popen[str] = start(home, *words)
    deadline = time.monotonic() + PATIENCE
    while not ((home / "mlflow.db").exists() and until()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(by)
    ended = wait(process)
    assert (ended.code, ended.out) == (-by if by == signal.SIGKILL else 143, ""), ended.err
    assert "Traceback" not in ended.err


def test_a_killed_sweep_run_again_does_only_what_is_missing(home, run_command, runs_at):
    forest = ("model=random_forest", "model.estimator.n_estimators=100", "evaluation.repeats=3")
    words = ["train", "-m", *SMALL, *forest, "seed=1,2,3"]

    def statuses(command: str = "train") -> list[str]:
        return [run.info.status for run in runs_at(home, command=command)]

    killed(home, words, lambda: "RUNNING" in statuses())
    assert statuses() == ["KILLED"]
    assert statuses("sweep") == ["KILLED"]

    killed(home, words, lambda: statuses().count("FINISHED") >= 1 and "RUNNING" in statuses())
    finished = [
        run.info.run_id for run in runs_at(home, command="train") if run.info.status == "FINISHED"
    ]
    assert 1 <= len(finished) < 3
    assert statuses("sweep") == ["KILLED"]

    ended = run_command(home, *words)
    assert ended.code == 0, ended.err
    assert ended.line["runs"][: len(finished)] == finished
    assert statuses().count("FINISHED") == 3 == len(set(ended.line["runs"]))
    assert set(statuses()) == {"FINISHED", "KILLED"}
    assert statuses("sweep") == ["FINISHED"]


def test_a_sweep_that_was_killed_outright_leaves_its_running_job_to_be_done_again(
    home, run_command, runs_at
):
    """Kill -9 in the first job, then at any moment; finished jobs are not run again."""
    forest = ("model=random_forest", "model.estimator.n_estimators=100", "evaluation.repeats=2")
    words = [
        "train",
        "-m",
        *SMALL,
        *forest,
        f"seed={','.join(str(seed) for seed in range(1, JOBS + 1))}",
    ]

    def statuses(command: str = "train") -> list[str]:
        return [run.info.status for run in runs_at(home, command=command)]

    killed(home, words, lambda: "RUNNING" in statuses(), by=signal.SIGKILL)
    assert (statuses(), statuses("sweep")) == (["RUNNING"], ["RUNNING"])
    kept: dict[str, int] = {}
    for enough in range(1, JOBS):
        killed(
            home,
            words,
            lambda enough=enough: statuses().count("FINISHED") >= enough,
            by=signal.SIGKILL,
        )
        ended = [
            run.info for run in runs_at(home, command="train") if run.info.status == "FINISHED"
        ]
        finished = {info.run_id: info.end_time for info in ended}
        assert kept.items() <= finished.items()
        assert statuses().count("RUNNING") <= 1
        kept = finished

    ended = run_command(home, *words)
    assert ended.code == 0, ended.err
    assert "This sweep was killed before" in ended.err
    assert set(kept) <= set(ended.line["runs"])
    assert (statuses().count("FINISHED"), len(set(ended.line["runs"]))) == (JOBS, JOBS)
    assert set(statuses()) == {"FINISHED", "KILLED"}
    assert statuses("sweep") == ["FINISHED"]
    assert run_command(home, "doctor").code == 0
