"""Tune a model's parameters in one Optuna study, then ``train`` with the best of them.

Why: the model's YAML defines the search space (``space``), every trial is scored on the same folds
of the training part and is a run of its own, and the best is refitted with the full evaluation.
Stop or kill it at any time and run the same command again: it resumes where it stopped. A larger
tune.n_trials adds the difference.

    churnlab tune model=random_forest features=behaviour
    churnlab tune tune.n_trials=100 metric=roc_auc engine=processes engine.workers=4
    churnlab tune -m features=raw,behaviour tune.n_trials=20
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import joblib
import matplotlib as mpl
import matplotlib.pyplot as plt
import mlflow
import optuna
import pandas as pd
from mlflow.entities import Run
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from tqdm import tqdm

from churnlab.commands import train
from churnlab.config.build import build_object, build_pipeline
from churnlab.config.commands import Result, Tune
from churnlab.data.dataset import Dataset
from churnlab.errors import InputError
from churnlab.formatting import counted, short_value
from churnlab.models.cross_validation import cv_metrics, estimator_metrics, prepare_folds
from churnlab.models.metric_names import LABELS, LOWER_IS_BETTER
from churnlab.models.splits import Split, make_folds, make_split
from churnlab.tracking import artifacts
from churnlab.tracking.fingerprints import split_tags
from churnlab.tracking.names import Artifact, Tag
from churnlab.tracking.runs import start_run
from churnlab.tracking.search import find_study, finished_inside
from churnlab.tuning import studies, trials
from churnlab.tuning.workers import WorkerSlot

log = logging.getLogger(__name__)

FIGURES = {
    "history": optuna.visualization.matplotlib.plot_optimization_history,
    "importances": optuna.visualization.matplotlib.plot_param_importances,
    "slices": optuna.visualization.matplotlib.plot_slice,
    "parallel_coordinates": optuna.visualization.matplotlib.plot_parallel_coordinate,
}


def run(settings: Tune, dataset: Dataset) -> Result:
    """Run or resume the study, then train with its best parameters."""
    if not settings.model.space:
        raise InputError(
            f"model={settings.model.name} has no search space; add model.space to its YAML."
        )
    split = make_split(dataset, **settings.evaluation.split, seed=settings.seed)
    pipeline = build_pipeline(settings.model, dataset, features=settings.features)
    engine = build_object(settings.engine, key="engine")
    storage = build_object(settings.storage, key="storage")
    space, question = build_space(settings), question_of(settings, split)
    prefix = f"{settings.dataset.name}-{settings.model.name}-{settings.features.name}"
    name = settings.tune.study or studies.study_name(question, prefix=prefix)
    with storage.locked(name) as lock:
        study = studies.open_study(
            storage.open(name), name, question, direction=direction(settings.metric)
        )
        with _parent(settings, dataset, split, study) as parent:
            shared = _sharing_cores(pipeline, workers=engine.workers)
            job = _job(settings, dataset, split, storage, space, shared, study, parent)
            _resume(study, job)
            _run_workers(engine, study, job, keep=[lock])
            complete = _complete(study, job)
            trained = _train_best(settings, dataset, split, pipeline, study, parent)
    found = ", ".join(
        f"{key}={short_value(str(value))}" for key, value in study.best_params.items()
    )
    best = f"best cv {LABELS[settings.metric]} {study.best_value:.4f}"
    log.info("%s: %s of %s, with %s", name, best, counted(len(complete), "trial"), found)
    return Result(
        {
            "run_id": parent.info.run_id,
            "study": name,
            "n_complete": len(complete),
            "n_reused": sum(trials.REUSED in trial.user_attrs for trial in complete),
            "best_value": study.best_value,
            "best_params": study.best_params,
            "best_run_id": trained,
        }
    )


def build_space(settings: Tune) -> dict[str, BaseDistribution]:
    """Build the distributions of the model's search space."""
    return {
        key: build_object(value, key=f"model.space.{key}")
        for key, value in settings.model.space.items()
    }


def _job(
    settings: Tune,
    dataset: Dataset,
    split: Split,
    storage: studies.Local,
    space: dict[str, BaseDistribution],
    pipeline: Pipeline,
    study: optuna.Study,
    parent: Run,
) -> trials.Job:
    """Collect what the workers need."""
    return trials.Job(
        storage=storage,
        study=study.study_name,
        space=space,
        n_trials=settings.tune.n_trials,
        seed=settings.seed,
        metric=settings.metric,
        pipeline=pipeline,
        X=dataset.X.iloc[split.train],
        y=dataset.y[split.train],
        folds=split.folds,
        tracking_uri=mlflow.get_tracking_uri(),
        parent=parent,
        first=len(study.trials),
    )


def question_of(settings: Tune, split: Split) -> dict[str, Any]:
    """Return what two studies must share to answer the same question; its keys name differences."""
    model, tags = settings.model, split_tags(split)
    return {
        "model": model.name,
        "scaling": model.scale,
        "fixed estimator parameters": {
            key: value for key, value in model.estimator.items() if key not in model.space
        },
        "search space": model.space,
        "features": settings.features.model_dump(),
        "metric": settings.metric,
        "seed": settings.seed,
        "data": tags[Tag.DATA],
        "split": tags[Tag.SPLIT],
        "folds": tags[Tag.FOLDS],
    }


def direction(metric: str) -> str:
    """Return the direction of a study of this metric, in Optuna's words.

    >>> direction("log_loss"), direction("roc_auc")
    ('minimize', 'maximize')
    """
    return "minimize" if metric in LOWER_IS_BETTER else "maximize"


def _run_name(settings: Tune) -> str:
    return f"{settings.model.name} {settings.features.name} tuned"


def _sharing_cores(pipeline: Pipeline, *, workers: int) -> Pipeline:
    """Limit the estimator of a pipeline to one worker's share of the machine's cores."""
    n_jobs = pipeline[-1].get_params().get("n_jobs")
    if n_jobs is None or workers == 1:
        return pipeline
    share = max(1, joblib.cpu_count() // workers)
    return clone(pipeline).set_params(estimator__n_jobs=min(joblib.effective_n_jobs(n_jobs), share))


@contextmanager
def _parent(settings: Tune, dataset: Dataset, split: Split, study: optuna.Study) -> Iterator[Run]:
    """Resume the study's run, or open a new one."""
    name, study_id = study.study_name, study.user_attrs["id"]
    earlier = find_study(dataset.contract.name, name, study_id)
    with start_run(
        "tune",
        settings.model_dump(),
        name=_run_name(settings),
        dataset=dataset,
        tags=split_tags(split) | {Tag.STUDY: name, Tag.STUDY_ID: study_id},
        resume=earlier.info.run_id if earlier else None,
        growing=[
            "tune.n_trials",
            "engine.",
            "decision.",
            "evaluation.calibra",
            "evaluation.importance",
        ],
    ) as parent:
        yield parent


def _resume(study: optuna.Study, job: trials.Job) -> None:
    """Clean up after an earlier start, log what is complete, and enqueue all points of a small
    space."""
    found = trials.reconcile(study, job)
    complete = len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]))
    if found or complete:
        done, found = counted(complete, "trial"), found and f"Found {found}."
        log.info("Resuming the study %s: %s complete. %s", job.study, done, found)
    if job.exhaustive:
        points = list(studies.points(job.space))
        log.info("The space has %s: each is tried once.", counted(len(points), "point"))
        states = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
        known = set(map(trials.key_of, study.get_trials(deepcopy=False, states=states)))
        for point in points:
            if studies.params_key(point) not in known:
                trials.enqueue(study, point)


def _run_workers(engine: Any, study: optuna.Study, job: trials.Job, *, keep: list[int]) -> None:
    """Let the engine's workers run the trials; leave no trial and no run open, however it ends."""

    def on_death(living: Collection[WorkerSlot]) -> int:
        found = trials.reconcile(study, job, living=living)
        log.info("A worker died and is replaced. %s", found and f"Found {found}.")
        ended = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
        return len([trial for trial in ended if not trials.is_dead(trial)])

    try:
        with _progress(study, job) as watch:
            engine.run(partial(trials.work, job), watch=watch, on_death=on_death, keep=keep)
    except BaseException:
        with suppress(Exception):  # the store itself may have failed; the next start cleans up then
            trials.reconcile(study, job)
        raise


@contextmanager
def _progress(study: optuna.Study, job: trials.Job) -> Iterator[Callable[[], None]]:
    """Show a progress bar with the best value and failures; nothing when stderr is no terminal."""
    total = int(min(job.n_trials, studies.size(job.space)))
    with tqdm(total=total, unit="trial", disable=None, file=sys.stderr, dynamic_ncols=True) as bar:

        def watch() -> None:
            if bar.disable:
                return
            ended = study.get_trials(deepcopy=False)
            values = [trial.value for trial in ended if trial.value is not None]
            failed = sum(trials.ERROR in trial.user_attrs for trial in ended)
            bar.n = len(values)
            if values:
                best = min(values) if job.metric in LOWER_IS_BETTER else max(values)
                bar.set_postfix_str(f"best {best:.4f}, {failed} failed", refresh=False)
            bar.refresh()

        watch()
        bar.initial = bar.n  # trials of earlier starts must not count for the time left
        yield watch
        watch()


def _complete(study: optuna.Study, job: trials.Job) -> list[optuna.trial.FrozenTrial]:
    """Return the completed trials; InputError if fits kept failing or none succeeded."""
    complete = study.get_trials(states=[TrialState.COMPLETE])
    messages = trials.failures(study, first=job.first)
    if len(messages) >= trials.FAILURES_IN_A_ROW or not complete:
        raise InputError(
            f"{counted(len(messages), 'trial')} in a row failed, the first with "
            f"{messages[0].rstrip('.')}. Fix the estimator's parameters or the space, then run the "
            f"same command again; completed trials ({len(complete)}) are kept."
        )
    return complete


def _train_best(
    settings: Tune,
    dataset: Dataset,
    split: Split,
    pipeline: Pipeline,
    study: optuna.Study,
    parent: Run,
) -> str:
    """Log the study and train with its best parameters, unless an earlier start did; return the id
    of the train run."""
    best = settings.train(study.best_params, run_name=settings.run_name or _run_name(settings))
    n_complete = len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]))
    if parent.data.tags.get(Tag.N_COMPLETE) == str(n_complete):
        trained = finished_inside(parent, "train", best.model_dump(), dataset)
        if trained is not None:
            return trained
    _log_study(study, metric=settings.metric)
    _log_luck(settings, dataset, split, pipeline, study.best_trial)
    trained = train.run(best, dataset).values["run_id"]
    # last: these tags mean that everything else is logged
    mlflow.set_tags({Tag.BEST_RUN_ID: trained, Tag.N_COMPLETE: n_complete})
    return trained


def _log_luck(
    settings: Tune,
    dataset: Dataset,
    split: Split,
    pipeline: Pipeline,
    best: optuna.trial.FrozenTrial,
) -> None:
    """Score the best parameters on folds that did not select them, and log how much was luck."""
    X, y = dataset.X.iloc[split.train], dataset.y[split.train]
    keys, metric = settings.evaluation, settings.metric
    others = make_folds(
        y, folds=keys.folds, repeats=keys.repeats, seed=settings.seed + keys.repeats
    )
    params = {f"estimator__{key}": value for key, value in best.params.items()}
    candidate = clone(pipeline).set_params(**params)
    scores = estimator_metrics(candidate[-1], prepare_folds(candidate, X, y, others))
    elsewhere = cv_metrics(scores)[f"cv_{metric}"]
    assert best.value is not None
    luck = elsewhere - best.value if metric in LOWER_IS_BETTER else best.value - elsewhere
    mlflow.log_metrics({f"other_folds_cv_{metric}": elsewhere, "luck": luck})
    note = (
        f"Best cv {LABELS[metric]} {best.value:.4f}; the same parameters score {elsewhere:.4f} on "
        f"other folds, so {f'{luck:.4f} of the result' if luck > 0 else 'none of the result'} was "
        "luck."
    )
    mlflow.set_tag("mlflow.note.content", note)
    log.info("%s", note)


def _log_study(study: optuna.Study, *, metric: str) -> None:
    """Log the study's table, figures and best trial in the parent run."""
    mpl.use("Agg")
    artifacts.log_table(_table(study), Artifact.TRIALS)
    mlflow.log_metric(f"best_cv_{metric}", study.best_value)
    mlflow.set_tags(
        {Tag.BEST_TRIAL: study.best_trial.number, Tag.BEST_PARAMS: json.dumps(study.best_params)}
    )
    if len(study.get_trials(states=[TrialState.COMPLETE])) < 2:
        return  # the figures compare trials
    with plt.rc_context():  # Optuna changes the style of all later figures
        for name, plot in FIGURES.items():
            drawn = plot(study, target_name=f"cv {LABELS[metric]}")
            axes = drawn if hasattr(drawn, "figure") else drawn.flat[0]
            # tight: the labels reach beyond the canvas
            artifacts.log_figure(axes.figure, name, bbox_inches="tight")
            plt.close(axes.figure)


def _table(study: optuna.Study) -> pd.DataFrame:
    """Return a row per attempt: state, value, parameters, metrics, run, source or error, times."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        attributes = {
            key: trial.user_attrs.get(key)
            for key in (trials.RUN_ID, trials.REUSED, trials.ERROR, trials.WORKER)
        }
        times = {"started": trial.datetime_start, "ended": trial.datetime_complete}
        metrics = trial.user_attrs.get(trials.SCORES, {}).get("metrics", {})
        first = {"number": trial.number, "state": trial.state.name, "value": trial.value}
        rows.append(first | trial.params | metrics | attributes | times)
    return pd.DataFrame(rows)
