"""Tune a model's parameters in one Optuna study, then ``train`` with the best of them.

Why: the model's YAML defines the search space (``space``), every trial is scored on the same folds
of the training part and is a run of its own, and the best is refitted with the full evaluation. The
best of many trials is partly lucky, so the study says how its model compares on the hold-out with
the YAML's own parameters; tune.outer=5 also runs the whole study inside outer folds (nested
cross-validation). Stop or kill it at any time and run the same command again: it resumes where it
stopped. A larger tune.n_trials adds the difference. model.space.NAME is a list of choices, [A,B],
or a range, {low: A, high: B, log: true}, whole numbers if both ends are; model.space.NAME.low=A
changes a part of the YAML's; model.estimator.NAME=VALUE sets what is not tuned.

    churnlab tune model=random_forest features=behaviour
    churnlab tune tune.n_trials=20 tune.outer=5 engine=processes engine.workers=4
    churnlab tune -m features=raw,behaviour 'model.space.C=[0.01,0.1,1,10]'
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from operator import attrgetter

import matplotlib as mpl
import matplotlib.pyplot as plt
import mlflow
import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from churnlab.commands import train
from churnlab.config.build import build_pipeline
from churnlab.config.commands import Result, Train, Tune
from churnlab.data.dataset import Dataset
from churnlab.errors import InputError
from churnlab.evaluation import verdicts
from churnlab.evaluation.cross_validation import cross_fitted_thresholds, cv_metrics, fold_metrics
from churnlab.evaluation.metric_names import LABELS, LOWER_IS_BETTER
from churnlab.evaluation.verdicts import Predictions
from churnlab.formatting import counted, short_value
from churnlab.models import decision
from churnlab.models.splits import make_split
from churnlab.plots import style
from churnlab.registry.saved_form import check_saved_form
from churnlab.tracking import artifacts
from churnlab.tracking.leaderboard import hold_out_predictions
from churnlab.tracking.looks import log_look
from churnlab.tracking.names import Artifact, Tag
from churnlab.tracking.processes import interruption
from churnlab.tracking.runs import end_trial, log_metrics, log_steps
from churnlab.tracking.scores import cv_scores
from churnlab.tracking.search import finished_inside
from churnlab.tuning import driver, nested, trials
from churnlab.tuning.driver import OpenStudy, Plan

log = logging.getLogger(__name__)

FIGURES = {
    "history": optuna.visualization.matplotlib.plot_optimization_history,
    "importances": optuna.visualization.matplotlib.plot_param_importances,
    "slices": optuna.visualization.matplotlib.plot_slice,
    "parallel_coordinates": optuna.visualization.matplotlib.plot_parallel_coordinate,
}

TITLES = {
    "history": "Each trial, and the best so far",
    "importances": "Which parameters mattered",
    "slices": "Trials by each parameter",
    "parallel_coordinates": "Trials across all parameters",
}


def run(settings: Tune, dataset: Dataset) -> Result:
    """Run or resume the study, also inside outer folds, then train with its best parameters."""
    if not settings.model.space:
        raise InputError(
            f"model={settings.model.name} has no search space; add model.space to its YAML."
        )
    split = make_split(dataset, **settings.evaluation.split, seed=settings.seed)
    pipeline = build_pipeline(settings.model, dataset, features=settings.features)
    X, y = dataset.X.iloc[split.train], dataset.y[split.train]
    check_saved_form(pipeline, X, y, trusted=settings.model.trusted)
    plan = driver.make_plan(settings, dataset, split, pipeline)
    with driver.opened(plan) as there:
        complete = driver.run_trials(plan, there)
        scores = _run_nested(plan, there)
        trained, complete = _train_best(plan, there, complete)
        note = _log_verdict(plan, there, trained, scores, complete)
        # last: these tags mean that everything else is logged
        mlflow.set_tags({Tag.BEST_RUN_ID: trained, Tag.N_COMPLETE: len(complete)})
    best = _best(complete, settings.metric)
    found = ", ".join(f"{key}={short_value(str(value))}" for key, value in best.params.items())
    log.info("%s, with %s: %s", plan.name, found, note)
    return Result(
        {
            "run_id": there.parent.info.run_id,
            "study": plan.name,
            "n_complete": len(complete),
            "n_reused": sum(trials.REUSED in trial.user_attrs for trial in complete),
            "best_value": best.value,
            "best_params": best.params,
            "nested_value": scores.get(f"nested_{settings.metric}"),
            "best_run_id": trained,
        }
    )


def _run_nested(plan: Plan, there: OpenStudy) -> dict[str, float]:
    """Run the study inside outer folds, if tune.outer says so; log the predictions and return their
    metrics (nested_<metric>)."""
    nested.end_interrupted(plan, there)
    if plan.settings.tune.outer is None:
        return {}
    predictions = nested.nested_predictions(plan, there)
    choose = partial(decision.choose, plan.settings.decision, members=len(plan.dataset.y))
    predictions["threshold"] = cross_fitted_thresholds(predictions, choose)
    artifacts.log_table(predictions, Artifact.NESTED)
    costs = decision.contact_economics(plan.settings.decision)
    means = cv_metrics(fold_metrics(predictions, costs=costs))
    scores = {
        f"nested_{name.removeprefix('cv_')}": value
        for name, value in means.items()
        if not name.endswith("_std")
    }
    log_metrics(scores)
    return scores


def _best(complete: Sequence[FrozenTrial], metric: str) -> FrozenTrial:
    """Return the best of some completed trials: the study itself may have more by now, of drivers
    that want more."""
    return (min if metric in LOWER_IS_BETTER else max)(complete, key=attrgetter("value"))


def _train_best(
    plan: Plan, there: OpenStudy, complete: list[FrozenTrial]
) -> tuple[str, list[FrozenTrial]]:
    """Log the study and train with the best of the completed trials, unless an earlier start did.

    Returns the id of the train run, and the trials among which its parameters were chosen.
    """
    settings, study = plan.settings, there.study
    tags = mlflow.get_run(there.parent.info.run_id).data.tags  # another driver may have set them
    name = settings.run_name or driver.run_name(settings)
    best = settings.train(_best(complete, settings.metric).params, run_name=name)
    trained, run_id = None, there.parent.info.run_id
    if tags.get(Tag.N_COMPLETE) == str(len(complete)) and artifacts.has(run_id, Artifact.TRIALS):
        trained = finished_inside(there.parent, "train", best.model_dump(), plan.dataset)
    if trained is None:
        _log_study(study, complete, metric=settings.metric)
        trained = train.run(best, plan.dataset).values["run_id"]
        if not there.seat.is_locked():  # another driver may have ended the study meanwhile
            end_trial(trained, "KILLED")
            there.seat.lock()
            return _train_best(plan, there, study.get_trials(states=[TrialState.COMPLETE]))
        log_metrics(cv_scores(mlflow.get_run(trained)))
    if tags.get(Tag.BEST_RUN_ID) != trained or not artifacts.has(run_id, Artifact.UNTUNED):
        _log_untuned(plan, settings.train({}, run_name=name))
    return trained, complete


def _log_untuned(plan: Plan, untuned: Train) -> None:
    """Fit the parameters of the model's YAML as the best ones are, and log their predictions for
    the hold-out; only warn if they do not fit, because the tuned ones do."""
    try:
        fitted = train.fit(untuned, plan.dataset, plan.split, plan.pipeline)
    except Exception as error:
        if stopped := interruption(error):
            raise stopped from None
        plan.dataset.warn(f"the untuned parameters cannot be fitted: {error}")
        return
    table = fitted.hold_out.assign(threshold=fitted.threshold)
    artifacts.log_table(table, Artifact.UNTUNED)


def _log_verdict(
    plan: Plan,
    there: OpenStudy,
    trained: str,
    scores: Mapping[str, float],
    complete: Sequence[FrozenTrial],
) -> str:
    """Log and return the note of the study: the best score, and what it is worth on members that
    chose nothing."""
    metric, label = plan.settings.metric, LABELS[plan.settings.metric]
    sentences = [
        f"Best cv {label} {_best(complete, metric).value:.4f}, chosen among "
        f"{counted(len(complete), 'trial')} on these folds."
    ]
    if scores:
        sentences.append(
            f"Nested cross-validation, whose {plan.settings.tune.outer} outer folds chose nothing: "
            f"{label} {scores[f'nested_{metric}']:.4f}."
        )
    untuned = artifacts.find_table(there.parent.info.run_id, Artifact.UNTUNED)
    if untuned is not None:
        sentences.append(_compare_with_untuned(plan, trained, untuned))
    note = " ".join(sentences)
    mlflow.set_tag("mlflow.note.content", note)
    return note


def _compare_with_untuned(plan: Plan, trained: str, predicted: pd.DataFrame) -> str:
    """Compare the tuned with the untuned model on the hold-out, which selected neither: log the
    difference, and return a sentence."""
    members, metric = len(plan.split.train), plan.settings.metric
    costs = decision.contact_economics(plan.settings.decision)
    tuned = Predictions(
        "the tuned model", hold_out_predictions(mlflow.get_run(trained)), members, costs=costs
    )
    untuned = Predictions("the untuned one", predicted, members)
    (delta, low, high), sentence = verdicts.compare_on_hold_out(
        tuned, untuned, metric=metric, seed=plan.settings.seed
    )
    log_metrics({"hold_out_delta": delta, "hold_out_low": low, "hold_out_high": high})
    log_look(plan.dataset, plan.split.test)
    return sentence


def _log_study(study: optuna.Study, complete: Sequence[FrozenTrial], *, metric: str) -> None:
    """Log the study's table, figures and best trial in the parent run."""
    mpl.use("Agg")
    artifacts.log_table(driver.trials_table(study), Artifact.TRIALS)
    values, chosen = [trial.value for trial in complete], _best(complete, metric)
    best = np.minimum if metric in LOWER_IS_BETTER else np.maximum
    log_steps({f"trial_{metric}": values, f"best_cv_{metric}": best.accumulate(values).tolist()})
    mlflow.set_tags({Tag.BEST_TRIAL: chosen.number, Tag.BEST_PARAMS: json.dumps(chosen.params)})
    if len(complete) < 2:
        return  # the figures compare trials
    with plt.rc_context():  # Optuna changes the style of all later figures
        for name, plot in FIGURES.items():
            drawn = plot(study, target_name=f"cv {LABELS[metric]}")
            axes = drawn if hasattr(drawn, "figure") else drawn.flat[0]
            style.restyle(axes.figure, TITLES[name])
            # tight: the labels reach beyond the canvas
            artifacts.log_figure(axes.figure, name, bbox_inches="tight")
            plt.close(axes.figure)
