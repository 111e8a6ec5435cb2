"""What doctor finds among models, parents, children and files: real stores with one fault each."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from zipfile import ZipFile

import mlflow
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from churnlab.data.contract import Column, Contract
from churnlab.data.dataset import make_dataset
from churnlab.data.table import in_memory
from churnlab.doctor import store as doctor
from churnlab.doctor.store import leftover_files, schema_problems
from churnlab.errors import InputError
from churnlab.models.features import Features
from churnlab.models.pipelines import pipeline
from churnlab.registry.model_artifacts import load_pipeline, log_pipeline
from churnlab.tracking import processes, store
from support.running import artifact
from support.stores import status, write_run, write_version

# Models


def test_a_ready_model_without_files_is_reported(client, kinds):
    run_id = write_run(client, "train", status="FINISHED")
    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment, name="model", source_run_id=run_id)
    client.finalize_logged_model(model.model_id, "READY")
    assert kinds(fix=True) == ["model without files"]


def test_what_a_promotion_or_a_deleted_run_logged_needs_no_files_of_its_own(client, kinds):
    for command in ("promote", "train"):
        run_id = write_run(client, command, status="FINISHED")
        experiment = client.get_run(run_id).info.experiment_id
        model = client.create_logged_model(experiment, name="model", source_run_id=run_id)
        client.finalize_logged_model(model.model_id, "READY")
    assert kinds() == ["model without files"]
    client.delete_run(run_id)
    assert kinds() == []


@pytest.fixture
def skops_file(client, here) -> tuple[str, Path]:
    """Log a real churn pipeline; return the run's id and the skops file."""
    frame = pd.DataFrame({"Age": [20.0, 30.0, 40.0, 50.0], "Churn": [0, 1, 0, 1]})
    contract = Contract("demo", "Churn", 1, {"Age": Column(kind="numeric")})
    dataset = make_dataset(in_memory(frame, source="invented"), contract)
    model = pipeline(
        LogisticRegression(), features=Features(["Age"], {}), columns=contract.columns, scale=True
    )
    run_id = write_run(client, "train")
    with mlflow.start_run(run_id=run_id):
        log_pipeline(model.fit(dataset.X, dataset.y), dataset)
    (file,) = here.rglob("*.skops")
    return run_id, file


def rewrite_schema(file: Path, old: str, new: str) -> None:
    """Replace a text in the schema inside a skops file."""
    with ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    schema = parts["schema.json"].decode()
    assert old in schema
    parts["schema.json"] = schema.replace(old, new).encode()
    with ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def test_a_model_saved_by_an_earlier_layout_is_a_problem_of_its_own(skops_file, problems):
    run_id, file = skops_file
    assert problems() == []
    assert load_pipeline(run_id) is not None
    rewrite_schema(file, '"churnlab.models.features"', '"churnlab.features"')
    (problem,) = problems(fix=True)
    assert (problem.kind, problem.where) == ("models of an earlier layout", run_id)
    assert problem.what.startswith(
        "1 model saved by an earlier layout of churnlab cannot be loaded"
    )
    assert problem.what.endswith("no module churnlab.features")
    assert problem.fix.startswith("train again; promote the new run")


@pytest.mark.parametrize(
    "trusted", ["churnlab.features.Features", "churnlab.models.features.Features"]
)
def test_a_model_saved_by_an_earlier_layout_is_refused_in_one_paragraph(skops_file, trusted):
    """Also if MLflow's list of trusted types does not have the old name."""
    run_id, file = skops_file
    rewrite_schema(file, '"churnlab.models.features"', '"churnlab.features"')
    described = file.with_name("MLmodel").read_text()
    file.with_name("MLmodel").write_text(
        described.replace("churnlab.models.features.Features", trusted)
    )
    with pytest.raises(InputError, match="saved by an earlier layout of churnlab") as refused:
        load_pipeline(run_id)
    assert run_id in str(refused.value)
    assert "Train it again" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_damaged_model_file_is_reported(skops_file, problems):
    run_id, file = skops_file
    file.write_bytes(file.read_bytes()[:100])
    (problem,) = problems(fix=True)
    assert (problem.kind, problem.where) == ("damaged model", run_id)
    again = f"churnlab reproduce run={run_id} replaces it"
    assert problem.fix == f"{again}; delete it in the MLflow UI after that"


# Lost files


def test_a_finished_run_that_lost_files_is_reported_with_the_command_that_removes_it(
    client, problems
):
    kept, gone, part = [write_run(client, "train", status="FINISHED") for _ in range(3)]
    shutil.rmtree(artifact(client.get_run(gone)))
    artifact(client.get_run(part), "predictions/oof.parquet").unlink()
    found = {problem.where: problem for problem in problems(fix=True)}
    assert set(found) == {gone, part}
    assert {problem.kind for problem in found.values()} == {"run without files"}
    assert f"train run {gone}" in found[gone].what
    assert "has lost its files in" in found[gone].what
    assert "has lost predictions/oof.parquet in" in found[part].what
    assert f"mlflow runs delete --run-id {gone}" in found[gone].fix
    assert "fix=true leaves it" in found[gone].fix
    client.delete_run(gone)
    client.delete_run(part)
    assert problems() == []
    assert client.get_run(kept).info.status == "FINISHED"


def test_a_run_that_did_not_finish_has_no_files_to_lose(client, kinds):
    run_id = write_run(client, "train", status="KILLED")
    shutil.rmtree(artifact(client.get_run(run_id)))
    assert kinds() == []


def test_a_study_that_lost_its_file_is_reported_and_its_outer_folds_are_not(client, problems, here):
    outer = write_run(client, "tune", status="FINISHED", study="s", study_id="1")
    write_run(client, "trial", status="FINISHED", parent=outer, trial="0")
    inner = write_run(
        client, "tune", status="FINISHED", study="s-1", study_id="2", outer_fold="1 of 5"
    )
    write_run(client, "trial", status="FINISHED", parent=inner, trial="0")
    assert problems() == []
    shutil.rmtree(here / "studies")
    (problem,) = problems(fix=True)
    assert (problem.kind, problem.where) == ("lost study", outer)
    assert problem.what.startswith(f"the study s of run {outer} has lost its file in")
    assert "run the same tune command again" in problem.fix


# Parents and children


def test_children_of_a_deleted_run_are_one_problem_with_the_command_that_restores_it(
    client, problems
):
    parent = write_run(client, "tune", status="FINISHED", study="s", study_id="1")
    for number in range(3):
        write_run(client, "trial", status="FINISHED", parent=parent, trial=str(number))
    write_run(client, "train", status="FINISHED", parent=parent)
    assert problems() == []
    client.delete_run(parent)
    (problem,) = problems(fix=True)
    assert (problem.kind, problem.where) == ("orphaned runs", parent)
    assert "4 runs (train, trial)" in problem.what
    assert f"mlflow runs restore --run-id {parent}" in problem.fix


def test_children_of_a_foreign_run_have_a_parent(client, problems):
    outer = client.create_run(store.experiment_id("mlflow-run")).info.run_id
    write_run(client, "train", status="FINISHED", parent=outer)
    assert problems() == []


def test_orphaned_runs_are_found_among_many_studies_too(client, kinds, monkeypatch):
    parents = [
        write_run(client, "tune", status="FINISHED", study=str(n), study_id="1") for n in range(4)
    ]
    for parent in parents:
        write_run(client, "trial", status="FINISHED", parent=parent, trial="0")
    client.delete_run(parents[0])
    assert kinds() == ["orphaned runs"]
    monkeypatch.setattr(doctor, "MAX_CONDITIONS", 2)
    assert kinds() == ["orphaned runs"]


def test_a_study_without_its_best_run_and_a_pipeline_without_runs_are_reported(
    client, problems, kinds
):
    best = write_run(client, "train", status="FINISHED")
    parent = write_run(client, "tune", status="FINISHED", study="s", study_id="1", best_run_id=best)
    write_run(client, "trial", status="FINISHED", parent=parent, trial="0")
    assert problems() == []
    client.delete_run(best)
    write_run(client, "pipeline", status="FINISHED")
    assert kinds() == ["parent without children"] * 2


# What is not ours, and files


def test_foreign_runs_models_and_versions_are_left_alone(client, problems, here):
    experiment = client.create_experiment("theirs", (here / "theirs").as_uri())
    run = client.create_run(experiment, tags={"mlflow.parentRunId": "0" * 32})
    client.create_logged_model(experiment, name="model", source_run_id=run.info.run_id)
    version = write_version(client, here, name="telco-churn")
    client.set_registered_model_alias("telco-churn", "champion", version)
    shutil.rmtree(here / "versions")
    write_run(client, "train", status="FINISHED")
    assert problems(fix=True, elsewhere=True) == []
    assert status(client, run.info.run_id) == "RUNNING"


def test_unknown_folders_are_reported_and_kept(client, problems, here):
    known = write_run(client, "train", status="FINISHED")
    deleted = write_run(client, "train", status="FINISHED")
    client.delete_run(deleted)
    root = here / "mlartifacts"
    for name in (known, deleted, "f" * 32, "models/m-" + "e" * 32, "7"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (problem,) = problems(fix=True)
    assert (problem.kind, problem.where) == ("unknown folders", str(root))
    assert "2 folders" in problem.what
    assert (root / ("f" * 32)).is_dir()


def test_temporary_files_of_dead_processes_are_removed(here, dead):
    (here / "outputs").mkdir()
    gone, alive = dead.split()[1], os.getpid()
    files = [here / f"mlflow.db.{{}}.tmp{end}" for end in ("", "-journal")]
    files += [here / "outputs/.{}.report.html"]
    for file in files:
        for pid in (gone, alive):
            Path(str(file).format(pid)).write_text("half")
    found = list(leftover_files(here, here / "mlflow.db"))
    assert sorted(problem.where for problem in found) == sorted(
        str(file).format(gone) for file in files
    )
    for problem in found:
        problem.repair()
    assert list(leftover_files(here, here / "mlflow.db")) == []
    assert len(list(here.glob("mlflow.db.*.tmp*"))) == 2


def test_what_a_dead_process_was_logging_is_removed_and_what_a_living_one_logs_is_not(
    client, here, dead, problems
):
    living = write_run(client, "train", process=processes.process())
    ended = write_run(client, "segment", process=dead, status="FINISHED")
    open_one = write_run(client, "promote", process=dead)
    model = client.create_logged_model(
        client.get_run(open_one).info.experiment_id, name="bundle", source_run_id=open_one
    )
    folders = {name: artifact(client.get_run(name)) for name in (living, ended, open_one)}
    folders["model"] = here / "mlartifacts/models" / model.model_id / "artifacts"
    for folder in folders.values():
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        (folder / "figures/.artifact.uploading.abc").write_text("half")
    found = [each.where for each in problems() if each.kind == "leftover file"]
    assert len(found) == 3
    assert problems(fix=True) == []
    assert [*here.rglob(".artifact.uploading.*")] == [
        folders[living] / "figures/.artifact.uploading.abc"
    ]


def test_a_store_with_another_schema_is_reported_with_the_upgrade_command(here):
    path = here / "mlflow.db"
    found, expected = store.schemas(path)
    assert list(schema_problems(path, found, expected)) == []
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'abc'")
    (problem,) = schema_problems(path, *store.schemas(path))
    assert problem.kind == "incompatible schema"
    assert "version abc" in problem.what
    assert f"mlflow db upgrade sqlite:///{path}" in problem.fix
    path.write_bytes(b"")
    assert store.schemas(path)[0] is None
    (problem,) = schema_problems(path, None, expected)
    assert problem.what == "this file cannot be read as a database of MLflow"
