"""Rank the models of an experiment on a leaderboard, or compare two of its runs.

Why: models are compared by their out-of-fold predictions for the same members, so that the
difference has a confidence interval (CI). Only runs on the same data, split and folds are ranked
together. The simplest model within one standard error of the best is recommended; a score that is
too good to be true is flagged and never recommended. Of two runs on the same data and split, one is
better if the 95% CI over the members and the corrected t test over their common folds agree; two
may also be equal for all practical purposes (``rope``), or the members too few to tell. The
out-of-fold scores of a tuned model selected it, so nested cross-validation (tune.outer) or the
hold-out decides about it. Other runs are not compared (exit 3), and the message says what differs.

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
from churnlab.evaluation import comparison
from churnlab.evaluation.comparison import Difference
from churnlab.evaluation.metric_names import METRICS, practical_margin
from churnlab.evaluation.verdicts import Verdict
from churnlab.formatting import Lines, Table, clipped, counted, duration, whole
from churnlab.models.decision import ContactEconomics
from churnlab.models.splits import make_split
from churnlab.plots import comparison as plots
from churnlab.report.model_sentences import Late, as_sentence, without_late
from churnlab.report.parts import varied_params
from churnlab.tracking import artifacts
from churnlab.tracking.fingerprints import deciding, split_tags
from churnlab.tracking.leaderboard import (
    compare_on_hold_out,
    compare_runs,
    distinct_names,
    found_on_notes,
    hold_out_predictions,
    leaderboard,
    plausible,
    ranking_without_late,
    recommend,
    suspects,
)
from churnlab.tracking.looks import log_look
from churnlab.tracking.names import COMPARABLE, SAME_QUESTION, Artifact, Label, Tag
from churnlab.tracking.runs import log_metrics, start_run
from churnlab.tracking.search import check_costs, costs_of, get_run, train_runs_by_question

log = logging.getLogger(__name__)

MUST_AGREE = dict(zip(COMPARABLE, ("the data", "the split"), strict=True))
"""The tags that two runs must share to be compared, as a message calls them."""

NO_DIFFERENCE: dict[str, Any] = dict.fromkeys(
    ("delta", "ci_low", "ci_high", "verdict", "decided_by", "fold_p")
)
"""The result keys where no difference can be computed."""

NO_HOLD_OUT: dict[str, Any] = dict.fromkeys(("hold_out_delta", "hold_out_low", "hold_out_high"))
"""The result keys of a pair where the hold-outs cannot be compared."""

MOST_ROWS, MOST_GROUPS, MOST_FOLDS = 20, 5, 10
"""Limits of what the terminal shows; the run's artifacts are complete."""

MOST_PARAMS = 60
"""The most characters of a run's parameters in the terminal's table."""

SPARE = ("took", "finished", "interval")
"""The columns of the leaderboard that a narrow terminal leaves out, the first first."""


def run(settings: Compare, dataset: Dataset) -> Result:
    """Compare, log the tables and figures, and say which model is better and by how much."""
    if settings.runs is not None:
        first, second = (get_run(run_id, command="train") for run_id in settings.runs)
        check_costs(settings.metric, first, second)
        return _compare_two(settings, dataset, first, second)
    split = make_split(dataset, **settings.evaluation.split, seed=settings.seed)
    tags = split_tags(split)
    groups = _groups(settings, dataset, tags)
    runs = next(iter(groups.values()))
    suspected = suspects([run for group in groups.values() for run in group], settings.ceiling)
    recommended, reason = recommend(runs, metric=settings.metric, ceiling=settings.ceiling)
    tables = [
        leaderboard(group, metric=settings.metric).assign(group=number)
        for number, group in enumerate(groups.values(), 1)
    ]
    table = pd.concat(tables, ignore_index=True)
    table["recommended"] = table["run_id"] == recommended
    table["suspect"] = table["run_id"].map(lambda run_id: "; ".join(suspected.get(run_id, [])))
    table["params"] = _params([run for group in groups.values() for run in group])
    values: dict[str, Any] = {"comparable": len(runs) > 1, "winner": None, **NO_DIFFERENCE}
    sentences = [f"The only run is {runs[0].info.run_name}."] if len(runs) == 1 else []
    best = plausible(runs, settings.ceiling)
    if len(best) > 1:
        best_two = compare_runs(best[0], best[1], **_how(settings))
        values |= _difference(best_two)
        if best_two.winner is not None:
            values["winner"] = best[best_two.winner].info.run_id
        sentences = [*best_two.sentences]
    sentences += [reason, *_late_notes(runs, recommended), *_leakage_warnings(runs, suspected)]
    sentences += found_on_notes(runs)
    with start_run(
        "compare", settings.model_dump(), name="leaderboard", dataset=dataset, tags=tags
    ) as mlflow_run:
        log_look(dataset, split.test)
        artifacts.log_table(table, Artifact.LEADERBOARD)
        figure = plots.leaderboard(table[table["group"] == 1], metric=settings.metric)
        artifacts.log_figure(figure, "leaderboard")
        verdict = {} if values["verdict"] is None else {Label.VERDICT: values["verdict"]}
        mlflow.set_tags({"mlflow.note.content": "\n\n".join(sentences)} | verdict)
    log.info("%s\n%s", _format_leaderboard(table, metric=settings.metric), "\n".join(sentences))
    return Result({"run_id": mlflow_run.info.run_id, **values, "recommended": recommended})


def _compare_two(settings: Compare, dataset: Dataset, first: Run, second: Run) -> Result:
    """Compare two runs, or say why they cannot be compared; list the config keys that differ."""
    runs, names = (first, second), distinct_names(first, second)
    keys = comparison.differing_keys(*map(_training_config, runs))
    values: dict[str, Any] = {
        "comparable": True,
        "winner": None,
        **NO_DIFFERENCE,
        **NO_HOLD_OUT,
    }
    compared, held_out, tags, sentences = (
        None,
        None,
        {},
        _mismatch(first, second, metric=settings.metric),
    )
    if sentences:
        values["comparable"] = False
    else:
        compared = compare_runs(first, second, **_how(settings))
        held_out, sentence = compare_on_hold_out(first, second, **_how(settings))
        better = compared.winner
        values["winner"] = None if better is None else runs[better].info.run_id
        values |= _difference(compared) | dict(zip(NO_HOLD_OUT, held_out, strict=True))
        also = [] if compared.decided_by == "hold-out" else [sentence]
        warnings = _leakage_warnings(runs, suspects(runs, settings.ceiling))
        sentences = [*compared.sentences, *also, *warnings, *found_on_notes(runs)]
        tags = {tag: first.data.tags[tag] for tag in COMPARABLE}
    with start_run(
        "compare", settings.model_dump(), name=" against ".join(names), dataset=dataset, tags=tags
    ) as mlflow_run:
        artifacts.log_table(keys, Artifact.DIFFERENCES)
        verdict = values["verdict"] or "not comparable"
        mlflow.set_tags({"mlflow.note.content": "\n\n".join(sentences), Label.VERDICT: verdict})
        if compared is not None and held_out is not None:
            looked = hold_out_predictions(first)["row"].to_numpy()
            log_look(dataset, looked, data_sha256=first.data.tags[Tag.DATA])
            _log_comparison(settings, compared, held_out, names=names, costs=costs_of(first))
    log.info("%s\n%s", _format_differences(names, keys, compared), "\n".join(sentences))
    return Result({"run_id": mlflow_run.info.run_id, **values}, yes=compared is not None)


def _training_config(run: Run) -> dict[str, Any]:
    """Return the keys that decided a training: no paths, no names, no search space."""
    config = deciding(artifacts.read_config(run.info.run_id))
    model = {key: value for key, value in config["model"].items() if key != "space"}
    return config | {"model": model}


def _how(settings: Compare) -> dict[str, Any]:
    """Return the keys that decide a verdict."""
    return {"metric": settings.metric, "seed": settings.seed, "rope": settings.rope}


def _difference(found: Verdict) -> dict[str, Any]:
    """Return the result keys of a verdict: the difference that decided, and the answer."""
    return {
        **found.difference._asdict(),
        "verdict": found.answer,
        "decided_by": found.decided_by,
        "fold_p": None if found.fold_test is None else found.fold_test.p,
    }


def _log_comparison(
    settings: Compare,
    compared: Verdict,
    held_out: Difference,
    *,
    names: tuple[str, str],
    costs: ContactEconomics | None,
) -> None:
    """Log the difference, the fold test, the hold-out, each fold's values and the figure."""
    difference, fold_test, folds = compared.difference, compared.fold_test, compared.folds
    metrics = difference._asdict() | dict(zip(NO_HOLD_OUT, held_out, strict=True))
    log_metrics(metrics | ({} if fold_test is None else {"fold_p": fold_test.p}))
    if folds is not None:
        artifacts.log_table(folds, Artifact.FOLD_DIFFERENCES)
    rows = {"hold-out": held_out}
    if compared.decided_by != "hold-out":
        rows = {f"members\n({compared.decided_by})": difference} | rows
    figure = plots.paired_difference(
        rows,
        fold_test,
        None if folds is None else folds["difference"].to_numpy(),
        metric=settings.metric,
        names=names,
        rope=practical_margin(settings.metric, costs) if settings.rope is None else settings.rope,
    )
    artifacts.log_figure(figure, "difference")


def _groups(
    settings: Compare, dataset: Dataset, tags: Mapping[str, str]
) -> dict[tuple[str, ...], list[Run]]:
    """Group the finished train runs by data, split and folds, each ranked, the present one first.

    InputError: no run on the present table, split and folds.
    """
    groups = train_runs_by_question(dataset.contract.name, metric=settings.metric)
    split = tuple(tags[key] for key in SAME_QUESTION)
    if split not in groups:
        others = counted(sum(map(len, groups.values())), "run")
        hint = (
            f" ({others} on other tables, splits or folds cannot be ranked here.)" if groups else ""
        )
        raise InputError(
            "There is no finished train run on this table, split and folds; run churnlab train "
            f"with the same dataset=, seed= and evaluation keys first.{hint}"
        )
    return {split: groups.pop(split), **groups}


def _params(runs: Sequence[Run]) -> list[str]:
    """Return for each run the parameters in which it differs from others of its model and features
    on the same table, split and folds."""

    def kind(run: Run) -> list[str | None]:
        alike = [run.data.tags[tag] for tag in SAME_QUESTION]
        return [*alike, *(run.data.params[key] for key in ("model.name", "features.name"))]

    return [
        ", ".join(
            f"{name}={value}"
            for name, value in varied_params(
                run.data.params,
                [other.data.params for other in runs if kind(other) == kind(run)],
            ).items()
        )
        for run in runs
    ]


def _late_notes(runs: Sequence[Run], recommended: str | None) -> list[str]:
    """Say how the recommended run ranks without its columns that are known only close to churn."""
    run = next((run for run in runs if run.info.run_id == recommended), None)
    late = None if run is None else ranking_without_late(run)
    return [] if late is None else [as_sentence(without_late(Late(*late)))]


def _leakage_warnings(runs: Sequence[Run], suspected: Mapping[str, list[str]]) -> list[str]:
    """Warn of each run whose scores suggest leakage."""
    return [
        f"Suspected leakage in {run.info.run_name} (run {run.info.run_id}): "
        f"{' and '.join(suspected[run.info.run_id])}. Look for a column that is known only after a "
        "member has left, or for members in both the training part and the hold-out. With few "
        "members it may be luck."
        for run in runs
        if run.info.run_id in suspected
    ]


def _mismatch(first: Run, second: Run, *, metric: str) -> list[str]:
    """Say why two runs cannot be compared and how they differ; empty if they can be compared."""
    costs = [costs_of(run) for run in (first, second)]
    if METRICS[metric].needs_costs and costs[0] != costs[1]:
        return [
            f"{' and '.join(distinct_names(first, second))} cannot be compared by {metric}: their "
            "decisions have other costs of a contact, as the keys above show."
        ]
    differing = [
        name for tag, name in MUST_AGREE.items() if first.data.tags[tag] != second.data.tags[tag]
    ]
    if not differing:
        return []
    verb = "differs" if len(differing) == 1 else "differ"
    sentences = [
        f"{' and '.join(distinct_names(first, second))} cannot be compared: "
        f"{' and '.join(differing)} {verb}."
    ]
    held_out = []
    for letter, run in zip("AB", (first, second), strict=True):
        report = artifacts.read_json(run.info.run_id, Artifact.DATA_REPORT)
        held_out.append(set(artifacts.read_table(run.info.run_id, Artifact.TEST)["row"]))
        sentences.append(
            f"{letter}: {counted(report['rows'], 'member')} of {report['source']}, "
            f"{report['churn_rate']:.2%} of whom left; {whole(len(held_out[-1]))} held out."
        )
    if "the data" not in differing:
        shared = counted(len(held_out[0] & held_out[1]), "member")
        sentences.append(f"The two hold-outs share {shared}.")
    return sentences


def _format_leaderboard(table: pd.DataFrame, *, metric: str) -> str:
    """Format the present group as a table and the others in a line each."""
    present = table[table["group"] == 1]
    limits = zip(present["test_roc_auc_low"], present["test_roc_auc_high"], strict=True)
    columns = dict.fromkeys(["rank", "name", f"cv_{metric}", "cv_roc_auc", "test_roc_auc"])
    shown = present[[*columns]].assign(
        params=list(map(_unnamed, present["name"], present["params"])),
        interval=[f"{low:.4f} to {high:.4f}" for low, high in limits],
        finished=present["age"].map(lambda age: f"{duration(age)} ago"),
        took=present["duration"].map(duration),
        run_id=present["run_id"],
        mark=[_mark(row) for row in present.to_dict("records")],
    )
    if not any(shown["params"]):
        del shown["params"]
    first = present.iloc[0]
    lines = [
        f"{counted(len(present), 'model')} on this table (data {first['data']}), split "
        f"({first['split']}) and folds ({first['folds']}):",
        Table.of(shown.head(MOST_ROWS), floats="{:.4f}".format, spare=SPARE),
    ]
    if len(shown) > MOST_ROWS:
        lines.append(f"... and {counted(len(shown) - MOST_ROWS, 'run')} more in leaderboard.csv")
    others = [group for number, group in table.groupby("group") if number != 1]
    lines += [_elsewhere(group, first, metric=metric) for group in others[:MOST_GROUPS]]
    if len(others) > MOST_GROUPS:
        more = counted(len(others) - MOST_GROUPS, "more group")
        lines.append(f"... and {more} of runs on other tables, splits or folds in leaderboard.csv")
    return Lines.of(lines)


def _elsewhere(group: pd.DataFrame, present: pd.Series, *, metric: str) -> str:
    """Name a group of runs that are not ranked with the present ones, and the best of them."""
    first = group.iloc[0]
    origin = "other folds"
    if first["data"] != present["data"]:
        origin = "other data"
    elif first["split"] != present["split"]:
        origin = "another split"
    text = (
        f"Not ranked with these: {counted(len(group), 'run')} on {origin} (data {first['data']}, "
        f"split {first['split']}), "
    )
    plausible = group[group["suspect"] == ""]
    if plausible.empty:
        return f"{text}every score too good to be true"
    best = plausible.iloc[0]
    return f"{text}the best {best['name']} with cv_{metric} {best[f'cv_{metric}']:.4f}"


def _unnamed(name: str, params: str) -> str:
    """Return the parameters of a run that its name does not give."""
    words = [word for word in params.split(", ") if f" {word} " not in f"{name} "]
    return clipped(", ".join(words), MOST_PARAMS)


def _mark(row: Mapping[Any, Any]) -> str:
    """Return what the terminal says of a run besides its numbers."""
    among = row["chosen_among"]
    marks = [f"best of {counted(among, 'trial')}"] if among > 1 else []
    marks += ["recommended"] if row["recommended"] else ["suspect"] if row["suspect"] else []
    return ", ".join(marks)


def _format_differences(
    names: tuple[str, str], keys: pd.DataFrame, compared: Verdict | None
) -> str:
    """Format the names of A and B, the keys in which they differ, and the differences by fold."""
    lines = [f"A is {names[0]}, B is {names[1]}."]
    lines.append(Table.of(keys, missing="-") if len(keys) else "Their configs do not differ.")
    if compared is not None and compared.folds is not None:
        steps = [f"{step:+.4f}" for step in compared.folds["difference"]]
        rest = f" ... ({len(steps)} folds)" if len(steps) > MOST_FOLDS else ""
        lines.append(f"A minus B fold by fold: {' '.join(steps[:MOST_FOLDS])}{rest}")
    return Lines.of(lines)
