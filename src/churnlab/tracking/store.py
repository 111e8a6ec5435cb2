"""Open the store, and create its schema and experiments, one process at a time."""

from __future__ import annotations

import os
import shlex
import sqlite3
import tempfile
from contextlib import closing, nullcontext
from pathlib import Path
from urllib.parse import quote

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request_safe

from churnlab.errors import InputError

SQLITE = "sqlite:///"

LOCK = ".store.lock"
"""The file in the store's folder that is locked while its schema or an experiment is created."""

SERVERS = ("http://", "https://", "postgresql", "mysql", "mssql")
"""What the other addresses that MLflow accepts as a store begin with."""

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""The MLflow UI opens such an experiment on its runs; without the tag it opens on a page about
language models."""


def locate(uri: str, *, home: Path) -> tuple[str, Path]:
    """Return the absolute address of the store and its folder (``home`` for a server).

    ``MLFLOW_TRACKING_URI`` wins over ``uri``. Raises InputError for MLflow's old file store and for
    what is no address of a store.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or uri
    if uri.startswith(SQLITE):
        path = Path(uri.removeprefix(SQLITE)).absolute()
        return f"{SQLITE}{path}", path.parent
    if not uri.startswith(SERVERS):
        raise InputError(
            f"tracking.uri={uri} is not the address of a store, or it is a folder of files, which "
            "MLflow no longer supports; use sqlite:////absolute/path/mlflow.db, or the address of "
            "an MLflow server."
        )
    return uri, home


def open_store(uri: str, *, home: Path) -> None:
    """Point MLflow at the store; create its schema if it is new, also when processes start at once.

    A store that exists can be read without permission to write. Raises InputError for one that
    cannot be used: a wrong address, no answer, another schema, no room for a new store.
    """
    uri, home = locate(uri, home=home)
    if uri.startswith(SQLITE):
        path = Path(uri.removeprefix(SQLITE))
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
    """Point MLflow, and all code that reads CHURNLAB_STORE, at the store.

    Raises InputError for a server that does not answer.
    """
    if uri.startswith("http"):
        _check_server(uri)
    mlflow.set_tracking_uri(uri)
    os.environ["CHURNLAB_STORE"] = str(home)


def schemas(path: Path) -> tuple[str | None, str]:
    """Return the schema version of a database (None if it has none) and the one MLflow expects."""
    from mlflow.store.db.utils import _get_latest_schema_revision

    # Not mode=ro: a kill during a commit leaves a journal, which a read-only connection can neither
    # roll back nor ignore.
    address = f"file:{quote(str(path))}?mode=rw"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=60)) as database:
            found = database.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorname.startswith(("SQLITE_BUSY", "SQLITE_IOERR", "SQLITE_FULL")):
            raise  # another process writes, or the disk fails: this says nothing of the file
        found = None
    return found and found[0], _get_latest_schema_revision()


def _check_server(uri: str) -> None:
    """Refuse a server that does not answer within 10 seconds; MLflow would try for minutes."""
    search = (get_default_host_creds(uri), "/api/2.0/mlflow/experiments/search", "GET")
    try:
        http_request_safe(*search, params={"max_results": 1}, max_retries=0, timeout=10)
    except MlflowException:
        raise InputError(
            f"No MLflow server answers at {uri}. Start it or correct the address: tracking.uri, or "
            "MLFLOW_TRACKING_URI, which wins."
        ) from None


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
    for left_over in path.parent.glob(f"{path.name}.*.tmp*"):
        left_over.unlink()
    if path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    building = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    store = SqlAlchemyStore(f"sqlite:///{building}", (path.parent / "mlartifacts").as_uri())
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
        check_writable(home / "mlartifacts")
    with nullcontext() if served else FileLock(home / LOCK):
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                location = None if served else (home / "mlartifacts").as_uri()
                return client.create_experiment(name, location, tags=EXPERIMENT_TAGS)
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
    return found.experiment_id


def restore(kind: str, number: str) -> str:
    """Return the command that restores a deleted run or experiment in this store."""
    uri = shlex.quote(mlflow.get_tracking_uri())
    return f"MLFLOW_TRACKING_URI={uri} mlflow {kind}s restore --{kind}-id {number}"
