"""Fit one model with cross-validation on the training part and one look at the hold-out.

Why: every number that chooses a model is an out-of-fold one (cv_); the hold-out (test_) only reports, with 95%
bootstrap intervals. The run keeps the fitted pipeline, the out-of-fold and hold-out predictions and the figures, so
that any later comparison is paired and needs no refit.

    churnlab train
    churnlab train model=random_forest features=behaviour +model.estimator.max_depth=8
    churnlab train -m model=logistic_regression,random_forest features=raw,behaviour
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import mlflow
import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from churnlab import artifacts, compose, decision, evaluation, models, schema, suspicions, tracking
from churnlab.commands import Result
from churnlab.data import Dataset, folds_sha256, split_sha256
from churnlab.features import Features
from churnlab.plots import churn as plots

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """What a model is asked: positions of training part and hold-out, folds of the training part, fingerprints."""

    train: np.ndarray
    test: np.ndarray
    folds: list[evaluation.Fold]
    tags: dict[str, str]


def run(settings: schema.Train, dataset: Dataset) -> Result:
    """Train, evaluate and log one model."""
    question = ask(settings.evaluation, dataset, seed=settings.seed)
    pipeline = build(settings, dataset)
    X, y = dataset.X, dataset.y
    name = f"{settings.model.name} {settings.features.name}"
    with tracking.start_run(
        "train", settings.model_dump(), name=name, dataset=dataset, tags=question.tags
    ) as mlflow_run:
        train_X, train_y = X.iloc[question.train], y[question.train]
        oof = pd.concat(
            evaluation.fold_predictions(pipeline, train_X, train_y, question.folds, rows=question.train),
            ignore_index=True,
        )
        threshold = decision.choose(settings.decision, oof["y"].to_numpy(), oof["probability"].to_numpy())
        started = time.perf_counter()
        models.fit(pipeline, train_X, train_y)
        fit_seconds = time.perf_counter() - started
        test_y, probability = y[question.test], models.churn_probability(pipeline, X.iloc[question.test])
        per_fold = evaluation.fold_metrics(oof, threshold=threshold)
        test = evaluation.classification_metrics(test_y, probability, threshold=threshold)
        intervals = evaluation.bootstrap_intervals(test_y, probability, threshold=threshold, seed=settings.seed)
        metrics = evaluation.cv_metrics(per_fold)
        metrics |= {f"test_{key}": value for key, value in test.items()}
        metrics |= {f"test_{key}_low": low for key, (low, _) in intervals.items()}
        metrics |= {f"test_{key}_high": high for key, (_, high) in intervals.items()}
        metrics |= {"threshold": threshold, "fit_seconds": fit_seconds}
        hold_out = pd.DataFrame(
            {"row": question.test, "y": test_y, "probability": probability, "fold": -1, "repeat": -1}
        )
        tracking.log_metrics(metrics)
        artifacts.log_table(oof, "predictions/oof.parquet")
        artifacts.log_table(hold_out, "predictions/test.parquet")
        artifacts.log_table(pd.DataFrame(per_fold).rename_axis("fold").reset_index(), "folds.csv")
        _log_figures(pipeline, oof, hold_out, threshold)
        _log_profit(settings, hold_out, threshold)
        mlflow.set_tag("mlflow.note.content", _note(name, metrics, question))
        artifacts.log_pipeline(pipeline, dataset.contract, gaps=dataset.gaps)
    log.info("%s", _note(name, metrics, question))
    return Result({"run_id": mlflow_run.info.run_id, **metrics})


def ask(settings: schema.Evaluation, dataset: Dataset, *, seed: int) -> Question:
    """Split off the hold-out and make the folds; the tags say on which data, split and folds.

    Warns of members that are in both parts.
    """
    train, test = evaluation.hold_out(dataset.y, test_size=settings.test_size, stratify=settings.stratify, seed=seed)
    for warning in suspicions.shared(dataset.X, dataset.y, train=train, test=test):
        dataset.warn(warning)
    folds = evaluation.make_folds(dataset.y[train], folds=settings.folds, repeats=settings.repeats, seed=seed)
    tags = {
        "churnlab.data_sha256": dataset.sha256,
        "churnlab.split_sha256": split_sha256(dataset.sha256, test),
        "churnlab.folds_sha256": folds_sha256(dataset.sha256, [train[fold.validation] for fold in folds]),
    }
    return Question(train, test, folds, tags)


def build(settings: schema.Train, dataset: Dataset) -> Pipeline:
    """The unfitted pipeline that model= and features= describe; InputError for what does not exist or fit."""
    contract = dataset.contract
    estimator = dict(settings.model.estimator)
    models.check_parameters(estimator["_target_"], estimator)
    models.check_parameters(estimator["_target_"], settings.model.space, where="model.space")
    made = compose.build(estimator, key="model.estimator")
    models.check_values(made)
    keep = [name for name in contract.columns if settings.features.late or name not in contract.late]
    features = Features(keep, settings.features.derive).fit(dataset.X)
    return models.pipeline(made, features=features, columns=contract.columns, scale=settings.model.scale)


def _note(name: str, metrics: dict[str, float], question: Question) -> str:
    return (
        f"{name}: cv log loss {metrics['cv_log_loss']:.4f} and ROC AUC {metrics['cv_roc_auc']:.4f} over "
        f"{len(question.folds)} folds; hold-out of {len(question.test)} members ROC AUC {metrics['test_roc_auc']:.4f} "
        f"({metrics['test_roc_auc_low']:.4f} to {metrics['test_roc_auc_high']:.4f}), "
        f"accuracy {metrics['test_accuracy']:.4f} at threshold {metrics['threshold']:.2f}"
    )


def _log_figures(pipeline: Pipeline, oof: pd.DataFrame, hold_out: pd.DataFrame, threshold: float) -> None:
    """The pictures of a run, out of fold and on the hold-out side by side, and what the model goes by."""
    samples = {"out of fold": oof, "hold-out": hold_out}
    pairs = {name: (table["y"].to_numpy(), table["probability"].to_numpy()) for name, table in samples.items()}
    reliability = {name: evaluation.reliability(*pair) for name, pair in pairs.items()}
    gains = {name: evaluation.gains(*pair, shares=np.linspace(0.01, 1, 100).tolist()) for name, pair in pairs.items()}
    figures = {
        "roc": plots.roc(samples),
        "precision_recall": plots.precision_recall(samples),
        "reliability": plots.reliability(reliability, samples),
        "confusion": plots.confusion(hold_out, threshold=threshold),
        "scores": plots.scores(oof, threshold=threshold),
        "gains": plots.gains(gains, churn_rate=float(oof["y"].mean())),
    }
    importances = models.importances(pipeline)
    if len(importances):
        figures["importances"] = plots.importances(importances)
        artifacts.log_table(importances, "importances.csv")
    for name, figure in figures.items():
        mlflow.log_figure(figure, f"figures/{name}.png")


def _log_profit(settings: schema.Train, hold_out: pd.DataFrame, threshold: float) -> None:
    """What the decision would have earned on the hold-out, when the decision states what contacts cost and bring."""
    economics = decision.economics(settings.decision)
    if economics is None:
        return
    y, probability = hold_out["y"].to_numpy(), hold_out["probability"].to_numpy()
    contacted = decision.will_churn(probability, threshold)
    mlflow.log_metric("test_profit", decision.profit(y, contacted, economics))
    curve = decision.profit_curve(y, probability, economics)
    mlflow.log_figure(plots.profit(curve, share=float(contacted.mean())), "figures/profit.png")
    artifacts.log_table(curve, "profit.csv")
