"""What a table says twice: columns that go together, and groups of two columns that are the same
members."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from churnlab.data.contract import Column
from churnlab.explore.binning import FEW_VALUES, groups, text
from churnlab.explore.statistics import numbers

ONE_THING = 0.9
"""Columns correlated beyond this, whatever the sign, count as one thing said twice."""

ENOUGH = 10
"""Two columns that fewer members have in common are not said to go together."""

LARGE = 30
"""A group with fewer members inside or outside it may be a group of another column by chance."""

SAMPLE = 10_000
"""Which columns go together, and whether a cut may divide off a group, is asked of about so many
members first."""


def correlation_matrix(X: pd.DataFrame, y: np.ndarray, *, target: str) -> pd.DataFrame:
    """Pearson's r between the target (first) and all features and levels; NaN where one of them is
    constant."""
    left = pd.Series(y, index=X.index, name=target, dtype="float64")
    return pd.concat([left, numbers(X)], axis=1).corr()


def collinear(X: pd.DataFrame, *, limit: float) -> pd.DataFrame:
    """The pairs of features, or levels of two features, with abs(pearson_r) above the limit,
    largest first.

    Columns: feature_a, feature_b, pearson_r; of at least ENOUGH members that have both.
    """
    parts = [numbers(X[[name]]) for name in X]
    source = np.repeat(np.arange(len(parts)), [part.shape[1] for part in parts])
    matrix = pd.concat(parts, axis=1).corr(min_periods=ENOUGH)
    first, second = np.triu_indices(len(matrix), k=1)
    pairs = pd.DataFrame({"feature_a": matrix.index[first], "feature_b": matrix.index[second]})
    pairs["pearson_r"] = matrix.to_numpy()[first, second]
    pairs = pairs[(source[first] != source[second]) & (pairs["pearson_r"].abs() > limit)]
    return pairs.sort_values("pearson_r", key=lambda r: -r.abs(), kind="stable", ignore_index=True)


def together(X: pd.DataFrame) -> list[list[str]]:
    """The columns in groups: those that go together beyond ONE_THING, directly or through others,
    are one.

    Groups and the columns in them are in the table's order. Of a large table a sample is asked.
    """
    X = X.iloc[:: max(len(X) // SAMPLE, 1)]
    of = {str(column): str(name) for name in X for column in numbers(X[[name]])}
    first = {str(name): str(name) for name in X}
    for pair in collinear(X, limit=ONE_THING)[["feature_a", "feature_b"]].itertuples(index=False):
        one, other = (first[of[feature]] for feature in pair)
        first = {name: one if leader == other else leader for name, leader in first.items()}
    made: dict[str, list[str]] = {}
    for name, leader in first.items():
        made.setdefault(leader, []).append(name)
    return list(made.values())


def same_groups(X: pd.DataFrame, columns: Mapping[str, Column]) -> pd.DataFrame:
    """Groups of few-valued columns that a cut of a numeric column divides off exactly: one row a
    pair of columns.

    Columns: feature_a, group_a (``<= 1``, ``> 60``, ``= 1``), feature_b, group_b (``<= 1``, ``=
    gold``), n members. Of the members who have both, group a is group b; of several such groups of
    a pair the one nearest to a half is told. Both sides have at least LARGE members.
    """
    numeric = X.select_dtypes("number")
    best: dict[frozenset[str], tuple[int, tuple[str, str, str, str, int]]] = {}
    for name in [name for name in map(str, X) if 2 <= X[name].nunique() <= FEW_VALUES]:
        known = np.flatnonzero(X[name].notna())
        sample = known[:: max(len(known) // SAMPLE, 1)]
        maybe = {
            cut[0] for cut in _exact_cuts(numeric.iloc[sample], X[name].iloc[sample], columns[name])
        } - {name}
        those = numeric[sorted(maybe)].iloc[known]
        for other, cut, group, inside, outside in _exact_cuts(
            those, X[name].iloc[known], columns[name]
        ):
            pair, smaller = frozenset((name, other)), min(inside, outside)
            if columns[other].kind == "binary":
                cut = "= 1" if cut.startswith(">") else "= 0"
            if smaller >= LARGE and smaller > best.get(pair, (0,))[0]:
                best[pair] = smaller, (other, cut, name, group, inside)
    rows = [row for _, row in best.values()]
    return pd.DataFrame(rows, columns=["feature_a", "group_a", "feature_b", "group_b", "n"])


def _exact_cuts(
    numeric: pd.DataFrame, x: pd.Series, column: Column
) -> Iterator[tuple[str, str, str, int, int]]:
    """Every column, cut, group of x (none missing) that are the same members, and how many are
    inside and outside."""
    codes, values = groups(x, column, n_bins=FEW_VALUES)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(values)))
    table = numeric.to_numpy()[order]
    n = np.add.reduceat(~np.isnan(table), starts, axis=0, dtype=int)
    low, high = np.fmin.reduceat(table, starts, axis=0), np.fmax.reduceat(table, starts, axis=0)
    for group, mask in _divisions(values, column):
        inside, outside = n[mask].sum(axis=0), n[~mask].sum(axis=0)
        top, bottom_outside = np.fmax.reduce(high[mask]), np.fmin.reduce(low[~mask])
        bottom, top_outside = np.fmin.reduce(low[mask]), np.fmax.reduce(high[~mask])
        for at in np.flatnonzero((top < bottom_outside) | (bottom > top_outside)).tolist():
            cut = (
                f"<= {text(top[at])}"
                if top[at] < bottom_outside[at]
                else f"> {text(top_outside[at])}"
            )
            yield str(numeric.columns[at]), cut, group, int(inside[at]), int(outside[at])


def _divisions(values: list[str], column: Column) -> Iterator[tuple[str, np.ndarray]]:
    """The ways to divide a column's values in two: a number at each value, others each value from
    the rest."""
    at = np.arange(len(values))
    if column.kind == "numeric":
        yield from ((f"<= {value}", at <= i) for i, value in enumerate(values[:-1]))
    elif len(values) == 2:
        yield f"= {values[1]}", at == 1
    elif len(values) > 2:
        yield from ((f"= {value}", at == i) for i, value in enumerate(values))
