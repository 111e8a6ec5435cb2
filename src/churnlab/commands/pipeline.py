"""Run the main job: explore, train, tune, compare, segment, promote, report.

Why: one command leads from a table of members to a served champion, with every step a run under
one parent. It says which model is recommended and how it compares with the others, promotes that
one (without segments where none come back on other members), and prints the commands to look at the
results, to score members and to serve the champion.
``churnlab pipeline input=clients.csv target=Exited`` takes a table without a YAML: init drafts one
first (``target`` only where init cannot tell).

    churnlab pipeline
    churnlab pipeline dataset=gym dataset.path=members.csv
    churnlab pipeline dataset.rows=10000 tune.n_trials=30 reason="autumn refresh"
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Run

from churnlab.commands import compare, explore, promote, report, segment, train, tune
from churnlab.config import commands as keys
from churnlab.config.command_line import own_folders
from churnlab.config.commands import Pipeline, Result
from churnlab.config.groups import FeaturesKeys, ModelKeys
from churnlab.data.dataset import Dataset
from churnlab.evaluation.metric_names import LABELS
from churnlab.models.splits import make_split
from churnlab.registry.champion import find_champion, model_name
from churnlab.registry.judges import SEGMENT
from churnlab.registry.versions import NO_SEGMENTS
from churnlab.report.model_sentences import Late, as_sentence, without_late
from churnlab.segments.space import Undivided
from churnlab.tracking.fingerprints import split_tags
from churnlab.tracking.leaderboard import (
    compare_runs,
    plausible,
    ranking_without_late,
    recommend,
)
from churnlab.tracking.names import Tag
from churnlab.tracking.runs import log_metrics, start_run
from churnlab.tracking.scores import cv_scores, scores_of
from churnlab.tracking.search import ranked_train_runs
from churnlab.tracking.store import sqlite_uri, ui_command
from churnlab.tracking.view import models_view

log = logging.getLogger(__name__)

NOTHING_PROMOTED = Result({"version": None}, yes=False)
"""What a pipeline returns of the step promote where every score is too good to be true."""


def run(settings: Pipeline, dataset: Dataset) -> Result:
    """Run every step on the same table and report the result."""
    name, metric = dataset.contract.name, settings.metric
    with start_run(
        "pipeline", settings.model_dump(), name=f"pipeline {name}", dataset=dataset
    ) as mlflow_run:
        with _step("explore"):
            explore.run(settings.part(keys.Explore), dataset)
        for model in settings.models.values():
            for features in settings.feature_sets.values():
                with _step(f"train {model.name} on {features.name}"):
                    train.run(settings.part(keys.Train, model=model, features=features), dataset)
        tags = split_tags(make_split(dataset, **settings.evaluation.split, seed=settings.seed))
        for model in settings.models.values():
            if model.space:
                features = _best_features(settings, model, tags)
                trials = f"{settings.tune.n_trials} trials"
                with _step(f"tune {model.name} on {features.name}, {trials}"):
                    tune.run(settings.part(keys.Tune, model=model, features=features), dataset)
        with _step("compare"):
            compare.run(settings.part(keys.Compare, runs=None), dataset)
        with _step("segment"):
            segment_run = _segment_run(settings, dataset)
        ranked = ranked_train_runs(name, tags, metric=metric)
        recommended, reason = recommend(ranked, metric=metric, ceiling=settings.ceiling)
        promoted = NOTHING_PROMOTED
        if recommended is not None:
            with _step("promote"):
                chosen = {"churn_run": recommended, "segment_run": segment_run}
                promoted = promote.run(_promote_keys(settings, **chosen), dataset)
        with _step("report"):
            page = report.run(settings.part(keys.Report, output=None), dataset).values["path"]
        good = plausible(ranked, settings.ceiling)
        summary = recommendation(good, recommended, reason, metric=metric, seed=settings.seed)
        mlflow.set_tag("mlflow.note.content", summary)
        best = next((run for run in ranked if run.info.run_id == recommended), [*good, *ranked][0])
        log_metrics(cv_scores(best))
    log.info("\n%s\n\n%s", summary, next_steps(dataset, page=Path(page), metric=metric))
    values = {
        "run_id": mlflow_run.info.run_id,
        "churn_run_id": recommended,
        "segment_run_id": None if segment_run == NO_SEGMENTS else segment_run,
        "version": promoted.values["version"],
        "report": page,
    }
    return Result(values, yes=promoted.yes)


@contextmanager
def _step(what: str) -> Iterator[None]:
    """Log the name of a step and how long it took."""
    log.info("\n== %s", what)
    started = time.perf_counter()
    yield
    log.info("   %.1f s", time.perf_counter() - started)


def _segment_run(settings: Pipeline, dataset: Dataset) -> str:
    """Divide the members; return the run, or NO_SEGMENTS where no segments can be promoted.

    A champion with segments is not replaced by a version without any, nor a number set by hand
    dropped: then it is as if the commands were run one by one. Undivided: the members cannot be
    divided, and segments are needed.
    """
    champion = find_champion(model_name(dataset.contract.name))
    served = champion.tags.get(Tag.SEGMENT_RUN_ID, NO_SEGMENTS) if champion else NO_SEGMENTS
    needed = settings.segments.k != "auto" or served != NO_SEGMENTS
    try:
        run_id = segment.run(settings.part(keys.Segment), dataset).values["run_id"]
    except Undivided as undivided:
        if needed:
            raise
        reason = str(undivided)
    else:
        reason = mlflow.get_run(run_id).data.tags.get(Tag.UNSTABLE)
        if needed or reason is None:
            return run_id
    dataset.warn(f"the model is promoted without segments: {reason}")
    return NO_SEGMENTS


def _promote_keys(settings: Pipeline, *, churn_run: str, segment_run: str) -> keys.Promote:
    """Return the keys of promote; a version without segments has none to be judged by."""
    gate, runs = settings.gate, {"churn_run": churn_run, "segment_run": segment_run}
    if segment_run == NO_SEGMENTS:
        slices = [name for name in gate.slices if name != SEGMENT]
        gate = gate.model_copy(update={"slices": slices})
    return settings.part(keys.Promote, **runs, gate=gate, force=False)


def _best_features(settings: Pipeline, model: ModelKeys, tags: dict[str, str]) -> FeaturesKeys:
    """Return the feature set with which the untuned model has the best cross-validated metric."""
    ranked = ranked_train_runs(settings.dataset.name, tags, metric=settings.metric)
    sets = {features.name: features for features in settings.feature_sets.values()}
    return next(
        sets[run.data.params["features.name"]]
        for run in [*plausible(ranked, settings.ceiling), *ranked]
        if run.data.params["model.name"] == model.name and run.data.params["features.name"] in sets
    )


def recommendation(
    ranked: list[Run], recommended: str | None, reason: str, *, metric: str, seed: int
) -> str:
    """Say why a run is recommended, how well it ranks, and how it compares with each other kind.

    ``reason`` is the sentence of ``recommend``, which is all there is without a recommended run.
    """
    chosen = next((run for run in ranked if run.info.run_id == recommended), None)
    if chosen is None:
        return reason
    scores, late = scores_of(chosen), ranking_without_late(chosen)
    shown = [
        f"{LABELS[name]} {scores[f'cv_{name}']:.4f}" for name in dict.fromkeys([metric, "roc_auc"])
    ]
    lines = [
        reason,
        f"It has a cross-validated {' and '.join(shown)}; on the hold-out ROC AUC "
        f"{scores['test_roc_auc']:.4f} (95% CI {scores['test_roc_auc_low']:.4f} to "
        f"{scores['test_roc_auc_high']:.4f}).",
        *([] if late is None else [as_sentence(without_late(Late(*late)))]),
    ]
    best_of_kind: dict[str, Run] = {}
    for run in ranked:
        best_of_kind.setdefault(run.data.params["model.name"], run)
    for kind, rival in best_of_kind.items():
        if kind != chosen.data.params["model.name"]:
            found = compare_runs(chosen, rival, metric=metric, seed=seed, among=ranked)
            lines.append(found.sentences[0])
    return "\n".join(lines)


def next_steps(dataset: Dataset, *, page: Path, metric: str) -> str:
    """Return commands that can be pasted into the shell from which this was started.

    Scoring and serving are among them if there is a champion.
    """
    tools = Path(sys.executable).parent
    python, churnlab = (shlex.quote(str(tools / name)) for name in ("python", "churnlab"))
    name, ui = dataset.contract.name, ui_command(tools)
    lines = [
        "What next (paste a line):",
        *([f"  {ui}"] if ui else []),
        f"  and, in a browser, the models, the best first: {models_view(name, metric=metric)}",
        f"  {python} -m webbrowser {shlex.quote(page.as_uri())}",
    ]
    if find_champion(model_name(name)) is None:
        return "\n".join(lines)
    body = json.dumps({"dataframe_records": [_example(dataset)]}, ensure_ascii=False)
    home = os.environ["CHURNLAB_HOME"]
    places = f"CHURNLAB_HOME={shlex.quote(home)}"
    if (store := mlflow.get_tracking_uri()) != sqlite_uri(Path(home) / "mlflow.db"):
        places = f"MLFLOW_TRACKING_URI={shlex.quote(store)} {places}"
    score = shlex.join(["score", *_score_overrides(dataset)])
    serve = shlex.join(["serve", *own_folders(), f"dataset={name}"])
    return "\n".join(
        [
            *lines,
            f"  {places} {churnlab} {score}",
            f"  {places} {churnlab} {serve}",
            "  and, from another shell:",
            "  curl -s http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' "
            f"-d {shlex.quote(body)}",
        ]
    )


def _score_overrides(dataset: Dataset) -> list[str]:
    """Return the words that score the dataset's members, with the user's own config folders."""
    name, outputs = dataset.contract.name, Path(os.environ["CHURNLAB_HOME"]) / "outputs"
    files = [f"input={_members(dataset)}", f"output={outputs / f'{name}-scored.csv'}"]
    return [*own_folders(), f"dataset={name}", *files]


def _members(dataset: Dataset) -> Path:
    """Return a file of members to score: the dataset's own, or generated members without target."""
    source = Path(dataset.source)
    if source.exists():
        return source.absolute()
    file = Path(os.environ["CHURNLAB_HOME"]) / "outputs" / f"{dataset.contract.name}-members.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    dataset.X.head(100).to_csv(file, index=False)
    return file


def _example(dataset: Dataset) -> dict[str, Any]:
    """Return one member of the table who left."""
    member = dataset.X[dataset.y == 1].iloc[0].astype(object)
    return {str(name): None if value != value else value for name, value in member.items()}
