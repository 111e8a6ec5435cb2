"""Make a version of a churn run and a segmentation run, gate it against the champion, move the alias.

Why: what is served is one version, with its model, threshold, segmentation, names and actions in one place. The
champion is replaced only by a version that is not worse on the same held-out members (exit 3 when it is worse).

    churnlab promote
    churnlab promote dataset=gym dataset.path=members.csv churn_run=RUN_ID reason="forest after tuning"
    churnlab promote metric=roc_auc
"""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from churnlab import artifacts, evaluation, registry, schema, tracking, versions
from churnlab.commands import Result, train
from churnlab.data import Dataset
from churnlab.errors import InputError

log = logging.getLogger(__name__)


def run(settings: schema.Promote, dataset: Dataset) -> Result:
    """Build, gate, register; the alias moves only when every check has passed."""
    tags = train.ask(settings.evaluation, dataset, seed=settings.seed).tags
    churn = _churn_run(settings, dataset, tags)
    segments = _segment_run(settings, dataset)
    if unstable := segments.data.tags.get("churnlab.unstable"):
        dataset.warn(f"the segmentation that is promoted is marked: {unstable}")
    name = registry.model_name(dataset.contract.name)
    with tracking.start_run(
        "promote", settings.model_dump(), name=f"promote {name}", dataset=dataset, tags=tags
    ) as mlflow_run:
        with registry.one_at_a_time():
            champion = registry.champion(name)
            numbering = versions.number_segments(segments, champion, dataset)
            with tempfile.TemporaryDirectory() as scratch:
                files = versions.write(Path(scratch), churn, segments, dataset, numbering)
                threshold = churn.data.metrics["threshold"]
                model_id = artifacts.log_bundle(files, dataset.contract, threshold=threshold, gaps=dataset.gaps)
            checks = _gate(model_id, churn, champion, dataset, metric=settings.metric)
            passed = all(check["passed"] for check in checks)
            version = registry.register(
                name,
                model_id,
                run_id=mlflow_run.info.run_id,
                description=_description(churn, segments),
                tags={
                    "churnlab.gate": "passed" if passed else "refused",
                    **{f"churnlab.gate.{check['name']}": json.dumps(check["value"]) for check in checks},
                    "churnlab.churn_run_id": churn.info.run_id,
                    "churnlab.segment_run_id": segments.info.run_id,
                    "churnlab.segments": numbering.told,
                    "churnlab.stable": segments.data.tags["churnlab.stable"],
                    "churnlab.replaced": str(champion.version) if champion is not None and passed else "",
                    "churnlab.reason": settings.reason or "",
                },
            )
            (registry.make_champion if passed else registry.make_challenger)(name, version)
        mlflow.log_dict({"version": version, "promoted": passed, "checks": checks}, "gate.json")
        said = f"{name} version {version} is {'the champion' if passed else 'not better: the champion stays'}"
        mlflow.set_tag("mlflow.note.content", said)
    shown = pd.DataFrame(checks).to_string(index=False)
    log.info("%s\n%s\nSegments: %s", shown, said, numbering.told)
    values = {"run_id": mlflow_run.info.run_id, "version": version, "promoted": passed, "checks": checks}
    return Result(values, yes=passed)


def _description(churn: Run, segments: Run) -> str:
    """What a version is, for those who open it in the registry."""
    return (
        f"{churn.info.run_name} at threshold {churn.data.metrics['threshold']:.2f}, with {segments.info.run_name} "
        f"({segments.data.tags['churnlab.k_reason']})"
    )


def _churn_run(settings: schema.Promote, dataset: Dataset, tags: dict[str, str]) -> Run:
    if settings.churn_run != "best":
        return _named_run(settings.churn_run, "train", dataset)
    ranked = tracking.ranked_train_runs(dataset.contract.name, tags, metric=settings.metric)
    if not ranked:
        raise InputError(
            "There is no finished train run on this table and split to promote; run churnlab train (or tune) with the "
            "same dataset=, seed= and evaluation keys first."
        )
    return ranked[0]


def _segment_run(settings: schema.Promote, dataset: Dataset) -> Run:
    if settings.segment_run != "best":
        return _named_run(settings.segment_run, "segment", dataset)
    latest = tracking.latest_run("segment", dataset)
    if latest is None:
        raise InputError("There is no finished segment run on this table; run churnlab segment first.")
    return latest


def _named_run(run_id: str, command: str, dataset: Dataset) -> Run:
    """A run by its id; InputError when it is none of this table."""
    found = tracking.get_run(run_id, command=command)
    if found.data.tags["churnlab.data_sha256"] != dataset.sha256:
        raise InputError(
            f"The {command} run {run_id} is of another table than {dataset.source} as it is now; name its own table "
            "with dataset= and dataset.path= (or dataset.rows=), or another run."
        )
    return found


def _gate(
    model_id: str, churn: Run, champion: ModelVersion | None, dataset: Dataset, *, metric: str
) -> list[dict[str, Any]]:
    """Every check of the candidate: name, value, limit, passed."""
    test = artifacts.read_table(churn.info.run_id, "predictions/test.parquet")
    served = _probabilities(f"models:/{model_id}", dataset.X.iloc[test["row"]])
    gap = float(np.abs(served - test["probability"].to_numpy()).max())
    checks = [{"name": "served_equals_trained", "value": gap, "limit": 1e-9, "passed": gap <= 1e-9}]
    if champion is None:
        return checks
    reign = mlflow.get_run(champion.tags["churnlab.churn_run_id"])
    unseen = ~test["row"].isin(_trained_on(reign, dataset)).to_numpy()
    unseen &= versions.answerable(champion, dataset.X.iloc[test["row"]])
    rows, y = test["row"].to_numpy()[unseen], test["y"].to_numpy()[unseen]
    if len(np.unique(y)) < 2:
        known = "members of both outcomes that both can answer for and neither was trained on"
        return [*checks, {"name": "comparable", "value": len(rows), "limit": known, "passed": False}]
    present = _probabilities(registry.uri(champion), dataset.X.iloc[rows])
    scores = [
        evaluation.classification_metrics(y, probability, threshold=run.data.metrics["threshold"])[metric]
        for probability, run in ((served[unseen], churn), (present, reign))
    ]
    lower = metric in evaluation.LOWER_IS_BETTER
    passed = scores[0] <= scores[1] if lower else scores[0] >= scores[1]
    return [*checks, {"name": f"{metric}_against_champion", "value": scores[0], "limit": scores[1], "passed": passed}]


def _trained_on(churn: Run, dataset: Dataset) -> np.ndarray:
    """The rows of this table that a champion was trained on; none are known when it was another table."""
    if churn.data.tags["churnlab.data_sha256"] != dataset.sha256:
        return np.array([], dtype=int)
    return artifacts.read_table(churn.info.run_id, "predictions/oof.parquet")["row"].unique()


def _probabilities(model_uri: str, X: pd.DataFrame) -> np.ndarray:
    """What a version answers for these members."""
    return np.array([answer["churn_probability"] for answer in versions.answers(model_uri, X)])
