"""Open the store, and create its schema and experiments, one process at a time."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing, nullcontext
from pathlib import Path
from urllib.parse import quote

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException

from churnlab.errors import InputError

SQLITE = "sqlite:///"

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""The MLflow UI opens such an experiment on its runs; without the tag it opens on a page about
language models."""


def locate(uri: str, *, home: Path) -> tuple[str, Path]:
    """Return the absolute address of the store and its folder (``home`` for a server).

    ``MLFLOW_TRACKING_URI`` wins over ``uri``. Raises InputError for MLflow's old file store.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or uri
    if uri.startswith(SQLITE):
        path = Path(uri.removeprefix(SQLITE)).absolute()
        return f"{SQLITE}{path}", path.parent
    if "://" not in uri or uri.startswith("file:"):
        raise InputError(
            f"tracking.uri={uri} is a folder of files, a store that MLflow no longer supports; "
            "use sqlite:////absolute/path/mlflow.db, or the address of an MLflow server."
        )
    return uri, home


def open_store(uri: str, *, home: Path) -> None:
    """Point MLflow at the store; create its schema if it is new, also when processes start at once.

    Raises InputError for the file store and for a store that cannot be written.
    """
    uri, home = locate(uri, home=home)
    if uri.startswith(SQLITE):
        path = Path(uri.removeprefix(SQLITE))
        _check_writable(path)
        with _store_lock(home):
            _create_sqlite(path)
    point_at(uri, home=home)


def point_at(uri: str, *, home: Path) -> None:
    """Point MLflow, and all code that reads CHURNLAB_STORE, at the store."""
    mlflow.set_tracking_uri(uri)
    os.environ["CHURNLAB_STORE"] = str(home)


def schemas(path: Path) -> tuple[str | None, str]:
    """Return the schema version of a database (None if it has none) and the one MLflow expects."""
    from mlflow.store.db.utils import _get_latest_schema_revision

    # Not mode=ro: a kill during a commit leaves a journal, which a read-only connection can neither
    # roll back nor ignore.
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True)) as database:
        try:
            found = database.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.DatabaseError:
            found = None
    return found and found[0], _get_latest_schema_revision()


def _check_writable(path: Path) -> None:
    """Refuse a folder that cannot be written, before the work and not after it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(
            f"Nothing can be written to {path.parent} ({error.strerror}), where runs are stored; "
            "set CHURNLAB_HOME to a folder that you can write to."
        ) from error


def _store_lock(home: Path) -> FileLock:
    return FileLock(home / ".store.lock")


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
    """Return the id of an experiment; create a new one with its artifacts next to the store."""
    client = mlflow.MlflowClient()
    home = Path(os.environ["CHURNLAB_STORE"])
    served = mlflow.get_tracking_uri().startswith("http")
    with nullcontext() if served else _store_lock(home):
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
            f"The experiment {name} has been deleted in the store; restore it with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}`."
        )
    return found.experiment_id
