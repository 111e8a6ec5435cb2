"""The files of a version: a churn model, a segmentation, and what users see of both, in a form that stands alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from sklearn.pipeline import Pipeline

import churnlab
from churnlab import artifacts, drift, registry
from churnlab.checking import row_checks
from churnlab.data import Dataset, Members
from churnlab.expressions import evaluate
from churnlab.features import typical
from churnlab.matching import match
from churnlab.playbook import text
from churnlab.redundancy import together

SHOWN = ("portraits.json", "segments.csv", "figures/dendrogram.png")
"""Artifacts of the segmentation run that a version shows without its code."""


@dataclass(frozen=True)
class Numbering:
    """By which number, and by which name if it has one already, users see each segment of a run (the key).

    ``free`` is the first number that has never been used; ``told`` says what changes for the members.
    """

    numbers: Mapping[int, int]
    names: Mapping[int, str]
    free: int
    told: str


def number_segments(segments: Run, champion: ModelVersion | None, dataset: Dataset) -> Numbering:
    """Give the segments of a run the champion's numbers where they are the champion's segments, and its names.

    Names are kept as long as the playbook is the same; what is new gets a number that was never used.
    """
    members = artifacts.read_table(segments.info.run_id, "segments/members.parquet")
    k = int(segments.data.metrics["k"])
    served = champion and artifacts.read_version(registry.uri(champion), "served.json")
    if not champion or not served or "free" not in served:  # no champion, or an older one that kept no numbers
        return Numbering({segment: segment for segment in range(k)}, {}, k, "the first of this model")
    able = answerable(champion, dataset.X.iloc[members["row"]])
    before = [answer["segment"] for answer in answers(registry.uri(champion), dataset.X.iloc[members["row"][able]])]
    after = members["segment"].to_numpy()[able]
    found = match(np.array(before, dtype=int), after, segments=k, free=served["free"])
    kept = {segment["number"]: segment["name"] for segment in served["segments"].values()}
    same = served["playbook"] == _playbook(artifacts.read_config(segments.info.run_id))
    names = {segment: kept[number] for segment, number in found.numbers.items() if same and number in kept}
    told = f"beside version {champion.version}, {found}"
    return Numbering(found.numbers, names, served["free"] + len(found.new), told)


def warn_of_drift(members: Members, served: Mapping[str, Any] | None, *, model: str) -> None:
    """Warn of members unlike those that a version was trained on; ``served`` is what it says of itself."""
    if served and "training" in served:
        for warning in drift.warnings(members.frame, served["training"], model=model):
            members.warn(warning)


def answerable(version: ModelVersion, X: pd.DataFrame) -> np.ndarray:
    """Which members a version answers for: none that breaks its own contract, which may be older than the table's."""
    served = artifacts.read_version(registry.uri(version), "served.json")
    if served is None or not set(served["inputs"]) <= set(X):
        return np.zeros(len(X), bool)
    members = X[served["inputs"]]
    able = members.drop(columns=served["may_be_missing"]).notna().all(axis=1).to_numpy()
    for check in served["checks"]:
        known = members[check["columns"]].notna().all(axis=1).to_numpy()
        able = able & (~known | (evaluate(check["holds"], members) != 0))
    return able


def answers(model_uri: str, X: pd.DataFrame) -> list[dict[str, Any]]:
    """What a version answers for these members, reasons left out."""
    if X.empty:
        return []
    return artifacts.load_bundle(model_uri).predict(X.reset_index(drop=True), params={"reasons": False})


def write(folder: Path, churn: Run, segments: Run, dataset: Dataset, numbering: Numbering) -> dict[str, str]:
    """Write the files of a version into a folder; returns the artifacts of bundle.py by name."""
    pipeline: Pipeline = artifacts.load_pipeline(churn.info.run_id)
    segmentation: Pipeline = artifacts.load_pipeline(segments.info.run_id)
    config = artifacts.read_config(segments.info.run_id)
    portraits = _renumbered(artifacts.read_json(segments.info.run_id, "portraits.json"), numbering)
    segmented = artifacts.read_json(segments.info.run_id, "segmentation.json")
    contract, features = dataset.contract, pipeline[0]
    trained = artifacts.read_table(churn.info.run_id, "predictions/oof.parquet")
    rows = trained["row"].unique()
    stayed = trained.loc[trained["y"] == 0, "row"].unique()
    served = {
        "dataset": contract.name,
        "inputs": list(contract.columns),
        "checks": row_checks(contract),
        "may_be_missing": dataset.gaps,
        "features": {"keep": list(features.keep), "derive": dict(features.derive), "fill": features.fill_},
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
        "reasons": _reasons(config["playbook"]["reasons"], config["playbook"]["language"], dataset.X.iloc[rows]),
    }
    (folder / "served.json").write_text(json.dumps(served, ensure_ascii=False, indent=1), encoding="utf-8")
    skops.io.dump(pipeline[1:], folder / "churn.skops")
    skops.io.dump(segmentation, folder / "segments.skops")
    shutil.copy(Path(churnlab.__file__).with_name("expressions.py"), folder)
    _show(folder / "segmentation", segments, portraits, numbering)
    return {path.stem: str(path) for path in sorted(folder.iterdir())}


def _renumbered(portraits: list[dict[str, Any]], numbering: Numbering) -> list[dict[str, Any]]:
    """The portraits under the numbers and names that users know, in the order of the run's own."""
    ordered = sorted(portraits, key=lambda portrait: portrait["id"])
    return [
        portrait | {"id": numbering.numbers[segment], "name": numbering.names.get(segment, portrait["name"])}
        for segment, portrait in enumerate(ordered)
    ]


def _show(folder: Path, segments: Run, portraits: list[dict[str, Any]], numbering: Numbering) -> None:
    """What a person reads of the segmentation, under the numbers and names of the version."""
    for path in SHOWN:
        artifacts.download(segments.info.run_id, path, folder)
    (folder / "portraits.json").write_text(json.dumps(portraits, ensure_ascii=False, indent=1), encoding="utf-8")
    profile = pd.read_csv(folder / "segments.csv")
    profile["name"] = profile["segment"].map(dict(enumerate(portrait["name"] for portrait in portraits)))
    profile["segment"] = profile["segment"].map(numbering.numbers)
    profile.sort_values("segment").to_csv(folder / "segments.csv", index=False)
    reason = segments.data.tags["churnlab.k_reason"]
    (folder / "k_reason.txt").write_text(f"{reason}\n", encoding="utf-8")


def _playbook(config: Mapping[str, Any]) -> str:
    """A fingerprint of the playbook and its language: as long as it is the same, segments keep their names."""
    return hashlib.sha256(json.dumps(config["playbook"], sort_keys=True).encode()).hexdigest()


def _reasons(groups: list[dict[str, Any]], language: str, X: pd.DataFrame) -> list[dict[str, Any]]:
    """The playbook's reasons in one language; without any, each column, or group that goes together, is a reason."""
    if not groups:
        return [{"columns": columns, "texts": []} for columns in together(X)]
    return [
        {
            "columns": group["columns"],
            "texts": [
                {"when": option.get("when"), "text": text(option["text"], language)} for option in group["texts"]
            ],
        }
        for group in groups
    ]
