"""Compute probabilities, segments and reasons from arrays, compiled when a version is loaded.

A version carries a copy of this file and runs it where churnlab is not installed: it stands alone.
Sums over columns go from one column to the next, so that a member has the same bits alone and among
a million; matrix products have another order for each size.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

Columns = dict[str, np.ndarray]
"""Columns of members by name: float64, or texts; all of the same length."""

FEW = 50
"""Up to so many rows, one operation on all columns is faster than one per column."""

ROWS = 4096
"""Rows that are computed at a time: what they need fits into the cache of a core."""

BLOCK = 256
"""Rows of each table that a saved pipeline is given."""

MAX_REASONS, MIN_LOG_ODDS = 3, 0.2
"""The most reasons that a member gets, and the least that each adds to the log odds of churn."""

UTMOST = float(logit(0.999))
"""Log odds count up to this, so that a forest's 0 and 1 are no endless reasons."""


class Derived:
    """Expressions over columns, in order; a later one may use an earlier one."""

    def __init__(self, expressions: Mapping[str, str], language: ModuleType) -> None:
        self.meaning = language.MEANING
        self.codes = {name: language.compiled(text) for name, text in expressions.items()}

    def into(self, columns: Columns, rows: int) -> Columns:
        """Add the derived columns to those given; where there is no value, it is not finite."""
        with np.errstate(all="ignore"):
            for name, (code, _) in self.codes.items():
                columns[name] = as_column(eval(code, self.meaning, columns), rows)
        return columns

    def depending_on(self, changed: Sequence[str]) -> dict[str, Any]:
        """Return the codes of what depends on some columns, in order."""
        found: dict[str, Any] = {}
        for name, (code, needed) in self.codes.items():
            if any(column in changed or column in found for column in needed):
                found[name] = code
        return found


def as_column(value: Any, rows: int) -> np.ndarray:
    """Return the value of an expression as a float64 column."""
    value = np.asarray(value, dtype=np.float64)
    return value if value.ndim else np.full(rows, value)


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


class ChurnModel:
    """A version's churn model: from members to probabilities, and to what each group of columns
    adds."""

    def __init__(self, spec: Mapping[str, Any], language: ModuleType) -> None:
        self.keep, self.fill = spec["features"]["keep"], spec["features"]["fill"]
        self.derived = Derived(spec["features"]["derive"], language)
        self.typical = spec["typical"]
        self.groups = [tuple(group["columns"]) for group in spec["reasons"]]

    def features(self, members: Columns, rows: int) -> Columns:
        """Return the columns that the model sees, without gaps."""
        kept = {name: members[name] for name in self.keep}
        return self.derived.into(filled(kept, self.fill), rows)

    def probability(self, members: Columns, rows: int) -> np.ndarray:
        """Return churn probabilities, NaN where a derived column has no value."""
        raise NotImplementedError

    def with_worth(self, members: Columns, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Return probabilities, and what each group of columns adds to the log odds (groups x
        rows).

        A group is worth the fall in the log odds of churn when its values are those of the typical
        member who stayed; NaN where the model has no value then. Only members whose values are not
        typical are computed again.
        """
        other = np.zeros((len(self.groups), rows), bool)
        for place, group in enumerate(self.groups):
            for name in group:
                other[place] |= members[name] != self.typical[name]
        places, again = np.nonzero(other)
        chosen = np.concatenate([np.arange(rows), again])
        repeated = {name: column[chosen] for name, column in members.items()}
        for place, group in enumerate(self.groups):
            changed = slice(*(rows + np.searchsorted(places, [place, place + 1])))
            for name in group:
                repeated[name][changed] = self.typical[name]
        probability = self.probability(repeated, len(chosen))
        with np.errstate(divide="ignore"):
            odds = bounded(logit(probability))
        worth = np.zeros(other.shape)
        worth[places, again] = odds[again] - odds[rows:]
        return probability[:rows], worth


class CoordinateModel(ChurnModel):
    """An estimator that takes an array of coordinates."""

    def __init__(self, spec: Mapping[str, Any], model: Pipeline, language: ModuleType) -> None:
        super().__init__(spec, language)
        self.parts = prepared(model[0], [*self.keep, *self.derived.codes])
        self.estimator = _without_names(model[-1])

    def probability(self, members: Columns, rows: int) -> np.ndarray:
        F = coordinates(self.parts, self.features(members, rows))
        known = np.isfinite(F).all(axis=0)
        found = np.full(rows, np.nan)
        if known.any():
            found[known] = churn_probability(self.estimator, F if known.all() else F[:, known])
        return found


def _without_names(fitted: Any) -> Any:
    """Return a copy of an estimator that takes arrays without a warning that it was fitted on a
    frame."""
    made = copy(fitted)
    vars(made).pop("feature_names_in_", None)
    if pairs := getattr(made, "calibrated_classifiers_", None):
        made.calibrated_classifiers_ = [copy(pair) for pair in pairs]
        for pair in made.calibrated_classifiers_:
            pair.estimator = _without_names(pair.estimator)
    return made


class SumModel(CoordinateModel):
    """A logistic regression: each column adds a term, with its scaling folded into the weight, and
    of a changed column only the terms that depend on it are computed again."""

    def __init__(self, spec: Mapping[str, Any], model: Pipeline, language: ModuleType) -> None:
        super().__init__(spec, model, language)
        self.start = float(self.estimator.intercept_[0])
        self.terms: dict[str, Callable[[Any], Any]] = {}
        weights = self.estimator.coef_[0]
        for part in self.parts:
            if isinstance(part, Words):
                size = part.coordinates.shape[1]
                table = (part.coordinates @ weights[:size])[:, None]
                self.terms[part.name] = partial(_looked_up, part._replace(coordinates=table))
            else:
                size, weight = 1, float(weights[0]) / part.scale
                self.start -= weight * part.mean
                self.terms[part.name] = partial(operator.mul, weight)
            weights = weights[size:]
        self.affected = [
            (
                {name: self.typical[name] for name in group},
                self.derived.depending_on(group),
            )
            for group in self.groups
        ]

    def probability(self, members: Columns, rows: int) -> np.ndarray:
        return self._odds(self.features(members, rows), rows)[0]

    def with_worth(self, members: Columns, rows: int) -> tuple[np.ndarray, np.ndarray]:
        columns = self.features(members, rows)
        probability, odds, terms = self._odds(columns, rows)
        worth, before = np.empty((len(self.groups), rows)), bounded(odds)
        with np.errstate(all="ignore"):
            for place, (values, codes) in enumerate(self.affected):
                changed, less = columns | values, np.zeros(rows)
                for name, code in codes.items():
                    changed[name] = eval(code, self.derived.meaning, changed)
                for name in [*values, *codes]:
                    if name in terms:
                        less += terms[name] - self.terms[name](changed[name])
                after = odds - less
                worth[place] = np.where(np.isfinite(after), before - bounded(after), np.nan)
        return probability, worth

    def _odds(self, columns: Columns, rows: int) -> tuple[np.ndarray, np.ndarray, Columns]:
        """Return probabilities, NaN for what is not finite, log odds, and the terms."""
        terms = {name: term(columns[name]) for name, term in self.terms.items()}
        odds = np.full(rows, self.start)
        with np.errstate(invalid="ignore"):
            for term in terms.values():
                odds += term
        return np.where(np.isfinite(odds), expit(odds), np.nan), odds, terms


def _looked_up(words: Words, column: np.ndarray | str) -> np.ndarray:
    return words.of(column)[0]


class PipelineModel(ChurnModel):
    """Any other estimator: the saved pipeline itself, on tables of BLOCK rows.

    The last table is filled up, because a matrix product adds in another order for another number
    of rows.
    """

    def __init__(self, spec: Mapping[str, Any], model: Pipeline, language: ModuleType) -> None:
        super().__init__(spec, language)
        self.model = model

    def probability(self, members: Columns, rows: int) -> np.ndarray:
        columns, known = self.features(members, rows), np.ones(rows, bool)
        for name in self.derived.codes:
            known &= np.isfinite(columns[name])
        found, places = np.full(rows, np.nan), np.flatnonzero(known)
        for start in range(0, len(places), BLOCK):
            part = places[start : start + BLOCK]
            rows_of = np.resize(part, BLOCK)
            block = as_table({name: column[rows_of] for name, column in columns.items()})
            found[part] = self.model.predict_proba(block)[: len(part), 1]
        return found


def churn_model(spec: Mapping[str, Any], model: Pipeline, language: ModuleType) -> ChurnModel:
    """Return a version's churn model as fast as ``spec`` says that it may be."""
    if not spec["arrays"]["churn"]:
        return PipelineModel(spec, model, language)
    sums = isinstance(model[-1], LogisticRegression)
    return (SumModel if sums else CoordinateModel)(spec, model, language)


class Segments:
    """A version's segmentation: from members to the numbers of its segments, by arrays if ``spec``
    says that it may."""

    def __init__(self, spec: Mapping[str, Any], model: Pipeline, language: ModuleType) -> None:
        self.fill, columns = spec["segment_fill"], spec["segment_columns"]
        derived = {name: text for name, text in columns.items() if text != name}
        self.derived = Derived(derived, language)
        self.columns, self.model = [*columns], model
        self.parts = prepared(model[0], self.columns) if spec["arrays"]["segments"] else None

    def features(self, members: Columns, rows: int) -> Columns:
        """Return the members' columns and those of the segmentation, without gaps."""
        return self.derived.into(filled({**members}, self.fill), rows)

    def labels(self, members: Columns, rows: int) -> np.ndarray:
        """Return the number of each member's segment, -1 where a derived column has no value."""
        columns = self.features(members, rows)
        known, found = np.ones(rows, bool), np.full(rows, -1)
        for name in self.derived.codes:
            known &= np.isfinite(columns[name])
        if known.any():
            places = np.flatnonzero(known)
            chosen = {name: columns[name][places] for name in self.columns}
            found[places] = self._labels(chosen)
        return found

    def _labels(self, columns: Columns) -> np.ndarray:
        if self.parts is None:
            return np.asarray(self.model.predict(as_table(columns)))
        F, last = coordinates(self.parts, columns), self.model[-1]
        match last:
            case KMeans():
                centers = last.cluster_centers_
                near = np.zeros((len(centers), F.shape[1]))
                for coordinate, places in zip(F, centers.T[:, :, None], strict=True):
                    near -= (coordinate - places) ** 2
            case LogisticRegression():  # latent classes
                near = np.repeat(last.intercept_[:, None], F.shape[1], axis=1)
                for coordinate, weights in zip(F, last.coef_.T[:, :, None], strict=True):
                    near += coordinate * weights
            case _:
                return np.asarray(last.predict(F.T))
        return np.asarray(near.argmax(axis=0))


class Reasons:
    """The texts of what raises a member's risk."""

    def __init__(self, groups: Sequence[Mapping[str, Any]], language: ModuleType) -> None:
        self.groups = groups
        self.meaning = language.MEANING
        self.options = [
            [
                (None if option["when"] is None else language.compiled(option["when"])[0], option)
                for option in group["texts"]
            ]
            for group in groups
        ]

    def texts(self, members: Columns, rows: int, worth: np.ndarray) -> list[list[str]]:
        """Return the texts of the groups that add most to each member's log odds, largest first."""
        if not self.groups:
            return [[] for _ in range(rows)]
        enough = worth >= MIN_LOG_ODDS
        order = np.argsort(np.where(enough, -worth, np.inf), axis=0, kind="stable")[:MAX_REASONS]
        shown = np.take_along_axis(enough, order, axis=0)
        found = np.full((len(order), rows), None, dtype=object)
        for place in np.unique(order[shown]):
            ranks, chosen = np.nonzero((order == place) & shown)
            part = {name: column[chosen] for name, column in members.items()}
            found[ranks, chosen] = self._of_group(int(place), part, len(chosen))
        return [[text for text in column if text is not None] for column in found.T.tolist()]

    def _of_group(self, place: int, members: Columns, rows: int) -> list[str]:
        """Return a group's text for each member: the first whose ``when`` holds, else its columns'
        values."""
        columns = self.groups[place]["columns"]
        texts: list[str | None] = [None] * rows
        cells = {name: column.tolist() for name, column in members.items()}
        for code, option in self.options[place]:
            holds = np.ones(rows) if code is None else eval(code, self.meaning, members)
            for row in np.flatnonzero(np.broadcast_to(holds, rows)):
                if texts[row] is None:
                    values = {name: column[row] for name, column in cells.items()}
                    texts[row] = option["text"].format(**values)
        return [
            text
            if text is not None
            else ", ".join(f"{name} is {format_value(cells[name][row], 6)}" for name in columns)
            for row, text in enumerate(texts)
        ]


def format_value(value: Any, digits: int = 15) -> str:
    """Format a value without needless digits: 31.0 is 31."""
    if value is None or value != value:
        return "not known"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def as_table(columns: Columns) -> pd.DataFrame:
    """Return columns as the frame that a saved pipeline was fitted on: texts are strings."""
    return pd.DataFrame(
        {
            name: column if column.dtype.kind == "f" else pd.array(column, dtype="str")
            for name, column in columns.items()
        }
    )


def filled(columns: Columns, values: Mapping[str, Any]) -> Columns:
    """Return the columns with their gaps filled."""
    for name, column in columns.items():
        missing = pd.isna(column)
        if missing.any():
            columns[name] = np.where(missing, values[name], column)
    return columns


def bounded(odds: np.ndarray) -> np.ndarray:
    return np.clip(odds, -UTMOST, UTMOST)
