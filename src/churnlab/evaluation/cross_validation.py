"""Cross-validate a pipeline: out-of-fold predictions and the metrics of each fold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from churnlab.errors import InputError
from churnlab.evaluation.performance import classification_metrics
from churnlab.models.decision import ContactEconomics
from churnlab.models.splits import Fold
from churnlab.threads import one_thread


class PreparedFold(NamedTuple):
    """A fold whose members have passed all steps before the estimator, fitted on the train part."""

    fold: Fold
    train: np.ndarray | pd.DataFrame
    train_y: np.ndarray
    validation: np.ndarray | pd.DataFrame
    validation_y: np.ndarray


def prepare_folds(
    model: Pipeline, X: pd.DataFrame, y: np.ndarray, folds: Sequence[Fold]
) -> Iterator[PreparedFold]:
    """Run all steps but the estimator in each fold.

    The features learn nothing from a table without gaps, so they are computed once; all else is
    fitted inside the fold.
    """
    whole = None if X.isna().any(axis=None) else _as_array(model[0].transform(X))
    for fold in folds:
        if whole is None:
            features = clone(model[0]).fit(X.iloc[fold.train])
            train, validation = (
                _as_array(features.transform(X.iloc[rows]))
                for rows in (fold.train, fold.validation)
            )
        else:
            train, validation = _take(whole, fold.train), _take(whole, fold.validation)
        preparation = clone(model[1:-1])
        train = preparation.fit_transform(train, y[fold.train])
        yield PreparedFold(
            fold, train, y[fold.train], preparation.transform(validation), y[fold.validation]
        )


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
    tables = []
    with one_thread():
        for prepared in prepare_folds(model, X, y, folds):
            repeat, fold, _, validation = prepared.fold
            table = pd.DataFrame({"row": rows[validation], "y": prepared.validation_y})
            table["probability"] = fold_probability(model[-1], prepared)
            tables.append(table.assign(fold=fold, repeat=repeat))
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
