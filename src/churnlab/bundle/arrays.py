"""Compute probabilities, segments and reasons from arrays, compiled when a version is loaded.

A version carries a copy of this file and runs it where churnlab is not installed: it stands alone,
and is given the version's other modules as ``code``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from string import Formatter
from types import CodeType, ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

Columns = dict[str, np.ndarray]
"""Columns of members by name: float64, or texts; all of the same length."""

ROWS = 4096
"""Rows that are computed at a time: what they need fits into the cache of a core."""

BLOCK = 256
"""Rows of each table that a saved pipeline is given."""

MAX_REASONS, MIN_LOG_ODDS = 3, 0.2
"""The most reasons that a member gets, and the least that each adds to the log odds of churn."""

MOST_TEXTS = 1024
"""Filled texts of a kind that are kept: those of whole numbers are needed again and again."""

UTMOST = float(logit(0.999))
"""Log odds count up to this, so that a forest's 0 and 1 are no endless reasons."""


class Code(Protocol):
    """The modules of a version that this one needs: expressions.py and coordinates.py."""

    expressions: ModuleType
    coordinates: ModuleType


class Derived:
    """Expressions over columns, in order; a later one may use an earlier one."""

    def __init__(self, expressions: Mapping[str, str], code: Code) -> None:
        self.meaning = code.expressions.MEANING
        self.codes = {name: code.expressions.compiled(text) for name, text in expressions.items()}

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


class ChurnModel:
    """A version's churn model: from members to probabilities, and to what each group of columns
    adds."""

    def __init__(self, spec: Mapping[str, Any], code: Code) -> None:
        self.keep, self.fill = spec["features"]["keep"], spec["features"]["fill"]
        self.derived = Derived(spec["features"]["derive"], code)
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

    def __init__(self, spec: Mapping[str, Any], model: Pipeline, code: Code) -> None:
        super().__init__(spec, code)
        self.code = code.coordinates
        self.parts = self.code.prepared(model[0], [*self.keep, *self.derived.codes])
        self.estimator = self.code.without_names(model[-1])

    def probability(self, members: Columns, rows: int) -> np.ndarray:
        F = self.code.coordinates(self.parts, self.features(members, rows))
        known = np.isfinite(F).all(axis=0)
        found = np.full(rows, np.nan)
        if known.any():
            F = F if known.all() else F[:, known]
            found[known] = self.code.churn_probability(self.estimator, F)
        return found


class SumModel(CoordinateModel):
    """A logistic regression: each column adds a term, with its scaling folded into the weight, and
    of a changed column only the terms that depend on it are computed again."""

    def __init__(self, spec: Mapping[str, Any], model: Pipeline, code: Code) -> None:
        super().__init__(spec, model, code)
        self.start = float(self.estimator.intercept_[0])
        self.terms: dict[str, Callable[[Any], Any]] = {}
        weights = self.estimator.coef_[0]
        for part in self.parts:
            if isinstance(part, self.code.Words):
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


def _looked_up(words: Any, column: np.ndarray | str) -> np.ndarray:
    return words.of(column)[0]


class PipelineModel(ChurnModel):
    """Any other estimator: the saved pipeline itself, on tables of BLOCK rows.

    The last table is filled up, because a matrix product adds in another order for another number
    of rows.
    """

    def __init__(self, spec: Mapping[str, Any], model: Pipeline, code: Code) -> None:
        super().__init__(spec, code)
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


def churn_model(spec: Mapping[str, Any], model: Pipeline, code: Code) -> ChurnModel:
    """Return a version's churn model as fast as ``spec`` says that it may be."""
    if not spec["arrays"]["churn"]:
        return PipelineModel(spec, model, code)
    sums = isinstance(model[-1], LogisticRegression)
    return (SumModel if sums else CoordinateModel)(spec, model, code)


class Segments:
    """A version's segmentation: from members to the numbers of its segments, by arrays if ``spec``
    says that it may."""

    def __init__(self, spec: Mapping[str, Any], model: Pipeline, code: Code) -> None:
        self.fill, columns = spec["segment_fill"], spec["segment_columns"]
        derived = {name: text for name, text in columns.items() if text != name}
        self.derived = Derived(derived, code)
        self.columns, self.model = [*columns], model
        self.code, by_arrays = code.coordinates, spec["arrays"]["segments"]
        self.parts = self.code.prepared(model[0], self.columns) if by_arrays else None

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
        F, last = self.code.coordinates(self.parts, columns), self.model[-1]
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


class Option(NamedTuple):
    """A text of a group of columns: when it suits (None: always), what returns it, filled, and the
    columns that fill its gaps, in order."""

    when: CodeType | None
    fill: Callable[..., str]
    named: tuple[str, ...]


class Reasons:
    """The texts of what raises a member's risk."""

    def __init__(self, groups: Sequence[Mapping[str, Any]], code: Code) -> None:
        self.meaning = code.expressions.MEANING
        self.columns = [tuple(group["columns"]) for group in groups]
        self.options: list[list[Option]] = []
        self.needed: list[set[str]] = []
        for group in groups:
            options, needed = [], {*group["columns"]}
            for option in group["texts"]:
                when, columns = None, ()
                if option["when"] is not None:
                    when, columns = code.expressions.compiled(option["when"])
                text, named = _in_order(option["text"])
                options.append(Option(when, lru_cache(MOST_TEXTS)(text.format), named))
                needed |= {*columns, *named}
            self.options.append(options)
            self.needed.append(needed)

    def texts(self, members: Columns, rows: int, worth: np.ndarray) -> list[list[str]]:
        """Return the texts of the groups that add most to each member's log odds, largest first."""
        if not self.columns:
            return [[] for _ in range(rows)]
        enough = worth >= MIN_LOG_ODDS
        order = np.argsort(np.where(enough, -worth, np.inf), axis=0, kind="stable")[:MAX_REASONS]
        shown = np.take_along_axis(enough, order, axis=0)
        found = np.full((len(order), rows), None, dtype=object)
        for place in np.unique(order[shown]).tolist():
            ranks, chosen = np.nonzero((order == place) & shown)
            part = {name: _without_sign(members[name][chosen]) for name in self.needed[place]}
            found[ranks, chosen] = self._of_group(place, part, len(chosen))
        sizes = shown.sum(axis=0).tolist()
        return [texts[:size] for texts, size in zip(found.T.tolist(), sizes, strict=True)]

    def _of_group(self, place: int, members: Columns, rows: int) -> np.ndarray:
        """Return a group's text for each member: the first whose ``when`` holds, else its columns'
        values."""
        texts, left = np.full(rows, None, dtype=object), np.ones(rows, bool)
        for when, fill, named in self.options[place]:
            holds = left if when is None else left & (eval(when, self.meaning, members) != 0)
            if named:
                cells = [members[name][holds].tolist() for name in named]
                texts[holds] = [*map(fill, *cells)]
            else:
                texts[holds] = fill()
            left = left & ~holds
        if left.any():
            parts = [
                [f"{name} is {format_value(value, 6)}" for value in members[name][left].tolist()]
                for name in self.columns[place]
            ]
            texts[left] = [*map(", ".join, zip(*parts, strict=True))]
        return texts


def _without_sign(column: np.ndarray) -> np.ndarray:
    """Return a column whose -0.0 are 0.0, which are equal and have other texts."""
    return column + 0.0 if column.dtype.kind == "f" else column


def _in_order(text: str) -> tuple[str, tuple[str, ...]]:
    """Return a text whose gaps are filled in order, and the columns that they name.

    >>> _in_order("{visits:.1f} of {{all}} {visits:.0f}")
    ('{:.1f} of {{all}} {:.0f}', ('visits', 'visits'))
    """
    parts, named = [], []
    for literal, field, form, conversion in Formatter().parse(text):
        parts.append(literal.replace("{", "{{").replace("}", "}}"))
        if field:
            named.append(field)
            parts.append("{" + (f"!{conversion}" if conversion else "") + f":{form}" + "}")
    return "".join(parts), tuple(named)


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
        missing = column != column
        if missing.any():
            columns[name] = np.where(missing, values[name], column)
    return columns


def bounded(odds: np.ndarray) -> np.ndarray:
    return np.clip(odds, -UTMOST, UTMOST)
