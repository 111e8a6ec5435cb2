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

from churnlab.data.cells import TRUTH, gaps
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
    """Members with a known outcome: ``y`` is 1 for those who left, 0 for those who stayed.

    ``texts`` names the features of whose cells some came as text, be they numbers; ``words`` has
    the words for "0" and "1" of each binary column that the table writes in words.
    """

    y: np.ndarray
    texts: frozenset[str] = field(default=frozenset(), kw_only=True)
    words: dict[str, dict[str, str]] = field(default_factory=dict, kw_only=True)

    @cached_property
    def groups(self) -> np.ndarray | None:
        """Number the members, one number per row, if several rows may be of one; else None."""
        if not self.contract.repeated_ids or self.ids is None:
            return None
        return np.unique(member_hashes(self), return_inverse=True)[1]

    def groups_of(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the numbers of the members of these rows, None if each row is another member."""
        return None if self.groups is None else self.groups[rows]

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
    sha256, texts = data_sha256(X, y, ids), _texts(table.frame[list(X)])
    words = {
        str(name): found
        for name in X
        if contract.columns[str(name)].kind == "binary" and (found := _words(table.frame[name]))
    }
    dataset = Dataset(contract, X, ids, table.source, sha256, y, texts=texts, words=words)
    if dataset.groups is not None and (repeated := len(y) - int(dataset.groups.max()) - 1):
        warnings.append(
            f"{repeated:,} of {len(y):,} rows are of a member with another row: all rows of a "
            f"{contract.id} stay on one side of every split, but intervals count each row as a "
            "member of its own and are too narrow, except those of the gate"
        )
    for warning in warnings:
        dataset.warn(warning)
    return dataset


def _texts(frame: pd.DataFrame) -> frozenset[str]:
    """Return the raw columns in which some cell is text."""
    untyped = [name for name in frame if frame[name].dtype.kind not in "biufcmM"]
    return frozenset(
        str(name)
        for name in untyped
        if any(isinstance(cell, str) for cell in frame[name].astype(object))
    )


def _words(column: pd.Series) -> dict[str, str]:
    """Return the words with which a raw binary column writes 0 and 1, the most frequent ones.

    >>> _words(pd.Series(["No", "Yes", "no", "No"]))
    {'0': 'No', '1': 'Yes'}
    """
    words: dict[str, str] = {}
    if column.dtype.kind not in "iuf":
        for cell in column.dropna().astype(str).str.strip().value_counts().index:
            truth = TRUTH.get(cell.casefold())
            if truth is not None:
                words.setdefault(f"{truth:.0f}", cell)
    return words


def data_sha256(X: pd.DataFrame, y: np.ndarray | None, ids: pd.Series | None) -> str:
    """Fingerprint every row of a dataset: id, features in order, target; row order counts."""
    whole = _whole(X, y, ids)
    digest = hashlib.sha256(repr([str(name) for name in whole.columns]).encode())
    digest.update(pd.util.hash_pandas_object(whole, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def member_hashes(dataset: Members) -> np.ndarray:
    """Return one uint64 per row by which a member is known again in another table.

    By id where the dataset has one (a row without an id by its content), else by content. The
    hashes of two tables are comparable if their ``identifying_columns`` are equal.
    """
    if dataset.ids is None:
        return content_hashes(dataset)
    hashes = pd.util.hash_pandas_object(dataset.ids.astype(object), index=False).to_numpy()
    missing = gaps(dataset.ids, ())
    return np.where(missing, content_hashes(dataset), hashes) if missing.any() else hashes


def identifying_columns(dataset: Members) -> list[str]:
    """Return the columns that ``member_hashes`` covers: the id, or all features (and the
    outcome)."""
    columns = content_columns(dataset)
    return columns if dataset.ids is None else columns[:1]


def content_hashes(dataset: Members) -> np.ndarray:
    """Return one uint64 per row over id, features and outcome: equal if the rows are."""
    y = dataset.y if isinstance(dataset, Dataset) else None
    whole = _whole(dataset.X[sorted(dataset.contract.columns)], y, dataset.ids)
    return pd.util.hash_pandas_object(whole, index=False).to_numpy()


def content_columns(dataset: Members) -> list[str]:
    """Return the columns that ``content_hashes`` covers besides the outcome."""
    return ([] if dataset.ids is None else [f"id {dataset.contract.id}"]) + sorted(
        dataset.contract.columns
    )


def same_members(dataset: Members, rows: np.ndarray) -> np.ndarray:
    """Return a mask of the rows that are of the same members as these rows.

    Without an id a row is a member of its own.
    """
    if dataset.ids is None:
        return np.isin(np.arange(len(dataset.X)), rows)
    hashes = member_hashes(dataset)
    return np.isin(hashes, hashes[rows])


def row_hashes(X: pd.DataFrame, ids: pd.Series | None) -> np.ndarray:
    """Return one uint64 per row over id and features: ``data_sha256`` covers them."""
    whole = _whole(X.reset_index(drop=True), None, ids)
    return pd.util.hash_pandas_object(whole, index=False).to_numpy()


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
