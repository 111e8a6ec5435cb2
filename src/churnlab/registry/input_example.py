"""Make the input example of a model or a version: a member like many, who keeps the contract and is
nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from churnlab.data.dataset import Dataset
from churnlab.data.expressions import columns_in, derive
from churnlab.data.validation import row_checks
from churnlab.models.features import typical
from churnlab.registry.requests import whole_columns

DRAWS = 1000
"""Number of invented members among whom the example is chosen."""

CHANGED = 0.3
"""The share of columns in which an invented member differs from the typical one."""


EXAMPLES = "examples.json"
"""In a version's folder: invented members, and what the version answers them."""


def make_examples(dataset: Dataset, spec: Mapping[str, Any], *, most: int) -> pd.DataFrame:
    """Return invented members whom the version of this served.json (``spec``) answers, as a file
    has them: whole numbers are int64."""
    examples = invent_members(
        dataset, spec["features"]["derive"], spec["segment_columns"], most=most
    )
    examples = examples.astype(dict.fromkeys(whole_columns(dataset.X), "int64"))
    if spec["id"] is not None:
        examples.insert(0, spec["id"], "example")
    return examples


def invent_members(dataset: Dataset, *computed: Mapping[str, str], most: int = 1) -> pd.DataFrame:
    """Return invented members, rows like those of ``dataset.X``, who keep its contract and have a
    value in each ``computed`` column; no row if there is no such member.

    Each column has its typical value where that keeps the contract and is no row of the table.
    """
    X, checks = dataset.X, row_checks(dataset.contract)
    derived = [
        {name: text for name, text in columns.items() if name != text} for columns in computed
    ]
    members = _invented(X, checks, derived)
    members = members[_answerable(members, checks, derived)]
    somebody = pd.util.hash_pandas_object(X, index=False)
    nobody = ~pd.util.hash_pandas_object(members, index=False).isin(somebody)
    return (members[nobody] if nobody.any() else members).iloc[:most].reset_index(drop=True)


def _invented(
    X: pd.DataFrame, checks: Sequence[Mapping[str, Any]], derived: Sequence[Mapping[str, str]]
) -> pd.DataFrame:
    """Return the typical member, others by how little they differ from it, and at last some who
    have one member's values in all columns that rules or derived columns tie together."""
    random = np.random.default_rng(0)
    middle = pd.DataFrame([typical(X)] * DRAWS).astype(X.dtypes)
    usual = pd.DataFrame({name: random.choice(_usual(X[name]), DRAWS) for name in X})
    changed = random.random(X.shape[1] * DRAWS).reshape(DRAWS, -1) < CHANGED
    changed[0] = False
    changed = changed[np.argsort(changed.sum(axis=1), kind="stable")]
    expressions = [check["holds"] for check in checks if len(check["columns"]) > 1]
    expressions += [text for columns in derived for text in columns.values()]
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


def _answerable(
    members: pd.DataFrame,
    checks: Sequence[Mapping[str, Any]],
    derived: Sequence[Mapping[str, str]],
) -> np.ndarray:
    """Return a mask of the members who keep all checks and for whom all derived columns exist."""
    holds = {f"check {number}": one["holds"] for number, one in enumerate(checks)}
    able = (derive(members, holds, finite=False)[list(holds)] == 1).all(axis=1).to_numpy()
    for expressions in derived:
        values = derive(members, expressions, finite=False)[list(expressions)]
        able = able & np.isfinite(values.to_numpy(dtype="float64")).all(axis=1)
    return able
