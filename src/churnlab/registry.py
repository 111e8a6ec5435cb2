"""The registry: versions of the served model and the aliases that say which one is in use."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException


def one_at_a_time() -> FileLock:
    """The lock under which the champion is read, compared and replaced: MLflow has no compare-and-set."""
    return FileLock(Path(os.environ["CHURNLAB_STORE"]) / ".promotion.lock")


def model_name(dataset_name: str) -> str:
    """The registered model of a dataset."""
    return f"{dataset_name}-churn"


def uri(version: ModelVersion) -> str:
    """Where MLflow finds a version."""
    return f"models:/{version.name}/{version.version}"


def champion(name: str) -> ModelVersion | None:
    """The version that the alias champion points to, None when there is none."""
    try:
        return mlflow.MlflowClient().get_model_version_by_alias(name, "champion")
    except MlflowException as error:
        if error.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
            return None
        raise


def register(name: str, model_id: str, *, run_id: str, tags: Mapping[str, str], description: str) -> str:
    """Make a logged bundle the next version of a registered model; returns its number.

    Who and when are added to the tags.
    """
    client = mlflow.MlflowClient()
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    about = {"churnlab.who": getpass.getuser(), "churnlab.when": datetime.now(UTC).isoformat(timespec="seconds")}
    version = client.create_model_version(
        name, f"models:/{model_id}", run_id=run_id, tags=about | dict(tags), model_id=model_id, description=description
    )
    return str(version.version)


def make_challenger(name: str, version: str) -> None:
    """Point the alias challenger to a version that was refused."""
    mlflow.MlflowClient().set_registered_model_alias(name, "challenger", version)


def make_champion(name: str, version: str) -> None:
    """Move the alias; ``previous`` is written first, so that a kill in between leaves a champion to go back to."""
    client = mlflow.MlflowClient()
    before = champion(name)
    if before is not None:
        client.set_registered_model_alias(name, "previous", before.version)
    client.set_registered_model_alias(name, "champion", version)
