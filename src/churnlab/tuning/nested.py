"""Score a whole study on members that it never saw: run it again inside outer folds.

Each outer fold is a study of its own, with the same number of trials, on the members outside the
fold; the best parameters are refitted on these and predict the fold. The predictions of all folds
rate the tuning itself, because they selected nothing (Varma and Simon, 2006, BMC Bioinformatics
7:91).
"""

from __future__ import annotations

import logging
from dataclasses import replace

import mlflow
import optuna
import pandas as pd
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from churnlab.data.dataset import folds_sha256, split_sha256
from churnlab.evaluation import calibration
from churnlab.models import pipelines
from churnlab.models.splits import Fold, Split, make_folds
from churnlab.tracking import artifacts
from churnlab.tracking.names import Artifact, Tag
from churnlab.tracking.runs import end_trial
from churnlab.tracking.search import children
from churnlab.tuning import driver, orphans
from churnlab.tuning.driver import OpenStudy, Plan
from churnlab.tuning.trials import DeadJob

log = logging.getLogger(__name__)


def nested_predictions(plan: Plan, outside: OpenStudy) -> pd.DataFrame:
    """Run or resume a study inside every outer fold; return the predictions of all folds, as
    out-of-fold predictions of one draw.

    ``outside`` is the study on the whole training part. With as many outer folds as
    evaluation.folds, they are the folds of the first draw.
    """
    tables = []
    for inner in outer_plans(plan):
        log.info("Outer fold %s", inner.outer)
        with driver.opened(inner) as there:
            driver.run_trials(inner, there, keep=outside.seat.keep)
            number = int(inner.outer.split()[0]) - 1
            table = _predict(inner, there.study.best_params).assign(fold=number, repeat=0)
            artifacts.log_table(driver.trials_table(there.study), Artifact.TRIALS)
            artifacts.log_table(table, Artifact.NESTED)
            mlflow.log_metric(f"best_cv_{plan.settings.metric}", there.study.best_value)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def outer_plans(plan: Plan) -> list[Plan]:
    """Plan the study inside each outer fold: its training part is what is outside the fold."""
    settings, y = plan.settings, plan.dataset.y[plan.split.train]
    count = settings.tune.outer
    assert count is not None
    plans = []
    groups = plan.dataset.groups_of(plan.split.train)
    for outer in make_folds(y, folds=count, repeats=1, seed=settings.seed, groups=groups):
        number = f"{outer.fold + 1} of {count}"
        name = f"{plan.name}-outer-{number.replace(' ', '-')}"
        tune = settings.tune.model_copy(update={"study": name, "outer": None})
        plans.append(
            replace(
                plan,
                settings=settings.model_copy(update={"tune": tune, "run_name": None}),
                split=_inside(plan, outer),
                name=name,
                outer=number,
            )
        )
    return plans


def _inside(plan: Plan, outer: Fold) -> Split:
    """Return the members outside an outer fold as a training part with folds of its own."""
    dataset, keys = plan.dataset, plan.settings.evaluation
    train, test = plan.split.train[outer.train], plan.split.train[outer.validation]
    folds = make_folds(
        dataset.y[train],
        folds=keys.folds,
        repeats=keys.repeats,
        seed=plan.settings.seed,
        groups=dataset.groups_of(train),
    )
    data = dataset.sha256
    return Split(
        train,
        test,
        folds,
        data,
        split_sha256(data, test),
        folds_sha256(data, [train[fold.validation] for fold in folds]),
    )


def _predict(plan: Plan, params: dict[str, object]) -> pd.DataFrame:
    """Refit with these parameters, calibrated as the model will be; predict the outer fold."""
    dataset, split = plan.dataset, plan.split
    model = clone(plan.pipeline).set_params(
        **{f"estimator__{key}": value for key, value in params.items()}
    )
    model = _calibrated(plan, model)
    pipelines.fit(model, dataset.X.iloc[split.train], dataset.y[split.train])
    probability = pipelines.churn_probability(model, dataset.X.iloc[split.test])
    return pd.DataFrame({"row": split.test, "y": dataset.y[split.test], "probability": probability})


def _calibrated(plan: Plan, model: Pipeline) -> Pipeline:
    """Return the unfitted model that evaluation.calibration chooses on the study's members."""
    keys, split = plan.settings.evaluation, plan.split
    if keys.calibration == calibration.NONE:
        return model
    return calibration.choose(
        model,
        plan.dataset.X.iloc[split.train],
        plan.dataset.y[split.train],
        split.folds,
        rows=split.train,
        method=keys.calibration,
        **keys.calibrated.model_dump(),
        splits=keys.calibration_folds,
    ).kept.model


def end_interrupted(plan: Plan, outside: OpenStudy) -> None:
    """Clean up studies inside outer folds whose driver died: the lock outside them is now ours."""
    for run in children(outside.parent, "tune", status="RUNNING"):
        name = run.data.tags[Tag.STUDY]
        with plan.storage.locked(name):
            storage = plan.storage.open(name)
            if name in optuna.get_all_study_names(storage):
                study = optuna.load_study(study_name=name, storage=storage)
                n_trials = plan.settings.tune.n_trials
                orphans.reconcile(study, DeadJob(plan.storage, plan.space, n_trials, run))
        end_trial(run.info.run_id, "KILLED")
