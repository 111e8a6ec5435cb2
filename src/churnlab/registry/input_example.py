"""Make a version's example request: a member like many, who keeps the contract and is nobody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from churnlab.data.dataset import Dataset
from churnlab.data.expressions import columns_in, derive
from churnlab.models.features import typical
from churnlab.registry.requests import whole_columns

DRAWS = 1000
"""Number of invented members among whom the example is chosen."""

CHANGED = 0.3
"""The share of columns in which an invented member differs from the typical one."""


def make_example(dataset: Dataset, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Return one invented member whom the version of this served.json (``spec``) answers.

    Each column has its typical value where that keeps the rules and is no row of the table. Whole
    numbers are int64, as in a file.
    """
    X = dataset.X[spec["inputs"]]
    members = _invented(X, spec)
    members = members[_answerable(members, spec)]
    somebody = pd.util.hash_pandas_object(X, index=False)
    nobody = ~pd.util.hash_pandas_object(members, index=False).isin(somebody)
    example = (members[nobody] if nobody.any() else members).iloc[:1]
    example = example.astype(dict.fromkeys(whole_columns(X), "int64")).reset_index(drop=True)
    if spec["id"] is not None:
        example.insert(0, spec["id"], "example")
    return example


def _invented(X: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Return the typical member, others by how little they differ from it, and at last some who
    have one member's values in all columns that rules or derived columns tie together."""
    random = np.random.default_rng(0)
    middle = pd.DataFrame([typical(X)] * DRAWS).astype(X.dtypes)
    usual = pd.DataFrame({name: random.choice(_usual(X[name]), DRAWS) for name in X})
    changed = random.random(X.shape[1] * DRAWS).reshape(DRAWS, -1) < CHANGED
    changed[0] = False
    changed = changed[np.argsort(changed.sum(axis=1), kind="stable")]
    expressions = [check["holds"] for check in spec["checks"] if len(check["columns"]) > 1]
    expressions += [*spec["features"]["derive"].values(), *_computed(spec).values()]
    named = {name for text in expressions for name in columns_in(text)}
    tied = X[[name for name in X if name in named]].fillna(typical(X))
    joint = tied.iloc[random.integers(len(X), size=DRAWS)].set_axis(middle.index)
    mixed = middle.mask(changed, usual.astype(X.dtypes))
    joint = middle.drop(columns=list(tied)).join(joint)
    return pd.concat([mixed, joint], ignore_index=True)


def _usual(column: pd.Series) -> list[Any]:
    """Return values that many members have: the deciles, or the ten most frequent categories."""
    if pd.api.types.is_numeric_dtype(column):
        return column.quantile(np.linspace(0.1, 0.9, 9), interpolation="nearest").tolist()
    return column.value_counts().index[:10].tolist() or [""]


def _answerable(members: pd.DataFrame, spec: Mapping[str, Any]) -> np.ndarray:
    """Return a mask of the members who keep all checks and for whom all derived columns exist."""
    checks = {f"check {number}": one["holds"] for number, one in enumerate(spec["checks"])}
    held = derive(members, checks, finite=False)[list(checks)]
    able = (held == 1).all(axis=1).to_numpy()
    for expressions in (spec["features"]["derive"], _computed(spec)):
        derived = derive(members, expressions, finite=False)[list(expressions)]
        able = able & np.isfinite(derived.to_numpy(dtype="float64")).all(axis=1)
    return able


def _computed(spec: Mapping[str, Any]) -> dict[str, str]:
    """Return the segmentation's columns that are more than a copy of an input."""
    return {name: text for name, text in spec["segment_columns"].items() if name != text}
