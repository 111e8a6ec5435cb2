"""Fit one model with cross-validation on the training part and one look at the hold-out.

Why: every number that chooses a model is an out-of-fold one (cv_); the hold-out (test_) only
reports, with 95% bootstrap intervals. The run keeps the fitted pipeline, the out-of-fold and
hold-out predictions and the figures, so that any later comparison is paired and needs no refit;
drivers.csv says what the model goes by.

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
    plain = build_pipeline(settings, dataset)
    X, y = dataset.X, dataset.y
    name = f"{settings.model.name} {settings.features.name}"
    with start_run(
        "train", settings.model_dump(), name=name, dataset=dataset, tags=split_tags(split)
    ) as mlflow_run:
        train_X, train_y = X.iloc[split.train], y[split.train]
        asked = settings.evaluation
        choice = calibration.choose(
            plain,
            train_X,
            train_y,
            split.folds,
            rows=split.train,
            method=asked.calibration,
            slope=asked.calibrated.slope,
            ece=asked.calibrated.ece,
            splits=asked.calibration_folds,
        )
        _warn_of_economics(settings, dataset, choice)
        pipeline, oof = choice.kept.model, choice.kept.oof
        threshold = decision.choose(
            settings.decision, oof["y"].to_numpy(), oof["probability"].to_numpy()
        )
        started = time.perf_counter()
        pipelines.fit(pipeline, train_X, train_y)
        fit_seconds = time.perf_counter() - started
        test_y, probability = (
            y[split.test],
            pipelines.churn_probability(pipeline, X.iloc[split.test]),
        )
        per_fold = fold_metrics(oof, threshold=threshold)
        test = evaluation.classification_metrics(test_y, probability, threshold=threshold)
        intervals = evaluation.bootstrap_intervals(
            test_y, probability, threshold=threshold, seed=settings.seed
        )
        metrics = cv_metrics(per_fold)
        metrics |= {f"test_{key}": value for key, value in test.items()}
        metrics |= {f"test_{key}_low": low for key, (low, _) in intervals.items()}
        metrics |= {f"test_{key}_high": high for key, (_, high) in intervals.items()}
        metrics |= {f"cv_{key}": choice.kept.scores[key] for key in ("slope", "intercept")}
        metrics |= {
            "threshold": threshold,
            "fit_seconds": fit_seconds,
            "n_columns": pipelines.n_columns(pipeline),
        }
        hold_out = pd.DataFrame(
            {
                "row": split.test,
                "y": test_y,
                "probability": probability,
                "fold": -1,
                "repeat": -1,
            }
        )
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
        said = f"{_note(name, metrics, split)}. Calibration: {choice.said}"
        mlflow.set_tags({"mlflow.note.content": said, Tag.CALIBRATION: choice.said})
        kept = log_pipeline(pipeline, dataset.contract, gaps=dataset.gaps)
        if kept is not None:
            metrics["model_bytes"] = kept
            mlflow.log_metric("model_bytes", kept)
    log.info("%s", said)
    return Result({"run_id": mlflow_run.info.run_id, **metrics})


def _note(name: str, metrics: dict[str, float], split: Split) -> str:
    return (
        f"{name}: cv log loss {metrics['cv_log_loss']:.4f} and ROC AUC {metrics['cv_roc_auc']:.4f} "
        f"over {len(split.folds)} folds; hold-out of {len(split.test)} members ROC AUC "
        f"{metrics['test_roc_auc']:.4f} ({metrics['test_roc_auc_low']:.4f} to "
        f"{metrics['test_roc_auc_high']:.4f}), accuracy {metrics['test_accuracy']:.4f} at "
        f"threshold {metrics['threshold']:.2f}"
    )


def _warn_of_economics(settings: Train, dataset: Dataset, choice: calibration.Choice) -> None:
    """Say so when a decision that weighs probabilities against money is given ones that call for
    calibration."""
    weighs = decision.contact_economics(settings.decision) is not None
    if weighs and choice.reason and choice.kept.method == calibration.NONE:
        dataset.warn(
            f"the decision takes probabilities at their word, and calibration is {choice.said}"
        )


def _log_figures(oof: pd.DataFrame, hold_out: pd.DataFrame, threshold: float) -> None:
    """The pictures of a run, out of fold and on the hold-out side by side."""
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
    """What the model goes by: drivers of the table's columns, and what the estimator says of its
    own columns."""
    train_X, test_X = (dataset.X[pipeline[0].keep].iloc[rows] for rows in (split.train, split.test))
    groups = redundancy.together(train_X)
    table = importance.permutation_importance(
        pipeline,
        test_X,
        dataset.y[split.test],
        groups,
        dataset.contract.columns,
        repeats=settings.evaluation.importance_repeats,
        seed=settings.seed,
    )
    coefficients = importance.coefficients(pipeline, train_X, groups)
    if coefficients is not None:
        table["coefficient"] = table["driver"].map(coefficients)
    artifacts.log_table(table, Artifact.IMPORTANCE)
    artifacts.log_figure(plots.importance(table), "importance")
    own = pipelines.coefficients(pipeline)
    if len(own):
        artifacts.log_table(own, Artifact.COEFFICIENTS)


def _log_profit(settings: Train, hold_out: pd.DataFrame, threshold: float) -> None:
    """What the decision would have earned on the hold-out, when the decision states what contacts
    cost and bring."""
    economics = decision.contact_economics(settings.decision)
    if economics is None:
        return
    y, probability = hold_out["y"].to_numpy(), hold_out["probability"].to_numpy()
    contacted = will_churn(probability, threshold)
    mlflow.log_metric("test_profit", decision.profit(y, contacted, economics))
    curve = decision.profit_curve(y, probability, economics)
    artifacts.log_figure(plots.profit(curve, share=float(contacted.mean())), "profit")
    artifacts.log_table(curve, Artifact.PROFIT)
