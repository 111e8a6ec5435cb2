"""Check the registry: files of versions, aliases, and the history of each champion.

A change of champion is recorded as a tag of its registered model before the aliases are moved. So a
last change that the alias does not show was interrupted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mlflow
import yaml
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from churnlab.doctor.problems import REPAIRS, Problem, StoreSnapshot
from churnlab.formatting import listed
from churnlab.registry.champion import (
    champion_changes,
    interrupted_change,
    promotion_lock,
    recorded_changes,
    undo_stack,
)
from churnlab.tracking.names import Tag
from churnlab.tracking.search import pages

GATED = {"passed", "forced"}
"""Verdicts of the gate with which a version may be the champion."""


@dataclass(frozen=True)
class InterruptedChange:
    """Describe a champion change that was begun but not finished.

    ``key`` is its tag; ``previous`` is the version that the alias ``previous`` had before.
    """

    model: str
    key: str
    description: str
    run_id: str | None
    previous: str | None


def registry_problems(snapshot: StoreSnapshot) -> Iterator[Problem]:
    """Yield what is wrong with our registered models: versions, aliases, champion history."""
    for model, versions in _our_models(snapshot):
        aliases = {alias: str(number) for alias, number in model.aliases.items()}
        for version in versions.values():
            if missing := _missing_files(version):
                yield _without_files(version, missing)
        for alias, number in aliases.items():
            if number not in versions:
                what = (
                    f"the alias {alias} of {model.name} points to version {number}, which does not "
                    "exist"
                )
                remove = mlflow.MlflowClient().delete_registered_model_alias
                repair = partial(remove, model.name, alias)
                yield Problem("dangling alias", what, f"{model.name}@{alias}", REPAIRS, repair)
        champion = versions.get(aliases.get("champion", ""))
        if champion is not None and champion.tags.get(Tag.GATE) not in GATED:
            verdict = champion.tags.get(Tag.GATE, "not run")
            what = (
                f"version {champion.version} is the champion of {model.name}, but its gate was "
                f"{verdict}"
            )
            fix = "promote a version through the gate (churnlab promote), or churnlab rollback"
            where = f"{model.name}/{champion.version}"
            yield Problem("champion that did not pass the gate", what, where, fix)
        yield from _history(model, versions, champion=champion and str(champion.version))


def _our_models(
    snapshot: StoreSnapshot,
) -> Iterator[tuple[RegisteredModel, dict[str, ModelVersion]]]:
    """Yield the registered models of our datasets, each with its versions by number."""
    client = mlflow.MlflowClient()
    experiments = {client.get_experiment(number).name for number in snapshot.experiments}
    for model in pages(client.search_registered_models):
        found = pages(client.search_model_versions, filter_string=f"name='{model.name}'")
        tags = [*model.tags, *[tag for version in found for tag in version.tags]]
        if model.name in experiments or any(tag.startswith("churnlab.") for tag in tags):
            yield model, {str(version.version): version for version in found}


def _without_files(version: ModelVersion, missing: list[str]) -> Problem:
    what = f"{version.name} version {version.version} has lost its files: {listed(missing)}"
    churn, segment = (version.tags.get(tag) for tag in (Tag.CHURN_RUN_ID, Tag.SEGMENT_RUN_ID))
    known = f"churnlab promote churn_run={churn} segment_run={segment}"
    fix = known if churn and segment else "promote its runs again"
    return Problem("version without files", what, f"{version.name}/{version.version}", fix)


def _missing_files(version: ModelVersion) -> list[str]:
    """Return the files that a version's MLmodel names and that do not exist."""
    client = mlflow.MlflowClient()
    try:
        root = client.get_model_version_download_uri(version.name, version.version)
        model = yaml.safe_load(mlflow.artifacts.load_text(f"{root}/MLmodel"))
    except (MlflowException, OSError):
        return ["MLmodel"]
    served = model["flavors"].get("python_function", {})
    needed = [Path(part["path"]) for part in (served.get("artifacts") or {}).values()]
    needed += [Path(Path(served["model_code_path"]).name)] if "model_code_path" in served else []
    folders = {path.parent for path in needed}
    present = {folder: _file_names(f"{root}/{folder}") for folder in folders}
    return [str(path) for path in needed if path.name not in present[path.parent]]


def _file_names(uri: str) -> set[str]:
    """Return the names of the files in a folder of artifacts; none if it does not exist."""
    try:
        found = mlflow.artifacts.list_artifacts(artifact_uri=uri) or []
    except (MlflowException, OSError):
        return set()
    return {Path(file.path).name for file in found}


def interrupted_changes(snapshot: StoreSnapshot) -> Iterator[InterruptedChange]:
    """Yield each champion's last change if it was interrupted; none while a promotion runs."""
    with suppress(BlockingIOError), promotion_lock(wait=False):
        for model, versions in _our_models(snapshot):
            found = interrupted_change(model)
            if found is None:
                continue
            key, last = found
            stack = undo_stack(champion_changes(model))
            before = stack[-1] if stack and stack[-1] in versions else None
            description = f"from {last['from']} to {last['to']}, {last['when']}, by {last['who']}"
            yield InterruptedChange(model.name, key, description, last.get("run_id"), before)


def undo(change: InterruptedChange) -> None:
    """Remove an interrupted change from the history, and restore the alias ``previous``."""
    client = mlflow.MlflowClient()
    with promotion_lock():
        model = client.get_registered_model(change.model)
        found = interrupted_change(model)
        if found is None or found[0] != change.key:
            return  # a promotion has finished in the meantime
        if change.previous is not None:
            client.set_registered_model_alias(change.model, "previous", change.previous)
        elif "previous" in model.aliases:
            client.delete_registered_model_alias(change.model, "previous")
        client.delete_registered_model_tag(change.model, change.key)


def _history(
    model: RegisteredModel, versions: Collection[str], *, champion: str | None
) -> Iterator[Problem]:
    """Yield deleted versions of the champion's history, and a champion that is not in it."""
    changes = [change for _, change in recorded_changes(model)]
    named = dict.fromkeys(
        number for change in changes for number in (change["from"], change["to"]) if number
    )
    deleted = [number for number in named if number not in versions]
    if deleted:
        what = f"{model.name}: versions {listed(deleted)} of the champion's history were deleted"
        fix = "they cannot be restored; rollback skips them"
        if champion is None and changes[-1]["to"] in deleted:
            what, fix = f"{what}, including the champion", "churnlab rollback, or churnlab promote"
        yield Problem("deleted version", what, model.name, fix)
    if champion is None or not changes:
        return
    last = changes[-1]
    if champion not in (last["to"], last["from"]):
        what = (
            f"{model.name}: version {champion} is the champion, but the last change in the history "
            f"is to version {last['to']}"
        )
        fix = "churnlab promote, or churnlab rollback"
        yield Problem("champion changed by hand", what, model.name, fix)
