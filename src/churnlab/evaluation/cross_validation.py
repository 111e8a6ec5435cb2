"""Cross-validate a pipeline: out-of-fold predictions and the metrics of each fold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from churnlab.errors import InputError
from churnlab.evaluation.performance import classification_metrics
from churnlab.models.decision import ContactEconomics
from churnlab.models.splits import Fold
from churnlab.threads import one_thread, spread


class PreparedFold(NamedTuple):
    """A fold whose members have passed all steps before the estimator, fitted on the train part."""

    fold: Fold
    train: np.ndarray | pd.DataFrame
    train_y: np.ndarray
    validation: np.ndarray | pd.DataFrame
    validation_y: np.ndarray


def preparation(model: Pipeline, X: pd.DataFrame, y: np.ndarray) -> Callable[[Fold], PreparedFold]:
    """Return what runs all steps but the estimator in a fold.

    The features learn nothing from a table without gaps, so they are computed once; all else is
    fitted inside the fold.
    """
    has_gaps = X.isna().any(axis=None)
    table = X if has_gaps else _as_array(model[0].transform(X))

    def prepare(fold: Fold) -> PreparedFold:
        train, validation = (_take(table, rows) for rows in (fold.train, fold.validation))
        if has_gaps:
            features = clone(model[0]).fit(train)
            train, validation = (
                _as_array(features.transform(part)) for part in (train, validation)
            )
        steps = clone(model[1:-1])
        train = steps.fit_transform(train, y[fold.train])
        return PreparedFold(
            fold, train, y[fold.train], steps.transform(validation), y[fold.validation]
        )

    return prepare


def _as_array(table: pd.DataFrame) -> pd.DataFrame | np.ndarray:
    """Return a table of numbers as an array: column names cost as much as a small fit."""
    return (
        np.ascontiguousarray(table.to_numpy())
        if all(dtype == np.float64 for dtype in table.dtypes)
        else table
    )


def fold_probability(estimator: Any, prepared: PreparedFold) -> np.ndarray:
    """Fit a clone on the train part and return the probabilities of the validation members.

    InputError: a probability outside [0, 1], or none.
    """
    fitted = clone(estimator).fit(prepared.train, prepared.train_y)
    probability = fitted.predict_proba(prepared.validation)[:, 1].astype(np.float64)
    if not ((probability >= 0) & (probability <= 1)).all():  # also false for nan
        raise InputError(
            f"model.estimator: {type(estimator).__name__} gave a probability that is not between 0 "
            f"and 1 in fold {prepared.fold.fold}. Choose another estimator or other parameters."
        )
    return probability


def fold_predictions(
    model: Pipeline, X: pd.DataFrame, y: np.ndarray, folds: Sequence[Fold], *, rows: np.ndarray
) -> pd.DataFrame:
    """Predict every fold's validation members out of fold: row, y, probability, fold, repeat.

    ``rows`` are the positions of X's rows in the whole table.
    """
    with one_thread():
        prepare = preparation(model, X, y)
        # One after another, unless processes take them: own estimators need not stand threads.
        found = spread(lambda fold: fold_probability(model[-1], prepare(fold)), folds, n_jobs=1)
    tables = [
        pd.DataFrame(
            {
                "row": rows[fold.validation],
                "y": y[fold.validation],
                "probability": probability,
                "fold": fold.fold,
                "repeat": fold.repeat,
            }
        )
        for fold, probability in zip(folds, found, strict=True)
    ]
    return pd.concat(tables, ignore_index=True)


def estimator_metrics(
    estimator: Any,
    folds: Iterable[PreparedFold],
    *,
    threshold: float = 0.5,
    costs: ContactEconomics | None = None,
) -> list[dict[str, float]]:
    """Return the metrics of an estimator on each prepared fold, as ``fold_metrics`` does."""
    with one_thread():
        return [
            classification_metrics(
                prepared.validation_y,
                fold_probability(estimator, prepared),
                threshold=threshold,
                costs=costs,
            )
            for prepared in folds
        ]


def cross_fitted_thresholds(
    predictions: pd.DataFrame, choose: Callable[[np.ndarray, np.ndarray], float]
) -> pd.Series:
    """Choose each fold's threshold on the other folds of its draw: no member scores a threshold
    that it helped to choose.

    ``choose`` returns the threshold for outcomes and out-of-fold probabilities.
    """
    y, probability, fold = (predictions[key].to_numpy() for key in ("y", "probability", "fold"))
    thresholds = np.empty(len(predictions))
    for draw in predictions.groupby("repeat").indices.values():
        for number in np.unique(fold[draw]):
            others = draw[fold[draw] != number]
            thresholds[draw[fold[draw] == number]] = choose(y[others], probability[others])
    return pd.Series(thresholds, index=predictions.index)


def fold_metrics(
    predictions: pd.DataFrame,
    *,
    threshold: float | None = None,
    costs: ContactEconomics | None = None,
) -> list[dict[str, float]]:
    """Compute the metrics of each fold from out-of-fold predictions, draw by draw.

    They are at ``threshold`` or, by default, at the fold's own: the column ``threshold``.
    """
    return [
        classification_metrics(
            part["y"].to_numpy(),
            part["probability"].to_numpy(),
            threshold=float(part["threshold"].iloc[0]) if threshold is None else threshold,
            costs=costs,
        )
        for _, part in predictions.groupby(["repeat", "fold"])
    ]


def cv_metrics(per_fold: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean (``cv_<metric>``) and standard deviation (``cv_<metric>_std``, n - 1) over
    the folds.

    >>> cv_metrics([{"f1": 0.5}, {"f1": 0.75}])["cv_f1"]
    0.625
    """
    table = {name: np.array([metrics[name] for metrics in per_fold]) for name in per_fold[0]}
    means = {f"cv_{name}": float(values.mean()) for name, values in table.items()}
    return means | {f"cv_{name}_std": float(values.std(ddof=1)) for name, values in table.items()}


def _take(values: pd.DataFrame | np.ndarray, positions: np.ndarray) -> pd.DataFrame | np.ndarray:
    return values.iloc[positions] if isinstance(values, pd.DataFrame) else values[positions]
