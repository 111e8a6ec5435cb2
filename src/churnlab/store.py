"""Where runs are kept: the store is opened, its schema and its experiments are made, by one process at a time."""

from __future__ import annotations

import os
import tempfile
from contextlib import nullcontext
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException

from churnlab.errors import InputError

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""The MLflow UI opens such an experiment on its runs; without the tag it opens on a page about language models."""


def open_store(uri: str, *, home: Path) -> None:
    """Point MLflow at the store and create its schema if it is new; safe for processes that start together.

    ``MLFLOW_TRACKING_URI`` wins over ``uri``. Raises InputError for the file store and for a store that cannot be
    written.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or uri
    if uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///")).absolute()
        uri, home = f"sqlite:///{path}", path.parent
        _check_writable(path)
        with _store_lock(home):
            _create_sqlite(path)
    elif "://" not in uri or uri.startswith("file:"):
        raise InputError(
            f"tracking.uri={uri} is a folder of files, which MLflow no longer keeps runs in; "
            "use sqlite:////absolute/path/mlflow.db, or the address of an MLflow server."
        )
    mlflow.set_tracking_uri(uri)
    os.environ["CHURNLAB_STORE"] = str(home)


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
    """Build the schema beside the database and move it into place: a kill in between leaves no broken store."""
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
            except MlflowException as error:  # a server has no lock of ours: another client may have been first
                found = client.get_experiment_by_name(name)
                if found is None:
                    raise error
    if found.lifecycle_stage != "active":
        raise InputError(
            f"The experiment {name} has been deleted in the store; bring it back with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}`."
        )
    return found.experiment_id
