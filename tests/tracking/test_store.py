"""The store on disk: processes at once, kills while it is created, and unusable addresses."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from churnlab.errors import InputError
from churnlab.tracking import store
from churnlab.tuning.studies import Local
from support.killing import Command
from support.running import folder, run_forked, tracked_at
from support.soak import SOAK

SMALL = ("dataset.rows=300", "evaluation.folds=2", "model=dummy")


@pytest.fixture
def home(new_home: Path) -> Path:
    """Return a home without a store: how one is made is tested here."""
    return new_home


def finished(home: Path, runs_at) -> int:
    statuses = [run.info.status for run in runs_at(home)]
    assert set(statuses) <= {"FINISHED"}
    return len(statuses)


@pytest.mark.parametrize("many", [2, pytest.param(6 if SOAK else 4, marks=pytest.mark.slow)])
def test_trainings_that_start_at_once_on_an_empty_home_all_finish(home, runs_at, client_at, many):
    with ExitStack() as opened:
        seeds = [f"seed={seed}" for seed in range(1, many + 1)]
        started = [opened.enter_context(Command(home, "train", *SMALL, seed)) for seed in seeds]
        ended = [command.ended() for command in started]
    assert [end.code for end in ended] == [0] * many, [end.err for end in ended]
    assert finished(home, runs_at) == many == len({end.line["run_id"] for end in ended})
    assert len(client_at(home).search_experiments(filter_string="name LIKE 'demo-%'")) == 1
    assert not list(home.glob("*.tmp*"))


@pytest.mark.slow
def test_a_kill_while_the_store_is_created_leaves_one_that_the_next_run_can_use(
    home, run_command, runs_at
):
    for delay in (0.0, 0.1, 0.2):  # the schema takes about a second to build
        with Command(home, "history") as command:
            being_built = home / f"mlflow.db.{command.process.pid}.tmp"
            assert command.until(being_built.exists, "the schema"), command.err
            time.sleep(delay)
            command.kill()
        assert not (home / "mlflow.db").exists()
    ended = run_command(home, "train", *SMALL)
    assert ended.code == 0, ended.err
    assert finished(home, runs_at) == 1
    assert not list(home.glob("*.tmp*"))


IN_A_COMMIT = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("pragma cache_size = 2")  # pages: it writes to the file before the commit
database.execute("begin")
rows = [(str(i) * 200,) for i in range(2000)]
database.executemany("insert into experiment_tags values (?, 'long', 0)", rows)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_store_that_was_killed_during_a_commit_is_intact_for_the_next_command(home, run_command):
    ended = run_command(home, "train", *SMALL)
    assert ended.code == 0, ended.err
    process = subprocess.run([sys.executable, "-c", IN_A_COMMIT, home / "mlflow.db"])
    assert process.returncode == -signal.SIGKILL
    assert (home / "mlflow.db-journal").stat().st_size, "the kill left nothing to roll back"
    examined = run_command(home, "doctor")
    assert (examined.code, examined.line["problems"]) == (0, []), examined.err


@pytest.mark.slow
def test_the_tracking_uri_of_the_environment_wins_and_artifacts_are_next_to_its_store(
    home, runs_at, tmp_path
):
    other = tmp_path / "other home"
    ended = run_forked(home, "train", *SMALL, MLFLOW_TRACKING_URI=f"sqlite:///{other}/mlflow.db")
    assert ended.code == 0, ended.err
    assert not (home / "mlflow.db").exists()
    (run,) = runs_at(other)
    assert run.info.run_id == ended.line["run_id"]
    assert (other / "mlartifacts") in folder(run.info.artifact_uri).parents
    assert not list(tmp_path.rglob("mlruns"))


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["tracking.uri=file:///tmp/mlruns"], {}),
        ([], {"MLFLOW_TRACKING_URI": "./mlruns"}),
    ],
)
def test_a_store_of_files_is_refused(home, words, settings):
    ended = run_forked(home, "train", *SMALL, *words, **settings)
    assert (ended.code, ended.out) == (2, "")
    assert "a folder of files" in ended.err
    assert "sqlite:////absolute/path/mlflow.db" in ended.err
    assert len(ended.err.splitlines()) == 1


def listing(home: Path) -> dict[str, bytes]:
    """Return the files in a folder with their content, and its folders."""
    return {
        str(path.relative_to(home)): path.read_bytes() if path.is_file() else b"folder"
        for path in home.rglob("*")
    }


@pytest.mark.parametrize("content", [b"\x9f\x01" * 2500, b"", None])
def test_a_file_or_folder_that_is_no_database_of_mlflow_is_refused_and_left_alone(home, content):
    home.mkdir()
    (home / "mlflow.db").mkdir() if content is None else (home / "mlflow.db").write_bytes(content)
    before = listing(home)
    with pytest.raises(InputError, match=r"mlflow.db is not a database .* churnlab doctor says"):
        store.open_store(f"sqlite:///{home}/mlflow.db", home=home)
    assert listing(home) == before


class Stranger(BaseHTTPRequestHandler):
    """A web server that knows nothing of MLflow."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("foo://bar", "foo://bar is not the address of a store"),
        ("http://127.0.0.1:9", "No MLflow server answers at http://127.0.0.1:9"),
        ("http://127.0.0.1:{stranger}", "No MLflow server answers at http://127.0.0.1:"),
    ],
)
def test_an_address_where_no_store_answers_is_refused_within_seconds(home, uri, message):
    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started = time.monotonic()
        with pytest.raises(InputError, match=message):
            store.open_store(uri.format(stranger=server.server_port), home=home)
        assert time.monotonic() - started < 10
        server.shutdown()
    assert not home.exists()


def test_a_file_in_the_place_of_a_folder_is_refused_before_a_run_is_opened(home):
    home.mkdir()
    for name in ("mlartifacts", "studies"):
        (home / name).write_text("not a folder")
    with tracked_at(home):
        store.open_store(f"sqlite:///{home}/mlflow.db", home=home)
        with pytest.raises(InputError, match="written to .*mlartifacts .it is a file., .*HOME"):
            store.experiment_id("demo-churn")
    with pytest.raises(InputError, match="written to .*studies .it is a file., .*HOME"):
        Local(str(home / "studies")).locked("s").__enter__()
    assert {(home / name).read_text() for name in ("mlartifacts", "studies")} == {"not a folder"}


@pytest.mark.parametrize("words", [["train"], ["train", "-m", "seed=1,2"]])
def test_a_home_that_cannot_be_written_is_refused_before_any_work(tmp_path, run_command, words):
    (tmp_path / "file").write_text("not a folder")
    ended = run_command(tmp_path / "file" / "home", *words, *SMALL)
    assert (ended.code, ended.out) == (2, "")
    assert f"Nothing can be written to {tmp_path}/file/home" in ended.err
    assert "CHURNLAB_HOME" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_without_permission_is_refused_before_any_work(home, run_command):
    home.mkdir(mode=0o500)
    ended = run_command(home, "train", *SMALL)
    assert (ended.code, ended.out) == (2, "")
    assert f"Nothing can be written to {home}" in ended.err
