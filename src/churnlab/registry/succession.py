"""Replace the champion: first the record of the change, then the aliases.

On one machine a file lock lets one command at a time do that. A server has clients on other
machines, and neither aliases nor tags of MLflow can be compared and set. A param of a run can: it
is written once, and MLflow refuses another value. So on a server the run of each change is given
the next change as a param, and of two that would replace one champion the second is refused. That
param *is* the change: record and aliases follow from it, and the next command completes what a
process that died has left.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import mlflow
from mlflow.entities import Run
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException

from churnlab.errors import JobError
from churnlab.registry.champion import (
    CHANGE,
    completed_changes,
    registered_model,
    signed_now,
    version_number,
)
from churnlab.tracking.names import FIRST_CHAMPION, NEXT_CHAMPION
from churnlab.tracking.search import look_up, pages
from churnlab.tracking.store import is_local


class Overtaken(JobError):
    """Another command has replaced the champion that was judged; nothing was replaced."""


def replace_champion(
    name: str,
    *,
    expected: str | None,
    to: str,
    previous: str | None,
    why: str,
    command: str,
    run_id: str,
) -> None:
    """Make another version the champion: first the record, then the aliases previous and champion.

    A kill in between leaves the old champion and at most the record of a change that never took
    effect; the next change overwrites it, or, on a server, completes it. ``previous=None`` removes
    that alias. Overtaken: the champion is no longer the ``expected`` one, which was judged.
    """
    model = registered_model(name)
    assert model is not None
    now = version_number(model.aliases.get("champion"))
    change = {"from": now, "to": to, **signed_now(), "why": why, "command": command}
    change |= {"run_id": run_id, "previous": previous}
    if now != expected or not _claim(model, change):
        settle(name)
        found = registered_model(name)
        now = version_number(found.aliases.get("champion")) if found else None
        raise Overtaken(
            f"The champion of {name} changed while this command ran (before: {expected or 'none'}, "
            f"now: {now or 'none'}). Nothing was replaced; run the command again."
        )
    _apply(model, change)
    settle(name, moved=True)


def settle(name: str, *, moved: bool = False) -> None:
    """Complete the changes of a champion that were claimed on a server and are not yet in effect.

    ``moved``: this process has moved aliases. If it slept meanwhile, it moved them back, and now
    moves them to where the last change left them.
    """
    while not is_local() and (model := registered_model(name)) is not None:
        change = claimed_change(model)
        if change is not None:
            _apply(model, change)
        elif moved and (last := _unseen(model)) is not None:
            _move(model, last)
        else:
            return
        moved = True


def _unseen(model: RegisteredModel) -> dict[str, Any] | None:
    """Return the last completed change if the alias champion does not show it."""
    done = completed_changes(model)
    shown = not done or version_number(model.aliases.get("champion")) == done[-1][1]["to"]
    return None if shown else done[-1][1]


def _apply(model: RegisteredModel, change: Mapping[str, Any]) -> None:
    """Record a change after the completed ones, then move the aliases."""
    done = completed_changes(model)
    place = int(done[-1][0].removeprefix(CHANGE)) + 1 if done else 1
    mlflow.MlflowClient().set_registered_model_tag(
        model.name, f"{CHANGE}{place:06d}", json.dumps(change, ensure_ascii=False)
    )
    _move(model, change)


def _move(model: RegisteredModel, change: Mapping[str, Any]) -> None:
    """Move the aliases as a change says: first previous, then champion."""
    client, previous = mlflow.MlflowClient(), change.get("previous", change["from"])
    if previous is not None:
        client.set_registered_model_alias(model.name, "previous", previous)
    elif "previous" in model.aliases:
        client.delete_registered_model_alias(model.name, "previous")
    client.set_registered_model_alias(model.name, "champion", change["to"])


def _claim(model: RegisteredModel, change: Mapping[str, Any]) -> bool:
    """Claim to be the change after the last one; return whether nobody else was faster.

    Where a lock is enough, and where the run of the last one was deleted, there is no claim.
    """
    run, param = (None, "") if is_local() else _last(model)
    if run is None:
        return True
    try:
        mlflow.MlflowClient().log_param(
            run.info.run_id, param, json.dumps(change, ensure_ascii=False)
        )
    except MlflowException:
        claimed = claimed_change(model)
        if claimed is None:
            raise
        return claimed == change
    return True


def claimed_change(model: RegisteredModel) -> dict[str, Any] | None:
    """Return the change that was claimed on a server after the last completed one, or None."""
    if is_local():
        return None
    run, param = _last(model)
    claim = run.data.params.get(param) if run else None
    return None if claim is None else json.loads(claim)


def _last(model: RegisteredModel) -> tuple[Run | None, str]:
    """Return the run of the last completed change, and the param that claims the change after it.

    Before the first change, that is the run of the first version, which may make that change. None
    if the run was deleted.
    """
    done, client = completed_changes(model), mlflow.MlflowClient()
    if done:
        run_id, param = done[-1][1]["run_id"], NEXT_CHAMPION
    else:
        found = pages(client.search_model_versions, filter_string=f"name = '{model.name}'")
        first = min(found, key=lambda version: int(version.version), default=None)
        run_id, param = first.run_id if first else None, FIRST_CHAMPION
    run = look_up(client.get_run, run_id) if run_id else None
    return (run if run is not None and run.info.lifecycle_stage == "active" else None), param
