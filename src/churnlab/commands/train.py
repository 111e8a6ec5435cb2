"""Fit one model: cross-validate it on the training part, then evaluate it once on the hold-out.

Why: only out-of-fold numbers (cv_) choose a model; the hold-out (test_) reports, with 95%
CIs. The run keeps the fitted pipeline, the out-of-fold and hold-out predictions and the figures, so
that any later comparison is paired and needs no refit; importance.csv has the permutation
importance of the columns. slices.csv compares predicted with observed churn by every column,
learning_curve.csv (light models) says whether more members would help, and a model with late
columns is also cross-validated without them. Every parameter of the estimator is a key,
model.estimator.NAME. A class of your own is one YAML, and a model that could not be kept and served
is refused before it is trained.

    churnlab train model.estimator.C=0.01
    churnlab train model=random_forest evaluation.calibration=auto decision=expected_value
    churnlab train -m model=logistic_regression,random_forest features=raw,behaviour
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import NamedTuple

import mlflow
import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from churnlab.config.build import build_pipeline
from churnlab.config.commands import Result, Train
from churnlab.data.dataset import Dataset
from churnlab.evaluation import (
    calibration,
    decision_value,
    importance,
    learning_curve,
    performance,
    slices,
)
from churnlab.evaluation.calibration_error import noise_floor
from churnlab.evaluation.cross_validation import (
    cross_fitted_thresholds,
    cv_metrics,
    fold_metrics,
    fold_predictions,
)
from churnlab.evaluation.metrics import will_churn
from churnlab.explore import binning, redundancy
from churnlab.models import decision, pipelines
from churnlab.models.features import found_on_sentence, without_columns
from churnlab.models.splits import Fold, Split, make_folds, make_split
from churnlab.plots import decisions, weak_spots
from churnlab.plots import models as plots
from churnlab.registry.model_artifacts import log_pipeline
from churnlab.registry.saved_form import check_saved_form
from churnlab.report.model_sentences import Late, as_sentence, without_late
from churnlab.tracking import artifacts
from churnlab.tracking.fingerprints import split_tags
from churnlab.tracking.names import Artifact, Label, Tag
from churnlab.tracking.runs import log_steps, start_run
from churnlab.tracking.scores import log_scores

log = logging.getLogger(__name__)


class Fitted(NamedTuple):
    """A model fitted on the training part: what calibration chose, the out-of-fold predictions with
    the thresholds that the other folds chose, the threshold that all chose, and the hold-out."""

    pipeline: Pipeline
    choice: calibration.Choice
    oof: pd.DataFrame
    threshold: float
    hold_out: pd.DataFrame
    fit_seconds: float


def run(settings: Train, dataset: Dataset) -> Result:
    """Train, evaluate and log one model."""
    split = make_split(dataset, **settings.evaluation.split, seed=settings.seed)
    uncalibrated = build_pipeline(settings.model, dataset, features=settings.features)
    X, y, trusted = dataset.X.iloc[split.train], dataset.y[split.train], settings.model.trusted
    check_saved_form(uncalibrated, X, y, trusted=trusted)
    words = {Label.MODEL: settings.model.name, Label.FEATURES: settings.features.name}
    name = " ".join(words.values())
    with start_run(
        "train", settings.model_dump(), name=name, dataset=dataset, tags=split_tags(split) | words
    ) as mlflow_run:
        pipeline, choice, oof, threshold, hold_out, fit_seconds = fit(
            settings, dataset, split, uncalibrated
        )
        model_id, size = log_pipeline(pipeline, dataset, trusted=trusted)
        _warn_of_decision(settings, dataset, choice, hold_out, threshold)
        per_fold = fold_metrics(oof, costs=decision.contact_economics(settings.decision))
        valuation = _value_decision(settings, dataset, hold_out, threshold)
        metrics = {
            **cv_metrics(per_fold),
            **_test_metrics(settings, hold_out, threshold),
            **_calibration_metrics(choice, hold_out),
            **(valuation.metrics if valuation else {}),
            **_without_late_columns(settings, dataset, split, choice.kept.model),
            "threshold": threshold,
            "fit_seconds": fit_seconds,
            "n_columns": pipelines.n_columns(pipeline),
            "model_bytes": size,
        }
        log_scores(metrics, model_id=model_id)
        log_steps({f"fold_{settings.metric}": [fold[settings.metric] for fold in per_fold]})
        artifacts.log_table(oof, Artifact.OOF)
        artifacts.log_table(hold_out, Artifact.TEST)
        _log_folds(per_fold, Artifact.FOLDS)
        _log_further_draws(settings, dataset, split, choice.kept.model)
        artifacts.log_table(choice.table, Artifact.CALIBRATION)
        _log_figures(oof, hold_out, threshold)
        _log_importance(settings, dataset, split, pipeline)
        _log_decision(settings, hold_out, threshold, valuation)
        scores = performance.in_words(metrics, folds=len(split.folds), members=len(split.test))
        note = f"{name}: {scores} Calibration: {choice.summary}."
        note += f" {valuation.summary}" if valuation else ""
        note += _log_weak_spots(settings, dataset, split, choice.kept.model, oof, metrics)
        mlflow.set_tags({"mlflow.note.content": note, Tag.CALIBRATION: choice.summary})
    log.info("%s", note)
    return Result({"run_id": mlflow_run.info.run_id, **metrics})


def fit(settings: Train, dataset: Dataset, split: Split, model: Pipeline) -> Fitted:
    """Calibrate as the config says, choose the threshold, fit on the training part, and predict the
    hold-out."""
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
    pipeline, oof = choice.kept.model, _with_thresholds(settings, dataset, choice.kept.oof)
    y, probability = oof["y"].to_numpy(), oof["probability"].to_numpy()
    threshold = decision.choose(settings.decision, y, probability, members=len(dataset.y))
    started = time.perf_counter()
    pipelines.fit(pipeline, dataset.X.iloc[split.train], dataset.y[split.train])
    fit_seconds = time.perf_counter() - started
    hold_out = _predict_hold_out(pipeline, dataset, split)
    return Fitted(pipeline, choice, oof, threshold, hold_out, fit_seconds)


def _with_thresholds(settings: Train, dataset: Dataset, predictions: pd.DataFrame) -> pd.DataFrame:
    """Add the threshold that the decision chooses for each fold on the other folds of its draw."""
    choose = partial(decision.choose, settings.decision, members=len(dataset.y))
    return predictions.assign(threshold=cross_fitted_thresholds(predictions, choose))


def _log_further_draws(settings: Train, dataset: Dataset, split: Split, model: Pipeline) -> None:
    """Predict a light model on further draws of the folds, which only verdicts use."""
    keys, X, y = settings.evaluation, dataset.X.iloc[split.train], dataset.y[split.train]
    if not settings.model.light or not keys.further_draws:
        return
    draws = {"repeats": keys.further_draws, "first": keys.repeats, "seed": settings.seed}
    folds = make_folds(y, folds=keys.folds, **draws, groups=dataset.groups_of(split.train))
    predicted = fold_predictions(clone(model), X, y, folds, rows=split.train)
    further = _with_thresholds(settings, dataset, predicted)
    artifacts.log_table(further, Artifact.FURTHER)
    costs = decision.contact_economics(settings.decision)
    _log_folds(fold_metrics(further, costs=costs), Artifact.FURTHER_FOLDS)


def _log_folds(per_fold: list[dict[str, float]], path: str) -> None:
    artifacts.log_table(pd.DataFrame(per_fold).rename_axis("fold").reset_index(), path)


def _warn_of_decision(
    settings: Train,
    dataset: Dataset,
    choice: calibration.Choice,
    hold_out: pd.DataFrame,
    threshold: float,
) -> None:
    """Warn if profit relies on miscalibrated probabilities, or almost nobody or everybody is
    marked."""
    if warning := decision.extreme(hold_out, threshold):
        dataset.warn(warning)
    uses_profit = decision.contact_economics(settings.decision) is not None
    if uses_profit and choice.reason and choice.kept.method == calibration.NONE:
        dataset.warn(
            "the decision computes profit from probabilities that are not calibrated "
            f"(calibration: {choice.summary})"
        )


def _predict_hold_out(pipeline: Pipeline, dataset: Dataset, split: Split) -> pd.DataFrame:
    """Predict the hold-out: row, y, probability; fold and repeat are -1, as in no fold."""
    probability = pipelines.churn_probability(pipeline, dataset.X.iloc[split.test])
    members = {"row": split.test, "y": dataset.y[split.test], "probability": probability}
    return pd.DataFrame({**members, "fold": -1, "repeat": -1})


def _test_metrics(settings: Train, hold_out: pd.DataFrame, threshold: float) -> dict[str, float]:
    costs = decision.contact_economics(settings.decision)
    return performance.hold_out_metrics(
        hold_out, threshold=threshold, seed=settings.seed, costs=costs
    )


def _without_late_columns(
    settings: Train, dataset: Dataset, split: Split, model: Pipeline
) -> dict[str, float]:
    """Cross-validate the same model without late columns and all that is derived from them, on the
    first draw of the folds: early_cv_roc_auc and early_cv_log_loss; {} if it uses none."""
    late = _late_columns(settings, dataset)
    features = without_columns(model[0], late)
    if not settings.evaluation.early or not late or not features.keep:
        return {}
    columns, scale = dataset.contract.columns, settings.model.scale
    early = pipelines.pipeline(clone(model[-1]), features=features, columns=columns, scale=scale)
    X, y = dataset.X.iloc[split.train], dataset.y[split.train]
    predicted = fold_predictions(early, X, y, _first_draw(split), rows=split.train)
    scores = cv_metrics(fold_metrics(predicted, threshold=0.5))
    return {f"early_{name}": scores[name] for name in ("cv_roc_auc", "cv_log_loss")}


def _log_weak_spots(
    settings: Train,
    dataset: Dataset,
    split: Split,
    model: Pipeline,
    oof: pd.DataFrame,
    metrics: dict[str, float],
) -> str:
    """Log the slices and the learning curve; say where the model is weak or owes its numbers."""
    columns, features = _late_columns(settings, dataset), settings.features
    found_here = features.found_on == settings.dataset.name
    late = Late(columns, metrics["cv_roc_auc"], metrics.get("early_cv_roc_auc"))
    sentences = [
        as_sentence(without_late(late)) if columns else "",
        found_on_sentence(features.name, settings.dataset.name) if found_here else "",
        _log_slices(dataset, oof),
        _log_learning_curve(settings, dataset, split, model),
    ]
    return "".join(f" {sentence}" for sentence in sentences if sentence)


def _late_columns(settings: Train, dataset: Dataset) -> list[str]:
    return list(dataset.contract.late) if settings.features.late else []


def _first_draw(split: Split) -> list[Fold]:
    return [fold for fold in split.folds if fold.repeat == 0]


def _log_slices(dataset: Dataset, oof: pd.DataFrame) -> str:
    """Compare predicted with observed churn in slices by every column, on the first draw of the
    folds, and name the weakest."""
    first = oof[oof["repeat"] == 0]
    columns = dataset.contract.columns
    X, words = dataset.X.iloc[first["row"]], dataset.words
    labels = binning.label_columns(X, columns, words=words)
    y, probability, threshold = (
        first[name].to_numpy() for name in ("y", "probability", "threshold")
    )
    table = slices.slice_table(y, probability, threshold, labels)
    artifacts.log_table(table, Artifact.SLICES)
    if sentence := slices.weakest(table):
        artifacts.log_figure(weak_spots.slices(table), "slices")
    return sentence


def _log_learning_curve(settings: Train, dataset: Dataset, split: Split, model: Pipeline) -> str:
    """Fit the model on parts of the members, and say what twice as many would gain."""
    keys = settings.evaluation
    if not (settings.model.light if keys.learning_curve == "auto" else keys.learning_curve):
        return ""
    curve = learning_curve.learning_curve(
        model,
        dataset.X.iloc[split.train],
        dataset.y[split.train],
        _first_draw(split),
        seed=settings.seed,
        fewest=max(learning_curve.FEWEST, keys.calibration_folds),
    )
    if curve is None:
        return learning_curve.describe(None)
    found = learning_curve.doubling(curve, members=len(split.train))
    artifacts.log_table(curve, Artifact.LEARNING_CURVE)
    artifacts.log_figure(weak_spots.learning_curve(curve, found), "learning_curve")
    return learning_curve.describe(found)


def _log_figures(oof: pd.DataFrame, hold_out: pd.DataFrame, threshold: float) -> None:
    """Draw the figures of a run, out of fold next to hold-out."""
    samples = {"out of fold": oof, "hold-out": hold_out}
    reliability = {
        name: performance.reliability(table["y"].to_numpy(), table["probability"].to_numpy())
        for name, table in samples.items()
    }
    gains = {
        name: performance.repeated_gains(table, shares=np.linspace(0.01, 1, 100).tolist())
        for name, table in samples.items()
    }
    figures = {
        "roc": plots.roc(samples),
        "precision_recall": plots.precision_recall(samples),
        "reliability": plots.reliability(reliability, samples),
        "confusion": plots.confusion(hold_out, threshold=threshold),
        "scores": plots.scores(oof, threshold=threshold),
        "gains": plots.gains(gains),
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
        words=dataset.words,
    )
    coefficients = importance.group_coefficients(pipeline, train_X, groups)
    if coefficients is not None:
        table["coefficient"] = table["driver"].map(coefficients)
    artifacts.log_table(table, Artifact.IMPORTANCE)
    artifacts.log_figure(plots.importance(table), "importance")
    weights = pipelines.estimator_weights(pipeline)
    if len(weights):
        artifacts.log_table(weights, Artifact.COEFFICIENTS)


def _calibration_metrics(choice: calibration.Choice, hold_out: pd.DataFrame) -> dict[str, float]:
    """Return slope, intercept and ECE of all out-of-fold predictions, and the ECE's noise floors.

    cv_ece, a mean over the folds, has the noise of so few members.
    """
    scores = choice.kept.scores
    return {
        "cv_slope": scores["slope"],
        "cv_intercept": scores["intercept"],
        "cv_pooled_ece": scores["ece"],
        "cv_pooled_ece_floor": scores["ece_floor"],
        "test_ece_floor": noise_floor(hold_out["probability"].to_numpy()),
    }


def _value_decision(
    settings: Train, dataset: Dataset, hold_out: pd.DataFrame, threshold: float
) -> decision_value.Valuation | None:
    """Value the decision on the hold-out, if its YAML has contact economics."""
    return decision_value.value_decision(
        hold_out["y"].to_numpy(),
        hold_out["probability"].to_numpy(),
        threshold=threshold,
        decision=settings.decision,
        members=len(dataset.y),
        seed=settings.seed,
    )


def _log_decision(
    settings: Train,
    hold_out: pd.DataFrame,
    threshold: float,
    valuation: decision_value.Valuation | None,
) -> None:
    """Log the net benefit on the hold-out and, with contact economics, profit, capacity and
    sensitivity."""
    y, probability = hold_out["y"].to_numpy(), hold_out["probability"].to_numpy()
    benefit = decision_value.net_benefit(y, probability, thresholds=decision_value.THRESHOLDS)
    artifacts.log_table(benefit, Artifact.NET_BENEFIT)
    artifacts.log_figure(decisions.net_benefit(benefit, threshold=threshold), "net_benefit")
    economics = decision.contact_economics(settings.decision)
    if economics is None or valuation is None:
        return
    curve = decision.profit_curve(y, probability, economics)
    share = float(will_churn(probability, threshold).mean())
    artifacts.log_figure(plots.profit(curve, share=share), "profit")
    artifacts.log_figure(decisions.sensitivity(valuation.sensitivity), "sensitivity")
    artifacts.log_table(curve, Artifact.PROFIT)
    artifacts.log_table(valuation.capacity, Artifact.CAPACITY)
    artifacts.log_table(valuation.sensitivity, Artifact.SENSITIVITY)
