"""Whether members are still like those that a model was trained on."""

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
"""Nor is it told when two samples of one population differ so much with this probability."""

GROUPS = 10
"""Numbers are put into so many groups of equal size."""

LEVELS = 1000
"""More categories than these are not remembered."""


def remember(X: pd.DataFrame) -> dict[str, Any]:
    """Where the values of a table lie, for JSON to keep: ``rows``, and of each of the ``columns``
    its shares.

    A number has ``edges`` between groups of members, a category has ``values``; the last share is
    of what is missing.
    """
    return {"rows": len(X), "columns": {str(name): _places(column) for name, column in X.items()}}


def warnings(X: pd.DataFrame, remembered: Mapping[str, Any], *, model: str) -> Iterator[str]:
    """What is not as it was when the ``model`` was trained, one sentence for each kind of change."""
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
        yield f"not like the members that {model} was trained on: {listed(drifted, length=120)}"
    new = [
        f"{name} ({told})"
        for name, column in columns.items()
        if (told := _new(column, remembered["columns"][name]))
    ]
    if new:
        yield f"values that {model} has never seen, which are to it none of those it knows: {listed(new, length=120)}"


def psi(was: np.ndarray, now: np.ndarray) -> float:
    """The population stability index of two distributions over the same groups, none of whose
    shares is 0."""
    return float(((now - was) * np.log(now / was)).sum())


def _places(column: pd.Series) -> dict[str, Any]:
    known = column.dropna()
    if pd.api.types.is_numeric_dtype(column):
        edges = (
            np.unique(np.quantile(known, np.arange(1, GROUPS) / GROUPS))
            if len(known)
            else np.array([])
        )
        places: dict[str, Any] = {
            "edges": edges.tolist(),
            "mean": float(known.mean()) if len(known) else None,
        }
    else:
        places = {"values": known.value_counts().index[:LEVELS].tolist()}
    return places | {"shares": _shares(column, places).tolist()}


def _shares(column: pd.Series, places: Mapping[str, Any]) -> np.ndarray:
    """The share of members in each group, in other categories than the known ones, and without a
    value."""
    known = column.notna().to_numpy()
    if "edges" in places:
        groups = len(places["edges"]) + 1
        codes = np.searchsorted(places["edges"], column.to_numpy(dtype="float64"), side="left")
    else:
        groups = len(places["values"]) + 1
        codes = pd.Index(places["values"]).get_indexer(pd.Index(column))
        codes = np.where(codes < 0, groups - 1, codes)
    return np.bincount(np.where(known, codes, groups), minlength=groups + 1) / max(len(column), 1)


def _shifted(
    was: np.ndarray, now: np.ndarray, rows_then: int, rows_now: int, *, tests: int
) -> bool:
    """Whether the index is large, and larger than chance makes it in samples of this size.

    By chance it is chi-squared over the harmonic size of both samples (Yurdakul and Naranjo, 2020,
    Journal of Risk Model Validation 14:3). A group that one sample does not have is given half a
    member.
    """
    from scipy.stats import (
        chi2,  # takes a third of a second to import, and most stores have no champion yet
    )

    there = (was > 0) | (now > 0)
    if there.sum() < 2:
        return False
    was, now = (
        np.maximum(share[there], 0.5 / rows) for share, rows in ((was, rows_then), (now, rows_now))
    )
    chance = (1 / rows_then + 1 / rows_now) * chi2.isf(CHANCE / tests, there.sum() - 1)
    return psi(was, now) > max(DRIFTED, chance)


def _change(column: pd.Series, was: Mapping[str, Any], now: np.ndarray) -> str:
    """The change in words: of the share without a value if that is what moved most, of the mean, of
    one category."""
    moved = now - np.array(was["shares"])
    most = int(np.abs(moved).argmax())
    share = f"{was['shares'][most]:.0%} then, {now[most]:.0%} now"
    if most == len(now) - 1:
        return f"missing {share}"
    if "edges" in was:
        return f"mean {was['mean']:.3g} then, {column.mean():.3g} now"
    return f"{was['values'][most] if most < len(was['values']) else 'others'} {share}"


def _new(column: pd.Series, was: Mapping[str, Any]) -> str:
    """The categories that were not there, "" for none or where they were too many to remember."""
    if "edges" in was or len(was["values"]) == LEVELS:
        return ""
    known = column.dropna()
    new = known[~known.isin(was["values"])]
    return (
        f"{listed(new.unique().tolist(), 3)}: {len(new):,} of {len(column):,}" if len(new) else ""
    )
