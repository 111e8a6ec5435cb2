"""The registry looked through: the files of versions, aliases, and how one champion came after
another.

Each move of a champion is a tag of its registered model, written before the aliases are: a last
move that the alias does not show was broken off.
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
from churnlab.registry import champion as registry
from churnlab.tracking.names import Tag
from churnlab.tracking.search import pages

GATED = {"passed", "forced"}
"""What the gate has said of a version that may be the champion."""


@dataclass(frozen=True)
class Move:
    """A move of a champion that was begun and not finished: its tag, and what the alias
    ``previous`` was before."""

    model: str
    key: str
    told: str
    run_id: str | None
    previous: str | None


def registered(books: StoreSnapshot) -> Iterator[Problem]:
    """What is wrong with our registered models: versions, aliases, the history of the champion."""
    for model, versions in _ours(books):
        aliases = {alias: str(number) for alias, number in model.aliases.items()}
        for version in versions.values():
            gone = missing_files(version)
            if gone:
                what = f"{model.name} version {version.version} lacks its files: {listed(gone)}"
                runs = [version.tags.get(tag) for tag in (Tag.CHURN_RUN_ID, Tag.SEGMENT_RUN_ID)]
                mend = (
                    f"churnlab promote churn_run={runs[0]} segment_run={runs[1]}"
                    if all(runs)
                    else "make it again"
                )
                yield Problem(
                    "version without files", what, f"{model.name}/{version.version}", mend
                )
        for alias, number in aliases.items():
            if number not in versions:
                what = f"the alias {alias} of {model.name} points to version {number}, which is not there"
                cure = partial(
                    mlflow.MlflowClient().delete_registered_model_alias, model.name, alias
                )
                yield Problem("alias to nowhere", what, f"{model.name}@{alias}", REPAIRS, cure)
        champion = versions.get(aliases.get("champion", ""))
        if champion is not None and champion.tags.get(Tag.GATE) not in GATED:
            verdict = champion.tags.get(Tag.GATE, "never asked")
            what = f"version {champion.version} is the champion of {model.name}, and the gate was: {verdict}"
            mend = "promote a version through the gate (churnlab promote), or churnlab rollback"
            yield Problem("champion without a gate", what, f"{model.name}/{champion.version}", mend)
        yield from _history(model, versions, champion=champion and str(champion.version))


def _ours(books: StoreSnapshot) -> Iterator[tuple[RegisteredModel, dict[str, ModelVersion]]]:
    """The registered models of our datasets, each with its versions by number."""
    client = mlflow.MlflowClient()
    experiments = {client.get_experiment(number).name for number in books.experiments}
    for model in pages(client.search_registered_models):
        found = pages(client.search_model_versions, filter_string=f"name='{model.name}'")
        tags = [*model.tags, *[tag for version in found for tag in version.tags]]
        if model.name in experiments or any(tag.startswith("churnlab.") for tag in tags):
            yield model, {str(version.version): version for version in found}


def missing_files(version: ModelVersion) -> list[str]:
    """The files that a version should have and has not."""
    client = mlflow.MlflowClient()
    try:
        root = client.get_model_version_download_uri(version.name, version.version)
        described = yaml.safe_load(mlflow.artifacts.load_text(f"{root}/MLmodel"))
    except (MlflowException, OSError):
        return ["MLmodel"]
    served = described["flavors"].get("python_function", {})
    needed = [Path(part["path"]) for part in (served.get("artifacts") or {}).values()]
    needed += [Path(Path(served["model_code_path"]).name)] if "model_code_path" in served else []
    there = {folder: _names(f"{root}/{folder}") for folder in {path.parent for path in needed}}
    return [str(path) for path in needed if path.name not in there[path.parent]]


def _names(location: str) -> set[str]:
    """What lies in a folder of artifacts."""
    try:
        return {
            Path(file.path).name
            for file in mlflow.artifacts.list_artifacts(artifact_uri=location) or []
        }
    except (MlflowException, OSError):
        return set()


def unfinished_moves(books: StoreSnapshot) -> Iterator[Move]:
    """The last move of each champion that was written and not made; none while a promotion is under
    way."""
    with suppress(BlockingIOError), registry.one_at_a_time(wait=False):
        for model, versions in _ours(books):
            found = registry.broken_off(model)
            if found is None:
                continue
            key, last = found
            before = next(iter(registry.undo_stack(registry.moves(model))[::-1]), None)
            told = f"from {last['from']} to {last['to']}, {last['when']}, by {last['who']}"
            yield Move(
                model.name, key, told, last.get("run_id"), before if before in versions else None
            )


def take_back(move: Move) -> None:
    """Take an unfinished move out of the history, and put the alias ``previous`` back to where it
    was before it."""
    client = mlflow.MlflowClient()
    with registry.one_at_a_time():
        model = client.get_registered_model(move.model)
        found = registry.broken_off(model)
        if found is None or found[0] != move.key:
            return  # a promotion has come in between
        if move.previous is not None:
            client.set_registered_model_alias(move.model, "previous", move.previous)
        elif "previous" in model.aliases:
            client.delete_registered_model_alias(move.model, "previous")
        client.delete_registered_model_tag(move.model, move.key)


def _history(
    model: RegisteredModel, versions: Collection[str], *, champion: str | None
) -> Iterator[Problem]:
    """Versions that the history names and nobody has, and a champion that the history does not
    know."""
    moves = [move for _, move in registry.journal(model)]
    named = dict.fromkeys(
        number for move in moves for number in (move["from"], move["to"]) if number is not None
    )
    gone = [number for number in named if number not in versions]
    if gone:
        lost = champion is None and moves[-1]["to"] in gone
        what = f"{model.name}: versions {listed(gone)} of the champion's history were deleted"
        mend = (
            "churnlab rollback, or churnlab promote"
            if lost
            else "nothing can bring them back; rollback passes them by"
        )
        yield Problem(
            "deleted version", what + (", the champion with them" if lost else ""), model.name, mend
        )
    if champion is not None and moves and champion not in (moves[-1]["to"], moves[-1]["from"]):
        what = f"{model.name}: version {champion} is the champion, and the history's last move is to {moves[-1]['to']}"
        yield Problem(
            "champion moved by hand", what, model.name, "churnlab promote, or churnlab rollback"
        )
