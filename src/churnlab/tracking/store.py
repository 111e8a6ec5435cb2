"""Where runs are kept: the store is opened, its schema and its experiments are made, by one process
at a time."""

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
    """The address of the store, absolute, and the folder beside it: ``home`` for a server.

    ``MLFLOW_TRACKING_URI`` wins over ``uri``. Raises InputError for the file store.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or uri
    if uri.startswith(SQLITE):
        path = Path(uri.removeprefix(SQLITE)).absolute()
        return f"{SQLITE}{path}", path.parent
    if "://" not in uri or uri.startswith("file:"):
        raise InputError(
            f"tracking.uri={uri} is a folder of files, which MLflow no longer keeps runs in; "
            "use sqlite:////absolute/path/mlflow.db, or the address of an MLflow server."
        )
    return uri, home


def open_store(uri: str, *, home: Path) -> None:
    """Point MLflow at the store and create its schema if it is new; safe for processes that start
    together.

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
    """Let MLflow, and what lies beside its store, be looked for there."""
    mlflow.set_tracking_uri(uri)
    os.environ["CHURNLAB_STORE"] = str(home)


def schemas(path: Path) -> tuple[str | None, str]:
    """The version of a database's schema, None for a file that has none, and the one that this
    MLflow works with."""
    from mlflow.store.db.utils import _get_latest_schema_revision

    # Not mode=ro: a kill in a commit leaves a journal, and who may only read cannot roll it back,
    # nor read past it.
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True)) as database:
        try:
            found = database.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.DatabaseError:
            found = None
    return found and found[0], _get_latest_schema_revision()


def _check_writable(path: Path) -> None:
    """Find out before the work, not after it, that nothing can be kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(
            f"Nothing can be written to {path.parent} ({error.strerror}), where the runs are kept; "
            "set CHURNLAB_HOME to a folder of yours."
        ) from error


def _store_lock(home: Path) -> FileLock:
    return FileLock(home / ".store.lock")


def _create_sqlite(path: Path) -> None:
    """Build the schema beside the database and move it into place: a kill in between leaves no
    broken store."""
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
    """The id of an experiment, which is created when it is new, its artifacts beside the store."""
    client = mlflow.MlflowClient()
    home = Path(os.environ["CHURNLAB_STORE"])
    served = mlflow.get_tracking_uri().startswith("http")
    with nullcontext() if served else _store_lock(home):
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                location = None if served else (home / "mlartifacts").as_uri()
                return client.create_experiment(name, location, tags=EXPERIMENT_TAGS)
            except (
                MlflowException
            ) as error:  # a server has no lock of ours: another client may have been first
                found = client.get_experiment_by_name(name)
                if found is None:
                    raise error
    if found.lifecycle_stage != "active":
        raise InputError(
            f"The experiment {name} has been deleted in the store; bring it back with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}`."
        )
    return found.experiment_id
