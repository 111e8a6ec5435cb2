"""One Optuna study of a model's parameters, then ``train`` with the best of them.

Why: the model's YAML says where to look (``space``), every trial is scored on the same folds of the
training part and is a run of its own, and the best is refitted with the full evaluation. Kill it
whenever you like and run the same command again: it goes on where it stopped; a larger
tune.n_trials adds the difference.

    churnlab tune model=random_forest features=behaviour
    churnlab tune tune.n_trials=100 metric=roc_auc engine=processes engine.workers=4
    churnlab tune -m features=raw,behaviour tune.n_trials=20
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
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
from optuna.trial import TrialState
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from tqdm import tqdm

from churnlab.commands import train
from churnlab.config.build import build_object, build_pipeline
from churnlab.config.commands import Result, Train, Tune
from churnlab.data.dataset import Dataset
from churnlab.errors import InputError
from churnlab.models.cross_validation import cv_metrics, estimator_metrics, prepare_folds
from churnlab.models.metric_names import LOWER_IS_BETTER
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
    question = make_split(dataset, **settings.evaluation.split, seed=settings.seed)
    pipeline = build_pipeline(settings, dataset)
    engine, storage = (
        build_object(settings.engine, key="engine"),
        build_object(settings.storage, key="storage"),
    )
    space = {
        key: build_object(value, key=f"model.space.{key}")
        for key, value in settings.model.space.items()
    }
    asked = question_of(settings, split_tags(question))
    prefix = f"{settings.dataset.name}-{settings.model.name}-{settings.features.name}"
    name = settings.tune.study or studies.name_of(asked, prefix=prefix)
    with storage.locked(name) as lock:
        study = studies.open_study(
            storage.open(name), name, asked, direction=direction(settings.metric)
        )
        with _parent(settings, dataset, question, study) as parent:
            job = trials.Job(
                storage=storage,
                study=name,
                space=space,
                n_trials=settings.tune.n_trials,
                seed=settings.seed,
                metric=settings.metric,
                pipeline=_sharing_cores(pipeline, workers=engine.workers),
                X=dataset.X.iloc[question.train],
                y=dataset.y[question.train],
                folds=question.folds,
                tracking_uri=mlflow.get_tracking_uri(),
                parent=parent,
                first=len(study.trials),
            )
            _go_on(study, job)
            _work(engine, study, job, keep=[lock])
            complete = _complete(study, job)
            best = settings.train(
                study.best_params, run_name=settings.run_name or f"{_name(settings)} tuned"
            )
            trained = _trained_before(parent, study, best, dataset)
            if trained is None:
                _log_study(study, metric=settings.metric)
                _log_luck(settings, dataset, question, pipeline, study.best_trial)
                trained = train.run(best, dataset).values["run_id"]
                ended = {Tag.BEST_RUN_ID: trained, Tag.N_COMPLETE: len(complete)}
                mlflow.set_tags(ended)  # last: it tells that the rest is there
    told = (name, settings.metric, study.best_value, len(complete), study.best_params)
    log.info("%s: best cv %s %.4f of %d trials, %s", *told)
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


def question_of(settings: Tune, tags: Mapping[str, str]) -> dict[str, Any]:
    """What makes two studies the same question, in the words in which a difference is told."""
    model = settings.model
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
    """Which way a study of this metric goes, in Optuna's words."""
    return "minimize" if metric in LOWER_IS_BETTER else "maximize"


def _name(settings: Tune) -> str:
    return f"{settings.model.name} {settings.features.name}"


def _sharing_cores(pipeline: Pipeline, *, workers: int) -> Pipeline:
    """The pipeline with an estimator that takes no more than one worker's share of the machine's
    cores."""
    asked = pipeline[-1].get_params().get("n_jobs")
    if asked is None or workers == 1:
        return pipeline
    share = max(1, joblib.cpu_count() // workers)
    return clone(pipeline).set_params(estimator__n_jobs=min(joblib.effective_n_jobs(asked), share))


@contextmanager
def _parent(
    settings: Tune, dataset: Dataset, question: Split, study: optuna.Study
) -> Iterator[Run]:
    """Open the study's run: the one it has, or a new one."""
    name, study_id = study.study_name, study.user_attrs["id"]
    earlier = find_study(dataset.contract.name, name, study_id)
    with start_run(
        "tune",
        settings.model_dump(),
        name=f"{_name(settings)} tuned",
        dataset=dataset,
        tags=split_tags(question) | {Tag.STUDY: name, Tag.STUDY_ID: study_id},
        resume=earlier.info.run_id if earlier else None,
        growing=[
            "tune.n_trials",
            "engine.",
            "decision.",
            "evaluation.calibra",
            "evaluation.driver",
        ],
    ) as parent:
        yield parent


def _go_on(study: optuna.Study, job: trials.Job) -> None:
    """Put right what an earlier start has left, say what there is, and enqueue a space that can be
    walked through."""
    found = trials.reconcile(study, job)
    complete = len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]))
    if found or complete:
        log.info(
            "Going on with the study %s: %d trials complete. %s",
            job.study,
            complete,
            found and f"Found {found}.",
        )
    if job.walked:
        points = list(studies.points(job.space))
        log.info(
            "The space has %d point%s: each is tried once, and no more.",
            len(points),
            "s" * (len(points) > 1),
        )
        asked = [
            trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.FAIL
        ]
        known = set(map(trials.parameters, asked))
        for point in points:
            if studies.same(point) not in known:
                trials.enqueue(study, point)


def _work(engine: Any, study: optuna.Study, job: trials.Job, *, keep: list[int]) -> None:
    """Let the engine's workers do the trials; however that ends, no trial and no run of them is
    left open."""

    def lost(living: Collection[WorkerSlot]) -> int:
        found = trials.reconcile(study, job, living=living)
        log.info("A worker has died and is replaced. %s", found and f"Found {found}.")
        ended = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
        return len([trial for trial in ended if not trials.is_dead(trial)])

    try:
        with _progress(study, job) as watch:
            engine.run(partial(trials.work, job), watch=watch, lost=lost, keep=keep)
    except BaseException:
        with suppress(Exception):  # the store may be what has failed; then the next start does it
            trials.reconcile(study, job)
        raise


@contextmanager
def _progress(study: optuna.Study, job: trials.Job) -> Iterator[Callable[[], None]]:
    """A bar of the trials done, the best value, failures and the time left; nothing where there is
    no terminal."""
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
        bar.initial = bar.n  # of the time left, what was done earlier says nothing
        yield watch
        watch()


def _complete(study: optuna.Study, job: trials.Job) -> list[optuna.trial.FrozenTrial]:
    """The completed trials; InputError when fits kept failing or none succeeded."""
    complete = study.get_trials(states=[TrialState.COMPLETE])
    messages = trials.failures(study, first=job.first)
    if len(messages) >= trials.FAILURES_IN_A_ROW or not complete:
        raise InputError(
            f"{len(messages)} trials in a row failed, the first with {messages[0].rstrip('.')}. "
            "Mend the estimator's parameters or the space, then run the same command again; the "
            f"{len(complete)} completed trials are kept."
        )
    return complete


def _trained_before(parent: Run, study: optuna.Study, best: Train, dataset: Dataset) -> str | None:
    """The training with the best parameters, when an earlier start came to its end and nothing was
    added since."""
    complete = len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]))
    if parent.data.tags.get(Tag.N_COMPLETE) != str(complete):
        return None
    return finished_inside(parent, "train", best.model_dump(), dataset)


def _log_luck(
    settings: Tune,
    dataset: Dataset,
    question: Split,
    pipeline: Pipeline,
    best: optuna.trial.FrozenTrial,
) -> None:
    """Score the best parameters on folds that did not choose them: what is worse there was luck."""
    X, y = dataset.X.iloc[question.train], dataset.y[question.train]
    asked, metric = settings.evaluation, settings.metric
    others = make_folds(
        y, folds=asked.folds, repeats=asked.repeats, seed=settings.seed + asked.repeats
    )
    candidate = clone(pipeline).set_params(
        **{f"estimator__{key}": value for key, value in best.params.items()}
    )
    scores = estimator_metrics(candidate[-1], prepare_folds(candidate, X, y, others))
    elsewhere = cv_metrics(scores)[f"cv_{metric}"]
    assert best.value is not None
    luck = elsewhere - best.value if metric in LOWER_IS_BETTER else best.value - elsewhere
    mlflow.log_metrics({f"other_folds_cv_{metric}": elsewhere, "luck": luck})
    told = f"{luck:.4f} of it was luck" if luck > 0 else "none of it was luck"
    said = f"Best cv {metric} {best.value:.4f}; on other folds the same parameters have {elsewhere:.4f}: {told}."
    mlflow.set_tag("mlflow.note.content", said)
    log.info("%s", said)


def _log_study(study: optuna.Study, *, metric: str) -> None:
    """Put the study's table, figures and best trial on the parent run."""
    mpl.use("Agg")
    artifacts.log_table(_table(study), Artifact.TRIALS)
    mlflow.log_metric(f"best_cv_{metric}", study.best_value)
    mlflow.set_tags(
        {
            Tag.BEST_TRIAL: study.best_trial.number,
            Tag.BEST_PARAMS: json.dumps(study.best_params),
        }
    )
    if len(study.get_trials(states=[TrialState.COMPLETE])) < 2:
        return  # importances and the like compare trials
    with plt.rc_context():  # Optuna changes the style of every figure that follows
        for name, plot in FIGURES.items():
            drawn = plot(study, target_name=f"cv_{metric}")
            axes = drawn if hasattr(drawn, "figure") else drawn.flat[0]
            artifacts.log_figure(
                axes.figure, name, bbox_inches="tight"
            )  # its labels reach beyond the canvas
            plt.close(axes.figure)


def _table(study: optuna.Study) -> pd.DataFrame:
    """One row an attempt: how it ended, value, parameters, metrics, its run, and whence or why."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        told = {
            key: trial.user_attrs.get(key)
            for key in (trials.RUN_ID, trials.REUSED, trials.ERROR, trials.WORKER)
        }
        when = {"started": trial.datetime_start, "ended": trial.datetime_complete}
        metrics = trial.user_attrs.get(trials.SCORES, {}).get("metrics", {})
        first = {"number": trial.number, "state": trial.state.name, "value": trial.value}
        rows.append(first | trial.params | metrics | told | when)
    return pd.DataFrame(rows)
