"""Open the store, and create its schema and experiments, one process at a time."""

from __future__ import annotations

import glob
import logging
import os
import re
import shlex
import sqlite3
import tempfile
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException

from churnlab.errors import InputError
from churnlab.tracking import moved, server
from churnlab.tracking.moved import ARTIFACTS, local_path
from churnlab.tracking.processes import hold, release

log = logging.getLogger(__name__)

SQLITE = "sqlite:///"

LOCK = ".store.lock"
"""The file in the store's folder that is locked while its schema or an experiment is created."""

SERVERS = ("http://", "https://", "postgresql", "mysql", "mssql")
"""What the other addresses that MLflow accepts as a store begin with."""

ABOUT = {
    "churn": (
        "Models of who leaves. Compare the columns cv_log_loss and cv_roc_auc; the tags model and "
        "features say what was trained. Studies and sweeps carry the scores of their best run."
    ),
    "segments": "Kinds of members: how many, how stable, and what each is like (segments.csv).",
    "explore": "The table: its quality, who leaves, and which columns say something about it.",
    "promotions": "What the gate decided: the tag verdict, and every check in gate.json.",
}
"""The descriptions of experiments, by the end of their names."""

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""The MLflow UI opens such an experiment on its runs; without the tag it opens on a page about
language models."""


def locate(uri: str | None, *, home: Path) -> tuple[str, Path]:
    """Return the absolute address of the store and its folder (``home`` for a server).

    ``MLFLOW_TRACKING_URI`` wins over ``uri``; without both, the store is mlflow.db in ``home``.
    Raises InputError for MLflow's old file store, for what is no address of a store, and for a path
    that MLflow misreads.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or uri
    if not uri or uri.startswith(SQLITE):
        path = sqlite_path(uri) if uri else home / "mlflow.db"
        if escaped := re.search("%[0-9A-Fa-f]{2}", str(path)):
            raise InputError(
                f"The path of the store, {path}, contains {escaped[0]}, which MLflow reads as an "
                "escaped character, so that it would not find its own files; rename the folder, or "
                "set CHURNLAB_HOME to another."
            )
        return sqlite_uri(path), path.parent
    if not uri.startswith(SERVERS):
        raise InputError(
            f"tracking.uri={uri} is not the address of a store, or it is a folder of files, which "
            "MLflow no longer supports; use sqlite:////absolute/path/mlflow.db, or the address of "
            "an MLflow server."
        )
    server.check_address(uri)
    return uri, home


def sqlite_uri(path: Path) -> str:
    """Return the address of a SQLite file: its plain path, unless a question mark is in it.

    >>> sqlite_uri(Path("/my homes/#1/mlflow.db")), sqlite_uri(Path("/mine?/mlflow.db"))
    ('sqlite:////my homes/#1/mlflow.db', 'sqlite:////mine%3F%2Fmlflow.db')
    """
    text = str(path.absolute())
    if "?" not in text:
        return f"{SQLITE}{text}"
    # Slashes, too: MLflow makes the folder that it sees in the address, escaped as it is.
    return f"{SQLITE}/{quote(text[1:], safe=' ')}"


def sqlite_path(uri: str) -> Path:
    """Return the absolute path of a SQLite file from its address."""
    return Path(unquote(uri.removeprefix(SQLITE).partition("?")[0])).absolute()


def open_store(uri: str | None, *, home: Path) -> None:
    """Point MLflow at the store; create its schema if it is new, also when processes start at once.

    A store that exists can be read without permission to write. Raises InputError for one that
    cannot be used: a wrong address, no answer, another schema, no room for a new store.
    """
    uri, home = locate(uri, home=home)
    if uri.startswith(SQLITE):
        path = sqlite_path(uri)
        if not path.exists():
            check_writable(home)
            with FileLock(home / LOCK):
                _create_sqlite(path)
        found, expected = schemas(path)
        if found != expected:
            raise InputError(
                f"{path} is not a database that this MLflow can use: churnlab doctor says what is "
                "wrong and how to repair it. Or choose another store: tracking.uri=sqlite:///FILE."
            )
    point_at(uri, home=home)


def point_at(uri: str, *, home: Path) -> None:
    """Point MLflow, and all code that reads CHURNLAB_STORE, at the store, also if it was moved.

    Raises InputError for a server that does not answer.
    """
    if uri.startswith("http"):
        server.check(uri)
    if uri.startswith(SQLITE):
        moved.follow(sqlite_path(uri))
        _let_signals_wait()
    mlflow.set_tracking_uri(uri)
    os.environ["CHURNLAB_STORE"] = str(home)


@cache
def _let_signals_wait() -> None:
    """Let a signal wait for the end of a transaction.

    One that is broken off in SQLAlchemy's code keeps its connection, which locks the database when
    the run is to be ended.
    """
    from sqlalchemy import event
    from sqlalchemy.orm import Session

    event.listen(Session, "after_transaction_create", hold)
    event.listen(Session, "after_transaction_end", release)


def schemas(path: Path) -> tuple[str | None, str]:
    """Return the schema version of a database (None if it has none) and the one MLflow expects."""
    from mlflow.store.db.utils import _get_latest_schema_revision

    try:
        with moved.connect(path) as database:
            found = database.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorname.startswith(("SQLITE_BUSY", "SQLITE_IOERR", "SQLITE_FULL")):
            raise  # another process writes, or the disk fails: this says nothing of the file
        found = None
    return found and found[0], _get_latest_schema_revision()


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written, before the work and not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise InputError(
            f"Nothing can be written to {folder} ({reason}), a folder that churnlab needs; "
            "repair it, or set CHURNLAB_HOME to a folder that you can write to."
        ) from error


def _create_sqlite(path: Path) -> None:
    """Create the schema in a temporary file and rename it: a kill leaves no broken store."""
    for left_over in path.parent.glob(f"{glob.escape(path.name)}.*.tmp*"):
        left_over.unlink()
    if path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    building = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    store = SqlAlchemyStore(sqlite_uri(building), (path.parent / ARTIFACTS).as_uri())
    store.engine.dispose()
    os.replace(building, path)


def experiment_id(name: str) -> str:
    """Return the id of an experiment; create a new one with its artifacts next to the store.

    InputError: nothing can be written to the store.
    """
    client = mlflow.MlflowClient()
    home = Path(os.environ["CHURNLAB_STORE"])
    served = mlflow.get_tracking_uri().startswith("http")
    if not served:
        check_writable(home / ARTIFACTS)
    with nullcontext() if served else FileLock(home / LOCK):
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                location = None if served else (home / ARTIFACTS).as_uri()
                about = {"mlflow.note.content": ABOUT.get(name.rpartition("-")[2], "")}
                return client.create_experiment(name, location, tags=EXPERIMENT_TAGS | about)
            except MlflowException:
                # A server has no lock of ours: another client may have created it first.
                found = client.get_experiment_by_name(name)
                if found is None:
                    raise
    if found.lifecycle_stage != "active":
        raise InputError(
            f"The experiment {name} has been deleted in the store; restore it: "
            f"{restore('experiment', found.experiment_id)}"
        )
    place = None if served else local_path(found.artifact_location)
    if (
        place is not None
        and not place.is_relative_to(home)
        and not place.resolve().is_relative_to(home.resolve())
    ):
        log.warning("warning: the artifacts of %s are written to %s, outside %s", name, place, home)
    return found.experiment_id


def restore(kind: str, number: str) -> str:
    """Return the command that restores a deleted run or experiment in this store."""
    return store_command(kind, "restore", number)


def store_command(kind: str, action: str, number: str) -> str:
    """Return the command of MLflow that restores or deletes a run or experiment in this store."""
    uri = shlex.quote(mlflow.get_tracking_uri())
    return f"MLFLOW_TRACKING_URI={uri} mlflow {kind}s {action} --{kind}-id {number}"


def is_local() -> bool:
    """Return whether the store is a file of this machine, and no server that others write to."""
    return mlflow.get_tracking_uri().startswith(SQLITE)


def ui_command(tools: Path | None = None) -> str:
    """Return the command that opens MLflow's UI on this store; "" for a server, which is one.

    ``tools`` is the folder of the program mlflow, if it may not be on the path.
    """
    uri = mlflow.get_tracking_uri()
    program = "mlflow" if tools is None else shlex.quote(str(tools / "mlflow"))
    return "" if uri.startswith("http") else f"{program} ui --backend-store-uri {shlex.quote(uri)}"
