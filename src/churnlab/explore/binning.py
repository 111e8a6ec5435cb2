"""Bin the values of a column into groups with readable names."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pandas as pd

from churnlab.data.contract import Column

FEW_VALUES = 12
"""A column with at most this many distinct values is shown value by value; a category keeps at most
so many levels."""

OTHERS = "all others"


def with_common_levels(x: pd.Series) -> pd.Series:
    """Merge the rarest levels of a category column into OTHERS if it has more than FEW_VALUES."""
    counts = x.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    if len(counts) <= FEW_VALUES:
        return x
    return x.where(x.isin(counts.index[: FEW_VALUES - 1]) | x.isna(), OTHERS)


def levels(x: pd.Series) -> list[str]:
    """Return the levels of a category column in alphabetical order, OTHERS last."""
    return sorted(x.dropna().unique(), key=lambda level: (level == OTHERS, level))


def groups(x: pd.Series, column: Column, *, n_bins: int) -> tuple[np.ndarray, list[str]]:
    """Group the values of x (none missing): each value's group, from 0, and the groups' names.

    Categories are grouped by level, few-valued columns by value. Whole numbers get up to 2 n_bins
    bins, and a frequent value has a bin of its own; other numbers get about n_bins bins of equal
    size, where "1.1–1.4" excludes its lower end.

    >>> codes, names = groups(pd.Series([1.0, 6.0, 12.0, 1.0]), Column("numeric"), n_bins=8)
    >>> codes.tolist(), names
    ([0, 1, 2, 0], ['1', '6', '12'])
    """
    if column.kind == "category":
        x = with_common_levels(x)
        names = levels(x)
        return pd.Categorical(x, categories=names).codes.astype(np.intp), names
    values = x.to_numpy()
    if x.nunique() <= FEW_VALUES:
        distinct, codes = np.unique(values, return_inverse=True)
        return codes, [format_number(value) for value in distinct]
    if is_whole(values):
        ends = _ends_of_whole_bins(values, least=len(values) / (2 * n_bins))
        starts = [values.min(), *(end + 1 for end in ends[:-1])]
        names = [
            format_number(a) if a == b else _format_range(a, b)
            for a, b in zip(starts, ends, strict=True)
        ]
        return np.searchsorted(ends, values), names
    inner = _cuts(values, n_bins)
    between = [_format_range(a, b) for a, b in pairwise(inner)]
    if inner[0] == values.min():
        names = [format_number(inner[0]), f"up to {format_number(inner[1])}", *between[1:]]
    else:
        names = [f"up to {format_number(inner[0])}", *between]
    return np.searchsorted(inner, values), [*names, f"over {format_number(inner[-1])}"]


def label_columns(
    X: pd.DataFrame,
    columns: Mapping[str, Column],
    *,
    n_bins: int = 4,
    words: Mapping[str, Mapping[str, str]] | None = None,
) -> pd.DataFrame:
    """Replace every value by the name of its group (``groups``), or by the column's word for it; a
    gap stays missing."""
    labels = pd.DataFrame(index=X.index, columns=X.columns, dtype=object)
    for name in X.columns:
        known = X[name].notna()
        if known.any():
            codes, names = groups(X.loc[known, name], columns[str(name)], n_bins=n_bins)
            called = (words or {}).get(str(name), {})
            names = [called.get(value, value) for value in names]
            labels.loc[known, name] = np.array(names, dtype=object)[codes]
    return labels


def as_written(split: str, words: Mapping[str, str]) -> str:
    """Name a side of a split (``= 1``) by the table's words for "0" and "1" in the column.

    >>> as_written("= 1", {"0": "No", "1": "Yes"}), as_written("<= 3", {})
    ('= Yes', '<= 3')
    """
    value = split.rpartition(" ")[2]
    return f"= {words[value]}" if value in words else split


def even_edges(values: np.ndarray, *, n_bins: int) -> np.ndarray:
    """Return the edges of equally wide bins over the middle 99% of the values; bins of whole
    numbers have whole widths."""
    low, high = np.quantile(values, [0.005, 0.995])
    if low == high:
        low, high = values.min(), values.max()
    if not is_whole(values):
        return np.linspace(low, high, n_bins + 1)
    low, high = np.floor(low), np.ceil(high)
    width = np.ceil((high - low + 1) / n_bins)
    return np.arange(low - 0.5, high + width, width)


def median_cut(values: np.ndarray) -> float:
    """Return the median of at least two distinct values, always with values above it; decimals are
    rounded to three digits."""
    cut = float(np.median(values))
    if cut >= values.max():
        return float(values[values < cut].max())
    short = float(f"{cut:.3g}")
    return short if values.min() <= short < values.max() and not is_whole(values) else cut


def format_number(value: float) -> str:
    """Format a number as people write it: 3, 0.25, 1200000."""
    return f"{value + 0.0:.12g}"  # which makes -0 a 0


def is_whole(values: np.ndarray) -> bool:
    """Return whether all values are whole numbers."""
    return bool(np.all(values == np.floor(values)))


def _format_range(a: float, b: float) -> str:
    dash = " to " if a < 0 else "–"
    return f"{format_number(a)}{dash}{format_number(b)}"


def _ends_of_whole_bins(values: np.ndarray, *, least: float) -> list[float]:
    """Return the largest value of each bin; a bin closes once it has enough members: 0, 1, 2,
    3–4, 5–9 ..."""
    ends: list[float] = []
    members = 0
    for value, count in zip(*np.unique(values, return_counts=True), strict=True):
        members += count
        if members >= least:
            ends.append(float(value))
            members = 0
    return [*(ends[:-1] if members else ends), *([float(values.max())] if members else [])]


def _cuts(values: np.ndarray, n_bins: int) -> np.ndarray:
    """Return the upper ends of all bins but the last, rounded as far as they stay distinct."""
    lowest = values.min()
    rest = values[values > lowest]
    # Many members at the lowest value (no visit, nothing spent) are a group of their own, not the
    # low end of another.
    has_own_bin = len(rest) <= 0.99 * len(values)
    shares = np.linspace(0, 1, n_bins + 1)[1:-1]
    inner = np.unique(np.quantile(rest if has_own_bin else values, shares, method="inverted_cdf"))
    for digits in (2, 3, 4):
        short = np.array([float(f"{cut:.{digits}g}") for cut in inner])
        if len(np.unique(short)) == len(inner) and lowest < short[0] and short[-1] < values.max():
            inner = short
            break
    return np.concatenate([[lowest], inner]) if has_own_bin else inner
