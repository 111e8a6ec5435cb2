"""Make the previous champion the champion again; repeat it to go further back.

Why: the version that was served yesterday is known to work. A rollback undoes a promotion; the
alias previous then points to the next version down. Versions that were deleted or cannot be loaded
are skipped. churnlab serve follows within seconds; restart mlflow models serve.

    churnlab rollback
    churnlab rollback dataset=gym reason="the new version is in doubt"
    churnlab rollback dataset=demo dry_run=true
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import mlflow
from mlflow.entities.model_registry import RegisteredModel

from churnlab.config.commands import Result, Rollback
from churnlab.registry import versions
from churnlab.registry.champion import (
    champion_changes,
    dataset_name,
    find_model,
    find_version,
    promotion_lock,
    registered_model,
    undo_stack,
    version_number,
    version_uri,
)
from churnlab.registry.succession import replace_champion, settle
from churnlab.tracking.names import Tag
from churnlab.tracking.runs import start_run

log = logging.getLogger(__name__)


def run(settings: Rollback) -> Result:
    """Find the last champion that can be restored, record the run, and change the aliases."""
    found = find_model(settings.dataset.name if settings.dataset else None)
    if found is None:
        return Result({"version": None}, yes=False)
    name = found.name
    with promotion_lock(settings.storage, name):
        settle(name)
        model = registered_model(name) or found
        champion = version_number(model.aliases.get("champion"))
        restorable = _restorable(model, champion)
        back = next(restorable, None)
        if back is None:
            stays = f": version {champion} stays" if champion else ""
            log.info("%s has no earlier champion to go back to%s.", name, stays)
            return Result({"version": champion}, yes=False)
        summary = f"{name}: version {back} is the champion again"
        summary += f" and replaces version {champion}" if champion else ""
        forced = _forced(name, back)
        if settings.dry_run:
            change = f"from version {champion} to {back}"
            log.info("would change the champion of %s %s%s", name, change, forced)
            return Result({"version": back})
        summary += forced
        with start_run(
            "rollback",
            settings.model_dump(),
            name=f"rollback {name} to version {back}",
            dataset_name=dataset_name(name),
        ) as mlflow_run:
            mlflow.set_tags({Tag.VERSION: back, "mlflow.note.content": summary})
        replace_champion(
            name,
            expected=champion,
            to=back,
            previous=next(restorable, None),
            why=settings.reason or "",
            command="rollback",
            run_id=mlflow_run.info.run_id,
        )
    log.info("%s.", summary)
    return Result({"run_id": mlflow_run.info.run_id, "version": back})


def _forced(name: str, number: str) -> str:
    """Say that a version did not pass the gate, and why it was promoted all the same; "" if it
    did."""
    version = find_version(name, number)
    if version is None or version.tags.get(Tag.GATE) != "forced":
        return ""
    why = version.tags.get(Tag.REASON) or "no reason was given"
    return f"; it failed the gate and was promoted by force ({why})"


def _restorable(model: RegisteredModel, champion: str | None) -> Iterator[str]:
    """Yield the earlier champions that can be restored, the latest first."""
    for number in reversed(undo_stack(champion_changes(model))):
        if number == champion:
            continue
        version = find_version(model.name, number)
        if version is None:
            log.info("Version %s of %s was deleted: skipped.", number, model.name)
            continue
        try:
            versions.load(version_uri(version), unverified=True)
        except LookupError as error:
            log.info("Version %s of %s is skipped: %s.", number, model.name, error)
            continue
        yield number
