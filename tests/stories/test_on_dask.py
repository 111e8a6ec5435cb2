"""The same commands on a Dask cluster as in one process: the same bits, and kills cost nothing."""

import os
import re
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest

from churnlab.data.demo import members
from support.dask_cluster import Cluster, dask_cluster
from support.killing import (
    Command,
    check_promise,
    dead,
    gone,
    notes,
    own_model,
    runs,
    trials,
)
from support.running import SMALL_CLAIMS, SMALL_SEGMENTS, artifact, churnlab_at, run_forked
from support.soak import SOAK
from support.waiting import until

pytestmark = pytest.mark.slow

FILES = 100 if SOAK else 12
JOBS = 4 if SOAK else 3

SMALL_FOREST = (
    *("model=random_forest", "model.estimator.n_estimators=5", "evaluation.folds=3"),
    *("evaluation.repeats=2", "evaluation.learning_curve=true"),
)

DIFFERS = {"run_id", "fit_seconds", "model_bytes"}
"""Keys of results that two equal runs do not share."""

STOPS = [(signal.SIGKILL, -9), *([(signal.SIGTERM, 143)] if SOAK else []), (None, 1)]
"""Signals and the exit codes after them; None: the scheduler is killed. The short form leaves
SIGTERM to tests/tuning."""

A_FILE_AT_A_TIME = "from churnlab.scoring import blocks; blocks.ROWS = 50"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory):
    with dask_cluster(tmp_path_factory.mktemp("dask"), workers=2) as cluster:
        yield cluster


def on(cluster: Cluster) -> tuple[str, ...]:
    return ("engine=dask", f"engine.address={cluster.address}", "engine.workers=2")


def slow_jobs(root: Path, *, seconds: float = 0.5) -> tuple[str, ...]:
    """Return the words of a sweep of JOBS jobs, each of which takes some seconds."""
    model = own_model(root, "sleeper", {"x": (0.0, 1.0)}, seconds=seconds)
    values = ",".join(str(job / 10) for job in range(1, JOBS + 1))
    return ("train", "-m", *model, "evaluation.early=false", f"model.estimator.x={values}")


def statuses(home: Path, command: str = "train") -> list[str]:
    return sorted(run.info.status for run in runs(home, command))


def kill_a_holder(command: Command, cluster: Cluster, root: Path) -> None:
    """Kill the Dask worker of the process that has begun the latest fit."""

    holders: list[psutil.Process] = []

    def found() -> bool:
        fits = [line["pid"] for line in notes(root, "sleeper", since=command.started)]
        with suppress(psutil.NoSuchProcess):
            above = psutil.Process(fits[-1]).parent() if fits else None
            holders.extend([above] if above is not None and above.pid in cluster.pids() else [])
        return bool(holders)

    assert command.until(found, "a fit"), command.err
    holders[0].kill()


def test_a_sweep_has_the_same_bits_as_in_one_process_although_a_dask_worker_is_killed(
    tmp_path, cluster
):
    model, found = own_model(tmp_path, "sleeper", {"x": (0.0, 1.0)}, seconds=1.0), {}
    words = ("train", "-m", *model, "evaluation.early=false", "model.estimator.x=0.1,0.2")
    for name, engine in (("inline", ()), ("dask", on(cluster))):
        with Command(tmp_path / name, *words, *engine, root=tmp_path) as command:
            if engine:
                kill_a_holder(command, cluster, tmp_path)
            ended = command.ended()
        assert ended.code == 0, ended.err
        assert re.search(r"^job 2 of 2.*x=0.2$", ended.err, re.MULTILINE)
        assert statuses(tmp_path / name, "sweep") == ["FINISHED"]
        jobs = {run.info.run_id: run for run in runs(tmp_path / name, "train")}
        found[name] = [jobs[run_id] for run_id in ended.line["runs"]]
    assert re.search(r"The worker of job \d died with its Dask worker; the job is run", ended.err)
    assert "job 1: sleeper raw" in ended.err, "what the jobs log reaches the command"
    assert statuses(tmp_path / "dask") == ["FINISHED"] * 2 + ["KILLED"]
    for one, other in zip(*found.values(), strict=True):
        assert one.info.run_name == other.info.run_name
        for file in ("config.yaml", "predictions/oof.parquet", "predictions/test.parquet"):
            assert artifact(one, file).read_bytes() == artifact(other, file).read_bytes()
        same = {"fit_seconds"} ^ one.data.metrics.keys()
        assert all(one.data.metrics[key] == other.data.metrics[key] for key in same)


def test_a_sweep_that_is_killed_stopped_or_loses_its_scheduler_goes_on_where_it_was(tmp_path, home):
    words, kept = slow_jobs(tmp_path), set[str]()
    with dask_cluster(tmp_path / "dask", workers=1) as cluster:
        for stop, code in STOPS:
            with Command(home, *words, *on(cluster)) as command:
                assert command.until(lambda: "RUNNING" in statuses(home), "a job"), command.err
                if stop is None:
                    cluster.scheduler.kill()
                else:
                    command.process.send_signal(stop)
                ended = command.ended()
            assert (ended.code, ended.out) == (code, ""), ended.err
            assert "Traceback" not in ended.err
            until(lambda: "RUNNING" not in statuses(home), "the end of what nobody waits for")
            kept |= {
                run.info.run_id for run in runs(home, "train") if run.info.status == "FINISHED"
            }
    assert "The Dask scheduler is gone" in ended.err
    with Command(home, *words) as command:
        ended = command.ended()
    assert ended.code == 0, ended.err
    assert kept <= set(ended.line["runs"])
    assert statuses(home).count("FINISHED") == JOBS
    assert (set(statuses(home)), statuses(home, "sweep")) == ({"FINISHED", "KILLED"}, ["FINISHED"])


def test_a_study_has_exactly_n_trials_although_a_dask_worker_is_killed(tmp_path, home, cluster):
    n, model = 4, own_model(tmp_path, "sleeper", {"x": (0.0, 1.0)}, seconds=0.5)
    with Command(home, "tune", *model, f"tune.n_trials={n}", *on(cluster)) as command:
        kill_a_holder(command, cluster, tmp_path)
        check_promise(home, n, command.ended())
    assert len(dead(trials(home))) == 1


def test_a_study_with_one_worker_has_the_same_trials_as_in_one_process(tmp_path):
    words = ("tune", "dataset.rows=200", "evaluation.folds=2", "tune.n_trials=3")
    found = []
    for name, engine in (("inline", ()), ("dask", ("engine=dask", "engine.workers=1"))):
        with Command(tmp_path / name, *words, *engine, root=tmp_path) as command:
            check_promise(tmp_path / name, 3, command.ended())
            assert gone(command.session()), "a cluster of its own leaves no process"
        found.append([(trial.params, trial.value) for trial in trials(tmp_path / name)])
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def engines(cluster: Cluster) -> dict[str, tuple[str, ...]]:
    """Return the words of each engine: the default, two processes, the cluster."""
    processes = ("engine=processes", "engine.workers=2")
    return {"inline": (), "processes": processes, "dask": on(cluster)}


@pytest.fixture(scope="module")
def own_process(tmp_path_factory: pytest.TempPathFactory):
    """Yield a folder, and what runs one command after another there, its store in ``home``."""
    root = tmp_path_factory.mktemp("engines")
    churnlab = churnlab_at(root / "home")
    return root, churnlab


@pytest.mark.parametrize(
    ("command", "words", "files", "others"),
    [
        (
            *("train", SMALL_FOREST),
            ("predictions/oof.parquet", "folds.csv", "learning_curve.csv"),
            ("processes",),
        ),
        ("segment", SMALL_SEGMENTS, ("evidence.csv", "segments/members.parquet"), ("dask",)),
        ("claims", SMALL_CLAIMS, ("claims.csv",), ("processes",)),
    ],
)
def test_folds_refits_and_claims_have_the_same_bits_with_every_engine(
    own_process, engines, command, words, files, others
):
    """Processes and Dask workers take the same pickled calls: each command on both of them is left
    to the long form."""
    (root, churnlab), found = own_process, {}
    for name in engines if SOAK else ("inline", *others):
        ended = churnlab(command, "dataset.rows=700", *words, *engines[name])
        assert ended.code == 0, ended.err
        assert "runs in one process" not in ended.err
        run = runs(root / "home", command)[-1]
        found[name] = [
            *[
                {key: made[key] for key in made.keys() - DIFFERS}
                for made in (run.data.metrics, ended.line)
            ],
            *[artifact(run, file).read_bytes() for file in files],
        ]
    for name, of_engine in found.items():
        assert of_engine == found["inline"], name


def test_a_fit_that_fails_is_the_same_paragraph_with_every_engine(own_process, engines):
    root, churnlab = own_process
    model, found = own_model(root, "sleeper", {"x": (0.0, 1.0)}, fails_below=2.0), []
    for name in engines if SOAK else ("inline", "dask"):
        ended = churnlab("train", *model, *engines[name])
        found.append((ended.code, ended.out, ended.err))
    assert found[0][:2] == (1, "")
    assert found == found[:1] * len(found)


def test_a_dask_worker_that_dies_during_a_fold_costs_that_fold_alone_and_changes_no_bit(
    tmp_path, cluster
):
    found = []
    for name, seconds, engine in (("inline", 0.0, ()), ("dask", 0.5, on(cluster))):
        model = own_model(tmp_path, "sleeper", {"x": (0.0, 1.0)}, seconds=seconds)
        words = ("train", *model, "evaluation.repeats=2", "evaluation.early=false", *engine)
        with Command(tmp_path / name, *words, root=tmp_path) as command:
            if engine:
                kill_a_holder(command, cluster, tmp_path)
            ended = command.ended()
        assert ended.code == 0, ended.err
        fits = notes(tmp_path, "sleeper", since=command.started)
        (run,) = runs(tmp_path / name, "train")
        assert run.info.status == "FINISHED"
        files = ("predictions/oof.parquet", "folds.csv")
        found.append([artifact(run, file).read_bytes() for file in files])
    assert "A worker died with its Dask worker; only what it was doing is done again" in ended.err
    assert len(fits) == 4 + 1 + 1, "the folds, one again, the whole"
    assert found[0] == found[1]


def test_a_training_that_loses_its_scheduler_is_one_paragraph_and_can_be_run_again(
    own_process, tmp_path
):
    (root, churnlab), started = own_process, time.time()
    words = ("train", *own_model(root, "sleeper", {"x": (0.0, 1.0)}, seconds=0.5))
    with dask_cluster(tmp_path, workers=1) as mortal, ThreadPoolExecutor() as background:
        training = background.submit(churnlab, *words, *on(mortal))
        until(lambda: training.done() or notes(root, "sleeper", since=started), "a fit")
        mortal.scheduler.kill()
        ended = training.result()
    assert (ended.code, ended.out) == (1, "")
    assert "The Dask scheduler is gone" in ended.err
    assert "Traceback" not in ended.err
    assert runs(root / "home", "train")[-1].info.status == "FAILED"
    again = churnlab(*words)
    assert again.code == 0, again.err
    assert runs(root / "home", "train")[-1].info.status == "FINISHED"


def test_many_files_are_scored_once_each_although_a_dask_worker_is_killed(
    promoted, tmp_path, cluster
):
    home, folder = tmp_path / "home", tmp_path / "members"
    shutil.copytree(promoted.kept, home, dirs_exist_ok=True)
    folder.mkdir()
    table = members(FILES * 50, seed=3).drop(columns="Churn")
    table.insert(0, "card", range(len(table)))
    for number in range(FILES):
        part = table.iloc[number * 50 : (number + 1) * 50]
        part.to_parquet(folder / f"{number:03d}.parquet", index=False)
    words = ("score", f"input={folder}", f"output={tmp_path}/scored.parquet")
    parts = tmp_path / ".scored.parquet.parts"
    churnlab = churnlab_at(home, before=A_FILE_AT_A_TIME)
    with ThreadPoolExecutor() as pool:
        scoring = pool.submit(churnlab, *words, *on(cluster))
        until(lambda: scoring.done() or len(list(parts.glob("0*.json"))) >= 3, "three files")
        assert not scoring.done(), scoring.result()
        os.kill(cluster.pids()[0], signal.SIGKILL)
        assert len(list(parts.glob("0*.json"))) < FILES, "the kill came too late"
        ended = scoring.result()
    assert ended.code == 0, ended.err
    assert ended.line["rows"] == len(table)
    assert pd.read_parquet(tmp_path / "scored.parquet")["card"].tolist() == table["card"].tolist()


def test_without_dask_the_extra_is_named(new_home):
    words = ("train", "-m", "dataset.rows=200", "seed=0,1", "engine=dask")
    ended = run_forked(new_home, *words, before="import sys; sys.modules['distributed'] = None")
    assert (ended.code, ended.out) == (2, "")
    assert (
        "engine=dask needs Dask, which is not installed: pip install 'churnlab[dask]'" in ended.err
    )
    assert not (new_home / "mlflow.db").exists()
