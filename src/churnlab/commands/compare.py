"""The leaderboard of the models trained on one table and split, or two runs compared pair by pair.

Why: models are compared by their out-of-fold predictions for the same members, so that the difference has an
interval. Runs on other data or another split have no rank here, and two such runs are not compared (exit 3).

    churnlab compare
    churnlab compare metric=roc_auc dataset=gym dataset.path=members.csv
    churnlab compare runs=[RUN_ID,RUN_ID]
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Run

from churnlab import artifacts, evaluation, schema, tracking
from churnlab.commands import Result, train
from churnlab.data import Dataset
from churnlab.errors import InputError
from churnlab.plots import comparison as plots

log = logging.getLogger(__name__)

SAME = {"churnlab.data_sha256": "the data", "churnlab.split_sha256": "the split"}
"""What two runs must share to be compared."""

NO_DIFFERENCE = {"delta": None, "ci_low": None, "ci_high": None}
"""What is said of the difference where there is none to say."""


def run(settings: schema.Compare, dataset: Dataset) -> Result:
    """Compare, log the table and the figure, and say who is better by how much."""
    if settings.runs is not None:
        first, second = (tracking.get_run(run_id, command="train") for run_id in settings.runs)
        return _two(settings, dataset, first, second)
    tags = train.ask(settings.evaluation, dataset, seed=settings.seed).tags
    runs = tracking.ranked_train_runs(dataset.contract.name, tags, metric=settings.metric)
    if not runs:
        raise InputError(
            "There is no finished train run on this table and split; run churnlab train with the same dataset=, "
            "seed= and evaluation keys first."
        )
    table = leaderboard(runs, metric=settings.metric)
    values: dict[str, Any] = {"comparable": len(runs) > 1, "winner": runs[0].info.run_id, **NO_DIFFERENCE}
    said = f"The only run is {runs[0].info.run_name}."
    if len(runs) > 1:
        values |= difference(runs[0], runs[1], metric=settings.metric, seed=settings.seed)
        said = verdict(runs[0], runs[1], values, metric=settings.metric)
    with tracking.start_run(
        "compare", settings.model_dump(), name="leaderboard", dataset=dataset, tags=tags
    ) as mlflow_run:
        artifacts.log_table(table, "leaderboard.csv")
        mlflow.log_figure(plots.leaderboard(table, metric=settings.metric), "figures/leaderboard.png")
        mlflow.set_tag("mlflow.note.content", said)
    shown = table[[*dict.fromkeys(["rank", "name", f"cv_{settings.metric}", "cv_roc_auc", "test_roc_auc", "run_id"])]]
    log.info("%s\n%s", shown.to_string(index=False, float_format="{:.4f}".format), said)
    return Result({"run_id": mlflow_run.info.run_id, **values})


def leaderboard(runs: Sequence[Run], *, metric: str) -> pd.DataFrame:
    """One row a run, the best first: what it is, cross-validated and hold-out metrics with intervals."""
    shown = list(dict.fromkeys([metric, "log_loss", "roc_auc", "f1"]))
    rows = []
    for rank, run in enumerate(runs, 1):
        scores = run.data.metrics
        row = {"rank": rank, "name": run.info.run_name}
        for name in shown:
            row |= {f"cv_{name}": scores[f"cv_{name}"], f"cv_{name}_std": scores[f"cv_{name}_std"]}
        for key in ("test_roc_auc", "test_roc_auc_low", "test_roc_auc_high", "test_accuracy", "fit_seconds"):
            row[key] = scores[key]
        rows.append(row | {"run_id": run.info.run_id})
    return pd.DataFrame(rows)


def difference(first: Run, second: Run, *, metric: str, seed: int) -> dict[str, float]:
    """First minus second on the members that both predicted out of fold: delta, ci_low, ci_high."""
    tables = [
        artifacts.read_table(run.info.run_id, "predictions/oof.parquet").groupby("row")[["y", "probability"]].mean()
        for run in (first, second)
    ]
    both = tables[0].join(tables[1], rsuffix="_second", how="inner")
    delta, low, high = evaluation.paired_difference(
        both["y"].to_numpy(dtype=int),
        both["probability"].to_numpy(),
        both["probability_second"].to_numpy(),
        metric=metric,
        thresholds=(first.data.metrics["threshold"], second.data.metrics["threshold"]),
        seed=seed,
    )
    return {"delta": delta, "ci_low": low, "ci_high": high}


def verdict(first: Run, second: Run, values: dict[str, float], *, metric: str) -> str:
    """The difference of two runs in one sentence."""
    delta, low, high = values["delta"], values["ci_low"], values["ci_high"]
    better, worse = first.info.run_name, second.info.run_name
    if (delta > 0) == (metric in evaluation.LOWER_IS_BETTER):
        better, worse = worse, better
    interval = f"{metric} differs by {delta:+.4f} (95% {low:+.4f} to {high:+.4f}) out of fold"
    if low <= 0 <= high:
        return f"No difference between {better} and {worse} that these members show: {interval}."
    return f"{better} is better than {worse}: {interval}."


def _two(settings: schema.Compare, dataset: Dataset, first: Run, second: Run) -> Result:
    differ = [what for tag, what in SAME.items() if first.data.tags.get(tag) != second.data.tags.get(tag)]
    values: dict[str, Any] = {"comparable": not differ, "winner": None, **NO_DIFFERENCE}
    if differ:
        verb = "differs" if len(differ) == 1 else "differ"
        said = f"{first.info.run_name} and {second.info.run_name} cannot be compared: {' and '.join(differ)} {verb}."
    else:
        found = difference(first, second, metric=settings.metric, seed=settings.seed)
        said = verdict(first, second, found, metric=settings.metric)
        values |= found
        if not found["ci_low"] <= 0 <= found["ci_high"]:
            first_wins = (found["delta"] < 0) == (settings.metric in evaluation.LOWER_IS_BETTER)
            values["winner"] = (first if first_wins else second).info.run_id
    names = (first.info.run_name, second.info.run_name)
    with tracking.start_run(
        "compare", settings.model_dump(), name=" against ".join(names), dataset=dataset
    ) as mlflow_run:
        mlflow.set_tag("mlflow.note.content", said)
        if not differ:
            figure = plots.paired_difference(**found, metric=settings.metric, names=names)
            mlflow.log_figure(figure, "figures/difference.png")
    log.info("%s", said)
    return Result({"run_id": mlflow_run.info.run_id, **values}, yes=not differ)
