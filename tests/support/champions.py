"""Registered models whose versions have no files, and changes of their champions."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import mlflow.pyfunc

from churnlab.registry.succession import replace_champion
from churnlab.tracking import store
from support.running import tracked_at, version_folder


@contextmanager
def loaded(home: Path, name: str) -> Iterator[mlflow.pyfunc.PyFuncModel]:
    """Yield the first version of a registered model as anybody loads it."""
    with store_at(home):
        files = version_folder(mlflow.MlflowClient(), name, "1")
        yield mlflow.pyfunc.load_model(str(files))


@contextmanager
def store_at(home: Path) -> Iterator[Path]:
    """Open the store of a home in this process."""
    with tracked_at(home):
        store.open_store(f"sqlite:///{home}/mlflow.db", home=home)
        yield home


@contextmanager
def registered(dataset: str, *, versions: int = 4) -> Iterator[str]:
    """Register versions of a dataset's model, and delete them in the end."""
    client, name = mlflow.MlflowClient(), f"{dataset}-churn"
    client.create_registered_model(name)
    for _ in range(versions):
        client.create_model_version(name, "file:///nowhere")
    yield dataset
    client.delete_registered_model(name)


def change(
    dataset: str,
    expected: str | None,
    to: str,
    command: str = "promote",
    previous: str | None = None,
) -> None:
    """Replace the champion as promote and rollback do."""
    replace_champion(
        f"{dataset}-churn",
        expected=expected,
        to=to,
        previous=previous or expected,
        why=f"to {to}",
        command=command,
        run_id="r",
    )
