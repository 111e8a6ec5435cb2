"""Tables and documents of runs: read back, never logged, lost or damaged."""

import shutil

import mlflow
import pandas as pd
import pytest

from churnlab.tracking import artifacts
from churnlab.tracking.artifacts import LostFile
from churnlab.tracking.names import Artifact
from support.champions import store_at
from support.running import artifact
from support.stores import write_run

TABLE = pd.DataFrame({"row": [1, 2], "y": [0, 1]})


@pytest.fixture
def run_id(home):
    """The id of a finished train run with two tables and a document."""
    with store_at(home):
        client = mlflow.MlflowClient()
        run_id = write_run(client, "train")
        with mlflow.start_run(run_id=run_id):
            artifacts.log_table(TABLE, Artifact.OOF)
            artifacts.log_table(TABLE, Artifact.FOLDS)
            mlflow.log_dict({"a": 1}, "found.json")
        yield run_id


def test_what_a_run_logged_is_read_back(run_id):
    assert artifacts.read_table(run_id, Artifact.OOF).equals(TABLE)
    assert artifacts.find_table(run_id, Artifact.FOLDS).equals(TABLE)
    assert artifacts.read_json(run_id, "found.json") == {"a": 1}
    assert artifacts.damage(mlflow.get_run(run_id)) is None


def test_a_table_that_was_never_logged_is_none_and_one_that_is_lost_is_not(run_id):
    assert artifacts.find_table(run_id, Artifact.NESTED) is None
    assert artifacts.read_bytes(run_id, "figures/roc.png") is None
    shutil.rmtree(artifact(mlflow.get_run(run_id)))
    for find in (artifacts.find_table, artifacts.read_bytes):
        with pytest.raises(LostFile, match=f"train run {run_id} .* has lost its files in"):
            find(run_id, Artifact.NESTED)


def test_a_lost_file_is_one_paragraph_with_the_run_and_the_repair(run_id):
    artifact(mlflow.get_run(run_id), Artifact.OOF).unlink()
    with pytest.raises(LostFile) as lost:
        artifacts.read_table(run_id, Artifact.OOF)
    message = str(lost.value)
    assert f"train run {run_id}" in message
    assert f"has lost {Artifact.OOF} in" in message
    assert message.endswith(f"mlflow runs delete --run-id {run_id}")
    assert "\n" not in message


@pytest.mark.parametrize("path", [Artifact.OOF, "found.json", Artifact.CONFIG])
def test_a_damaged_file_is_a_loss_too(run_id, path):
    artifact(mlflow.get_run(run_id), path).write_bytes(b"{[: half")
    read = {
        Artifact.OOF: lambda: artifacts.read_table(run_id, Artifact.OOF),
        "found.json": lambda: artifacts.read_json(run_id, "found.json"),
        Artifact.CONFIG: lambda: artifacts.read_config(run_id),
    }
    with pytest.raises(LostFile, match=f"train run {run_id} .* has a damaged {path}"):
        read[path]()
