"""Fit one model: cross-validate it on the training part, then evaluate it once on the hold-out.

Why: only out-of-fold numbers (cv_) choose a model; the hold-out (test_) reports, with 95% bootstrap
CIs. The run keeps the fitted pipeline, the out-of-fold and hold-out predictions and the figures, so
that any later comparison is paired and needs no refit; importance.csv has the permutation
importance of the columns.

    churnlab train
    churnlab train model=random_forest evaluation.calibration=auto decision=expected_value
    churnlab train -m model=logistic_regression,random_forest features=raw,behaviour
"""

from __future__ import annotations

import logging
import time

import mlflow
import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from churnlab.config.build import build_pipeline
from churnlab.config.commands import Result, Train
from churnlab.data.dataset import Dataset
from churnlab.explore import redundancy
from churnlab.models import calibration, decision, evaluation, importance, pipelines
from churnlab.models.cross_validation import cv_metrics, fold_metrics
from churnlab.models.metrics import will_churn
from churnlab.models.splits import Split, make_split
from churnlab.plots import models as plots
from churnlab.registry.model_artifacts import log_pipeline
from churnlab.tracking import artifacts
from churnlab.tracking.fingerprints import split_tags
from churnlab.tracking.names import Artifact, Tag
from churnlab.tracking.runs import log_metrics, start_run

log = logging.getLogger(__name__)


def run(settings: Train, dataset: Dataset) -> Result:
    """Train, evaluate and log one model."""
    split = make_split(dataset, **settings.evaluation.split, seed=settings.seed)
    uncalibrated = build_pipeline(settings.model, dataset, features=settings.features)
    name = f"{settings.model.name} {settings.features.name}"
    with start_run(
        "train", settings.model_dump(), name=name, dataset=dataset, tags=split_tags(split)
    ) as mlflow_run:
        choice = _choose_calibration(settings, dataset, split, uncalibrated)
        pipeline, oof = choice.kept.model, choice.kept.oof
        threshold = decision.choose(
            settings.decision, oof["y"].to_numpy(), oof["probability"].to_numpy()
        )
        started = time.perf_counter()
        pipelines.fit(pipeline, dataset.X.iloc[split.train], dataset.y[split.train])
        fit_seconds = time.perf_counter() - started
        hold_out = _predict_hold_out(pipeline, dataset, split)
        per_fold = fold_metrics(oof, threshold=threshold)
        metrics = {
            **cv_metrics(per_fold),
            **_test_metrics(hold_out, threshold=threshold, seed=settings.seed),
            "cv_slope": choice.kept.scores["slope"],
            "cv_intercept": choice.kept.scores["intercept"],
            "threshold": threshold,
            "fit_seconds": fit_seconds,
            "n_columns": pipelines.n_columns(pipeline),
        }
        log_metrics(metrics)
        artifacts.log_table(oof, Artifact.OOF)
        artifacts.log_table(hold_out, Artifact.TEST)
        artifacts.log_table(
            pd.DataFrame(per_fold).rename_axis("fold").reset_index(), Artifact.FOLDS
        )
        artifacts.log_table(choice.table, Artifact.CALIBRATION)
        _log_figures(oof, hold_out, threshold)
        _log_importance(settings, dataset, split, pipeline)
        _log_profit(settings, hold_out, threshold)
        note = f"{_note(name, metrics, split)}. Calibration: {choice.summary}."
        mlflow.set_tags({"mlflow.note.content": note, Tag.CALIBRATION: choice.summary})
        size = log_pipeline(pipeline, dataset.contract, gaps=dataset.gaps)
        if size is not None:
            metrics["model_bytes"] = size
            mlflow.log_metric("model_bytes", size)
    log.info("%s", note)
    return Result({"run_id": mlflow_run.info.run_id, **metrics})


def _choose_calibration(
    settings: Train, dataset: Dataset, split: Split, model: Pipeline
) -> calibration.Choice:
    """Calibrate out of fold as the config says; warn if profit relies on miscalibrated
    probabilities."""
    keys = settings.evaluation
    choice = calibration.choose(
        model,
        dataset.X.iloc[split.train],
        dataset.y[split.train],
        split.folds,
        rows=split.train,
        method=keys.calibration,
        **keys.calibrated.model_dump(),
        splits=keys.calibration_folds,
    )
    uses_profit = decision.contact_economics(settings.decision) is not None
    if uses_profit and choice.reason and choice.kept.method == calibration.NONE:
        dataset.warn(
            "the decision computes profit from probabilities that are not calibrated "
            f"(calibration: {choice.summary})"
        )
    return choice


def _predict_hold_out(pipeline: Pipeline, dataset: Dataset, split: Split) -> pd.DataFrame:
    """Predict the hold-out: row, y, probability; fold and repeat are -1, as in no fold."""
    probability = pipelines.churn_probability(pipeline, dataset.X.iloc[split.test])
    members = {"row": split.test, "y": dataset.y[split.test], "probability": probability}
    return pd.DataFrame({**members, "fold": -1, "repeat": -1})


def _test_metrics(hold_out: pd.DataFrame, *, threshold: float, seed: int) -> dict[str, float]:
    """Compute the metrics of the hold-out (test_<metric>) and the ends of their 95% CIs."""
    y, probability = hold_out["y"].to_numpy(), hold_out["probability"].to_numpy()
    test = evaluation.classification_metrics(y, probability, threshold=threshold)
    intervals = evaluation.bootstrap_intervals(y, probability, threshold=threshold, seed=seed)
    metrics = {f"test_{name}": value for name, value in test.items()}
    metrics |= {f"test_{name}_low": low for name, (low, _) in intervals.items()}
    return metrics | {f"test_{name}_high": high for name, (_, high) in intervals.items()}


def _note(name: str, metrics: dict[str, float], split: Split) -> str:
    return (
        f"{name}: cv log loss {metrics['cv_log_loss']:.4f} and ROC AUC {metrics['cv_roc_auc']:.4f} "
        f"over {len(split.folds)} folds; hold-out of {len(split.test)} members: ROC AUC "
        f"{metrics['test_roc_auc']:.4f} (95% CI {metrics['test_roc_auc_low']:.4f} to "
        f"{metrics['test_roc_auc_high']:.4f}), accuracy {metrics['test_accuracy']:.4f} at "
        f"threshold {metrics['threshold']:.2f}"
    )


def _log_figures(oof: pd.DataFrame, hold_out: pd.DataFrame, threshold: float) -> None:
    """Draw the figures of a run, out of fold next to hold-out."""
    samples = {"out of fold": oof, "hold-out": hold_out}
    pairs = {
        name: (table["y"].to_numpy(), table["probability"].to_numpy())
        for name, table in samples.items()
    }
    reliability = {name: evaluation.reliability(*pair) for name, pair in pairs.items()}
    gains = {
        name: evaluation.gains(*pair, shares=np.linspace(0.01, 1, 100).tolist())
        for name, pair in pairs.items()
    }
    figures = {
        "roc": plots.roc(samples),
        "precision_recall": plots.precision_recall(samples),
        "reliability": plots.reliability(reliability, samples),
        "confusion": plots.confusion(hold_out, threshold=threshold),
        "scores": plots.scores(oof, threshold=threshold),
        "gains": plots.gains(gains, churn_rate=float(oof["y"].mean())),
    }
    for name, figure in figures.items():
        artifacts.log_figure(figure, name)


def _log_importance(settings: Train, dataset: Dataset, split: Split, pipeline: Pipeline) -> None:
    """Log permutation importance on the hold-out, and the estimator's own weights if it has any."""
    train_X, test_X = (dataset.X[pipeline[0].keep].iloc[rows] for rows in (split.train, split.test))
    groups = redundancy.correlated_groups(train_X)
    table = importance.permutation_importance(
        pipeline,
        test_X,
        dataset.y[split.test],
        groups,
        dataset.contract.columns,
        repeats=settings.evaluation.importance_repeats,
        seed=settings.seed,
    )
    coefficients = importance.group_coefficients(pipeline, train_X, groups)
    if coefficients is not None:
        table["coefficient"] = table["driver"].map(coefficients)
    artifacts.log_table(table, Artifact.IMPORTANCE)
    artifacts.log_figure(plots.importance(table), "importance")
    weights = pipelines.estimator_weights(pipeline)
    if len(weights):
        artifacts.log_table(weights, Artifact.COEFFICIENTS)


def _log_profit(settings: Train, hold_out: pd.DataFrame, threshold: float) -> None:
    """Log the profit on the hold-out, if the decision's YAML has contact economics."""
    economics = decision.contact_economics(settings.decision)
    if economics is None:
        return
    y, probability = hold_out["y"].to_numpy(), hold_out["probability"].to_numpy()
    contacted = will_churn(probability, threshold)
    mlflow.log_metric("test_profit", decision.profit(y, contacted, economics))
    curve = decision.profit_curve(y, probability, economics)
    artifacts.log_figure(plots.profit(curve, share=float(contacted.mean())), "profit")
    artifacts.log_table(curve, Artifact.PROFIT)
