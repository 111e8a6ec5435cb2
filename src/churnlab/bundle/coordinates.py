"""Turn columns into what an estimator sees, and that into a probability, as arrays.

A version carries a copy of this file and runs it where churnlab is not installed: it stands alone.
Sums over columns go from one column to the next, so that a member has the same bits alone and among
a million; matrix products have another order for each size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

Columns = dict[str, np.ndarray]
"""Columns of members by name: float64, or texts; all of the same length."""

FEW = 50
"""Up to so many rows, one operation on all columns is faster than one per column."""


class Number(NamedTuple):
    """A column that is standardized, and squared if ``square``."""

    name: str
    mean: float = 0.0
    scale: float = 1.0
    square: bool = False

    def of(self, column: np.ndarray) -> np.ndarray:
        """Return the coordinate (1 x rows) of a column's cells."""
        found = ((column - self.mean) / self.scale)[None]
        return found * found if self.square else found


class Words(NamedTuple):
    """A column of texts and the coordinates of each (texts x coordinates), the unknown one last."""

    name: str
    places: Mapping[str, int]
    coordinates: np.ndarray

    def of(self, column: np.ndarray | str) -> np.ndarray:
        """Return the coordinates (coordinates x rows) of a column's cells, or of one text."""
        places, unknown = self.places, len(self.places)
        cells = [column] if isinstance(column, str) else column
        found = np.fromiter((places.get(cell, unknown) for cell in cells), np.intp, len(cells))
        return self.coordinates[found].T


Prepared = Sequence[Number | Words]


def prepared(step: Any, names: Sequence[str]) -> Prepared:
    """Return a fitted transformer of columns as parts. NotImplementedError: it is another kind."""
    if step == "passthrough":
        return [Number(name) for name in names]
    if isinstance(step, StandardScaler):
        means = step.mean_ if step.with_mean else np.zeros(len(names))
        scales = step.scale_ if step.with_std else np.ones(len(names))
        return [
            Number(*cells) for cells in zip(names, means.tolist(), scales.tolist(), strict=True)
        ]
    if isinstance(step, ColumnTransformer):
        fitted = [part for part in step.transformers_ if part[0] != "remainder"]
        return [one for _, part, columns in fitted for one in prepared(part, columns)]
    if isinstance(step, FunctionTransformer) and step.func is None:  # a fitted "passthrough"
        return [Number(name) for name in names]
    if isinstance(step, Pipeline) and isinstance(step[-1], FunctionTransformer):
        if step[-1].func is not np.square or not isinstance(step[0], StandardScaler):
            raise NotImplementedError(f"{step[-1].func} of {type(step[0]).__name__}")
        standard = prepared(step[0], names)
        return [number._replace(square=True) for number in standard if isinstance(number, Number)]
    if isinstance(step, OneHotEncoder):  # one table for each of several columns
        known = [cells.tolist() for cells in step.categories_]
        return [
            Words(name, {text: i for i, text in enumerate(texts)}, np.eye(len(texts) + 1)[:, :-1])
            for name, texts in zip(names, known, strict=True)
        ]
    encoder = step[0] if isinstance(step, Pipeline) else step
    if len(names) == 1 and hasattr(encoder, "categories_"):
        texts = encoder.categories_[0].tolist()
        unknown = "".join(texts) + "?"
        cells = np.array([*texts, unknown], dtype=object)
        coordinates = np.asarray(step.transform(pd.DataFrame({names[0]: cells})), np.float64)
        return [Words(names[0], {text: i for i, text in enumerate(texts)}, coordinates)]
    raise NotImplementedError(type(step).__name__)


def coordinates(parts: Prepared, columns: Columns) -> np.ndarray:
    """Return what an estimator sees of the columns (coordinates x rows)."""
    return np.vstack([part.of(columns[part.name]) for part in parts])


def weighted_sum(F: np.ndarray, weights: np.ndarray, start: float = 0.0) -> np.ndarray:
    """Return start + weights[0] * F[0] + weights[1] * F[1] + ..., in this order for each row."""
    if F.shape[1] <= FEW:
        first = np.full((1, F.shape[1]), start)
        return np.add.accumulate(np.vstack([first, F * weights[:, None]]))[-1]
    total = np.full(F.shape[1], start)
    for coordinate, weight in zip(F, weights, strict=True):
        total += coordinate * weight
    return total


def log_odds(model: LogisticRegression, F: np.ndarray) -> np.ndarray:
    """Return the log odds of the second class."""
    return weighted_sum(F, model.coef_[0], float(model.intercept_[0]))


def churn_probability(estimator: Any, F: np.ndarray) -> np.ndarray:
    """Return a fitted estimator's probability of churn for finite coordinates x rows.

    Of forests, the trees add up in order; scikit-learn's threads add them as they finish.
    """
    match estimator:
        case Pipeline():
            for _, step in estimator.steps[:-1]:
                F = np.ascontiguousarray(np.asarray(step.transform(F.T), np.float64).T)
            return churn_probability(estimator[-1], F)
        case LogisticRegression():
            return expit(log_odds(estimator, F))
        case RandomForestClassifier() | ExtraTreesClassifier():
            X, total = np.ascontiguousarray(F.T, dtype=np.float32), np.zeros(F.shape[1])
            for tree in estimator.estimators_:
                total += tree.tree_.predict(X)[:, 1]
            return total / len(estimator.estimators_)
        case CalibratedClassifierCV():
            pairs = estimator.calibrated_classifiers_
            total = np.zeros(F.shape[1])
            for pair in pairs:
                total += pair.calibrators[0].predict(score(pair.estimator, F))
            return total / len(pairs)
    return np.asarray(estimator.predict_proba(F.T)[:, 1], np.float64)


def score(estimator: Any, F: np.ndarray) -> np.ndarray:
    """Return what a calibrator is given: the decision function where there is one."""
    if isinstance(estimator, LogisticRegression):
        return log_odds(estimator, F)
    if hasattr(estimator, "decision_function"):
        return np.asarray(estimator.decision_function(F.T), np.float64)
    return churn_probability(estimator, F)


def without_names(fitted: Any) -> Any:
    """Return a copy of an estimator that takes arrays without a warning that it was fitted on a
    frame."""
    made = copy(fitted)
    vars(made).pop("feature_names_in_", None)
    if pairs := getattr(made, "calibrated_classifiers_", None):
        made.calibrated_classifiers_ = [copy(pair) for pair in pairs]
        for pair in made.calibrated_classifiers_:
            pair.estimator = without_names(pair.estimator)
    return made
