"""Check that a version answers by arrays what its saved pipelines predict, to the last digits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from churnlab.bundle import arrays, coordinates
from churnlab.bundle.coordinates import Columns
from churnlab.data import expressions

ROWS = 1000
"""Members of the table on whom both are compared, each also with a gap or an unknown category."""

TOLERANCE = 1e-12
"""How far two probabilities may be apart: sums of the same numbers in another order."""

BATCHES = (1, 7)
"""Members at a time who must get the same bits as all together."""

UNKNOWN = "\0unknown"

CODE = SimpleNamespace(expressions=expressions, coordinates=coordinates)
"""What a version gives arrays.py."""


def parts_by_arrays(
    spec: dict[str, Any], churn: Pipeline, segments: Pipeline | None, X: pd.DataFrame
) -> dict[str, bool]:
    """Return whether the churn model and the segmentation of a version can be computed by arrays.

    ``spec`` is what its served.json will hold, X a table of its members.
    """
    members = with_gaps(X.iloc[:ROWS], spec)
    return {
        "churn": _same(
            lambda which: (
                arrays.churn_model(spec | {"arrays": {"churn": which}}, churn, CODE).probability
            ),
            members,
        ),
        "segments": segments is not None
        and _same(
            lambda which: (
                arrays.Segments(spec | {"arrays": {"segments": which}}, segments, CODE).labels
            ),
            members,
        ),
    }


def with_gaps(X: pd.DataFrame, spec: Mapping[str, Any]) -> Columns:
    """Return the members of X, then the same members with what a version accepts as well: a gap
    where one is allowed, and a category that nobody has."""
    members = {str(name): column_of(X[name]) for name in spec["inputs"]}
    limited = {name for check in spec["checks"] for name in check["columns"]}
    rng, twice = np.random.default_rng(0), {}
    for name, column in members.items():
        other = column.copy()
        if name in spec["may_be_missing"]:
            other[rng.random(len(other)) < 0.3] = np.nan
        elif column.dtype == object and name not in limited:
            other[rng.random(len(other)) < 0.3] = UNKNOWN
        twice[name] = np.concatenate([column, other])
    return twice


def column_of(column: pd.Series) -> np.ndarray:
    """Return a column of a checked table as a served version reads it."""
    if column.dtype.kind == "f":
        return column.to_numpy()
    return column.to_numpy(dtype=object, na_value=np.nan)


def _same(compute: Callable[[bool], Callable[..., np.ndarray]], members: Columns) -> bool:
    """Return whether arrays (``compute(True)``) give what the pipeline (``compute(False)``) does,
    and each member the same bits in a batch of any size."""
    rows = len(next(iter(members.values())))
    try:
        by_arrays = compute(True)
        found = by_arrays(members, rows)
    except Exception:  # what an estimator raises that takes no arrays
        return False
    expected = compute(False)(members, rows)
    if not np.allclose(found, expected, rtol=0, atol=TOLERANCE, equal_nan=True):
        return False
    for size in BATCHES:
        for start in range(0, min(rows, 20 * size), size):
            part = {name: column[start : start + size] for name, column in members.items()}
            alone = by_arrays(part, len(next(iter(part.values()))))
            if not np.array_equal(alone, found[start : start + size], equal_nan=True):
                return False
    return True
