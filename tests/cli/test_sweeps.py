"""Sweeps: one parent, a child per job, what is finished is not run again, what fails or is killed
is run next time."""

import os
import re
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from churnlab.data.demo import members
from churnlab.tracking.processes import is_alive
from support.killing import Command, gone, own_model, runs
from support.running import artifact
from support.soak import SOAK
from support.waiting import until

pytestmark = pytest.mark.slow

SMALL = ("dataset.rows=300", "evaluation.folds=2")
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
    assert f"MLflow UI (mlflow ui --backend-store-uri sqlite:///{shared_home}" in grid.err
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


@pytest.mark.parametrize(
    ("words", "jobs"),
    [
        (("experiment=forest_size",), 4),
        (("experiment='forest_size'",), 4),
        (('experiment="forest_size"', "seed=1,2"), 8),
    ],
)
def test_an_experiment_that_is_a_sweep_needs_no_m(home, run_command, words, jobs):
    ended = run_command(home, "train", *words, "dry_run=true")
    assert ended.code == 0, ended.err
    assert len(ended.line["runs"]) == jobs


def test_failing_jobs_do_not_stop_the_others_and_are_listed_with_the_command_that_repeats_only_them(
    home, run_command, runs_at
):
    words = ("train", "-m", *SMALL, "model.scale=7,true", "model.estimator.C=-1,1")
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
        f"  churnlab train {' '.join(SMALL)} model.scale=True model.estimator.C=-1\n" in ended.err
    )

    first, jobs = runs_at(home)[0], runs_at(home, command="train")
    assert (first.data.tags["churnlab.command"], first.info.status) == ("sweep", "FAILED")
    assert "Got -1" in first.data.tags["mlflow.note.content"]
    assert sorted(run.info.status for run in jobs) == ["FAILED", "FAILED", "FAILED", "FINISHED"]
    assert {run.data.tags["mlflow.parentRunId"] for run in jobs} == {first.info.run_id}
    assert {run.info.run_name for run in jobs} == {
        *("train failed scale=7 C=-1", "train failed scale=7 C=1", "train failed scale=True C=-1"),
        "logistic_regression raw scale=True C=1",
    }
    starts = re.findall(r"^job \d of 4.*: (.*)$", ended.err, re.MULTILINE)
    assert starts[0] == "model.scale=7 model.estimator.C=-1", "what all jobs share is left out"
    table = pd.read_csv(artifact(first, "jobs.csv")).sort_values("job")
    assert list(table["status"]) == ["bad input", "bad input", "bad input", "done"]
    assert "Best of 1 job by" in ended.err
    for run in jobs:
        assert artifact(run, "config.yaml").exists()
        if run.info.status == "FAILED":
            assert run.data.tags["mlflow.note.content"] in ended.err


def test_the_same_sweep_after_a_correction_runs_only_what_had_failed(
    home, run_command, runs_at, tmp_path
):
    tables = [tmp_path / "first.csv", tmp_path / "second.csv"]
    members(300, seed=1).to_csv(tables[0], index=False)
    words = [
        *("train", "-m", "model=dummy", "evaluation.folds=2", "dataset=gym"),
        f"dataset.path={tables[0]},{tables[1]}",
    ]
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


def slow_jobs(root: Path, *, jobs: int, seconds: float = 1.0, **keys: Any) -> list[str]:
    """Return the words of a sweep of jobs with several fits that take so many seconds each."""
    model = own_model(root, "sleeper", {"x": (0.0, 1.0)}, seconds=seconds, uneven=0.0, **keys)
    values = ",".join(str(number / 100) for number in range(10, 10 + jobs))
    return ["train", "-m", *model, f"model.estimator.x={values}"]


def statuses(home: Path, command: str = "train") -> list[str]:
    return [run.info.status for run in runs(home, command)]


def killed(home: Path, words: list[str], holds, *, by: signal.Signals) -> None:
    """Start a sweep and send it a signal as soon as something holds of its store."""
    with Command(home, *words) as command:
        assert command.until(holds, "its moment"), command.err
        command.process.send_signal(by)
        ended = command.ended()
    assert (ended.code, ended.out) == (-by if by == signal.SIGKILL else 143, ""), ended.err
    assert "Traceback" not in ended.err


def test_a_sweep_that_was_killed_outright_or_stopped_does_only_what_is_missing_when_run_again(
    tmp_path, home, run_command, runs_at
):
    """Kill -9 in the first job, SIGTERM in the second, then kill -9 at any moment."""
    words = slow_jobs(tmp_path, jobs=JOBS)
    killed(home, words, lambda: "RUNNING" in statuses(home), by=signal.SIGKILL)
    assert (statuses(home), statuses(home, "sweep")) == (["RUNNING"], ["RUNNING"])

    killed(
        home,
        words,
        lambda: "FINISHED" in statuses(home) and "RUNNING" in statuses(home),
        by=signal.SIGTERM,
    )
    assert set(statuses(home)) == {"FINISHED", "KILLED"}
    assert statuses(home, "sweep") == ["KILLED"]

    kept: dict[str, int] = {}
    for enough in range(2, JOBS):
        killed(
            home,
            words,
            lambda enough=enough: statuses(home).count("FINISHED") >= enough,
            by=signal.SIGKILL,
        )
        ended = [
            run.info for run in runs_at(home, command="train") if run.info.status == "FINISHED"
        ]
        finished = {info.run_id: info.end_time for info in ended}
        assert enough <= len(finished) < JOBS
        assert kept.items() <= finished.items()
        assert statuses(home).count("RUNNING") <= 1
        kept = finished

    ended = run_command(home, *words)
    assert ended.code == 0, ended.err
    assert "This sweep was killed before" in ended.err
    assert set(kept) <= set(ended.line["runs"])
    assert (statuses(home).count("FINISHED"), len(set(ended.line["runs"]))) == (JOBS, JOBS)
    assert set(statuses(home)) == {"FINISHED", "KILLED"}
    assert statuses(home, "sweep") == ["FINISHED"]
    assert run_command(home, "doctor").code == 0


TWO_WORKERS = ("engine=processes", "engine.workers=2")


@pytest.fixture(scope="module")
def in_parallel(grid, tmp_path_factory, run_command):
    """The grid again, in another store, by two workers."""
    home = tmp_path_factory.mktemp("parallel") / "home"
    ended = run_command(home, *GRID, *TWO_WORKERS)
    assert ended.code == 0, ended.err
    return home, ended


def test_workers_give_the_same_bits_as_one_process(grid, shared_home, in_parallel, client_at):
    home, ended = in_parallel
    assert len(ended.line["runs"]) == len(grid.line["runs"])
    for one, other in zip(grid.line["runs"], ended.line["runs"], strict=True):
        first, second = client_at(shared_home).get_run(one), client_at(home).get_run(other)
        assert what(first) == what(second)
        assert first.info.run_name == second.info.run_name
        for name in ("config.yaml", "predictions/oof.parquet", "predictions/test.parquet"):
            assert artifact(first, name).read_bytes() == artifact(second, name).read_bytes()
        took = {"fit_seconds"}
        assert {key: value for key, value in first.data.metrics.items() if key not in took} == {
            key: value for key, value in second.data.metrics.items() if key not in took
        }
        same = ("config_sha256", "data_sha256", "code_sha256")
        for tag in same:
            assert first.data.tags[f"churnlab.{tag}"] == second.data.tags[f"churnlab.{tag}"]


def test_jobs_run_in_several_processes_and_none_is_left(in_parallel, client_at):
    home, ended = in_parallel
    tags = [client_at(home).get_run(run_id).data.tags for run_id in ended.line["runs"]]
    processes = {of["churnlab.process"] for of in tags}
    assert len(processes) == 2
    assert not any(map(is_alive, processes))
    assert {of["mlflow.parentRunId"] for of in tags} == {ended.line["run_id"]}


def test_progress_counts_the_jobs_and_says_how_long_the_rest_takes(grid, in_parallel):
    for err in (grid.err, in_parallel[1].err):
        starts = re.findall(r"^job (\d) of 4(?: \((\d+ \w+) left\))?: .*model=", err, re.MULTILINE)
        assert [number for number, _ in starts] == ["1", "2", "3", "4"]
        assert starts[0][1] == ""
        assert starts[-1][1] != ""


def test_the_parent_holds_a_table_and_a_figure_of_all_jobs_with_the_best_first(
    grid, shared_home, in_parallel, client_at
):
    for home, ended in ((shared_home, grid), in_parallel):
        client = client_at(home)
        parent = client.get_run(ended.line["run_id"])
        jobs = pd.read_csv(artifact(parent, "jobs.csv"))
        assert set(jobs["run_id"]) == set(ended.line["runs"])
        assert sorted(jobs["job"]) == [1, 2, 3, 4]
        assert {"model", "features", "seconds", "status"} <= set(jobs)
        assert jobs["cv_log_loss"].is_monotonic_increasing
        best = client.get_run(jobs["run_id"][0])
        carried = {key for key in best.data.metrics if key.startswith("cv_")}
        assert {key: parent.data.metrics[key] for key in carried} == {
            key: best.data.metrics[key] for key in carried
        }
        others = {key for key in parent.data.metrics if not key.startswith("cv_")}
        assert others == {"job_log_loss", "best_cv_log_loss"}
        steps = client.get_metric_history(parent.info.run_id, "job_log_loss")
        assert {one.step: one.value for one in steps} == dict(
            zip(jobs["job"], jobs["cv_log_loss"], strict=True)
        )
        assert best.info.run_id in parent.data.tags["mlflow.note.content"]
        assert (
            "Best of 4 jobs by cross-validated log loss" in parent.data.tags["mlflow.note.content"]
        )
        assert parent.data.tags["churnlab.jobs"].split(",") == list(jobs["run_id"])
        assert artifact(parent, "figures/jobs.png").stat().st_size > 5000
        lines = [line.split() for line in ended.err.splitlines()]
        header = next(place for place, line in enumerate(lines) if line[-1:] == ["run_id"])
        assert [line[0] for line in lines[header + 1 : header + 5]] == [
            str(job) for job in jobs["job"]
        ]


def test_a_sweep_holds_the_jobs_that_an_earlier_one_has_finished_too(
    in_parallel, run_command, client_at
):
    """Whatever engine ran them."""
    home, earlier = in_parallel
    again = run_command(home, *GRID[:-1], "features=raw")
    assert again.code == 0, again.err
    assert len(again.line["runs"]) == 2
    assert set(again.line["runs"]) <= set(earlier.line["runs"])
    assert again.line["run_id"] != earlier.line["run_id"]
    parent = client_at(home).get_run(again.line["run_id"])
    assert set(parent.data.tags["churnlab.jobs"].split(",")) == set(again.line["runs"])
    assert parent.data.metrics["cv_log_loss"] > 0
    assert set(pd.read_csv(artifact(parent, "jobs.csv"))["run_id"]) == set(again.line["runs"])


def test_jobs_on_other_folds_are_not_ranked_without_saying_so(home, run_command, client_at):
    ended = run_command(home, "train", "-m", *SMALL, "model=dummy", "seed=1,2")
    assert ended.code == 0, ended.err
    parent = client_at(home).get_run(ended.line["run_id"])
    for text in (ended.err, parent.data.tags["mlflow.note.content"]):
        assert "have different members or folds: their order ranks no models" in text


def test_studies_of_a_sweep_run_inline_each_in_one_worker(home, run_command, client_at, runs_at):
    words = ["tune", "-m", *SMALL, "features=raw,early", "tune.n_trials=2", *TWO_WORKERS]
    ended = run_command(home, *words)
    assert ended.code == 0, ended.err
    parent = client_at(home).get_run(ended.line["run_id"])
    for run_id in ended.line["runs"]:
        study = client_at(home).get_run(run_id)
        trials = [
            run
            for run in runs_at(home, command="trial")
            if run.data.tags["mlflow.parentRunId"] == run_id
        ]
        assert len(trials) == 2
        assert study.data.tags["engine._target_"] == "churnlab.tuning.workers.Inline"
    assert parent.data.metrics["cv_log_loss"] == min(
        run.data.metrics["cv_log_loss"] for run in runs_at(home, command="train")
    )


def settled(home: Path, runs_at) -> set[str]:
    """Return the states of all runs; a run that failed comes with its note."""
    return {
        f"{run.info.status} {run.data.tags.get('mlflow.note.content', '')}"
        if run.info.status == "FAILED"
        else run.info.status
        for run in runs_at(home)
    }


def test_workers_end_with_a_sweep_that_is_killed_or_stopped_and_the_same_sweep_goes_on(
    tmp_path, home, runs_at
):
    """Kill -9, then Ctrl-C in the first jobs, SIGTERM later; in the last start a worker is killed,
    which costs an attempt and no job."""
    words = [*slow_jobs(tmp_path, jobs=3), *TWO_WORKERS]
    with Command(home, *words) as command:
        run_that(lambda run: run.info.status == "RUNNING", command, home)
        command.process.kill()
        command.process.wait()
        assert gone(command.session())
    assert "RUNNING" in settled(home, runs_at)

    kept: set[str] = set()
    for by, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with Command(home, *words) as command:
            run_that(lambda run: running_since(command, run), command, home)
            if by == signal.SIGTERM:
                run_that(lambda run: run.info.status == "FINISHED", command, home)
            command.process.send_signal(by)
            ended = command.ended()
            assert (ended.code, ended.out) == (code, ""), ended.err
            assert "Traceback" not in ended.err
            assert ("This sweep was killed before" in ended.err) == (by == signal.SIGINT)
            assert gone(command.session())
        assert settled(home, runs_at) <= {"FINISHED", "KILLED"}
        assert statuses(home, "sweep") == ["KILLED"]
        jobs = runs_at(home, command="train")
        kept = {run.info.run_id for run in jobs if run.info.status == "FINISHED"}

    assert kept
    with Command(home, *words) as command:
        running = run_that(lambda run: running_since(command, run), command, home)
        os.kill(int(running.data.tags["churnlab.process"].split()[1]), signal.SIGKILL)
        ended = command.ended()
    assert ended.code == 0, ended.err
    assert re.search(r"The worker of job \d died by signal 9 .*; the job is run again", ended.err)
    assert client_status(runs_at(home), running.info.run_id) == "KILLED"
    assert kept <= set(ended.line["runs"])
    assert statuses(home).count("FINISHED") == 3 == len(set(ended.line["runs"]))
    assert settled(home, runs_at) == {"FINISHED", "KILLED"}
    assert statuses(home, "sweep") == ["FINISHED"]


def test_a_job_that_kills_its_workers_fails_with_a_command_that_repeats_only_it(
    tmp_path, home, runs_at
):
    with Command(
        home, *slow_jobs(tmp_path, jobs=2, seconds=0.0, dies_below=0.105), *TWO_WORKERS
    ) as command:
        ended = command.ended()
    assert ended.code == 1
    assert "1 of 2 jobs failed:" in ended.err
    assert "its worker died 3 times, the last by signal 9 (out of memory?)." in ended.err
    assert re.search(r"^  churnlab train --config-dir own .*model.estimator.x=0.1", ended.err, re.M)
    assert sorted(statuses(home)) == ["FINISHED"] + ["KILLED"] * 3
    assert [run.info.status for run in parents(runs_at(home))] == ["FAILED"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-m", "engine=inline,processes"), "The engine runs the jobs of a sweep: give engine and"),
        (("-m", "engine=processes", "engine.workers=1,2"), "The engine runs the jobs of a sweep"),
        (("-m", "engine=processes", "engine.workers=0"), "engine.workers=0 is not a number of "),
        (("-m", "engine.workers=2"), "engine.workers=2: engine=inline runs in this one process;"),
        (("engine.workers=2",), "engine.workers=2: engine=inline runs in this one process;"),
    ],
)
def test_an_engine_that_cannot_run_the_jobs_or_the_job_is_wrong_input(
    new_home, run_command, words, message
):
    ended = run_command(new_home, "train", *SMALL, "model=dummy", *words)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(message)
    assert not (new_home / "mlflow.db").exists()


def test_a_sweep_without_a_job_is_wrong_input(home, run_command):
    ended = run_command(home, "train", "-m", "seed=range(1,1)")
    assert (ended.code, ended.out) == (2, "")
    assert "The sweep has no job: one of its keys has no value" in ended.err


def test_a_plain_command_that_has_no_use_for_workers_says_so(home, run_command, client_at):
    ended = run_command(home, "explore", "dataset.rows=200", *TWO_WORKERS)
    assert ended.code == 0, ended.err
    assert "engine runs the jobs of a sweep (-m); this one job runs in one process." in ended.err
    of_the_table = client_at(home).get_run(ended.line["run_id"]).data.metrics["warnings"]
    assert ended.line["warnings"] == of_the_table + 1


def run_that(holds, command: Command, home: Path) -> Any:
    """Wait until a train run of the store is so; return it."""

    def found() -> Any:
        assert command.running, command.err
        return next((run for run in runs(home, "train") if holds(run)), None)

    return until(found, "the run")


def running_since(command: Command, run: Any) -> bool:
    """Return whether a run is RUNNING that this command has started."""
    return run.info.status == "RUNNING" and run.info.start_time > 1000 * command.started


def client_status(runs, run_id: str) -> str:
    return next(run.info.status for run in runs if run.info.run_id == run_id)
