"""One Optuna study of a model's parameters, then ``train`` with the best of them.

Why: the model's YAML says where to look (``space``), every trial is scored on the same folds of the training part and
is a run of its own, and the best is refitted with the full evaluation. Run the same command again and the study goes
on where it stopped; a larger tune.n_trials adds the difference.

    churnlab tune model=random_forest features=behaviour
    churnlab tune tune.n_trials=100 metric=roc_auc
    churnlab tune -m features=raw,behaviour tune.n_trials=20
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import mlflow
import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from churnlab import artifacts, evaluation, schema, tracking
from churnlab.commands import Result, train
from churnlab.compose import build
from churnlab.data import Dataset
from churnlab.errors import InputError

log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

FAILURES_IN_A_ROW = 5
"""So many failed trials one after another stop a study: it is the space or the data, not the trial."""

RUN_ID, REUSED = "run_id", "reused_from"
"""A trial's user attributes: its MLflow run, and the run whose value it took over."""

FIGURES = {
    "history": optuna.visualization.matplotlib.plot_optimization_history,
    "importances": optuna.visualization.matplotlib.plot_param_importances,
    "slices": optuna.visualization.matplotlib.plot_slice,
    "parallel_coordinates": optuna.visualization.matplotlib.plot_parallel_coordinate,
}


def run(settings: schema.Tune, dataset: Dataset) -> Result:
    """Run or resume the study, then train with its best parameters."""
    if not settings.model.space:
        raise InputError(f"model={settings.model.name} has no search space; add model.space to its YAML.")
    question = train.ask(settings.evaluation, dataset, seed=settings.seed)
    pipeline = train.build(settings, dataset)
    study = _open_study(settings, question.tags)
    name = f"{settings.model.name} {settings.features.name} tuned"
    with tracking.start_run(
        "tune",
        settings.model_dump(),
        name=name,
        dataset=dataset,
        tags=question.tags | {"churnlab.study": study.study_name},
        resume=tracking.find_study(study.study_name, dataset_name=dataset.contract.name),
        growing=["tune.n_trials"],
    ) as parent:
        _reconcile(study, dataset_name=dataset.contract.name)
        _run_trials(study, settings, pipeline, dataset, question)
        best = study.best_trial
        _log_study(study, metric=settings.metric)
        trained = train.run(settings.train(best.params, run_name=name), dataset).values
        mlflow.set_tag("churnlab.best_run_id", trained["run_id"])
    complete = study.get_trials(states=[TrialState.COMPLETE])
    log.info("%s: best cv %s %.4f of %d trials with %s", name, settings.metric, best.value, len(complete), best.params)
    return Result(
        {
            "run_id": parent.info.run_id,
            "study": study.study_name,
            "n_complete": len(complete),
            "n_reused": sum(REUSED in trial.user_attrs for trial in complete),
            "best_value": best.value,
            "best_params": best.params,
            "best_run_id": trained["run_id"],
        }
    )


def _open_study(settings: schema.Tune, tags: Mapping[str, str]) -> optuna.Study:
    """The study of this question, new or as it was left; InputError when its name belongs to another question."""
    asked = {
        "model": settings.model.model_dump(),
        "features": settings.features.model_dump(),
        "decision": settings.decision,
        "metric": settings.metric,
        "seed": settings.seed,
        **tags,
    }
    text = json.dumps(asked, sort_keys=True)
    short = hashlib.sha256(text.encode()).hexdigest()[:8]
    name = settings.tune.study or f"{settings.dataset.name}-{settings.model.name}-{settings.features.name}-{short}"
    folder = Path(settings.storage.folder)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(folder / f"{name}.log"))),
        study_name=name,
        direction="minimize" if settings.metric in evaluation.LOWER_IS_BETTER else "maximize",
        load_if_exists=True,
    )
    before = study.user_attrs.get("asked")
    if before is None:
        study.set_user_attr("asked", asked)
    elif before != json.loads(text):
        differ = [key for key in asked if before.get(key) != json.loads(text)[key]]
        raise InputError(
            f"tune.study={name} holds trials of another question: {', '.join(differ)} differ. Trials of different "
            "questions are not mixed; choose another tune.study, or leave it out."
        )
    return study


def _reconcile(study: optuna.Study, *, dataset_name: str) -> None:
    """After a kill: fail the trial that was under way, ask for its parameters again, end its run."""
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)
    complete = {trial.number for trial in study.get_trials(states=[TrialState.COMPLETE])}
    tracking.end_left_over_trials(study.study_name, dataset_name=dataset_name, complete=complete)


def _run_trials(
    study: optuna.Study, settings: schema.Tune, pipeline: Pipeline, dataset: Dataset, question: train.Question
) -> None:
    """Ask, score, tell, until the study has its completed trials."""
    space: dict[str, BaseDistribution] = {
        key: build(value, key=f"model.space.{key}") for key, value in settings.model.space.items()
    }
    X, y = dataset.X.iloc[question.train], dataset.y[question.train]
    failures: list[str] = []
    while len(complete := study.get_trials(states=[TrialState.COMPLETE])) < settings.tune.n_trials:
        # A sampler made again with one seed would repeat its draws: each trial has a seed of its own.
        study.sampler = optuna.samplers.TPESampler(seed=settings.seed + len(study.get_trials(deepcopy=False)))
        trial = study.ask(space)
        twin = next((done for done in complete if done.params == trial.params), None)
        try:
            with tracking.start_trial(dataset.contract.name, study.study_name, trial.number, trial.params) as run_id:
                trial.set_user_attr(RUN_ID, run_id)
                if twin is not None:
                    assert twin.value is not None
                    value = twin.value
                    trial.set_user_attr(REUSED, twin.user_attrs[RUN_ID])
                    mlflow.set_tag("churnlab.reused_from", twin.user_attrs[RUN_ID])
                    mlflow.log_metric(f"cv_{settings.metric}", value)
                else:
                    candidate = clone(pipeline).set_params(
                        **{f"estimator__{key}": chosen for key, chosen in trial.params.items()}
                    )
                    value = _score(candidate, X, y, question, metric=settings.metric)
                study.tell(trial, value)
        except Exception as error:
            study.tell(trial, state=TrialState.FAIL)
            failures.append(f"{type(error).__name__}: {error}")
            if len(failures) == FAILURES_IN_A_ROW:
                raise InputError(
                    f"{len(failures)} trials in a row failed, the first with {failures[0]} Mend the estimator's "
                    f"parameters or the space of model={settings.model.name}."
                ) from error
            continue
        failures.clear()
        log.info("trial %d of %d: %.4f, best %.4f", len(complete) + 1, settings.tune.n_trials, value, study.best_value)


def _score(pipeline: Pipeline, X: pd.DataFrame, y: np.ndarray, question: train.Question, *, metric: str) -> float:
    """Score one trial on the folds and log it: the mean and each fold (as steps) of the tuned metric."""
    started = time.perf_counter()
    oof, per_fold = evaluation.cross_validate(pipeline, X, y, question.folds, threshold=0.5, rows=question.train)
    metrics = evaluation.cv_metrics(per_fold)
    tracking.log_metrics(metrics | {"fit_seconds": time.perf_counter() - started})
    for step, scores in enumerate(per_fold):
        mlflow.log_metric(f"fold_{metric}", scores[metric], step=step)
    return metrics[f"cv_{metric}"]


def _log_study(study: optuna.Study, *, metric: str) -> None:
    """Put the study's table, figures and best trial on the parent run."""
    mpl.use("Agg")
    artifacts.log_table(study.trials_dataframe(), "trials.csv")
    mlflow.log_metric(f"best_cv_{metric}", study.best_value)
    mlflow.set_tags(
        {"churnlab.best_trial": study.best_trial.number, "churnlab.best_params": json.dumps(study.best_params)}
    )
    if len(study.get_trials(states=[TrialState.COMPLETE])) < 2:
        return  # importances and the like compare trials
    with plt.rc_context():  # Optuna changes the style of every figure that follows
        for name, plot in FIGURES.items():
            drawn = plot(study)
            axes = drawn if hasattr(drawn, "figure") else drawn.flat[0]
            whole = {"bbox_inches": "tight"}  # its labels reach beyond the canvas
            mlflow.log_figure(axes.figure, f"figures/{name}.png", save_kwargs=whole)
            plt.close(axes.figure)
