"""Load versions, and find out what they answer and which members they were trained on."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import yaml
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from churnlab.data import drift
from churnlab.data.contract import Contract
from churnlab.data.dataset import (
    Dataset,
    Members,
    content_columns,
    content_hashes,
    identifying_columns,
    member_hashes,
    same_members,
)
from churnlab.data.expressions import evaluate
from churnlab.errors import InputError, Refused
from churnlab.formatting import listed
from churnlab.registry.champion import file_names, find_champion, former_champions, version_uri
from churnlab.registry.manifest import Lost, NoManifest, Unverified, verified_copy
from churnlab.tracking import artifacts
from churnlab.tracking.names import Artifact, Tag
from churnlab.tracking.server import raise_unanswered

INSTEAD = "Put the files back from a copy of the store; churnlab rollback restores a champion."
"""What to do about a version whose files were changed."""

ANOTHER = "Name another version with model_uri=models:/NAME/VERSION."
"""What to do about a version that cannot be loaded."""

NO_SEGMENTS = "none"
"""In place of the id of a segment run: the version has no segments."""


@dataclass(frozen=True)
class Served:
    """A loaded version: ``model`` is what MLflow serves, ``spec`` what is in its served.json."""

    model: mlflow.pyfunc.PyFuncModel
    spec: Mapping[str, Any]


class Champion(NamedTuple):
    """The champion at one moment; ``unknown`` is the reason why it could not be loaded."""

    version: ModelVersion
    served: Served | None
    unknown: str | None = None

    @property
    def number(self) -> str:
        """Return the number of the version."""
        return str(self.version.version)

    def serves(self, churn: Run, segments: Run | None) -> bool:
        """Return whether the version can be loaded and was made of these two runs (None: of no
        segment run)."""
        tags, runs = self.version.tags, (churn.info.run_id, segment_run_id(segments))
        made_of = tags.get(Tag.CHURN_RUN_ID), tags.get(Tag.SEGMENT_RUN_ID)
        return self.served is not None and made_of == runs


def segment_run_id(segments: Run | None) -> str:
    """Return the id of a segment run as a version's tags and the key segment_run have it."""
    return NO_SEGMENTS if segments is None else segments.info.run_id


def served_segment_run_id(version: ModelVersion) -> str | None:
    """Return the id of the segment run that a version serves; None for a version without."""
    found = version.tags[Tag.SEGMENT_RUN_ID]
    return None if found == NO_SEGMENTS else found


@contextmanager
def nothing_compiled() -> Iterator[None]:
    """Load versions meanwhile: Python leaves no compiled file in a version's folder."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def load(model_uri: str, *, unverified: bool = False) -> Served:
    """Load a version as MLflow serves it, from a copy whose files are those of its manifest.

    ``unverified``: take one that has no manifest, too. Unverified (a LookupError): its files are
    not those that were registered. LookupError: another reason why it cannot be used.
    """
    try:
        with verified_copy(model_uri, unverified=unverified) as folder:
            return load_files(folder)
    except Lost as error:
        raise Lost(lost_in_words(model_uri) or str(error)) from None


def load_trusted(model_uri: str, *, unverified: bool) -> Served:
    """Load a version that is to answer users' members. Refused (exit code 3): its files are not
    those that were registered. InputError: another reason why it cannot answer."""
    try:
        return load(model_uri, unverified=unverified)
    except NoManifest as error:
        if "MLmodel" not in file_names(model_uri):
            raise InputError(
                f"model_uri={model_uri} is no model: write models:/NAME/VERSION, or leave it out "
                "for the champion of the dataset."
            ) from error
        raise Refused(
            f"{model_uri} is not used: {error}. model.unverified=true uses it without a check; a "
            "version that churnlab promote makes now has a manifest."
        ) from error
    except Lost as error:
        raise InputError(f"{model_uri} cannot be used: {error}. {ANOTHER}") from error
    except Unverified as error:
        raise Refused(f"{model_uri} is not used: {error}. {INSTEAD}") from error
    except LookupError as error:
        raise InputError(f"{model_uri} cannot be used: {error}. {ANOTHER}") from error


def load_files(folder: Path) -> Served:
    """Load a version from a folder of its files. LookupError: the reason why it cannot be used."""
    try:
        with nothing_compiled():
            model = mlflow.pyfunc.load_model(str(folder))
    except Exception as error:  # a damaged or missing file can raise anything
        raise LookupError(f"it cannot be loaded ({_first_line(error)})") from error
    try:
        return Served(model, model.unwrap_python_model().served)
    except (MlflowException, AttributeError):
        raise LookupError("it was not made by churnlab promote") from None


def check_files(version: ModelVersion) -> None:
    """Refuse a version whose files are not those that were registered.

    One with lost files, and one from before manifests, pass: what is left of them can be read.
    """
    try:
        with verified_copy(version_uri(version), unverified=True):
            pass
    except Lost:
        pass
    except Unverified as error:
        raise Refused(f"{version_uri(version)} cannot be used: {error}. {INSTEAD}") from None


def load_champion(name: str) -> Champion | None:
    """Load the champion of a registered model, None if there is none."""
    version = find_champion(name)
    if version is None:
        return None
    try:
        return Champion(version, load(version_uri(version), unverified=True))
    except LookupError as error:
        return Champion(version, None, str(error))


def load_ancestor(name: str, promotions: int) -> Champion | None:
    """Load the champion of at most so many promotions ago, the oldest that loads.

    None if the present champion is the first, or was promoted by force: that is a new beginning.
    """
    found = None
    for version in former_champions(name, promotions):
        try:
            return Champion(version, load(version_uri(version), unverified=True))
        except LookupError as error:
            found = found or Champion(version, None, str(error))
    return found


def lost_files(model_uri: str) -> list[str]:
    """Return the files that a version's MLmodel names and that do not exist."""
    try:
        model = yaml.safe_load(mlflow.artifacts.load_text(f"{model_uri}/MLmodel"))
    except (MlflowException, OSError) as error:
        raise_unanswered(error)
        return ["MLmodel"]
    served = model["flavors"].get("python_function", {})
    needed = [Path(part["path"]) for part in (served.get("artifacts") or {}).values()]
    needed += [Path(Path(served["model_code_path"]).name)] if "model_code_path" in served else []
    folders = {path.parent for path in needed}
    present = {folder: file_names(f"{model_uri}/{folder}") for folder in folders}
    return [str(path) for path in needed if path.name not in present[path.parent]]


def lost_in_words(model_uri: str) -> str | None:
    """Say which files a version has lost; None for none, and for what is no version."""
    if not re.fullmatch(r"models:/[^/]+/\d+", model_uri):
        return None
    lost, repair = listed(lost_files(model_uri)), "churnlab doctor prints what replaces it"
    return f"it has lost its files: {lost}; {repair}" if lost else None


def read_version(model_uri: str, path: str) -> Any:
    """Read a JSON file of a version without loading its model; None if there is no such file."""
    try:
        return mlflow.artifacts.load_dict(f"{model_uri}/artifacts/{path}")
    except (MlflowException, OSError) as error:
        raise_unanswered(error)
        return None


def warn_of_drift(members: Members, spec: Mapping[str, Any] | None, *, model: str) -> None:
    """Warn of members who differ from those that a version was trained on; ``spec`` is its own."""
    if spec and "training" in spec:
        target = members.contract.target
        for warning in drift.warnings(members.frame, spec["training"], model=model, target=target):
            members.warn(warning)


def warn_of_score_drift(
    members: Members, scores: np.ndarray, spec: Mapping[str, Any], *, model: str
) -> None:
    """Warn if a version's probabilities of these members differ from those out of fold."""
    for warning in drift.score_warnings(scores, spec.get("training", {}), model=model):
        members.warn(warning)


def with_its_days(version: Served, contract: Contract) -> Contract:
    """Return the contract with the days before which the version counts the ages of dates: those
    that it was trained with."""
    columns = dict(contract.columns)
    for name, reading in version.spec.get("reading", {}).items():
        if "before" in reading and name in columns and columns[name].kind == "date":
            columns[name] = replace(columns[name], before=reading["before"])
    return replace(contract, columns=columns)


def features_of(version: Served, members: Members) -> pd.DataFrame:
    """Return the features of members with the ages of dates as the version counts them: their own
    contract may name another day."""
    its_own = with_its_days(version, members.contract).columns
    moved = {
        name: (pd.Timestamp(str(its_own[name].before)) - pd.Timestamp(str(column.before))).days
        for name, column in members.contract.columns.items()
        if column.before != its_own[name].before
    }
    ages = {name: members.X[name] + days for name, days in moved.items()}
    return members.X.assign(**ages) if ages else members.X


def answerable(version: Served, X: pd.DataFrame) -> np.ndarray:
    """Return a mask of the members that a version accepts.

    It refuses those who break its own contract, which may be older than the table's.
    """
    spec = version.spec
    if not set(spec["inputs"]) <= set(X):
        return np.zeros(len(X), bool)
    members = X[spec["inputs"]]
    able = members.drop(columns=spec["may_be_missing"]).notna().all(axis=1).to_numpy()
    for check in spec["checks"]:
        known = members[check["columns"]].notna().all(axis=1).to_numpy()
        able = able & (~known | (evaluate(check["holds"], members) != 0))
    return able


def answers(version: Served, X: pd.DataFrame, *, reasons: bool = False) -> list[dict[str, Any]]:
    """Return a version's answer for each member, in order."""
    if X.empty:
        return []
    return version.model.predict(X.reset_index(drop=True), params={"reasons": reasons})


def probabilities(version: Served, X: pd.DataFrame) -> np.ndarray:
    """Return a version's churn probability of each member."""
    return np.array([answer["churn_probability"] for answer in answers(version, X)])


def training_rows(churn: Run) -> np.ndarray:
    """Return the rows of its own table that a churn model was trained on."""
    return artifacts.read_table(churn.info.run_id, Artifact.OOF)["row"].unique()


def log_training_members(churn: Run, dataset: Dataset) -> list[str]:
    """Log the hashes of the training members in the open promotion run.

    Returns the columns that identify a member.
    """
    members = np.unique(member_hashes(dataset)[training_rows(churn)])
    artifacts.log_table(pd.DataFrame({"member": members}), Artifact.TRAINED_ON)
    return identifying_columns(dataset)


class TrainedOn(NamedTuple):
    """A mask of the rows whose members a version was trained on, and a caveat, "" for none."""

    rows: np.ndarray
    caveat: str


def trained_on(version: ModelVersion, dataset: Dataset) -> TrainedOn:
    """Find the rows whose members a version was trained on.

    Members are matched by id where the tables have one. Without one, they are matched in the
    version's own table by row, and in any other by content, which the caveat explains. LookupError:
    the reason why it cannot be known.
    """
    run_id = version.tags.get(Tag.CHURN_RUN_ID)
    if run_id is None:
        raise LookupError("it has no train run, so it was not made by churnlab promote")
    try:
        churn = mlflow.get_run(run_id)
        if churn.data.tags.get(Tag.DATA) == dataset.sha256:
            with suppress(artifacts.LostFile):  # the promotion remembers its members, too
                return TrainedOn(same_members(dataset, training_rows(churn)), "")
        columns = artifacts.read_json(version.run_id, Artifact.GATE).get("identifying_columns")
        members = artifacts.read_table(version.run_id, Artifact.TRAINED_ON)["member"]
    except (MlflowException, OSError, artifacts.LostFile) as error:
        raise_unanswered(error)
        raise LookupError(
            f"it is unknown which members it was trained on ({_first_line(error)})"
        ) from error
    if dataset.ids is not None and columns == identifying_columns(dataset):
        return TrainedOn(np.isin(member_hashes(dataset), members), "")
    if columns == content_columns(dataset):
        cure = "dataset.id= would match them by id"
        if dataset.ids is not None:
            cure = "later versions are matched by id"
        return TrainedOn(
            np.isin(content_hashes(dataset), members),
            f"version {version.version} knows its training members by the content of all columns, "
            f"so one with a changed value counts as new here ({cure})",
        )
    known = "another id" if len(columns or ()) == 1 else "other columns"
    raise LookupError(f"it was trained on a table with {known}, so its members cannot be matched")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
