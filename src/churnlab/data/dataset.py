"""Datasets: checked members with their warnings and fingerprints."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from churnlab.data.contract import Contract
from churnlab.data.table import Table
from churnlab.data.validation import check

log = logging.getLogger(__name__)

BLOCKS = 100
"""Number of blocks of rows with a fingerprint each, which locate a later change."""


@dataclass(frozen=True)
class Members:
    """A table that keeps its contract, without the outcome.

    ``X`` has one row per member and the features in the contract's order, ``ids`` is the id column.
    ``sha256`` is the same for every file format of one table.
    """

    contract: Contract
    X: pd.DataFrame
    ids: pd.Series | None
    source: str
    sha256: str
    warnings: list[str] = field(default_factory=list, kw_only=True)

    @property
    def frame(self) -> pd.DataFrame:
        """The table that MLflow logs as a run's input."""
        return self.X

    @property
    def gaps(self) -> list[str]:
        """The columns with missing values."""
        return [str(name) for name in self.X.columns[self.X.isna().any()]]

    @cached_property
    def fingerprints(self) -> dict[str, Any]:
        """Fingerprints of columns and rows, with which a run locates the differences of another
        table."""
        return fingerprints(self.X, None, self.ids)

    def warn(self, warning: str) -> None:
        """Log a warning now, and keep it for the report of every run on this table."""
        if warning not in self.warnings:
            log.warning("warning: %s", warning)
            self.warnings.append(warning)

    def report(self) -> dict[str, Any]:
        """Return the data report that a run logs."""
        return {
            "source": self.source,
            "rows": len(self.X),
            "missing": {name: int(self.X[name].isna().sum()) for name in self.gaps},
            "warnings": list(self.warnings),
            "fingerprints": self.fingerprints,
        }


@dataclass(frozen=True)
class Dataset(Members):
    """Members with a known outcome: ``y`` is 1 for those who left, 0 for those who stayed."""

    y: np.ndarray

    @cached_property
    def fingerprints(self) -> dict[str, Any]:
        """Fingerprints as of Members, outcomes included."""
        return fingerprints(self.X, self.y, self.ids)

    @property
    def frame(self) -> pd.DataFrame:
        """The features and the target (0 and 1)."""
        return self.X.assign(**{self.contract.target: self.y.astype("float64")})

    def report(self) -> dict[str, Any]:
        """Return the data report that a run logs, churn rate included."""
        return super().report() | {"churn_rate": float(self.y.mean())}


def make_members(table: Table, contract: Contract) -> Members:
    """Check a raw table, which needs no target, against its contract; log its warnings."""
    X, _, ids, warnings = check(table, contract, needs_target=False)
    members = Members(contract, X, ids, table.source, data_sha256(X, None, ids))
    for warning in warnings:
        members.warn(warning)
    return members


def make_dataset(table: Table, contract: Contract) -> Dataset:
    """Check a raw table against its contract; log its warnings."""
    X, y, ids, warnings = check(table, contract)
    assert y is not None
    dataset = Dataset(contract, X, ids, table.source, data_sha256(X, y, ids), y)
    for warning in warnings:
        dataset.warn(warning)
    return dataset


def data_sha256(X: pd.DataFrame, y: np.ndarray | None, ids: pd.Series | None) -> str:
    """Fingerprint every row of a dataset: id, features in order, target; row order counts."""
    whole = _whole(X, y, ids)
    digest = hashlib.sha256(repr([str(name) for name in whole.columns]).encode())
    digest.update(pd.util.hash_pandas_object(whole, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def member_hashes(dataset: Dataset) -> np.ndarray:
    """Return one uint64 per member over id, features and outcome, to find members across tables.

    The hashes of two tables are comparable if their ``identifying_columns`` are equal.
    """
    whole = _whole(dataset.X[sorted(dataset.contract.columns)], dataset.y, dataset.ids)
    return pd.util.hash_pandas_object(whole, index=False).to_numpy()


def identifying_columns(dataset: Dataset) -> list[str]:
    """Return the columns that ``member_hashes`` covers besides the outcome."""
    return ([] if dataset.ids is None else [f"id {dataset.contract.id}"]) + sorted(
        dataset.contract.columns
    )


def _whole(X: pd.DataFrame, y: np.ndarray | None, ids: pd.Series | None) -> pd.DataFrame:
    """Return id, features and outcome in one frame, text as objects whatever it was read from."""
    whole = X.copy() if y is None else X.assign(**{"target of the contract": y.astype("float64")})
    if ids is not None:
        whole.insert(0, "id of the contract", ids)
    text = whole.select_dtypes(exclude="number").columns
    whole[text] = whole[text].astype(object)
    return whole


def fingerprints(
    X: pd.DataFrame, y: np.ndarray | None, ids: pd.Series | None, *, block: int | None = None
) -> dict[str, Any]:
    """Return short fingerprints of each of the ``columns`` and of ``blocks`` of ``block`` rows.

    ``rows`` is the number of rows; ``any_order`` does not depend on their order. Without ``block``
    the table is divided into BLOCKS.
    """
    whole = _whole(X, y, ids)
    rows = pd.util.hash_pandas_object(whole, index=False).to_numpy()
    block = block or max(1, math.ceil(len(rows) / BLOCKS))
    return {
        "rows": len(rows),
        "any_order": f"{int(rows.sum(dtype='uint64')):016x}",
        "columns": {
            str(name): _short(pd.util.hash_pandas_object(whole[name], index=False).to_numpy())
            for name in whole
        },
        "block": block,
        "blocks": [_short(rows[start : start + block]) for start in range(0, len(rows), block)],
    }


def _short(hashes: np.ndarray) -> str:
    return hashlib.sha256(hashes.tobytes()).hexdigest()[:16]


def split_sha256(data_sha256: str, test: np.ndarray) -> str:
    """Fingerprint a train/test split: the data and the 0-based positions of the test rows."""
    return folds_sha256(data_sha256, [test])


def folds_sha256(data_sha256: str, validation_rows: Sequence[np.ndarray]) -> str:
    """Fingerprint folds: the data and the 0-based positions of the validation rows of each."""
    digest = hashlib.sha256(data_sha256.encode())
    for rows in validation_rows:
        digest.update(len(rows).to_bytes(8, "little"))
        digest.update(np.sort(rows).astype("<i8").tobytes())
    return digest.hexdigest()
