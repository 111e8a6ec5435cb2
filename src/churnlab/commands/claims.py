"""Measure what was said about a table: each claim with its interval and a verdict, holds, partly,
not shown or false.

Why: what colleagues, consultants and earlier studies say of the members decides money, and is
seldom checked again. A claim is a few lines of YAML; all are measured on all members, models by
their out-of-fold predictions, and no claim chooses anything. False claims are an answer, too: the
exit code is 0.

    churnlab claims
    churnlab claims claims=seeds dataset=gym dataset.path=members.csv
    churnlab claims --config-dir my_conf dataset=bank claims=board
"""

from __future__ import annotations

import logging
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from churnlab.claims.claim import counted_verdicts, measured_in_words, said, verdict
from churnlab.claims.measures import ClaimContext, check_claims, measure
from churnlab.config.build import build_estimator
from churnlab.config.commands import Claims, Result
from churnlab.config.groups import ModelKeys, SegmentsKeys, StatementsKeys
from churnlab.data.dataset import Dataset
from churnlab.errors import InputError
from churnlab.formatting import counted
from churnlab.models import pipelines as models
from churnlab.models.cross_validation import fold_predictions
from churnlab.models.features import Features, typical
from churnlab.models.splits import Fold, make_folds
from churnlab.plots import claims as plots
from churnlab.segments.choose_k import check_rows
from churnlab.segments.kmeans import all_columns, fit_segmentation, segment_frame
from churnlab.threads import on_all_cores
from churnlab.tracking import artifacts
from churnlab.tracking.names import Artifact
from churnlab.tracking.runs import log_metrics, start_run

log = logging.getLogger(__name__)

COLUMNS = ["claim", "source", "statement", "quantity", "measured", "low", "high", "verdict", "why"]


def run(settings: Claims, dataset: Dataset) -> Result:
    """Measure every claim of the file and log the verdicts."""
    file = settings.claims
    check_claims(file.statements, list(dataset.frame.columns), where="claims.statements")
    pipelines = {
        name: build(model, dataset, where=f"claims.models.{name}")
        for name, model in file.models.items()
    }
    with start_run(
        "claims", settings.model_dump(), name=f"claims {file.name}", dataset=dataset
    ) as mlflow_run:
        ground = ClaimContext(
            frame=dataset.frame,
            target=dataset.contract.target,
            segments={name: segmented(keys, dataset) for name, keys in file.segmentations.items()},
            probabilities=predicted(pipelines, dataset, folds=settings.folds, seed=settings.seed),
            resamples=settings.resamples,
            seed=settings.seed,
        )
        table = measured(file, ground)
        counts = counted_verdicts(table["verdict"].tolist())
        verdicts = [
            f"{count} {'hold' if name == 'holds' else name}" for name, count in counts.items()
        ]
        summary = f"{counted(len(table), 'claim')}: {', '.join(verdicts)}."
        artifacts.log_table(table, Artifact.CLAIMS)
        artifacts.log_figure(plots.claims(table, file.statements), "claims")
        log_metrics({name.replace(" ", "_"): count for name, count in counts.items()})
        mlflow.set_tag("mlflow.note.content", summary)
    log.info("%s\n\n%s", in_words(table), summary)
    told = table.rename(columns={"claim": "id"})[["id", "measured", "low", "high", "verdict"]]
    return Result({"run_id": mlflow_run.info.run_id, "claims": told.to_dict("records")})


def build(model: ModelKeys, dataset: Dataset, *, where: str) -> Pipeline:
    """The unfitted pipeline of a model on all columns as they are; InputError for what does not
    exist or fit."""
    made, columns = build_estimator(model, where=where), dataset.contract.columns
    return models.pipeline(
        made, features=Features([*columns], {}), columns=columns, scale=model.scale
    )


def segmented(keys: SegmentsKeys, dataset: Dataset) -> np.ndarray:
    """The number of each member's segment, by size, the largest 0."""
    assert isinstance(keys.k, int)
    X = dataset.X.fillna(typical(dataset.X))
    frame = segment_frame(X, all_columns(X) if keys.columns == "all" else dict(keys.columns))
    check_rows(frame, keys.k)
    return fit_segmentation(
        frame, keys.k, n_init=keys.n_init, random_state=keys.random_state
    ).predict(frame)


def predicted(
    pipelines: dict[str, Pipeline], dataset: Dataset, *, folds: int, seed: int
) -> dict[str, np.ndarray]:
    """What each model says of every member out of fold."""
    X, y, rows = dataset.X, dataset.y, np.arange(len(dataset.y))
    made = make_folds(y, folds=folds, repeats=1, seed=seed) if pipelines else []

    def of_fold(job: tuple[str, Fold]) -> pd.DataFrame:
        name, fold = job
        return pd.concat(fold_predictions(pipelines[name], X, y, [fold], rows=rows)).assign(
            model=name
        )

    found = on_all_cores(of_fold, [(name, fold) for name in pipelines for fold in made])
    every = (
        pd.concat(found).sort_values("row")
        if found
        else pd.DataFrame({"model": [], "probability": []})
    )
    return {str(name): part["probability"].to_numpy() for name, part in every.groupby("model")}


def measured(file: StatementsKeys, ground: ClaimContext) -> pd.DataFrame:
    """One row a claim, with the columns of claims.csv."""
    rows: list[dict[str, Any]] = []
    for name, claim in file.statements.items():
        try:
            value, low, high, about = measure(claim, ground)
        except InputError as error:
            raise InputError(f"claims.statements.{name}: {error}") from None
        why = f"{measured_in_words(value, low, high)}, {about}; it was said to be {said(claim)}"
        row = {
            "claim": name,
            "source": claim.source,
            "statement": claim.statement,
            "quantity": claim.quantity,
        }
        answer = {
            "measured": value,
            "low": low,
            "high": high,
            "verdict": verdict(claim, low, high),
            "why": why,
        }
        rows.append(row | answer)
    return pd.DataFrame(rows, columns=COLUMNS)


def in_words(table: pd.DataFrame) -> str:
    """What a terminal shows: the verdict, the statement, and what was measured."""
    return "\n".join(
        f"{row['verdict']:9}  {row['statement']} [{row['claim']}]\n           {row['quantity']} {row['why']}"
        for row in table.to_dict("records")
    )
