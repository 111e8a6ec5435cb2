"""Detect drift: members unlike those that a model was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from churnlab.formatting import listed

DRIFTED = 0.2
"""A population stability index above this is a shift worth a look (Siddiqi, 2006, Credit Risk
Scorecards)."""

CHANCE = 1e-3
"""It must also be less likely than this between two samples of one population."""

BINS = 10
"""Number of bins of equal size for a numeric column."""

LEVELS = 1000
"""Number of categories kept of a column, the most frequent ones."""


def remember(X: pd.DataFrame) -> dict[str, Any]:
    """Return what JSON is to keep of a table: its ``rows``, and the shares of each of ``columns``.

    A numeric column has ``edges`` between its bins, a category ``values``; the last share is that
    of missing values.
    """
    columns = {str(name): _distribution(column) for name, column in X.items()}
    return {"rows": len(X), "columns": columns}


def warnings(X: pd.DataFrame, remembered: Mapping[str, Any], *, model: str) -> Iterator[str]:
    """Yield one sentence for columns that have drifted since ``model`` was trained, one for
    categories new to it."""
    columns = {
        str(name): column for name, column in X.items() if str(name) in remembered["columns"]
    }
    drifted = []
    for name, column in columns.items():
        was = remembered["columns"][name]
        now = _shares(column, was)
        if _shifted(np.array(was["shares"]), now, remembered["rows"], len(X), tests=len(columns)):
            drifted.append(f"{name} ({_change(column, was, now)})")
    if drifted:
        yield f"drift since {model} was trained: {listed(drifted, length=120)}"
    new = [
        f"{name} ({found})"
        for name, column in columns.items()
        if (found := _new_categories(column, remembered["columns"][name]))
    ]
    if new:
        yield (
            f"categories that {model} was not trained on, which it treats as none of those it "
            f"knows: {listed(new, length=120)}"
        )


def psi(was: np.ndarray, now: np.ndarray) -> float:
    """Return the population stability index of two distributions over the same bins.

    No share may be 0 (Siddiqi, 2006).

    >>> round(psi(np.array([0.5, 0.5]), np.array([0.75, 0.25])), 4)
    0.2747
    """
    return float(((now - was) * np.log(now / was)).sum())


def _distribution(column: pd.Series) -> dict[str, Any]:
    known = column.dropna()
    if not pd.api.types.is_numeric_dtype(column):
        found: dict[str, Any] = {"values": known.value_counts().index[:LEVELS].tolist()}
    elif len(known):
        edges = np.unique(np.quantile(known, np.arange(1, BINS) / BINS))
        found = {"edges": edges.tolist(), "mean": float(known.mean())}
    else:
        found = {"edges": [], "mean": None}
    return found | {"shares": _shares(column, found).tolist()}


def _shares(column: pd.Series, bins: Mapping[str, Any]) -> np.ndarray:
    """Return the share of members in each bin, in other categories, and without a value."""
    known = column.notna().to_numpy()
    if "edges" in bins:
        count = len(bins["edges"]) + 1
        codes = np.searchsorted(bins["edges"], column.to_numpy(dtype="float64"), side="left")
    else:
        count = len(bins["values"]) + 1
        codes = pd.Index(bins["values"]).get_indexer(pd.Index(column))
        codes = np.where(codes < 0, count - 1, codes)
    return np.bincount(np.where(known, codes, count), minlength=count + 1) / max(len(column), 1)


def _shifted(
    was: np.ndarray, now: np.ndarray, rows_then: int, rows_now: int, *, tests: int
) -> bool:
    """Return whether the PSI is large, and larger than chance makes it in samples of this size.

    By chance the PSI is chi-squared over the harmonic size of both samples (Yurdakul and Naranjo,
    2020, Journal of Risk Model Validation 14:3). A bin that is empty in one sample counts as half a
    member.
    """
    # takes a third of a second to import, and most stores have no champion yet
    from scipy.stats import chi2

    there = (was > 0) | (now > 0)
    if there.sum() < 2:
        return False
    was, now = (
        np.maximum(share[there], 0.5 / rows) for share, rows in ((was, rows_then), (now, rows_now))
    )
    chance = (1 / rows_then + 1 / rows_now) * chi2.isf(CHANCE / tests, there.sum() - 1)
    return psi(was, now) > max(DRIFTED, chance)


def _change(column: pd.Series, was: Mapping[str, Any], now: np.ndarray) -> str:
    """Describe the change: of the missing share if it moved most, else of mean or category."""
    moved = now - np.array(was["shares"])
    most = int(np.abs(moved).argmax())
    share = f"{was['shares'][most]:.0%} then, {now[most]:.0%} now"
    if most == len(now) - 1:
        return f"missing {share}"
    if "edges" in was:
        return f"mean {was['mean']:.3g} then, {column.mean():.3g} now"
    return f"{was['values'][most] if most < len(was['values']) else 'others'} {share}"


def _new_categories(column: pd.Series, was: Mapping[str, Any]) -> str:
    """List the new categories, "" for none or if not all of the old ones were kept."""
    if "edges" in was or len(was["values"]) == LEVELS:
        return ""
    known = column.dropna()
    new = known[~known.isin(was["values"])]
    found = f"{listed(new.unique().tolist(), 3)}: {len(new):,} of {len(column):,}"
    return found if len(new) else ""
