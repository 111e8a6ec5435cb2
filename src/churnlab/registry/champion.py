"""Look up versions in the registry and change the champion, with a record of every change.

A registered model's aliases say which version is in use; its tags record how that came about.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
from filelock import FileLock, Timeout
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.utils.models import get_model_name_and_version

from churnlab.errors import InputError
from churnlab.formatting import listed
from churnlab.tracking.names import Tag
from churnlab.tracking.postgres import Session, make_server
from churnlab.tracking.search import is_same, look_up, pages
from churnlab.tracking.server import raise_unanswered

log = logging.getLogger(__name__)

CHANGE = f"{Tag.MOVE}."
"""A tag of a registered model with this prefix and six digits records one change of champion."""

SUFFIX = "-churn"

GATED = {"passed", "forced"}
"""Verdicts of the gate with which a version may be the champion."""


class ModelReference(NamedTuple):
    """A model to load: its URI, in which no alias is left, and its version.

    ``version`` is None for a model outside the registry.
    """

    uri: str
    version: str | None


@contextmanager
def promotion_lock(
    storage: Mapping[str, Any] | None = None, name: str = "", *, wait: bool = True
) -> Iterator[None]:
    """Hold the lock under which the champion of a model is read, compared and replaced.

    It is a file of this machine; with the ``storage`` of a command in PostgreSQL, also an advisory
    lock there, for all machines. BlockingIOError: another process holds the file and ``wait`` is
    false. InputError: the lock cannot be written; without ``wait``, which is for readers, the store
    is then read without it.
    """
    lock = FileLock(Path(os.environ["CHURNLAB_STORE"]) / ".promotion.lock")
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        if not wait:
            raise BlockingIOError from None
        log.info("Another process is replacing the champion; waiting until it has finished.")
        lock.acquire()
    except OSError as error:
        if wait:
            raise InputError(
                f"Nothing can be written to {lock.lock_file} ({error.strerror}), which is locked "
                "while a champion is replaced; use an account that may write there."
            ) from None
    try:
        with _lock_in_postgres(storage, name) if storage and "url" in storage else nullcontext():
            yield
    finally:
        lock.release()


@contextmanager
def _lock_in_postgres(storage: Mapping[str, Any], name: str) -> Iterator[None]:
    """Hold the lock of a model's champion in the database of the studies."""
    server = make_server(storage["url"], grace=storage["grace"], patience=storage["patience"])
    session = Session(server, awake_every=storage["heartbeat"])
    try:
        session.lock(
            f"champion of {name}",
            waiting="Another machine is replacing the champion; waiting until it has finished.",
        )
        yield
    finally:
        session.close()


def model_name(dataset_name: str) -> str:
    """Return the name of a dataset's registered model.

    >>> model_name("gym")
    'gym-churn'
    """
    return f"{dataset_name}{SUFFIX}"


def dataset_name(name: str) -> str:
    """Return the name of a registered model's dataset."""
    return name.removesuffix(SUFFIX)


def find_model(dataset: str | None) -> RegisteredModel | None:
    """Return the registered model of a dataset, or the only one, that has or had a champion.

    None, with a message: there is none. InputError: several, and no dataset to choose by.
    """
    models = {
        dataset_name(model.name): model
        for model in pages(mlflow.MlflowClient().search_registered_models)  # by name
        if model.name.endswith(SUFFIX)
        and ("champion" in model.aliases or recorded_changes(model))  # its version may be deleted
    }
    known = [f"dataset={name}" for name in models]
    if dataset is None and len(models) > 1:
        raise InputError(
            f"Several registered models have a champion: {listed(list(map(model_name, models)))}. "
            f"Choose one by its dataset: {known[0]} (your own YAML: also its --config-dir)."
        )
    found = models.get(dataset or next(iter(models), ""))
    if found is None:
        which = f" {model_name(dataset)}" if dataset else ""
        others = f", or choose a dataset that has one: {listed(known)}" if known else ""
        missing = f"There is no registered model{which} with a champion"
        log.info("%s; run churnlab promote first%s.", missing, others)
    return found


def registered_model(name: str) -> RegisteredModel | None:
    """Return a registered model with its aliases and tags, None if there is none."""
    return look_up(mlflow.MlflowClient().get_registered_model, name)


def version_uri(version: ModelVersion) -> str:
    """Return the URI under which MLflow loads a version."""
    return f"models:/{version.name}/{version.version}"


def find_champion(name: str) -> ModelVersion | None:
    """Return the version with the alias champion, None if there is none."""
    return look_up(mlflow.MlflowClient().get_model_version_by_alias, name, "champion")


def find_version(name: str, number: str) -> ModelVersion | None:
    """Return a version by its number, None if it was deleted."""
    return look_up(mlflow.MlflowClient().get_model_version, name, number)


def resolve(model_uri: str) -> ModelReference:
    """Replace an alias (or ``latest``) by the number of the version that it points to now.

    Folders, ``runs:/...`` and ``models:/m-...`` are outside the registry and stay as they are.
    InputError: there is no such version.
    """
    if not model_uri.startswith("models:/"):
        return ModelReference(model_uri, None)
    client = mlflow.MlflowClient()
    try:
        found = get_model_name_and_version(client, model_uri)
        if len(found) == 1:  # the id of a logged model
            return ModelReference(model_uri, None)
        version = client.get_model_version(*found)
    except MlflowException as error:
        champions = [
            f"dataset={dataset_name(model.name)}"
            for model in pages(client.search_registered_models)
            if "champion" in model.aliases
        ]
        others = champions or [
            f"dataset={dataset_name(found.name)} model_uri={version_uri(found)}"
            for found in pages(client.search_model_versions)
            if found.tags.get(Tag.GATE) in GATED
        ]
        what = "the dataset of another champion" if champions else "a version that passed the gate"
        other = (
            f", or name {what} (with the --config-dir of a dataset of your own): "
            f"{listed(others, 5, length=100)}"
        )
        raise InputError(
            f"There is no model {model_uri} in the registry; run churnlab promote first"
            f"{other if others else ''}."
        ) from error
    return ModelReference(version_uri(version), version_number(version.version))


def file_names(uri: str) -> set[str]:
    """Return the names of the files in a folder of artifacts; none if it does not exist."""
    try:
        found = mlflow.artifacts.list_artifacts(artifact_uri=uri) or []
    except (MlflowException, OSError) as error:
        raise_unanswered(error)
        return set()
    return {Path(file.path).name for file in found}


def register_version(
    name: str, model_id: str, *, run_id: str, tags: Mapping[str, str], description: str
) -> str:
    """Register a logged bundle as the next version of a model, and return its number.

    Adds the user and the time to the tags.
    """
    client = mlflow.MlflowClient()
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    now = signed_now()
    made = client.create_model_version(
        name,
        f"models:/{model_id}",
        run_id=run_id,
        tags={Tag.WHO: now["who"], Tag.WHEN: now["when"]} | dict(tags),
        model_id=model_id,
        description=description,
    )
    return str(made.version)


def recorded_changes(model: RegisteredModel) -> list[tuple[str, dict[str, Any]]]:
    """Return every recorded change of champion with its tag, oldest first.

    A change has the keys from, to (version numbers), when, who, why, command and run_id. The last
    one may have been interrupted.
    """
    return [
        (key, json.loads(record))
        for key, record in sorted(model.tags.items())
        if key.startswith(CHANGE)
    ]


def champion_changes(model: RegisteredModel) -> list[dict[str, Any]]:
    """Return every change of champion that took effect, oldest first."""
    return [change for _, change in completed_changes(model)]


def interrupted_change(model: RegisteredModel) -> tuple[str, dict[str, Any]] | None:
    """Return the last change and its tag if it never took effect, else None."""
    recorded = recorded_changes(model)
    return recorded[-1] if len(recorded) > len(completed_changes(model)) else None


def completed_changes(model: RegisteredModel) -> list[tuple[str, dict[str, Any]]]:
    """Return the recorded changes without a last one that never took effect.

    It did not if the champion is still the one before it. A champion whose version was deleted has
    lost its alias, too: that change did take effect.
    """
    recorded = recorded_changes(model)
    if not recorded:
        return []
    last, now = recorded[-1][1], version_number(model.aliases.get("champion"))
    if now == last["from"] != last["to"] and find_version(model.name, last["to"]) is not None:
        return recorded[:-1]
    return recorded


def undo_stack(changes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the versions that rollbacks can restore, the next one last.

    A promotion pushes the champion that it replaces, a rollback pops.

    >>> promotions = [{"from": "1", "to": "2"}, {"from": "2", "to": "3"}]
    >>> undo_stack([change | {"command": "promote"} for change in promotions])
    ['1', '2']
    """
    stack: list[str] = []
    for change in changes:
        if change["command"] != "rollback":
            stack += [change["from"]] if change["from"] is not None else []
            continue
        while stack and stack.pop() != change["to"]:
            pass
    return stack


def refusal(registered: str, churn: Run | None) -> dict[str, str | None] | None:
    """Return the latest version made of a train run, or of its twin of the same config and table,
    with the gate's verdict on it; None if there is none or the gate let it pass."""
    client = mlflow.MlflowClient()
    found = pages(client.search_model_versions, filter_string=f"name = '{registered}'")
    for version in sorted(found, key=lambda version: -int(version.version)) if churn else []:
        run_id = version.tags.get(Tag.CHURN_RUN_ID)
        made_of = look_up(mlflow.get_run, run_id) if run_id else None
        if made_of is not None and is_same(made_of, churn):
            verdict = version.tags.get(Tag.GATE)
            answer = {"version": version_number(version.version), "verdict": verdict}
            return answer if verdict in ("refused", "undecided") else None
    return None


def former_champions(name: str, promotions: int) -> list[ModelVersion]:
    """Return the champions of the last so many promotions, oldest first, without the present one.

    Deleted versions are left out, and all before one that was promoted by force: its losses were
    accepted for a reason.
    """
    model, newer = registered_model(name), find_champion(name)
    found: list[ModelVersion] = []
    for number in reversed(undo_stack(champion_changes(model)) if model else []):
        if len(found) == promotions or newer is None or newer.tags.get(Tag.GATE) == "forced":
            break
        version = find_version(name, number)
        if version is not None:
            found.insert(0, version)
            newer = version
    return found


def signed_now() -> dict[str, str]:
    """Return who does something now, and when."""
    return {"who": getpass.getuser(), "when": datetime.now(UTC).isoformat(timespec="seconds")}


def version_number(found: Any) -> str | None:
    """Return a version's number as text: MLflow gives it as an integer or as text."""
    return None if found is None else str(found)
