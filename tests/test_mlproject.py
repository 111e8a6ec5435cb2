"""``mlflow run``: the same commands, as a project of MLflow's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from churnlab.cli.help import commands
from support.running import environment, wait

PROJECT = Path(__file__).parents[1]
SMALL = "model=random_forest seed=3 dataset.rows=400 evaluation.folds=2"


def test_every_command_is_an_entry_point_and_the_main_one_is_the_pipeline():
    entries = yaml.safe_load((PROJECT / "MLproject").read_text(encoding="utf-8"))["entry_points"]
    assert sorted(entries) == sorted(["main", *commands()])
    for name, entry in entries.items():
        command = "pipeline" if name == "main" else name
        assert entry["command"].endswith(f"python -m churnlab.mlproject {command} {{overrides}}")
        assert entry["parameters"] == {"overrides": {"type": "string", "default": ""}}


def mlflow_run(project: str, place: Path, *words: str):
    """Run ``mlflow run`` from a place, which has then a store; nothing else is configured but
    CHURNLAB_HOME."""
    place.mkdir(parents=True, exist_ok=True)
    scripts = Path(sys.executable).parent
    settings = environment(place) | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    process = subprocess.Popen(
        [str(scripts / "mlflow"), "run", project, "--env-manager", "local", *words],
        cwd=place,
        env=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return wait(process)


def stores(place: Path) -> set[str]:
    return {
        str(path.relative_to(place))
        for path in place.rglob("*")
        if path.name in ("mlflow.db", "mlruns")
    }


@pytest.fixture(scope="module")
def by_hand(shared_home, run_command, runs_at):
    ended = run_command(shared_home, "train", *SMALL.split())
    assert ended.code == 0, ended.err
    (run,) = runs_at(shared_home, command="train")
    return run


@pytest.mark.slow
def test_a_project_run_from_elsewhere_is_the_same_as_the_command(
    tmp_path, by_hand, runs_at, client_at
):
    ended = mlflow_run(str(PROJECT), tmp_path, "-e", "train", "-P", f"overrides={SMALL}")
    assert ended.code == 0, ended.err
    (run,) = runs_at(tmp_path, command="train")
    same = (
        "churnlab.config_sha256",
        "churnlab.data_sha256",
        "churnlab.split_sha256",
        "churnlab.code_sha256",
    )
    assert [run.data.tags[tag] for tag in same] == [by_hand.data.tags[tag] for tag in same]
    metrics = [
        {name: value for name, value in other.data.metrics.items() if "seconds" not in name}
        for other in (run, by_hand)
    ]
    assert metrics[0] == metrics[1]
    outer = client_at(tmp_path).get_run(run.data.tags["mlflow.parentRunId"])
    assert (run.info.status, outer.info.status) == ("FINISHED", "FINISHED")
    assert outer.data.tags["mlflow.project.entryPoint"] == "train"
    assert outer.data.tags.get("churnlab.command") is None, "the outer run is MLflow's own"
    assert stores(tmp_path) == {"mlflow.db"}


@pytest.mark.slow
def test_a_project_run_in_its_folder_takes_no_overrides_and_a_named_experiment(
    tmp_path, runs_at, client_at
):
    (tmp_path / "src").symlink_to(PROJECT / "src")
    for name in ("MLproject", "python_env.yaml", "conf", "experiments"):
        (tmp_path / name).symlink_to(PROJECT / name)
    ended = mlflow_run(".", tmp_path, "-e", "explore", "--experiment-name", "mine")
    assert ended.code == 0, ended.err
    (run,) = runs_at(tmp_path, command="explore")
    client = client_at(tmp_path)
    outer = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert (run.info.status, outer.info.status) == ("FINISHED", "FINISHED")
    assert client.get_experiment(run.info.experiment_id).name == "demo-explore"
    assert client.get_experiment(outer.info.experiment_id).name == "mine"
    assert stores(tmp_path) == {"mlflow.db"}


@pytest.mark.slow
def test_a_sweep_in_a_project_run_has_its_own_parent_even_when_its_first_job_is_wrong(
    tmp_path, runs_at, client_at
):
    overrides = "-m seed=wrong,1 dataset.rows=300 evaluation.folds=2 run_name='two words'"
    ended = mlflow_run(str(PROJECT), tmp_path, "-e", "train", "-P", f"overrides={overrides}")
    assert ended.code == 1
    assert "1 of 2 jobs failed" in ended.err
    (parent,) = runs_at(tmp_path, command="sweep")
    assert sorted(run.info.status for run in runs_at(tmp_path, command="train")) == [
        "FAILED",
        "FINISHED",
    ]
    assert {run.info.run_name for run in runs_at(tmp_path, command="train")} == {"two words"}
    outer = client_at(tmp_path).get_run(parent.data.tags["mlflow.parentRunId"])
    assert (parent.info.status, outer.info.status) == ("FAILED", "FAILED")
    assert outer.data.tags.get("churnlab.command") is None
    assert stores(tmp_path) == {"mlflow.db"}
