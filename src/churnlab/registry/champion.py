"""The registry: versions of the served model, the aliases that say which one is in use, and the
journal of both."""

from __future__ import annotations

import getpass
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
from filelock import FileLock, Timeout
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from churnlab.errors import InputError, JobError
from churnlab.tracking.names import Tag

log = logging.getLogger(__name__)

MOVE = f"{Tag.MOVE}."
"""A registered model's tag of this name and six digits tells one move of its champion, as JSON."""

SUFFIX = "-churn"

NOT_THERE = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
"""What MLflow says of an alias, a version or a model that does not exist."""


@contextmanager
def one_at_a_time(*, wait: bool = True) -> Iterator[None]:
    """The lock under which the champion is read, compared and replaced: MLflow has no
    compare-and-set.

    Without ``wait``, BlockingIOError is raised when another is at work.
    """
    lock = FileLock(Path(os.environ["CHURNLAB_STORE"]) / ".promotion.lock")
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        if not wait:
            raise BlockingIOError from None
        log.info("The champion is being replaced by another process; waiting for it to end.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def model_name(dataset_name: str) -> str:
    """The registered model of a dataset."""
    return f"{dataset_name}{SUFFIX}"


def dataset_name(name: str) -> str:
    """The dataset of a registered model."""
    return name.removesuffix(SUFFIX)


def asked_model(dataset: str | None) -> RegisteredModel | None:
    """The registered model of a dataset or, when none is named, the only one that has a champion;
    None: there is none.

    InputError: several have one.
    """
    if dataset is not None:
        return registered(model_name(dataset))
    found: list[RegisteredModel] = []
    token = None
    while True:
        page = mlflow.MlflowClient().search_registered_models(page_token=token)
        found += [
            model for model in page if model.name.endswith(SUFFIX) and "champion" in model.aliases
        ]
        token = page.token
        if not token:
            break
    if len(found) > 1:
        names = sorted(model.name for model in found)
        raise InputError(
            f"Several registered models have a champion: {', '.join(names)}. Name the dataset of "
            f"the one that is meant: dataset={dataset_name(names[0])}."
        )
    return registered(found[0].name) if found else None


def registered(name: str) -> RegisteredModel | None:
    """A registered model with its aliases and tags, in one look; None when there is none of this
    name."""
    try:
        return mlflow.MlflowClient().get_registered_model(name)
    except MlflowException as error:
        if error.error_code in NOT_THERE:
            return None
        raise


def uri(version: ModelVersion) -> str:
    """Where MLflow finds a version."""
    return f"models:/{version.name}/{version.version}"


def champion(name: str) -> ModelVersion | None:
    """The version that the alias champion points to, None when there is none."""
    try:
        return mlflow.MlflowClient().get_model_version_by_alias(name, "champion")
    except MlflowException as error:
        if error.error_code in NOT_THERE:
            return None
        raise


def version(name: str, at: str) -> ModelVersion | None:
    """A version by its number, None when it was deleted."""
    try:
        return mlflow.MlflowClient().get_model_version(name, at)
    except MlflowException as error:
        if error.error_code in NOT_THERE:
            return None
        raise


def register(
    name: str, model_id: str, *, run_id: str, tags: Mapping[str, str], description: str
) -> str:
    """Make a logged bundle the next version of a registered model; returns its number.

    Who and when are added to the tags.
    """
    client = mlflow.MlflowClient()
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    now = _now()
    made = client.create_model_version(
        name,
        f"models:/{model_id}",
        run_id=run_id,
        tags={Tag.WHO: now["who"], Tag.WHEN: now["when"]} | dict(tags),
        model_id=model_id,
        description=description,
    )
    return str(made.version)


def make_challenger(name: str, version: str) -> None:
    """Point the alias challenger to a version that was refused."""
    mlflow.MlflowClient().set_registered_model_alias(name, "challenger", version)


def move_champion(
    name: str,
    *,
    after: str | None,
    to: str,
    previous: str | None,
    why: str,
    command: str,
    run_id: str,
) -> None:
    """Put another version in the champion's place: journal, alias ``previous``, alias ``champion``,
    in this order.

    A kill in between leaves the old champion, at most with a move told that did not happen; the
    next move is told in its place. ``after`` is the champion that was judged: JobError when it is
    no longer there, as may happen on a server that several machines write to without a common lock.
    ``previous=None`` removes that alias.
    """
    client, model = mlflow.MlflowClient(), registered(name)
    assert model is not None
    now = number(model.aliases.get("champion"))
    if now != after:
        raise JobError(
            f"The champion of {name} was {after or 'none'} when the gate was asked and is "
            f"{now or 'none'} now; nothing was moved. Run the command again."
        )
    told = {"from": now, "to": to, **_now(), "why": why, "command": command, "run_id": run_id}
    happened = _happened(model)
    place = int(happened[-1][0].removeprefix(MOVE)) + 1 if happened else 1
    client.set_registered_model_tag(
        name, f"{MOVE}{place:06d}", json.dumps(told, ensure_ascii=False)
    )
    if previous is not None:
        client.set_registered_model_alias(name, "previous", previous)
    elif "previous" in model.aliases:
        client.delete_registered_model_alias(name, "previous")
    client.set_registered_model_alias(name, "champion", to)


def journal(model: RegisteredModel) -> list[tuple[str, dict[str, Any]]]:
    """Every move of the champion that was told, the oldest first, each after the tag that tells it.

    A move is from, to (version numbers), when, who, why, command, run_id. The last one may not have
    happened.
    """
    return [
        (key, json.loads(told)) for key, told in sorted(model.tags.items()) if key.startswith(MOVE)
    ]


def moves(model: RegisteredModel) -> list[dict[str, Any]]:
    """Every move of the champion that happened, as ``journal`` tells it."""
    return [move for _, move in _happened(model)]


def broken_off(model: RegisteredModel) -> tuple[str, dict[str, Any]] | None:
    """The last move when it was told and did not happen, as ``journal`` tells it; None when all
    did."""
    told = journal(model)
    return told[-1] if len(told) > len(_happened(model)) else None


def _happened(model: RegisteredModel) -> list[tuple[str, dict[str, Any]]]:
    """The journal without a last move after which the champion is still the one before it.

    A champion whose version was deleted has lost its alias, too: its move did happen.
    """
    told, now = journal(model), number(model.aliases.get("champion"))
    if (
        told
        and now == told[-1][1]["from"] != told[-1][1]["to"]
        and version(model.name, told[-1][1]["to"]) is not None
    ):
        return told[:-1]
    return told


def undo_stack(told: Sequence[Mapping[str, Any]]) -> list[str]:
    """The champions that can be put back, the next one last: promotions push the one they replace,
    rollbacks pop."""
    stack: list[str] = []
    for move in told:
        if move["command"] != "rollback":
            stack += [move["from"]] if move["from"] is not None else []
            continue
        while stack and stack.pop() != move["to"]:
            pass
    return stack


def _now() -> dict[str, str]:
    return {"who": getpass.getuser(), "when": datetime.now(UTC).isoformat(timespec="seconds")}


def number(found: Any) -> str | None:
    """A version's number as churnlab writes it, whatever MLflow makes of it."""
    return None if found is None else str(found)
