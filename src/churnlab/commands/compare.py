"""The leaderboard of an experiment's models, or two of its runs compared pair by pair.

Why: models are compared by their out-of-fold predictions for the same members, so that the
difference has an interval. Only runs on the same data and split share a ranking; two of others are
not compared (exit 3), and what differs is said. The simplest model within one standard error of the
best is recommended; a score that is too good to be true is told and never recommended. Of two runs
the winner is who is better in the whole 95% interval over the members; the corrected t test over
the folds stands beside it, and it is said when the two do not agree.

    churnlab compare
    churnlab compare metric=roc_auc dataset=gym dataset.path=members.csv
    churnlab compare runs=[RUN_ID,RUN_ID]
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Run

from churnlab.config.commands import Compare, Result
from churnlab.data.dataset import Dataset
from churnlab.errors import InputError
from churnlab.formatting import counted, lasted, whole
from churnlab.models import comparison
from churnlab.models.splits import make_split
from churnlab.plots import comparison as plots
from churnlab.tracking import artifacts
from churnlab.tracking.fingerprints import deciding, split_tags
from churnlab.tracking.leaderboard import (
    Pair,
    leaderboard,
    pair,
    recommend,
    run_names,
)
from churnlab.tracking.names import SAME_QUESTION, Artifact
from churnlab.tracking.runs import DATA_REPORT, log_metrics, start_run
from churnlab.tracking.search import get_run, train_runs_by_question

log = logging.getLogger(__name__)

SAME = dict(zip(SAME_QUESTION, ("the data", "the split"), strict=True))
"""What two runs must share to be compared."""

NO_DIFFERENCE = {"delta": None, "ci_low": None, "ci_high": None}
"""What is said of the difference where there is none to say."""

MOST_ROWS, MOST_GROUPS, MOST_FOLDS = 20, 5, 10
"""So much is shown on a terminal; the run has it all."""


def run(settings: Compare, dataset: Dataset) -> Result:
    """Compare, log the tables and figures, and say who is better by how much."""
    if settings.runs is not None:
        first, second = (get_run(run_id, command="train") for run_id in settings.runs)
        return _two(settings, dataset, first, second)
    tags = split_tags(make_split(dataset, **settings.evaluation.split, seed=settings.seed))
    groups = _groups(settings, dataset, tags)
    runs = next(iter(groups.values()))
    suspects = _suspects([run for group in groups.values() for run in group], settings.ceiling)
    recommended, why = recommend(
        [run for run in runs if run.info.run_id not in suspects], metric=settings.metric
    )
    tables = [leaderboard(group, metric=settings.metric) for group in groups.values()]
    table = pd.concat(
        [part.assign(group=number) for number, part in enumerate(tables, 1)], ignore_index=True
    )
    table["recommended"] = table["run_id"] == recommended
    table["suspect"] = table["run_id"].map(lambda run_id: "; ".join(suspects.get(run_id, [])))
    values: dict[str, Any] = {
        "comparable": len(runs) > 1,
        "winner": runs[0].info.run_id,
        **NO_DIFFERENCE,
    }
    said = [f"The only run is {runs[0].info.run_name}."]
    if len(runs) > 1:
        first_two = pair(runs[0], runs[1], metric=settings.metric, seed=settings.seed)
        values |= first_two.found._asdict()
        said = [*first_two.said]
    said += [why, *_warnings(runs, suspects)]
    with start_run(
        "compare", settings.model_dump(), name="leaderboard", dataset=dataset, tags=tags
    ) as mlflow_run:
        artifacts.log_table(table, Artifact.LEADERBOARD)
        figure = plots.leaderboard(table[table["group"] == 1], metric=settings.metric)
        artifacts.log_figure(figure, "leaderboard")
        mlflow.set_tag("mlflow.note.content", "\n\n".join(said))
    log.info("%s\n%s", _shown(table, metric=settings.metric), "\n".join(said))
    return Result({"run_id": mlflow_run.info.run_id, **values, "recommended": recommended})


def _two(settings: Compare, dataset: Dataset, first: Run, second: Run) -> Result:
    """Compare two runs, or say why they cannot be; the keys of their configs that differ are told
    in any case."""
    runs, names = (first, second), run_names(first, second)
    keys = comparison.differing_keys(*map(_config, runs))
    values: dict[str, Any] = {"comparable": True, "winner": None, **NO_DIFFERENCE}
    compared, unlike = None, _unlike(first, second)
    if unlike:
        values["comparable"] = False
        said = unlike
    else:
        compared = pair(first, second, metric=settings.metric, seed=settings.seed)
        better = comparison.winner(compared.found, metric=settings.metric)
        values |= {
            "winner": None if better is None else runs[better].info.run_id,
            **compared.found._asdict(),
        }
        said = [*compared.said, *_warnings(runs, _suspects(runs, settings.ceiling))]
    with start_run(
        "compare", settings.model_dump(), name=" against ".join(names), dataset=dataset
    ) as mlflow_run:
        artifacts.log_table(keys, Artifact.DIFFERENCES)
        mlflow.set_tag("mlflow.note.content", "\n\n".join(said))
        if compared is not None:
            _log_pair(compared, metric=settings.metric, names=names)
    log.info("%s\n%s", _told(names, keys, compared), "\n".join(said))
    return Result({"run_id": mlflow_run.info.run_id, **values}, yes=not unlike)


def _config(run: Run) -> dict[str, Any]:
    """What decided a training: its keys but for paths, names and where tune would have looked."""
    config = deciding(artifacts.read_config(run.info.run_id))
    return config | {
        "model": {key: value for key, value in config["model"].items() if key != "space"}
    }


def _log_pair(compared: Pair, *, metric: str, names: tuple[str, str]) -> None:
    found, test, folds, _ = compared
    log_metrics(found._asdict() | ({} if test is None else {"fold_p": test.p}))
    if folds is not None:
        artifacts.log_table(folds, Artifact.FOLD_DIFFERENCES)
    steps = None if folds is None else folds["difference"].to_numpy()
    figure = plots.paired_difference(found, test, steps, metric=metric, names=names)
    artifacts.log_figure(figure, "difference")


def _groups(
    settings: Compare, dataset: Dataset, tags: Mapping[str, str]
) -> dict[tuple[str, ...], list[Run]]:
    """All finished train runs by data and split, each group the best first; the present table and
    split lead."""
    groups = train_runs_by_question(dataset.contract.name, metric=settings.metric)
    split = tuple(tags[key] for key in SAME_QUESTION)
    if split not in groups:
        elsewhere = sum(map(len, groups.values()))
        raise InputError(
            "There is no finished train run on this table and split; run churnlab train with the "
            "same dataset=, seed= and evaluation keys first."
            + (
                f" ({counted(elsewhere, 'run')} on other tables or splits cannot be ranked here.)"
                if elsewhere
                else ""
            )
        )
    return {split: groups.pop(split), **groups}


def _suspects(runs: Sequence[Run], ceiling: Mapping[str, float | None]) -> dict[str, list[str]]:
    """By run, what is too good to be true."""
    found = {run.info.run_id: comparison.too_good(run.data.metrics, ceiling) for run in runs}
    return {run_id: scores for run_id, scores in found.items() if scores}


def _warnings(runs: Sequence[Run], suspects: Mapping[str, list[str]]) -> list[str]:
    return [
        f"Suspected leakage: of {run.info.run_name} (run {run.info.run_id}) "
        f"{' and '.join(suspects[run.info.run_id])}. Look for a column that is known only after a "
        "member has left, or members in both parts; of few members it may be luck."
        for run in runs
        if run.info.run_id in suspects
    ]


def _unlike(first: Run, second: Run) -> list[str]:
    """Why two runs cannot be compared and in what their data or splits differ; empty where they
    can."""
    differ = [what for tag, what in SAME.items() if first.data.tags[tag] != second.data.tags[tag]]
    if not differ:
        return []
    verb = "differs" if len(differ) == 1 else "differ"
    said = [
        f"{' and '.join(run_names(first, second))} cannot be compared: {' and '.join(differ)} {verb}."
    ]
    held_out = []
    for letter, run in zip("AB", (first, second), strict=True):
        report = artifacts.read_json(run.info.run_id, DATA_REPORT)
        held_out.append(set(artifacts.read_table(run.info.run_id, Artifact.TEST)["row"]))
        said.append(
            f"{letter}: {counted(report['rows'], 'member')} of {report['source']}, "
            f"{report['churn_rate']:.2%} of whom left; {whole(len(held_out[-1]))} held out."
        )
    if "the data" not in differ:
        said.append(
            f"{counted(len(held_out[0] & held_out[1]), 'member')} of the data held out by both."
        )
    return said


def _shown(table: pd.DataFrame, *, metric: str) -> str:
    """The present group as a table, the others in a line each."""
    present = table[table["group"] == 1]
    shown = present[
        [*dict.fromkeys(["rank", "name", f"cv_{metric}", "cv_roc_auc", "test_roc_auc"])]
    ].assign(
        interval=[
            f"{low:.4f} to {high:.4f}"
            for low, high in present[["test_roc_auc_low", "test_roc_auc_high"]].values
        ],
        age=present["age"].map(lasted),
        took=present["duration"].map(lasted),
        run_id=present["run_id"],
        mark=[
            "recommended" if row.recommended else "suspect" if row.suspect else ""
            for row in present.itertuples()
        ],
    )
    first = present.iloc[0]
    lines = [
        f"{counted(len(present), 'model')} on this table (data {first['data']}) and split ({first['split']}):"
    ]
    lines.append(shown.head(MOST_ROWS).to_string(index=False, float_format="{:.4f}".format))
    if len(shown) > MOST_ROWS:
        lines.append(f"... and {counted(len(shown) - MOST_ROWS, 'run')} more in leaderboard.csv")
    others = [group for number, group in table.groupby("group") if number != 1]
    for group in others[:MOST_GROUPS]:
        best = group.iloc[0]
        what = "another split" if best["data"] == first["data"] else "other data"
        lines.append(
            f"Not ranked with these: {counted(len(group), 'run')} on {what} (data {best['data']}, "
            f"split {best['split']}), the best {best['name']} with cv_{metric} "
            f"{best[f'cv_{metric}']:.4f}"
        )
    if len(others) > MOST_GROUPS:
        lines.append(
            f"... and {len(others) - MOST_GROUPS} more tables and splits in leaderboard.csv"
        )
    return "\n".join(lines)


def _told(names: tuple[str, str], keys: pd.DataFrame, compared: Pair | None) -> str:
    """Who A and B are, the keys in which they differ, and the differences fold by fold."""
    lines = [f"A is {names[0]}, B is {names[1]}."]
    lines.append(
        keys.to_string(index=False, na_rep="-") if len(keys) else "Their configs do not differ."
    )
    if compared is not None and compared.folds is not None:
        steps = [f"{step:+.4f}" for step in compared.folds["difference"]]
        rest = f" ... ({len(steps)} folds)" if len(steps) > MOST_FOLDS else ""
        lines.append(f"A minus B fold by fold: {' '.join(steps[:MOST_FOLDS])}{rest}")
    return "\n".join(lines)
