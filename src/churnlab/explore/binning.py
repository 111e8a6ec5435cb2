"""How the values of a column are put into groups that people can read."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from churnlab.data.contract import Column

FEW_VALUES = 12
"""A column with no more distinct values than this is shown value by value; a category keeps no more
levels."""

OTHERS = "all others"


def with_common_levels(x: pd.Series) -> pd.Series:
    """A category column where the rarest levels, if there are more than FEW_VALUES, are put
    together as OTHERS."""
    counts = x.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    if len(counts) <= FEW_VALUES:
        return x
    return x.where(x.isin(counts.index[: FEW_VALUES - 1]) | x.isna(), OTHERS)


def levels(x: pd.Series) -> list[str]:
    """The levels of a category column in alphabetical order, OTHERS last."""
    return sorted(x.dropna().unique(), key=lambda level: (level == OTHERS, level))


def groups(x: pd.Series, column: Column, *, n_bins: int) -> tuple[np.ndarray, list[str]]:
    """The group of every value of x (none missing) as a number from 0, and the groups' names in
    order.

    A category goes by level and a few-valued column by value. Whole numbers go into up to 2 n_bins
    bins, where a value that many members have is a bin of its own; other numbers into about n_bins
    bins of as many members each, where "1.1–1.4" is without its lower end.
    """
    if column.kind == "category":
        x = with_common_levels(x)
        names = levels(x)
        return pd.Categorical(x, categories=names).codes.astype(np.intp), names
    values = x.to_numpy()
    if x.nunique() <= FEW_VALUES:
        distinct, codes = np.unique(values, return_inverse=True)
        return codes, [text(value) for value in distinct]
    if is_whole(values):
        ends = _ends_of_whole_bins(values, least=len(values) / (2 * n_bins))
        starts = [values.min(), *(end + 1 for end in ends[:-1])]
        names = [text(a) if a == b else _range(a, b) for a, b in zip(starts, ends, strict=True)]
        return np.searchsorted(ends, values), names
    inner = _cuts(values, n_bins)
    between = [_range(a, b) for a, b in pairwise(inner)]
    if inner[0] == values.min():
        names = [text(inner[0]), f"up to {text(inner[1])}", *between[1:]]
    else:
        names = [f"up to {text(inner[0])}", *between]
    return np.searchsorted(inner, values), [*names, f"over {text(inner[-1])}"]


def even_edges(values: np.ndarray, *, n_bins: int) -> np.ndarray:
    """Edges of bins of equal width over the middle 99% of the values; whole numbers have bins of
    whole widths."""
    low, high = np.quantile(values, [0.005, 0.995])
    if low == high:
        low, high = values.min(), values.max()
    if not is_whole(values):
        return np.linspace(low, high, n_bins + 1)
    low, high = np.floor(low), np.ceil(high)
    width = np.ceil((high - low + 1) / n_bins)
    return np.arange(low - 0.5, high + width, width)


def median_cut(values: np.ndarray) -> float:
    """The median of at least two distinct values; with decimals, to three digits; always with
    values above it."""
    cut = float(np.median(values))
    if cut >= values.max():
        return float(values[values < cut].max())
    short = float(f"{cut:.3g}")
    return short if values.min() <= short < values.max() and not is_whole(values) else cut


def text(value: float) -> str:
    """A number as people write it: 3, 0.25, 1200000."""
    return f"{value:.12g}"


def is_whole(values: np.ndarray) -> bool:
    """Whether all values are whole numbers."""
    return bool(np.all(values == np.floor(values)))


def _range(a: float, b: float) -> str:
    return f"{text(a)} to {text(b)}" if a < 0 else f"{text(a)}–{text(b)}"


def _ends_of_whole_bins(values: np.ndarray, *, least: float) -> list[float]:
    """The largest value of each bin, where a bin is closed as soon as it has enough members: 0, 1,
    2, 3–4, 5–9 ..."""
    ends: list[float] = []
    members = 0
    for value, count in zip(*np.unique(values, return_counts=True), strict=True):
        members += count
        if members >= least:
            ends.append(float(value))
            members = 0
    return [*(ends[:-1] if members else ends), *([float(values.max())] if members else [])]


def _cuts(values: np.ndarray, n_bins: int) -> np.ndarray:
    """The largest values of all bins but the last: quantiles with as few digits as keep them apart."""
    lowest = values.min()
    rest = values[values > lowest]
    # Many members at the lowest value (no visit, nothing spent) are a kind of their own, not the
    # low end of others.
    has_own_bin = len(rest) <= 0.99 * len(values)
    shares = np.linspace(0, 1, n_bins + 1)[1:-1]
    inner = np.unique(np.quantile(rest if has_own_bin else values, shares, method="inverted_cdf"))
    for digits in (2, 3, 4):
        short = np.array([float(f"{cut:.{digits}g}") for cut in inner])
        if len(np.unique(short)) == len(inner) and lowest < short[0] and short[-1] < values.max():
            inner = short
            break
    return np.concatenate([[lowest], inner]) if has_own_bin else inner
