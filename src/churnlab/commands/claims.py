"""Measure claims about a table, each with a CI and a verdict: holds, not shown, false ...

Why: statements of colleagues, consultants and earlier studies about the members decide where money
goes and are rarely checked again. A claim is a few lines of YAML. Claims are measured on all
members, models by their out-of-fold predictions. A size that the members neither show nor exclude
is compatible. The p-values of all claims are corrected for their number (q). A false claim is a
result, too: the exit code is 0.

    churnlab claims
    churnlab claims claims=seeds dataset=gym dataset.path=members.csv
    churnlab claims --config-dir my_conf dataset=bank claims=board
"""

from __future__ import annotations

import logging
import math
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from churnlab.claims.claim import Claim, claimed_value, count_verdicts, format_interval, verdict
from churnlab.claims.measures import ClaimContext, check_claims, measure
from churnlab.claims.multiplicity import by_chance, q_of_claims
from churnlab.config.build import build_pipeline
from churnlab.config.commands import Claims, Result
from churnlab.config.groups import SegmentsKeys, StatementsKeys
from churnlab.data.dataset import Dataset
from churnlab.data.expressions import columns_in
from churnlab.errors import InputError
from churnlab.evaluation.comparison import by_draw
from churnlab.evaluation.cross_validation import fold_predictions
from churnlab.formatting import Table, counted
from churnlab.models.features import typical
from churnlab.models.splits import Fold, make_folds
from churnlab.plots import claims as plots
from churnlab.segments.choose_k import check_rows
from churnlab.segments.kmeans import all_columns, fit_segmentation, segment_frame
from churnlab.threads import spread
from churnlab.tracking import artifacts
from churnlab.tracking.names import Artifact
from churnlab.tracking.runs import log_metrics, start_run

log = logging.getLogger(__name__)

COLUMNS = [
    *("claim", "source", "statement", "quantity", "measured", "low", "high", "verdict", "why"),
    *("p", "q"),
]


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
        table = measure_all(file, make_context(settings, dataset, pipelines))
        counts = count_verdicts(table["verdict"].tolist())
        verdicts = [
            f"{count} {'hold' if name == 'holds' else name}" for name, count in counts.items()
        ]
        chance = by_chance(table["verdict"].tolist(), table["q"].tolist())
        summary = f"{counted(len(table), 'claim')}: {', '.join(verdicts)}. {chance}"
        artifacts.log_table(table, Artifact.CLAIMS)
        artifacts.log_figure(plots.claims(table, file.statements), "claims")
        log_metrics({name.replace(" ", "_"): count for name, count in counts.items()})
        mlflow.set_tag("mlflow.note.content", summary)
    log.info("%s\n\n%s", format_table(table), summary)
    results = table.rename(columns={"claim": "id"})
    results = results[["id", "measured", "low", "high", "verdict", "p", "q"]]
    return Result({"run_id": mlflow_run.info.run_id, "claims": results.to_dict("records")})


def make_context(
    settings: Claims, dataset: Dataset, pipelines: dict[str, Pipeline]
) -> ClaimContext:
    """Fit the segmentations and predict with the models that the claims are about."""
    file, X = settings.claims, dataset.X.fillna(typical(dataset.X))
    columns = {
        name: all_columns(X) if keys.columns == "all" else dict(keys.columns)
        for name, keys in file.segmentations.items()
    }
    folds: list[Fold] = []
    if pipelines:
        repeats = 1 + settings.further_draws
        folds = make_folds(
            dataset.y,
            folds=settings.folds,
            repeats=repeats,
            seed=settings.seed,
            groups=dataset.groups,
        )
    light = {name for name, model in file.models.items() if model.light}
    return ClaimContext(
        frame=dataset.frame,
        target=dataset.contract.target,
        segments={
            name: label(keys, segment_frame(X, columns[name]))
            for name, keys in file.segmentations.items()
        },
        made_of={name: dependencies(made, dataset.X) for name, made in columns.items()},
        probabilities=predict(pipelines, dataset, folds, light=light),
        folds=folds_of_members(folds, len(dataset.y)),
        resamples=settings.resamples,
        seed=settings.seed,
    )


def label(keys: SegmentsKeys, frame: pd.DataFrame) -> np.ndarray:
    """Fit a segmentation and return the segment of each member, numbered by size, 0 the largest."""
    assert isinstance(keys.k, int)
    check_rows(frame, keys.k)
    model = fit_segmentation(frame, keys.k, n_init=keys.n_init, random_state=keys.random_state)
    return model.predict(frame)


def dependencies(made: dict[str, str], X: pd.DataFrame) -> set[str]:
    """Return the columns of the table that a segmentation's columns are made of."""
    parts = [[name] if name == text else columns_in(text) for name, text in made.items()]
    return {column for part in parts for column in part} & set(X)


def folds_of_members(folds: list[Fold], members: int) -> np.ndarray | None:
    """Return each member's fold in each draw (members x draws); None without folds."""
    if not folds:
        return None
    numbers = np.zeros((members, 1 + max(fold.repeat for fold in folds)), int)
    for fold in folds:
        numbers[fold.validation, fold.repeat] = fold.fold
    return numbers


def predict(
    pipelines: dict[str, Pipeline], dataset: Dataset, folds: list[Fold], *, light: set[str]
) -> dict[str, np.ndarray]:
    """Return each model's out-of-fold churn probabilities (members x draws of the folds).

    ``light`` models are fitted on all draws, others on the first.
    """
    if not pipelines:
        return {}
    X, y, rows = dataset.X, dataset.y, np.arange(len(dataset.y))

    def predict_fold(job: tuple[str, Fold]) -> pd.DataFrame:
        name, fold = job
        return fold_predictions(pipelines[name], X, y, [fold], rows=rows).assign(model=name)

    jobs = [
        (name, fold) for name in pipelines for fold in folds if fold.repeat == 0 or name in light
    ]
    predictions = pd.concat(spread(predict_fold, jobs))
    return {str(name): by_draw(part) for name, part in predictions.groupby("model")}


def measure_all(file: StatementsKeys, context: ClaimContext) -> pd.DataFrame:
    """Measure every claim: one row each, with the columns of claims.csv."""

    def measure_one(named: tuple[str, Claim]) -> tuple[Any, ...]:
        name, claim = named
        try:
            value, low, high, about, p = measure(claim, context)
        except InputError as error:
            raise InputError(f"claims.statements.{name}: {error}") from None
        measured = about if math.isnan(low) else f"{format_interval(value, low, high)}, {about}"
        why = f"{measured}; claimed: {claimed_value(claim)}"
        stated = name, claim.source, claim.statement, claim.quantity
        return (*stated, value, low, high, verdict(claim, low, high), why, p)

    rows = spread(measure_one, file.statements.items(), n_jobs=1)
    table = pd.DataFrame(rows, columns=COLUMNS[:-1])
    return table.assign(q=q_of_claims(table["p"].tolist()))


def format_table(table: pd.DataFrame) -> str:
    """Format the claims for the terminal: the verdict, the statement, and what was measured."""
    rows = table.to_dict("records")
    plain = "\n".join(
        f"{row['verdict']:10} {row['statement']} [{row['claim']}]\n"
        f"           {row['quantity']}: {row['why']}"
        for row in rows
    )
    shown = {
        "verdict": [str(row["verdict"]) for row in rows],
        "claim": [f"{row['statement']} [{row['claim']}]" for row in rows],
        "measured": [f"{row['quantity']}: {row['why']}" for row in rows],
    }
    return Table.of(pd.DataFrame(shown), plain=plain)
