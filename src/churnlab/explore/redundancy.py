"""Find redundancy in a table: correlated columns, and groups that have the same members."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from churnlab.data.contract import Column
from churnlab.explore.binning import FEW_VALUES, format_number, groups
from churnlab.explore.statistics import numeric_columns

REDUNDANT = 0.9
"""Columns whose absolute correlation exceeds this carry the same information."""

MIN_COMMON = 10
"""Two columns need at least this many members with both values for a correlation."""

MIN_GROUP = 30
"""Groups with fewer members inside or outside may coincide by chance."""

SAMPLE = 10_000
"""Larger tables are searched in a sample of about this many members first."""


def correlation_matrix(X: pd.DataFrame, y: np.ndarray, *, target: str) -> pd.DataFrame:
    """Compute Pearson's r between the target (first) and all features and levels; NaN for
    constants."""
    left = pd.Series(y, index=X.index, name=target, dtype="float64")
    return pd.concat([left, numeric_columns(X)], axis=1).corr()


def collinear(X: pd.DataFrame, *, limit: float) -> pd.DataFrame:
    """List the pairs of features or levels with abs(pearson_r) above the limit, the largest first.

    Columns: feature_a, feature_b, pearson_r. A pair needs MIN_COMMON members that have both values;
    two levels of one feature are no pair.
    """
    parts = [numeric_columns(X[[name]]) for name in X]
    source = np.repeat(np.arange(len(parts)), [part.shape[1] for part in parts])
    matrix = pd.concat(parts, axis=1).corr(min_periods=MIN_COMMON)
    first, second = np.triu_indices(len(matrix), k=1)
    pairs = pd.DataFrame({"feature_a": matrix.index[first], "feature_b": matrix.index[second]})
    pairs["pearson_r"] = matrix.to_numpy()[first, second]
    pairs = pairs[(source[first] != source[second]) & (pairs["pearson_r"].abs() > limit)]
    return pairs.sort_values("pearson_r", key=lambda r: -r.abs(), kind="stable", ignore_index=True)


def correlated_groups(X: pd.DataFrame) -> list[list[str]]:
    """Group the columns that are correlated beyond REDUNDANT, directly or through others.

    Groups and their columns keep the table's order. A large table is sampled.

    >>> age = np.arange(20.0)
    >>> correlated_groups(pd.DataFrame({"age": age, "visits": age % 2, "months": 12 * age}))
    [['age', 'months'], ['visits']]
    """
    X = X.iloc[:: max(len(X) // SAMPLE, 1)]
    of = {str(column): str(name) for name in X for column in numeric_columns(X[[name]])}
    first = {str(name): str(name) for name in X}
    for pair in collinear(X, limit=REDUNDANT)[["feature_a", "feature_b"]].itertuples(index=False):
        one, other = (first[of[feature]] for feature in pair)
        first = {name: one if leader == other else leader for name, leader in first.items()}
    made: dict[str, list[str]] = {}
    for name, leader in first.items():
        made.setdefault(leader, []).append(name)
    return list(made.values())


def same_groups(X: pd.DataFrame, columns: Mapping[str, Column]) -> pd.DataFrame:
    """Find groups of few-valued columns that a cut of a numeric column reproduces exactly.

    One row per pair of columns: feature_a, group_a (``<= 1``, ``> 60``, ``= 1``), feature_b,
    group_b (``<= 1``, ``= gold``), n members. Among members with both values, group a is group b;
    of several such groups of a pair, the one nearest to half of the members is listed. Both sides
    have at least MIN_GROUP members.
    """
    numeric = X.select_dtypes("number")
    best: dict[frozenset[str], tuple[int, tuple[str, str, str, str, int]]] = {}
    for name in [name for name in map(str, X) if 2 <= X[name].nunique() <= FEW_VALUES]:
        known = np.flatnonzero(X[name].notna())
        sample = known[:: max(len(known) // SAMPLE, 1)]
        candidates = {
            cut[0] for cut in _exact_cuts(numeric.iloc[sample], X[name].iloc[sample], columns[name])
        } - {name}
        candidate_columns = numeric[sorted(candidates)].iloc[known]
        for other, cut, group, inside, outside in _exact_cuts(
            candidate_columns, X[name].iloc[known], columns[name]
        ):
            pair, smaller = frozenset((name, other)), min(inside, outside)
            if columns[other].kind == "binary":
                cut = "= 1" if cut.startswith(">") else "= 0"
            if smaller >= MIN_GROUP and smaller > best.get(pair, (0,))[0]:
                best[pair] = smaller, (other, cut, name, group, inside)
    rows = [row for _, row in best.values()]
    return pd.DataFrame(rows, columns=["feature_a", "group_a", "feature_b", "group_b", "n"])


def _exact_cuts(
    numeric: pd.DataFrame, x: pd.Series, column: Column
) -> Iterator[tuple[str, str, str, int, int]]:
    """Yield each column, cut and group of x (none missing) with the same members, and the counts
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
            below = top[at] < bottom_outside[at]
            cut = f"<= {format_number(top[at])}" if below else f"> {format_number(top_outside[at])}"
            yield str(numeric.columns[at]), cut, group, int(inside[at]), int(outside[at])


def _divisions(values: list[str], column: Column) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the ways to divide a column's values in two: numbers at each value, others one value
    against the rest."""
    at = np.arange(len(values))
    if column.kind in ("numeric", "date"):
        yield from ((f"<= {value}", at <= i) for i, value in enumerate(values[:-1]))
    elif len(values) == 2:
        yield f"= {values[1]}", at == 1
    elif len(values) > 2:
        yield from ((f"= {value}", at == i) for i, value in enumerate(values))
