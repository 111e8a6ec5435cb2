"""Build a candidate version: a churn model and a segmentation as self-contained files."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import skops.io
from mlflow.entities import Run
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from sklearn.pipeline import Pipeline

from churnlab.bundle import arrays, coordinates, import_folder, reading, skops_types
from churnlab.data import cells, drift, expressions
from churnlab.data.dataset import Dataset
from churnlab.data.validation import row_checks
from churnlab.explore.redundancy import correlated_groups
from churnlab.models.features import typical
from churnlab.registry import inputs
from churnlab.registry.array_check import parts_by_arrays
from churnlab.registry.gate import Check, check_stability, no_segments
from churnlab.registry.input_example import EXAMPLES, make_examples
from churnlab.registry.manifest import copied, manifest_of
from churnlab.registry.model_artifacts import (
    code_folder,
    load_pipeline,
    model_folder,
    packages,
    requirements,
    requirements_known,
)
from churnlab.registry.versions import (
    NO_SEGMENTS,
    Champion,
    Served,
    answerable,
    answers,
    features_of,
    load_files,
    nothing_compiled,
)
from churnlab.segments.matching import match
from churnlab.segments.playbook import text
from churnlab.tracking import artifacts
from churnlab.tracking.names import Artifact, Tag

SERVED_MODEL = Path(arrays.__file__).with_name("served_model.py")
"""Code that MLflow runs; importing it declares a model, so it is only copied."""

NO_PLAYBOOK: Mapping[str, Any] = {"reasons": []}
"""The playbook of a version without segments: each group of columns is a reason of its own."""

SEGMENTATION_FILES = (Artifact.PORTRAITS, Artifact.SEGMENTS, "figures/dendrogram.png")
"""Artifacts of the segmentation run that a version holds, readable without its code."""


@dataclass(frozen=True)
class Numbering:
    """The number, and the name if it has one already, under which users see each segment of a run.

    ``free`` is the first number that was never used; ``summary`` says what changes for members.
    """

    numbers: Mapping[int, int]
    names: Mapping[int, str]
    free: int
    summary: str


def number_segments(segments: Run | None, dataset: Dataset, champion: Champion | None) -> Numbering:
    """Number the segments of a run like the champion's that they continue, and keep their names.

    Names are kept as long as the playbook is the same; a new segment gets an unused number, also
    after a champion without segments.
    """
    spec = champion.served.spec if champion is not None and champion.served is not None else {}
    if segments is None:
        return Numbering({}, {}, spec.get("free", 0), NO_SEGMENTS)
    members = artifacts.read_table(segments.info.run_id, Artifact.MEMBERS)
    k = int(segments.data.metrics["k"])
    if not spec.get("segments") or "free" not in spec:
        # There is none to continue, or it is an older one that kept no numbers.
        free = spec.get("free", 0)
        numbers = {segment: free + segment for segment in range(k)}
        return Numbering(numbers, {}, free + k, "numbered by size")
    assert champion is not None
    served = champion.served
    assert served is not None
    X = features_of(served, dataset).iloc[members["row"]]
    able = answerable(served, X)
    before = [answer["segment"] for answer in answers(served, X[able])]
    after = members["segment"].to_numpy()[able]
    matched = match(np.array(before, dtype=int), after, segments=k, free=spec["free"])
    known = {segment["number"]: segment["name"] for segment in spec["segments"].values()}
    same_playbook = spec["playbook"] == _fingerprint(_playbook(segments))
    names = {
        segment: known[number]
        for segment, number in matched.numbers.items()
        if same_playbook and number in known
    }
    summary = f"numbered as in version {champion.number}: {matched}"
    return Numbering(matched.numbers, names, spec["free"] + len(matched.new), summary)


@dataclass(frozen=True)
class Candidate:
    """A version before it is registered: the runs it is made of, and what they were made into.

    ``model_id`` is the logged bundle, ``served`` the same loaded, ``manifest`` the SHA-256 of its
    files.
    """

    churn: Run
    segments: Run | None
    model_id: str
    served: Served
    numbering: Numbering
    megabytes: float
    manifest: Mapping[str, str]

    @property
    def tags(self) -> dict[str, str]:
        """The tags of the version that say what its files are, and what is not fast in it."""
        slow = [name for name, fast in self.served.spec["arrays"].items() if not fast]
        slow = [name for name in slow if name != "segments" or self.segments is not None]
        tags = {Tag.MANIFEST: json.dumps(self.manifest)}
        return tags | ({Tag.BY_PIPELINE: ", ".join(slow)} if slow else {})

    @property
    def description(self) -> str:
        """Name the runs that the version is made of, its threshold and the reason for k."""
        threshold, divided = self.churn.data.metrics["threshold"], "without segments"
        if self.segments is not None:
            reason = self.segments.data.tags[Tag.K_REASON]
            divided = f"with {self.segments.info.run_name} ({reason})"
        return f"{self.churn.info.run_name} at threshold {threshold:.2f}, {divided}"

    def check_segments(self) -> Check:
        """Check that the segments are stable; there may be none."""
        if self.segments is None:
            return no_segments()
        tags, params = self.segments.data.tags, self.segments.data.params
        unstable = tags.get(Tag.UNSTABLE, "it is marked so.")
        by_hand, stable = params["segments.k"] != "auto", tags[Tag.STABLE] == "true"
        return check_stability(None if stable else unstable, by_hand=by_hand)


def build(
    churn: Run, segments: Run | None, dataset: Dataset, champion: Champion | None
) -> Candidate:
    """Log the version that would be registered, and load it as it would be served.

    ``segments`` is None for a version without segments.
    """
    numbering = number_segments(segments, dataset, champion)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write(folder, churn, segments, dataset, numbering)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        model_id = _log_bundle(
            folder,
            dataset,
            threshold=churn.data.metrics["threshold"],
            requirements=requirements(packages(model_folder(churn.info.run_id))),
        )
    with copied(f"models:/{model_id}") as files:
        served = load_files(files)
        _log_examples(files / EXAMPLES, model_id, served, dataset)
        manifest = manifest_of(files)
    return Candidate(churn, segments, model_id, served, numbering, size / 1e6, manifest)


def _log_examples(file: Path, model_id: str, served: Served, dataset: Dataset) -> None:
    """Log members who are nobody, and what the version answers them: a server asks them again."""
    members = make_examples(dataset, served.spec, most=10)
    asked = json.loads(members.to_json(orient="records", double_precision=15))
    _write_json({"members": asked, "answers": served.model.predict(asked)}, file)
    mlflow.MlflowClient().log_model_artifact(model_id, str(file))


def _log_bundle(
    folder: Path, dataset: Dataset, *, threshold: float, requirements: list[str]
) -> str:
    """Log served_model.py with the files of a folder, without pickle; return the model's id.

    The signature declares no inputs: MLflow would refuse whole numbers for a double, and drop other
    columns before the version sees them. The version checks its inputs itself; people find them in
    the metadata and in the example.
    """
    spec = json.loads((folder / "served.json").read_text(encoding="utf-8"))
    outputs = {"churn_probability": "double", "will_churn": "boolean", "segment": "long"}
    outputs |= {"segment_name": "string", "recommended_action": "string"}
    params = ParamSchema(
        [ParamSpec("threshold", "double", threshold), ParamSpec("reasons", "boolean", True)]
    )
    fields = Schema([ColSpec(kind, name) for name, kind in outputs.items()])
    signature = ModelSignature(None, fields, params)
    # MLmodel records from where code was logged; MLflow loads the version to try the example.
    with tempfile.TemporaryDirectory() as neutral, nothing_compiled(), requirements_known():
        info = mlflow.pyfunc.log_model(
            name="bundle",
            python_model=str(shutil.copy(SERVED_MODEL, neutral)),
            artifacts={path.stem: str(path) for path in sorted(folder.iterdir())},
            signature=signature,
            input_example=make_examples(dataset, spec, most=1),
            metadata={"inputs": inputs.in_words(dataset)},
            pip_requirements=requirements,
        )
    return info.model_id


def _write(
    folder: Path, churn: Run, segments: Run | None, dataset: Dataset, numbering: Numbering
) -> None:
    """Write the files that served_model reads, and those that people read."""
    pipeline: Pipeline = load_pipeline(churn.info.run_id)
    trained = artifacts.read_table(churn.info.run_id, Artifact.OOF)
    playbook = NO_PLAYBOOK if segments is None else _playbook(segments)
    spec = {
        **_churn_spec(churn, dataset, pipeline[0], trained),
        **_write_segments(folder, segments, numbering),
        "free": numbering.free,
        "playbook": _fingerprint(playbook),
        "reasons": _reasons(playbook, dataset.X.iloc[trained["row"].unique()]),
    }
    segmentation = None if segments is None else load_pipeline(segments.info.run_id)
    spec["arrays"] = parts_by_arrays(spec, pipeline[1:], segmentation, dataset.X)
    _write_json(spec, folder / "served.json")
    skops.io.dump(pipeline[1:], folder / "churn.skops")
    for module in (arrays, cells, coordinates, expressions, reading, skops_types):
        shutil.copy(str(module.__file__), folder)
    _write_own_code(folder, churn)


def _write_own_code(folder: Path, churn: Run) -> None:
    """Write what the model's own classes need: their files, and their types in the trusted list."""
    trusted = artifacts.read_config(churn.info.run_id)["model"].get("trusted", [])
    if trusted:
        with (folder / Path(str(skops_types.__file__)).name).open("a", encoding="utf-8") as file:
            file.write(f"\nTRUSTED += {json.dumps(trusted)}\n")
    if code := code_folder(model_folder(churn.info.run_id)):
        shutil.copytree(code, folder / "own", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(str(import_folder.__file__), folder)


def _churn_spec(
    churn: Run, dataset: Dataset, features: Any, trained: pd.DataFrame
) -> dict[str, Any]:
    """Return what the served model needs besides the churn pipeline: inputs, checks, threshold.

    ``trained`` are the out-of-fold predictions: row, y.
    """
    stayed, contract = trained.loc[trained["y"] == 0, "row"].unique(), dataset.contract
    return {
        "dataset": contract.name,
        "inputs": list(contract.columns),
        "kinds": {name: column.kind for name, column in contract.columns.items()},
        "reading": {name: contract.reading(name) for name in contract.columns},
        "texts": sorted(dataset.texts.union(dataset.gaps)),  # pandas reads blanks as text
        "codes": inputs.codes(dataset),
        "id": contract.id,
        "target": contract.target,
        "extra": contract.extra,
        "checks": row_checks(contract),
        "schema": inputs.json_schema(dataset),
        "may_be_missing": dataset.gaps,
        "features": {
            "keep": list(features.keep),
            "derive": dict(features.derive),
            "fill": features.fill_,
        },
        "threshold": churn.data.metrics["threshold"],
        "decision": artifacts.read_config(churn.info.run_id)["decision"],
        "typical": typical(dataset.X.iloc[stayed]),
        "training": drift.remember(
            dataset.frame.iloc[trained["row"].unique()],
            scores=trained.loc[trained["repeat"] == 0, "probability"].to_numpy(),
        ),
    }


def _write_segments(folder: Path, segments: Run | None, numbering: Numbering) -> dict[str, Any]:
    """Write the segmentation, as it is served and as people read it; return its part of the spec,
    which is empty without segments."""
    if segments is None:
        return {"segment_columns": {}, "segment_fill": {}, "segments": {}}
    portraits = _renumbered(
        artifacts.read_json(segments.info.run_id, Artifact.PORTRAITS), numbering
    )
    skops.io.dump(load_pipeline(segments.info.run_id), folder / "segments.skops")
    _write_segmentation(folder / "segmentation", segments, portraits, numbering)
    return _segment_spec(segments, portraits)


def _segment_spec(segments: Run, portraits: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the served model needs besides the segmentation: columns, numbers, actions."""
    segmentation = artifacts.read_json(segments.info.run_id, Artifact.SEGMENTATION)
    return {
        "segment_columns": segmentation["columns"],
        "segment_fill": segmentation["fill"],
        "segments": {
            str(segment): {
                "number": portrait["id"],
                "name": portrait["name"],
                "recommended_action": portrait.get(
                    "action_for_new", portrait["recommended_action"]
                ),
            }
            for segment, portrait in enumerate(portraits)
        },
    }


def _renumbered(portraits: list[dict[str, Any]], numbering: Numbering) -> list[dict[str, Any]]:
    """Return the portraits in the run's own order, with the numbers and names that users know."""
    ordered = sorted(portraits, key=lambda portrait: portrait["id"])
    return [
        portrait
        | {"id": numbering.numbers[segment], "name": numbering.names.get(segment, portrait["name"])}
        for segment, portrait in enumerate(ordered)
    ]


def _write_segmentation(
    folder: Path, segments: Run, portraits: list[dict[str, Any]], numbering: Numbering
) -> None:
    """Write the readable part of the segmentation, with the version's numbers and names."""
    for path in SEGMENTATION_FILES:
        artifacts.download(segments.info.run_id, path, folder)
    _write_json(portraits, folder / Artifact.PORTRAITS)
    profile = pd.read_csv(folder / Artifact.SEGMENTS)
    names = dict(enumerate(portrait["name"] for portrait in portraits))
    profile["name"] = profile["segment"].map(names)
    profile["segment"] = profile["segment"].map(numbering.numbers)
    profile.sort_values("segment").to_csv(folder / Artifact.SEGMENTS, index=False)
    reason = segments.data.tags[Tag.K_REASON]
    (folder / "k_reason.txt").write_text(f"{reason}\n", encoding="utf-8")


def _write_json(content: Any, path: Path) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def _playbook(segments: Run) -> dict[str, Any]:
    return artifacts.read_config(segments.info.run_id)["playbook"]


def _fingerprint(playbook: Mapping[str, Any]) -> str:
    """Hash a playbook and its language: while it is the same, segments keep their names."""
    return hashlib.sha256(json.dumps(playbook, sort_keys=True).encode()).hexdigest()


def _reasons(playbook: Mapping[str, Any], X: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the playbook's reasons in its language, or one per group of correlated columns."""
    if not playbook["reasons"]:
        return [{"columns": columns, "texts": []} for columns in correlated_groups(X)]
    language = playbook["language"]
    return [
        {
            "columns": group["columns"],
            "texts": [
                {"when": option.get("when"), "text": text(option["text"], language)}
                for option in group["texts"]
            ],
        }
        for group in playbook["reasons"]
    ]
