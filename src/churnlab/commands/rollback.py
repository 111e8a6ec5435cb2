"""Put the champion before this one back; again and again, down the history.

Why: what was good enough to be served yesterday is known to work. A promotion put a version in its
predecessor's place, a rollback undoes that; the alias previous then names the next one down.
Versions that were deleted or can no longer be loaded are passed over. Who uses the alias champion
must be restarted to see it move.

    churnlab rollback
    churnlab rollback dataset=gym reason="answers of the new one are doubted"
    churnlab rollback dataset=demo dry_run=true
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import mlflow
from mlflow.entities.model_registry import RegisteredModel

from churnlab.config.commands import Result, Rollback
from churnlab.registry import champion as registry
from churnlab.registry import versions
from churnlab.tracking.runs import start_run

log = logging.getLogger(__name__)


def run(settings: Rollback) -> Result:
    """Find the last champion that can be put back, record it, move the aliases when the run has
    ended."""
    with registry.one_at_a_time():
        model = registry.asked_model(settings.dataset.name if settings.dataset else None)
        if model is None:
            log.info("There is no registered model with a champion; run churnlab promote first.")
            return Result({"version": None}, yes=False)
        name, champion = model.name, registry.number(model.aliases.get("champion"))
        standing = _standing(model, champion)
        back = next(standing, None)
        if back is None:
            log.info("%s has no earlier champion to go back to: version %s stays.", name, champion)
            return Result({"version": champion}, yes=False)
        said = f"{name}: version {champion or 'none'} gives way to version {back}, which was the champion before it"
        with start_run(
            "rollback",
            settings.model_dump(),
            name=f"rollback {name} to version {back}",
            dataset_name=registry.dataset_name(name),
        ) as mlflow_run:
            mlflow.set_tag("mlflow.note.content", said)
        registry.move_champion(
            name,
            after=champion,
            to=back,
            previous=next(standing, None),
            why=settings.reason or "",
            command="rollback",
            run_id=mlflow_run.info.run_id,
        )
    log.info("%s.", said)
    return Result({"run_id": mlflow_run.info.run_id, "version": back})


def _standing(model: RegisteredModel, champion: str | None) -> Iterator[str]:
    """The earlier champions that can be put back, the last one first."""
    for number in reversed(registry.undo_stack(registry.moves(model))):
        if number == champion:
            continue
        version = registry.version(model.name, number)
        if version is None:
            log.info("Version %s of %s was deleted; passed over.", number, model.name)
            continue
        try:
            versions.load(registry.uri(version))
        except LookupError as error:
            log.info("Version %s of %s is passed over: %s.", number, model.name, error)
            continue
        yield number
