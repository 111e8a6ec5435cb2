"""Measure claims about a table, each with a CI and a verdict: holds, partly, not shown or false.

Why: statements of colleagues, consultants and earlier studies about the members decide where money
goes and are rarely checked again. A claim is a few lines of YAML. Claims are measured on all
members, models by their out-of-fold predictions; no claim chooses anything. A false claim is a
result, too: the exit code is 0.

    churnlab claims
    churnlab claims claims=seeds dataset=gym dataset.path=members.csv
    churnlab claims --config-dir my_conf dataset=bank claims=board
"""

from __future__ import annotations

import logging
import math

import mlflow
import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from churnlab.claims.claim import claimed_value, count_verdicts, format_interval, verdict
from churnlab.claims.measures import ClaimContext, check_claims, measure
from churnlab.config.build import build_pipeline
from churnlab.config.commands import Claims, Result
from churnlab.config.groups import SegmentsKeys, StatementsKeys
from churnlab.data.dataset import Dataset
from churnlab.errors import InputError
from churnlab.formatting import counted
from churnlab.models.cross_validation import fold_predictions
from churnlab.models.features import typical
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
        name: build_pipeline(model, dataset, where=f"claims.models.{name}")
        for name, model in file.models.items()
    }
    with start_run(
        "claims", settings.model_dump(), name=f"claims {file.name}", dataset=dataset
    ) as mlflow_run:
        context = ClaimContext(
            frame=dataset.frame,
            target=dataset.contract.target,
            segments={name: label(keys, dataset) for name, keys in file.segmentations.items()},
            probabilities=predict(pipelines, dataset, folds=settings.folds, seed=settings.seed),
            resamples=settings.resamples,
            seed=settings.seed,
        )
        table = measure_all(file, context)
        counts = count_verdicts(table["verdict"].tolist())
        verdicts = [
            f"{count} {'hold' if name == 'holds' else name}" for name, count in counts.items()
        ]
        summary = f"{counted(len(table), 'claim')}: {', '.join(verdicts)}."
        artifacts.log_table(table, Artifact.CLAIMS)
        artifacts.log_figure(plots.claims(table, file.statements), "claims")
        log_metrics({name.replace(" ", "_"): count for name, count in counts.items()})
        mlflow.set_tag("mlflow.note.content", summary)
    log.info("%s\n\n%s", format_table(table), summary)
    results = table.rename(columns={"claim": "id"})[["id", "measured", "low", "high", "verdict"]]
    return Result({"run_id": mlflow_run.info.run_id, "claims": results.to_dict("records")})


def label(keys: SegmentsKeys, dataset: Dataset) -> np.ndarray:
    """Fit a segmentation and return the segment of each member, numbered by size, 0 the largest."""
    assert isinstance(keys.k, int)
    X = dataset.X.fillna(typical(dataset.X))
    frame = segment_frame(X, all_columns(X) if keys.columns == "all" else dict(keys.columns))
    check_rows(frame, keys.k)
    model = fit_segmentation(frame, keys.k, n_init=keys.n_init, random_state=keys.random_state)
    return model.predict(frame)


def predict(
    pipelines: dict[str, Pipeline], dataset: Dataset, *, folds: int, seed: int
) -> dict[str, np.ndarray]:
    """Return each model's out-of-fold churn probability of every member."""
    if not pipelines:
        return {}
    X, y, rows = dataset.X, dataset.y, np.arange(len(dataset.y))

    def predict_fold(job: tuple[str, Fold]) -> pd.DataFrame:
        name, fold = job
        return fold_predictions(pipelines[name], X, y, [fold], rows=rows).assign(model=name)

    splits = make_folds(y, folds=folds, repeats=1, seed=seed)
    jobs = [(name, fold) for name in pipelines for fold in splits]
    predictions = pd.concat(on_all_cores(predict_fold, jobs)).sort_values("row")
    return {
        str(name): part["probability"].to_numpy() for name, part in predictions.groupby("model")
    }


def measure_all(file: StatementsKeys, context: ClaimContext) -> pd.DataFrame:
    """Measure every claim: one row each, with the columns of claims.csv."""
    rows = []
    for name, claim in file.statements.items():
        try:
            value, low, high, about = measure(claim, context)
        except InputError as error:
            raise InputError(f"claims.statements.{name}: {error}") from None
        measured = about if math.isnan(low) else f"{format_interval(value, low, high)}, {about}"
        why = f"{measured}; claimed: {claimed_value(claim)}"
        stated = name, claim.source, claim.statement, claim.quantity
        rows.append((*stated, value, low, high, verdict(claim, low, high), why))
    return pd.DataFrame(rows, columns=COLUMNS)


def format_table(table: pd.DataFrame) -> str:
    """Format the claims for the terminal: the verdict, the statement, and what was measured."""
    return "\n".join(
        f"{row['verdict']:9}  {row['statement']} [{row['claim']}]\n"
        f"           {row['quantity']}: {row['why']}"
        for row in table.to_dict("records")
    )
