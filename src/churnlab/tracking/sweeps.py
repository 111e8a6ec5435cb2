"""Keep the parent run of a sweep: open or resume it, give it its jobs, and end it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Run

from churnlab.evaluation.metric_names import LOWER_IS_BETTER
from churnlab.tracking import artifacts
from churnlab.tracking.fingerprints import identity_tags
from churnlab.tracking.leaderboard import suspects
from churnlab.tracking.names import EXPERIMENTS, SAME_QUESTION, Artifact, Tag
from churnlab.tracking.processes import finish_first, is_alive
from churnlab.tracking.runs import (
    end_dead,
    end_unfinished,
    environment_tags,
    log_metrics,
    log_steps,
    parent_run_id,
    start_run,
)
from churnlab.tracking.scores import cv_scores
from churnlab.tracking.search import find_runs, search
from churnlab.tracking.store import experiment_id

log = logging.getLogger(__name__)

NOBODY = "- 0 -"
"""A process on no machine, for a run that names none: whether it is alive is not known."""

MOST_LISTED = 200
"""How many runs the parent's tag names at most; jobs.csv has all."""


def open_sweep(
    command: str,
    words: Sequence[str],
    *,
    dataset_name: str,
    data_sha256: str | None,
    process: str,
) -> str:
    """Open the parent run of a sweep, or resume that of an equal earlier sweep; returns its id.

    ``process`` is the one that leads the sweep: workers may come and go.
    """
    name = f"{dataset_name}-{EXPERIMENTS[command]}"
    tags = identity_tags(
        "sweep", {"command": command, "sweep": sorted(words)}, data_sha256=data_sha256
    )
    leader = environment_tags() | {Tag.PROCESS: process}
    found = find_runs(name, tags)
    earlier = [run for run in found if run.data.tags.get(Tag.DATA) == data_sha256]
    if earlier:
        parent = earlier[0].info
        end_dead_jobs(parent.run_id)
        led_by = earlier[0].data.tags.get(Tag.PROCESS, NOBODY)
        if parent.status == "RUNNING" and is_alive(led_by) is False:
            log.info("This sweep was killed before; its unfinished jobs are now KILLED, run again.")
        join(parent.run_id)
        mlflow.set_tags(leader)
        return parent.run_id
    place = experiment_id(name)
    with finish_first():
        run = mlflow.start_run(
            experiment_id=place,
            run_name=f"sweep: {_label(words)}"[:250],
            parent_run_id=parent_run_id(),
            tags=tags | leader,
        )
    mlflow.log_params({"command": command, "sweep": " ".join(words)})
    return run.info.run_id


def active() -> str | None:
    """Return the id of the run that is open in this process; None if none is."""
    run = mlflow.active_run()
    return None if run is None else run.info.run_id


def join(parent: str) -> None:
    """Make the parent run of a sweep the one that the runs of this process become children of."""
    if mlflow.active_run() is None:
        with finish_first():
            mlflow.start_run(run_id=parent)


def end_dead_jobs(parent: str, *, elsewhere: bool = False) -> None:
    """End as KILLED the runs inside a sweep that dead processes left RUNNING.

    ``elsewhere``: those of processes on other machines, too, of whom nobody here knows.
    """
    running = {run.info.run_id: run for run in search("attributes.status = 'RUNNING'")}
    ended = (False, None) if elsewhere else (False,)

    def is_inside(run: Run | None) -> bool:
        above = run.data.tags.get("mlflow.parentRunId") if run is not None else None
        return above is not None and (above == parent or is_inside(running.get(above)))

    end_dead(
        [
            run
            for run in running.values()
            if is_inside(run) and is_alive(run.data.tags.get(Tag.PROCESS, NOBODY)) in ended
        ]
    )


def _label(words: Sequence[str]) -> str:
    """Name a sweep after its experiment, or after the keys that it varies."""
    named = [word.partition("=")[2] for word in words if word.startswith("experiment=")]
    return " ".join(named or [word for word in words if "," in word] or words)


def end_sweep(parent: str, status: str, *, note: str = "") -> None:
    """End the parent run of a sweep, and what is left RUNNING inside it, with a description.

    All jobs have ended or are given up: one that runs on elsewhere says so when it is finished.
    """
    end_dead_jobs(parent, elsewhere=True)
    client = mlflow.MlflowClient()
    if note:
        client.set_tag(parent, "mlflow.note.content", note)
    while mlflow.active_run() is not None:
        mlflow.end_run(status)
    client.set_terminated(parent, status)


def record_failure(
    command: str, config: Mapping[str, Any], error: Exception, *, dataset_name: str
) -> None:
    """Record a job that failed before its run was opened as a FAILED run with a note."""
    with start_run(command, config, name=f"{command} failed", dataset_name=dataset_name):
        end_unfinished(error)


def log_jobs(
    parent: str,
    jobs: pd.DataFrame,
    *,
    metric: str | None,
    ceiling: Mapping[str, float | None] | None = None,
) -> tuple[pd.DataFrame, bool]:
    """Log the table of a sweep's jobs, the best first; return it, and whether they are comparable.

    ``jobs``: a row per job with ``job`` (its number), its swept keys, ``status`` and ``run_id``,
    "" for a job without a run. The parent run gets the ids of all jobs, those of earlier sweeps
    too, the ``cv_`` metrics of the best job, and the metric of every job as a step. ``metric``: by
    which jobs are ranked, if they are; those with scores beyond the ``ceiling`` come last, and
    ``suspect`` says why.
    """
    client = mlflow.MlflowClient()
    runs = {run_id: client.get_run(run_id) for run_id in jobs["run_id"] if run_id}
    scored = {run_id: _scored(run) for run_id, run in runs.items()}
    questions = {tuple(run.data.tags.get(tag) for tag in SAME_QUESTION) for run in scored.values()}
    table, key, comparable = _with_metrics(jobs, runs, scored), f"cv_{metric}", len(questions) == 1
    if key in table:
        found = suspects([*scored.values()], ceiling or {})
        reasons = {run_id: found.get(run.info.run_id, []) for run_id, run in scored.items()}
        table["suspect"] = ["; ".join(reasons.get(run_id, [])) for run_id in table["run_id"]]
        _log_course(parent, table, metric=str(metric), comparable=comparable)
        suspect, sign = table["suspect"] != "", 1 if metric in LOWER_IS_BETTER else -1
        table.loc[suspect, "status"] += ", suspect"
        table = table.iloc[np.lexsort((sign * table[key], suspect + 2 * table[key].isna()))]
        best = scored.get(table["run_id"].iloc[0])
        log_metrics({} if best is None else cv_scores(best))
    ids = [run_id for run_id in table["run_id"] if run_id]
    client.set_tag(parent, Tag.JOBS, ",".join(ids[:MOST_LISTED]))
    artifacts.log_table(table, Artifact.JOBS)
    return table, comparable


def _log_course(parent: str, table: pd.DataFrame, *, metric: str, comparable: bool) -> None:
    """Log the metric of the jobs in their order, and the best so far if they can be compared: the
    number of a job is its step. A sweep that was resumed logs what is new."""
    values = table[f"cv_{metric}"].to_numpy()
    best = np.fmin if metric in LOWER_IS_BETTER else np.fmax
    course = {f"job_{metric}": values}
    if comparable:
        course[f"best_cv_{metric}"] = best.accumulate(
            np.where(table["suspect"] == "", values, math.nan)
        )
    for name, steps in course.items():
        known = {
            one.step: one.value for one in mlflow.MlflowClient().get_metric_history(parent, name)
        }
        logged = [known.get(number, math.nan) for number in range(1, len(steps) + 1)]
        log_steps({name: np.where(steps == logged, math.nan, steps).tolist()}, first=1)


def _scored(run: Run) -> Run:
    """Return the run whose metrics speak for a job: the best of a study, else the job's own."""
    best = run.data.tags.get(Tag.BEST_RUN_ID)
    return run if best is None else mlflow.get_run(best)


def _with_metrics(
    jobs: pd.DataFrame, runs: Mapping[str, Run], scored: Mapping[str, Run]
) -> pd.DataFrame:
    """Add to each job its seconds and the metrics of its run."""
    rows = []
    for run_id in jobs["run_id"]:
        run = runs.get(run_id)
        took = math.nan if run is None else (run.info.end_time - run.info.start_time) / 1000
        rows.append({"seconds": took} | (scored[run_id].data.metrics if run_id else {}))
    return pd.concat([jobs.reset_index(drop=True), pd.DataFrame(rows)], axis=1)
