"""A local store that is moved or copied: its addresses follow it, and nothing else changes."""

import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from churnlab.data.contract import Column, Contract
from churnlab.data.dataset import make_dataset
from churnlab.data.table import in_memory
from churnlab.models.features import Features
from churnlab.models.pipelines import pipeline
from churnlab.registry.model_artifacts import load_pipeline, log_pipeline
from churnlab.tracking import artifacts, moved, store
from churnlab.tracking.artifacts import LostFile
from churnlab.tuning.studies import Local
from support.killing import Command
from support.running import environment, tracked_at

TABLE = pd.DataFrame({"row": [1, 2]})


def open_at(home: Path) -> None:
    store.open_store(None, home=home)


def log_run() -> str:
    """Log a run with a table and a model in the open store; return its id."""
    contract = Contract("demo", "Churn", 1, {"Age": Column(kind="numeric")})
    frame = pd.DataFrame({"Age": [20.0, 30.0, 40.0, 50.0], "Churn": [0, 1, 0, 1]})
    dataset = make_dataset(in_memory(frame, source="invented"), contract)
    fitted = pipeline(
        LogisticRegression(), features=Features(["Age"], {}), columns=contract.columns, scale=True
    ).fit(dataset.X, dataset.y)
    with mlflow.start_run(experiment_id=store.experiment_id("demo-churn")) as run:
        artifacts.log_table(TABLE, "deep/table.parquet")
        log_pipeline(fitted, dataset)
    return run.info.run_id


def read_back(run_id: str) -> None:
    """Read what ``log_run`` logged."""
    assert artifacts.read_table(run_id, "deep/table.parquet").equals(TABLE)
    assert load_pipeline(run_id) is not None


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a home with one run and a registered version, for copying, and the run's id."""
    home = tmp_path_factory.mktemp("original") / "home"
    with tracked_at(home):
        open_at(home)
        run_id = log_run()
        client = mlflow.MlflowClient()
        client.create_registered_model("demo-churn")
        (model,) = mlflow.get_run(run_id).outputs.model_outputs
        client.create_model_version("demo-churn", f"models:/{model.model_id}", run_id=run_id)
        for path in ("there", home / "table.csv"):  # a table in the home moves with it
            with warnings.catch_warnings(action="ignore"):
                table = mlflow.data.from_pandas(TABLE, source=str(path), name=str(path)[-5:])
            with mlflow.start_run(run_id=run_id):
                mlflow.log_input(table)
        (home / "table.csv").write_text("row\n1\n2\n")
    return home, run_id


@pytest.fixture
def copied(original: tuple[Path, str], tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Return a copy of that home at another place, opened by nobody yet, and the run's id."""
    home = tmp_path / "a copy"
    shutil.copytree(original[0], home)
    with tracked_at(home):
        yield home, original[1]


def dump(home: Path) -> str:
    """Return all that a database holds."""
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        return "\n".join(database.iterdump())


def listing(home: Path) -> dict[str, bytes]:
    """Return all files of a home but the database and the locks."""
    files = [path for path in home.rglob("*") if path.is_file()]
    ours = [path for path in files if path.suffix != ".db" and not path.name.startswith(".")]
    return {str(path.relative_to(home)): path.read_bytes() for path in ours}


def test_a_copy_reads_and_writes_only_itself_and_the_original_stays(copied, original, caplog):
    home, run_id = copied
    files, before = listing(original[0]), dump(original[0])
    caplog.set_level("INFO", logger="churnlab")
    open_at(home)
    assert f"This store was in {original[0]}: its addresses now name {home}." in caplog.text
    assert str(original[0]) not in dump(home)
    assert listing(home) == files, "the files of runs, models and versions are never changed"
    source, *_ = [
        found.dataset.source
        for found in mlflow.get_run(run_id).inputs.dataset_inputs
        if "table.csv" in found.dataset.source
    ]
    assert str(home / "table.csv") in source
    shutil.move(original[0], original[0].with_name("away"))
    try:
        read_back(run_id)
        read_back(log_run())
        assert mlflow.pyfunc.load_model("models:/demo-churn/1") is not None
    finally:
        shutil.move(original[0].with_name("away"), original[0])
    assert (listing(original[0]), dump(original[0])) == (files, before)


def test_a_store_that_was_not_moved_is_not_written(copied, caplog):
    home, _ = copied
    open_at(home)
    before = dump(home)
    caplog.clear()
    caplog.set_level("INFO", logger="churnlab")
    open_at(home)
    link = home.with_name("link")
    link.symlink_to(home)
    moved.follow(link / "mlflow.db")  # another name of the same folder
    assert (dump(home), caplog.text) == (before, "")


def test_experiments_of_others_keep_their_place(copied, tmp_path):
    home, _ = copied
    client = mlflow.MlflowClient()
    elsewhere = (tmp_path / "elsewhere/mlartifacts").as_uri()
    theirs = client.create_experiment("theirs", elsewhere)
    run = client.create_run(theirs)
    open_at(home)
    assert client.get_experiment(theirs).artifact_location == elsewhere
    assert client.get_run(run.info.run_id).info.artifact_uri.startswith(elsewhere)


def test_an_experiment_outside_the_store_is_named_before_it_is_written_to(home, caplog, tmp_path):
    with tracked_at(home):
        open_at(home)
        mlflow.MlflowClient().create_experiment("demo-churn", (tmp_path / "far").as_uri())
        store.experiment_id("demo-churn")
    assert f"demo-churn are written to {tmp_path}/far, outside {home}" in caplog.text


def test_files_that_an_earlier_churnlab_wrote_to_the_former_place_are_named(
    copied, original, tmp_path, caplog
):
    home, run_id = copied
    shutil.rmtree(home / "mlartifacts" / run_id)
    open_at(home)
    assert "1 folder of runs or models of this store are still in the former place" in caplog.text
    with pytest.raises(LostFile, match=run_id):
        read_back(run_id)
    command = caplog.text.partition("what is missing here: ")[2].splitlines()[0]
    subprocess.run(shlex.split(command), check=True)
    read_back(run_id)
    assert (original[0] / "mlartifacts" / run_id).is_dir()


DYING = """
import os, signal, sys
from pathlib import Path
from churnlab.tracking import moved
rewriter, seen = moved._rewriter, []
def dying(former, here):
    rewrite = rewriter(former, here)
    def moved(text):
        seen.append(text)
        if len(seen) > 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return rewrite(text)
    return moved
moved._rewriter = dying
moved.follow(Path(sys.argv[1]))
"""


def test_a_kill_during_the_move_leaves_the_old_addresses_and_the_next_command_moves(
    copied, original
):
    home, run_id = copied
    before = dump(original[0])
    words = [sys.executable, "-c", DYING, str(home / "mlflow.db")]
    process = subprocess.run(words, env=environment(home), capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert dump(home) == before
    open_at(home)
    assert str(original[0]) not in dump(home)
    read_back(run_id)


def test_two_commands_that_open_a_moved_store_at_once_both_work(copied, original):
    home, _ = copied
    with Command(home, "doctor") as one, Command(home, "doctor") as other:
        ended = [one.ended(), other.ended()]
    assert [end.code for end in ended] == [0, 0], [end.err for end in ended]
    assert str(original[0]) not in dump(home)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_moved_store_that_cannot_be_written_is_read_with_a_warning(copied, caplog):
    home, _ = copied
    (home / "mlflow.db").chmod(0o400)
    open_at(home)
    assert "cannot be written" in caplog.text


ODD = [
    " ",
    "#",
    "?",
    "100%",
    "[a]",
    "{b}",
    "(c)",
    "'",
    '"',
    "ü",
    "клиент",
    "$HOME",
    "&",
    ";",
    "*",
    "+",
    "=",
    ",",
]


ALL_ODD = "".join(ODD)
CREATED = ("?", ALL_ODD)
"""Names of which a new store is made, which takes a second; the others are of moved ones. A ? has
no meaning after the # in all of them."""


@pytest.mark.parametrize("name", [*ODD, ALL_ODD])
def test_a_home_of_any_name_keeps_runs_models_and_studies_and_can_be_moved(
    tmp_path, original, name
):
    home = tmp_path / "new" / f"a{name}b"
    if name not in CREATED:
        shutil.copytree(original[0], home)
    with tracked_at(home):
        open_at(home)
        run_id = log_run()
        read_back(run_id)
        Local(str(home / "studies")).open("s").get_all_studies()
        assert Local(str(home / "studies")).names() == ["s"]
    assert [path.name for path in home.parent.iterdir()] == [home.name]
    there = tmp_path / "moved" / f"c{name}d"
    there.parent.mkdir()
    home.rename(there)
    with tracked_at(there):
        open_at(there)
        read_back(run_id)
        read_back(log_run())
    assert not home.exists()
    assert [path.name for path in there.parent.iterdir()] == [there.name]


@pytest.mark.parametrize("name", ["a%20b", "100%25", "%C3%BC"])
def test_a_home_whose_name_mlflow_would_misread_is_refused_before_anything_is_written(
    tmp_path, run_command, name
):
    ended = run_command(tmp_path / name, "train", "dataset.rows=300", "model=dummy")
    assert (ended.code, ended.out) == (2, "")
    assert "reads as an escaped character" in ended.err
    assert not (tmp_path / name / "mlflow.db").exists()
