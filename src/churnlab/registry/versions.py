"""The files of a version: a churn model, a segmentation, and what users see of both, in a form that
stands alone."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import skops.io
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from sklearn.pipeline import Pipeline

from churnlab.data import drift, expressions
from churnlab.data.contract import Contract
from churnlab.data.dataset import Dataset, Members, identifying_columns, member_hashes
from churnlab.data.expressions import evaluate
from churnlab.data.validation import row_checks
from churnlab.explore.redundancy import together
from churnlab.models.features import typical
from churnlab.registry.model_artifacts import input_columns, load_pipeline, requirements
from churnlab.segments.matching import match
from churnlab.segments.playbook import text
from churnlab.tracking import artifacts
from churnlab.tracking.names import Artifact, Tag

SHOWN = (Artifact.PORTRAITS, Artifact.SEGMENTS, "figures/dendrogram.png")
"""Artifacts of the segmentation run that a version shows without its code."""


TRAINED_ON = Artifact.TRAINED_ON
"""Artifact of a promotion: the fingerprints of the members that its churn model was trained on."""


@dataclass(frozen=True)
class Served:
    """A version as it answers: ``model`` is what MLflow serves, ``about`` what the version says of
    itself."""

    model: mlflow.pyfunc.PyFuncModel
    about: Mapping[str, Any]


def load(model_uri: str) -> Served:
    """Load a version; LookupError says why it cannot be used."""
    try:
        model = load_bundle(model_uri)
    except Exception as error:  # whatever a file that is damaged or gone makes of itself
        raise LookupError(
            f"it cannot be loaded ({(str(error).splitlines() or [type(error).__name__])[0]})"
        ) from error
    try:
        about = model.unwrap_python_model().served
    except (MlflowException, AttributeError):
        raise LookupError("it was not made by churnlab promote") from None
    return Served(model, about)


@dataclass(frozen=True)
class Numbering:
    """By which number, and by which name if it has one already, users see each segment of a run
    (the key).

    ``free`` is the first number that has never been used; ``told`` says what changes for the
    members.
    """

    numbers: Mapping[int, int]
    names: Mapping[int, str]
    free: int
    told: str


def number_segments(
    segments: Run, dataset: Dataset, *, champion: str | None, serving: Served | None
) -> Numbering:
    """Give the segments of a run the champion's numbers where they are the champion's segments, and
    its names.

    ``champion`` is the version with that alias, ``serving`` what answers. Names are kept as long as
    the playbook is the same; what is new gets a number that was never used.
    """
    members = artifacts.read_table(segments.info.run_id, Artifact.MEMBERS)
    k = int(segments.data.metrics["k"])
    if (
        not champion or not serving or "free" not in serving.about
    ):  # none, or an older one that kept no numbers
        return Numbering(
            {segment: segment for segment in range(k)}, {}, k, "the first of this model"
        )
    served = serving.about
    able = answerable(serving, dataset.X.iloc[members["row"]])
    before = [
        answer["segment"] for answer in answers(serving, dataset.X.iloc[members["row"][able]])
    ]
    after = members["segment"].to_numpy()[able]
    found = match(np.array(before, dtype=int), after, segments=k, free=served["free"])
    kept = {segment["number"]: segment["name"] for segment in served["segments"].values()}
    same = served["playbook"] == _playbook(artifacts.read_config(segments.info.run_id))
    names = {
        segment: kept[number]
        for segment, number in found.numbers.items()
        if same and number in kept
    }
    told = f"beside version {champion}, {found}"
    return Numbering(found.numbers, names, served["free"] + len(found.new), told)


def warn_of_drift(members: Members, served: Mapping[str, Any] | None, *, model: str) -> None:
    """Warn of members unlike those that a version was trained on; ``served`` is what it says of
    itself."""
    if served and "training" in served:
        for warning in drift.warnings(members.frame, served["training"], model=model):
            members.warn(warning)


def answerable(version: Served, X: pd.DataFrame) -> np.ndarray:
    """Which members a version answers for: none that breaks its own contract, which may be older
    than the table's."""
    served = version.about
    if not set(served["inputs"]) <= set(X):
        return np.zeros(len(X), bool)
    members = X[served["inputs"]]
    able = members.drop(columns=served["may_be_missing"]).notna().all(axis=1).to_numpy()
    for check in served["checks"]:
        known = members[check["columns"]].notna().all(axis=1).to_numpy()
        able = able & (~known | (evaluate(check["holds"], members) != 0))
    return able


def answers(version: Served, X: pd.DataFrame, *, reasons: bool = False) -> list[dict[str, Any]]:
    """What a version answers for these members."""
    if X.empty:
        return []
    return version.model.predict(X.reset_index(drop=True), params={"reasons": reasons})


def interface(version: Served) -> dict[str, dict[str, tuple[str, bool]]]:
    """What goes in and comes out of a version: ``inputs``, ``params`` and ``outputs``, each a type
    and if required."""
    signature = version.model.metadata.signature
    columns = {"inputs": signature.inputs.inputs, "outputs": signature.outputs.inputs}
    told = {
        part: {field.name: (field.type.name, bool(field.required)) for field in columns[part]}
        for part in columns
    }
    return told | {
        "params": {param.name: (param.dtype.name, False) for param in signature.params or ()}
    }


def training_rows(churn: Run) -> np.ndarray:
    """The rows of its own table that a churn model was trained on."""
    return artifacts.read_table(churn.info.run_id, Artifact.OOF)["row"].unique()


def keep_training_rows(churn: Run, dataset: Dataset) -> list[str]:
    """Log in the promotion that is under way by what its training members are known again in other
    tables.

    Returns the columns that tell members apart.
    """
    members = np.unique(member_hashes(dataset)[training_rows(churn)])
    artifacts.log_table(pd.DataFrame({"member": members}), TRAINED_ON)
    return identifying_columns(dataset)


def trained_on(version: ModelVersion, dataset: Dataset) -> np.ndarray:
    """Which rows of a table hold members that a version was trained on, as a mask.

    In its own table they are known by their rows, in any other by their content: a member equal in
    all columns counts. LookupError says why it cannot be known.
    """
    run_id = version.tags.get(Tag.CHURN_RUN_ID)
    if run_id is None:
        raise LookupError(
            "it does not say of which train run it is made, so it was not made by churnlab promote"
        )
    try:
        churn = mlflow.get_run(run_id)
        if churn.data.tags.get(Tag.DATA) == dataset.sha256:
            return np.isin(np.arange(len(dataset.y)), training_rows(churn))
        apart = artifacts.read_json(version.run_id, Artifact.GATE).get("told_apart_by")
        members = artifacts.read_table(version.run_id, TRAINED_ON)["member"]
    except (MlflowException, OSError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise LookupError(f"the members it was trained on are no longer known ({said})") from error
    if apart != identifying_columns(dataset):
        raise LookupError(
            "it was trained on a table with other columns, in which the same members cannot be "
            "found"
        )
    return np.isin(member_hashes(dataset), members)


def write(
    folder: Path, churn: Run, segments: Run, dataset: Dataset, numbering: Numbering
) -> dict[str, str]:
    """Write the files of a version into a folder; returns the artifacts of bundle.py by name."""
    pipeline: Pipeline = load_pipeline(churn.info.run_id)
    segmentation: Pipeline = load_pipeline(segments.info.run_id)
    config = artifacts.read_config(segments.info.run_id)
    portraits = _renumbered(
        artifacts.read_json(segments.info.run_id, Artifact.PORTRAITS), numbering
    )
    segmented = artifacts.read_json(segments.info.run_id, Artifact.SEGMENTATION)
    contract, features = dataset.contract, pipeline[0]
    trained = artifacts.read_table(churn.info.run_id, Artifact.OOF)
    rows = trained["row"].unique()
    stayed = trained.loc[trained["y"] == 0, "row"].unique()
    served = {
        "dataset": contract.name,
        "inputs": list(contract.columns),
        "checks": row_checks(contract),
        "may_be_missing": dataset.gaps,
        "features": {
            "keep": list(features.keep),
            "derive": dict(features.derive),
            "fill": features.fill_,
        },
        "threshold": churn.data.metrics["threshold"],
        "segment_columns": segmented["columns"],
        "segment_fill": segmented["fill"],
        "segments": {
            str(segment): {
                "number": portrait["id"],
                "name": portrait["name"],
                "recommended_action": portrait["recommended_action"],
            }
            for segment, portrait in enumerate(portraits)
        },
        "free": numbering.free,
        "playbook": _playbook(config),
        "typical": typical(dataset.X.iloc[stayed]),
        "training": drift.remember(dataset.frame.iloc[rows]),
        "reasons": _reasons(
            config["playbook"]["reasons"], config["playbook"]["language"], dataset.X.iloc[rows]
        ),
    }
    (folder / "served.json").write_text(
        json.dumps(served, ensure_ascii=False, indent=1), encoding="utf-8"
    )
    skops.io.dump(pipeline[1:], folder / "churn.skops")
    skops.io.dump(segmentation, folder / "segments.skops")
    shutil.copy(Path(expressions.__file__), folder)
    _show(folder / "segmentation", segments, portraits, numbering)
    return {path.stem: str(path) for path in sorted(folder.iterdir())}


def _renumbered(portraits: list[dict[str, Any]], numbering: Numbering) -> list[dict[str, Any]]:
    """The portraits under the numbers and names that users know, in the order of the run's own."""
    ordered = sorted(portraits, key=lambda portrait: portrait["id"])
    return [
        portrait
        | {"id": numbering.numbers[segment], "name": numbering.names.get(segment, portrait["name"])}
        for segment, portrait in enumerate(ordered)
    ]


def _show(
    folder: Path, segments: Run, portraits: list[dict[str, Any]], numbering: Numbering
) -> None:
    """What a person reads of the segmentation, under the numbers and names of the version."""
    for path in SHOWN:
        artifacts.download(segments.info.run_id, path, folder)
    (folder / Artifact.PORTRAITS).write_text(
        json.dumps(portraits, ensure_ascii=False, indent=1), encoding="utf-8"
    )
    profile = pd.read_csv(folder / Artifact.SEGMENTS)
    profile["name"] = profile["segment"].map(
        dict(enumerate(portrait["name"] for portrait in portraits))
    )
    profile["segment"] = profile["segment"].map(numbering.numbers)
    profile.sort_values("segment").to_csv(folder / Artifact.SEGMENTS, index=False)
    reason = segments.data.tags[Tag.K_REASON]
    (folder / "k_reason.txt").write_text(f"{reason}\n", encoding="utf-8")


def _playbook(config: Mapping[str, Any]) -> str:
    """A fingerprint of the playbook and its language: as long as it is the same, segments keep
    their names."""
    return hashlib.sha256(json.dumps(config["playbook"], sort_keys=True).encode()).hexdigest()


def _reasons(groups: list[dict[str, Any]], language: str, X: pd.DataFrame) -> list[dict[str, Any]]:
    """The playbook's reasons in one language; without any, each column, or group that goes
    together, is a reason."""
    if not groups:
        return [{"columns": columns, "texts": []} for columns in together(X)]
    return [
        {
            "columns": group["columns"],
            "texts": [
                {"when": option.get("when"), "text": text(option["text"], language)}
                for option in group["texts"]
            ],
        }
        for group in groups
    ]


def log_bundle(
    artifacts: Mapping[str, str], contract: Contract, *, threshold: float, gaps: Collection[str]
) -> str:
    """Log a served model (bundle.py with its files), pickle-free and without a path of the
    checkout; returns its id.

    ``gaps`` are the columns in which a value may be missing.
    """
    inputs = [*input_columns(contract, gaps), ColSpec("string", "member_id", required=False)]
    outputs = {"churn_probability": "double", "will_churn": "boolean", "segment": "long"}
    outputs |= {"segment_name": "string", "recommended_action": "string"}
    params = ParamSchema(
        [ParamSpec("threshold", "double", threshold), ParamSpec("reasons", "boolean", True)]
    )
    answers = Schema([ColSpec(kind, name) for name, kind in outputs.items()])
    with tempfile.TemporaryDirectory() as neutral:  # MLmodel tells from where the code was logged
        info = mlflow.pyfunc.log_model(
            name="bundle",
            python_model=str(shutil.copy(Path(__file__).with_name("served_model.py"), neutral)),
            artifacts=dict(artifacts),
            signature=ModelSignature(Schema(inputs), answers, params),
            pip_requirements=requirements(),
        )
    return info.model_id


def read_version(model_uri: str, path: str) -> Any:
    """A JSON file of a served model, read without loading the model; None when it is not there."""
    try:
        return mlflow.artifacts.load_dict(f"{model_uri}/artifacts/{path}")
    except (MlflowException, OSError):
        return None


def load_bundle(model_uri: str) -> mlflow.pyfunc.PyFuncModel:
    """A version as MLflow serves it; Python leaves none of its compiled files among the version's
    own."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        return mlflow.pyfunc.load_model(model_uri)
    finally:
        sys.dont_write_bytecode = before
