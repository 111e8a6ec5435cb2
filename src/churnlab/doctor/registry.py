"""Check the registry: files of versions, aliases, and the history of each champion.

A change of champion is recorded as a tag of its registered model before the aliases are moved. So a
last change that the alias does not show was interrupted.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import mlflow
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from churnlab.config.shipped import taken_by
from churnlab.doctor.problems import REPAIRS, Problem, StoreSnapshot
from churnlab.formatting import listed
from churnlab.registry.champion import (
    GATED,
    champion_changes,
    dataset_name,
    interrupted_change,
    promotion_lock,
    recorded_changes,
    undo_stack,
    version_uri,
)
from churnlab.registry.manifest import difference
from churnlab.registry.succession import claimed_change, settle
from churnlab.registry.versions import lost_files
from churnlab.tracking.artifacts import damage
from churnlab.tracking.names import Tag
from churnlab.tracking.search import pages, source

SAME_HOLD_OUT = ("seed", "dataset.rows", "evaluation.test_size", "evaluation.stratify")
"""The keys of a promotion, besides its table, by which another one has the same hold-out."""


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
        champion = versions.get(aliases.get("champion", ""))
        for version in versions.values():
            name = f"{model.name} version {version.version}"
            where = f"{model.name}/{version.version}"
            if missing := lost_files(version_uri(version)):
                what = f"{name} has lost its files: {listed(missing)}"
                fix = _replaced(version, champion, snapshot.runs, why="lost its files")
                yield Problem("version without files", what, where, fix)
            elif unlike := difference(version):
                fix = _replaced(version, champion, snapshot.runs, why="has other files")
                fix = f"put the files back from a copy of the store; or {fix}"
                what = f"{name} is not used: {unlike}"
                yield Problem("version with other files", what, where, fix)
        for alias, number in aliases.items():
            if number not in versions:
                what = f"{model.name} has no version {number}, to which its alias {alias} points"
                remove = mlflow.MlflowClient().delete_registered_model_alias
                repair = partial(remove, model.name, alias)
                yield Problem("dangling alias", what, f"{model.name}@{alias}", REPAIRS, repair)
        if champion is not None and champion.tags.get(Tag.GATE) not in GATED:
            verdict = "did not pass" if Tag.GATE in champion.tags else "never went through"
            what = f"version {champion.version}, the champion of {model.name}, {verdict} the gate"
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


def _replaced(
    version: ModelVersion, champion: ModelVersion | None, runs: Mapping[str, Run], *, why: str
) -> str:
    """Say what to do about a version that cannot be used: only a champion has to be replaced."""
    if champion is None or champion.version == version.version:
        promotion, forced = runs.get(version.run_id), why if champion else None
        return _promote_again(version, promotion, runs, forced=forced)
    return (
        f"delete it in the MLflow UI; the champion is version {champion.version}, and rollback "
        "skips what was deleted"
    )


def _promote_again(
    version: ModelVersion, promotion: Run | None, runs: Mapping[str, Run], *, forced: str | None
) -> str:
    """Return the command that makes a version of the same runs, with the keys that its run had.

    In place of a run that has lost its files promote takes the best one that is left.

    A champion that cannot be used fails the gate's comparison, so it is ``forced``: why.
    """
    if promotion is None or Tag.SEGMENT_RUN_ID not in version.tags:
        return "promote another version, then delete this one in the MLflow UI"
    params = promotion.data.params
    made_of = {"churn_run": Tag.CHURN_RUN_ID, "segment_run": Tag.SEGMENT_RUN_ID}
    made_of = {key: version.tags[tag] for key, tag in made_of.items()}
    words = ["churnlab", "promote", f"dataset={params['dataset.name']}"]
    known = [key for key in SAME_HOLD_OUT if params.get(key, "None") != "None"]
    words += [f"{key}={params[key]}" for key in known]
    words += [f"dataset.path={source(promotion)}"] if params["dataset.path"] != "None" else []
    words += [
        f"{key}={run_id}"
        for key, run_id in made_of.items()
        if run_id not in runs or damage(runs[run_id]) is None
    ]
    words += ["force=true", f"reason=version {version.version} {forced}"] if forced else []
    own = taken_by("dataset", params["dataset.name"]) is None
    where = " (with the --config-dir of its dataset)" if own else ""
    return (
        f"delete it in the MLflow UI after this command has replaced it{where}: {shlex.join(words)}"
    )


def interrupted_changes(snapshot: StoreSnapshot) -> Iterator[InterruptedChange]:
    """Yield each champion's last change if it was interrupted; none while a promotion runs."""
    with suppress(BlockingIOError), promotion_lock(wait=False):
        for model, versions in _our_models(snapshot):
            found = interrupted_change(model)
            if found is None and (claimed := claimed_change(model)) is not None:
                found = "", claimed
            if found is None:
                continue
            key, last = found
            stack = undo_stack(champion_changes(model))
            before = stack[-1] if stack and stack[-1] in versions else None
            description = f"to version {last['to']} ({last['when']}, by {last['who']})"
            yield InterruptedChange(model.name, key, description, last.get("run_id"), before)


def undo(change: InterruptedChange) -> None:
    """Remove an interrupted change from the history, and restore the alias ``previous``.

    One that was claimed on a server is completed instead.
    """
    client = mlflow.MlflowClient()
    with promotion_lock():
        settle(change.model)
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
    """Yield a champion that was deleted, or that is not in the history.

    Other deleted versions need no repair: rollback skips them.
    """
    changes = [change for _, change in recorded_changes(model)]
    last = changes[-1] if changes else {"from": champion, "to": champion}
    fix = f"churnlab rollback dataset={dataset_name(model.name)}, or churnlab promote"
    if champion is None and last["to"] not in {None, *versions}:
        what = f"{model.name}: version {last['to']}, the champion, was deleted"
        yield Problem("deleted version", what, model.name, fix)
    elif champion not in (None, last["to"], last["from"]):
        what = f"{model.name}: the champion is version {champion}, by the history {last['to']}"
        yield Problem("champion changed by hand", what, model.name, fix)
