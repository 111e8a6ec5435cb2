"""Cross-validate a pipeline: out-of-fold predictions and the metrics of each fold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from threadpoolctl import ThreadpoolController

from churnlab.errors import InputError
from churnlab.models.evaluation import (
    classification_metrics,
)
from churnlab.models.splits import Fold


class PreparedFold(NamedTuple):
    """A fold whose members are ready for an estimator: all steps before it are fitted on the train
    part."""

    fold: Fold
    train: np.ndarray | pd.DataFrame
    train_y: np.ndarray
    validation: np.ndarray | pd.DataFrame
    validation_y: np.ndarray


def prepare_folds(
    model: Pipeline, X: pd.DataFrame, y: np.ndarray, folds: Sequence[Fold]
) -> Iterator[PreparedFold]:
    """Do everything of a fold but the estimator's part.

    The features learn nothing of a table without gaps and are computed once; all else is fitted
    inside the fold.
    """
    whole = None if X.isna().any(axis=None) else _numbers(model[0].transform(X))
    for fold in folds:
        if whole is None:
            features = clone(model[0]).fit(X.iloc[fold.train])
            train, validation = (
                _numbers(features.transform(X.iloc[rows])) for rows in (fold.train, fold.validation)
            )
        else:
            train, validation = _take(whole, fold.train), _take(whole, fold.validation)
        preparation = clone(model[1:-1])
        train = preparation.fit_transform(train, y[fold.train])
        yield PreparedFold(
            fold, train, y[fold.train], preparation.transform(validation), y[fold.validation]
        )


def _numbers(table: pd.DataFrame) -> pd.DataFrame | np.ndarray:
    """A table of numbers only as an array: names cost as much as a small fit."""
    return (
        np.ascontiguousarray(table.to_numpy())
        if all(dtype == np.float64 for dtype in table.dtypes)
        else table
    )


def fold_probabilities(
    estimator: Any, folds: Iterable[PreparedFold]
) -> Iterator[tuple[PreparedFold, np.ndarray]]:
    """Fit a clone per fold and give its validation members' probabilities.

    One thread does it, so that the bits do not depend on the machine.
    """
    threads = ThreadpoolController()
    for prepared in folds:
        with threads.limit(limits=1):
            fitted = clone(estimator).fit(prepared.train, prepared.train_y)
            probability = fitted.predict_proba(prepared.validation)[:, 1].astype(np.float64)
        if not ((probability >= 0) & (probability <= 1)).all():  # also false for nan
            raise InputError(
                f"model.estimator: {type(estimator).__name__} gave a probability that is not "
                f"between 0 and 1 in fold {prepared.fold.fold}. Choose another estimator or other "
                "parameters."
            )
        yield prepared, probability


def fold_predictions(
    model: Pipeline, X: pd.DataFrame, y: np.ndarray, folds: Sequence[Fold], *, rows: np.ndarray
) -> Iterator[pd.DataFrame]:
    """The validation members of each fold: row, y, probability, fold, repeat.

    ``rows`` are the positions of X's rows in the whole table.
    """
    for prepared, probability in fold_probabilities(model[-1], prepare_folds(model, X, y, folds)):
        repeat, fold, _, validation = prepared.fold
        members = {"row": rows[validation], "y": prepared.validation_y, "probability": probability}
        yield pd.DataFrame({**members, "fold": fold, "repeat": repeat})


def estimator_metrics(
    estimator: Any, folds: Iterable[PreparedFold], *, threshold: float = 0.5
) -> list[dict[str, float]]:
    """The metrics of each fold, as ``fold_metrics`` gives them, of an estimator on prepared folds."""
    return [
        classification_metrics(prepared.validation_y, probability, threshold=threshold)
        for prepared, probability in fold_probabilities(estimator, folds)
    ]


def fold_metrics(predictions: pd.DataFrame, *, threshold: float) -> list[dict[str, float]]:
    """The metrics of each fold of out-of-fold predictions, repeat by repeat."""
    return [
        classification_metrics(
            part["y"].to_numpy(), part["probability"].to_numpy(), threshold=threshold
        )
        for _, part in predictions.groupby(["repeat", "fold"])
    ]


def cv_metrics(per_fold: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean (``cv_<metric>``) and standard deviation over the folds (``cv_<metric>_std``, n - 1)."""
    table = {name: np.array([metrics[name] for metrics in per_fold]) for name in per_fold[0]}
    means = {f"cv_{name}": float(values.mean()) for name, values in table.items()}
    return means | {f"cv_{name}_std": float(values.std(ddof=1)) for name, values in table.items()}


def _take(values: pd.DataFrame | np.ndarray, positions: np.ndarray) -> pd.DataFrame | np.ndarray:
    return values.iloc[positions] if isinstance(values, pd.DataFrame) else values[positions]
