"""Members: a table on disk or in memory becomes a checked dataset with a fingerprint, and is split."""

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
from churnlab.data.reading import Table
from churnlab.data.validation import check

log = logging.getLogger(__name__)

BLOCKS = 100
"""Into so many blocks of rows a table is divided to tell later where it was changed."""


@dataclass(frozen=True)
class Members:
    """A table that keeps its contract, outcome aside.

    ``X`` holds the features in the contract's order with one row a member, ``ids`` the echoed
    column. ``sha256`` is the same for any file format of one table. ``warnings`` is what has been
    found suspicious so far.
    """

    contract: Contract
    X: pd.DataFrame
    ids: pd.Series | None
    source: str
    sha256: str
    warnings: list[str] = field(default_factory=list, kw_only=True)

    @property
    def frame(self) -> pd.DataFrame:
        """The table as MLflow shows it."""
        return self.X

    @property
    def gaps(self) -> list[str]:
        """The columns in which values are missing."""
        return [str(name) for name in self.X.columns[self.X.isna().any()]]

    @cached_property
    def fingerprints(self) -> dict[str, Any]:
        """What a run keeps of its table to tell later where another one differs."""
        return fingerprints(self.X, None, self.ids)

    def warn(self, warning: str) -> None:
        """Tell a person at once what to look at, and keep it for the report of every run on this
        table."""
        if warning not in self.warnings:
            log.warning("warning: %s", warning)
            self.warnings.append(warning)

    def report(self) -> dict[str, Any]:
        """What a run says of the table it worked on."""
        return {
            "source": self.source,
            "rows": len(self.X),
            "missing": {name: int(self.X[name].isna().sum()) for name in self.gaps},
            "warnings": list(self.warnings),
            "fingerprints": self.fingerprints,
        }


@dataclass(frozen=True)
class Dataset(Members):
    """Members of whom it is known who left: ``y`` is 1 for those."""

    y: np.ndarray

    @cached_property
    def fingerprints(self) -> dict[str, Any]:
        """What a run keeps of its table, the outcomes included, to tell later where another one
        differs."""
        return fingerprints(self.X, self.y, self.ids)

    @property
    def frame(self) -> pd.DataFrame:
        """The features and the target (0 and 1) side by side."""
        return self.X.assign(**{self.contract.target: self.y.astype("float64")})

    def report(self) -> dict[str, Any]:
        """What a run says of the table it worked on, the churn rate included."""
        return super().report() | {"churn_rate": float(self.y.mean())}


def make_members(table: Table, contract: Contract) -> Members:
    """Check a raw table, in which the target may be absent, against its contract; warn of what is
    suspicious."""
    X, _, ids, warnings = check(table, contract, needs_target=False)
    members = Members(contract, X, ids, table.source, data_sha256(X, None, ids))
    for warning in warnings:
        members.warn(warning)
    return members


def make_dataset(table: Table, contract: Contract) -> Dataset:
    """Check a raw table against its contract, warn of what is suspicious, fingerprint it over all
    rows."""
    X, y, ids, warnings = check(table, contract)
    assert y is not None
    dataset = Dataset(contract, X, ids, table.source, data_sha256(X, y, ids), y)
    for warning in warnings:
        dataset.warn(warning)
    return dataset


def data_sha256(X: pd.DataFrame, y: np.ndarray | None, ids: pd.Series | None) -> str:
    """Fingerprint a dataset: id, features in order, target; order-sensitive, over every row."""
    whole = _whole(X, y, ids)
    digest = hashlib.sha256(repr([str(name) for name in whole.columns]).encode())
    digest.update(pd.util.hash_pandas_object(whole, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def member_hashes(dataset: Dataset) -> np.ndarray:
    """One uint64 a member over id, features and outcome, by which a member of one table is found in
    another.

    Two tables can be compared so when ``told_apart_by`` says the same of both.
    """
    whole = _whole(dataset.X[sorted(dataset.contract.columns)], dataset.y, dataset.ids)
    return pd.util.hash_pandas_object(whole, index=False).to_numpy()


def identifying_columns(dataset: Dataset) -> list[str]:
    """The columns that ``member_hashes`` looks at, the outcome aside."""
    return ([] if dataset.ids is None else [f"id {dataset.contract.id}"]) + sorted(
        dataset.contract.columns
    )


def _whole(X: pd.DataFrame, y: np.ndarray | None, ids: pd.Series | None) -> pd.DataFrame:
    """Id, features and outcome side by side, text as plain objects whatever it was read from."""
    whole = X.copy() if y is None else X.assign(**{"target of the contract": y.astype("float64")})
    if ids is not None:
        whole.insert(0, "id of the contract", ids)
    text = whole.select_dtypes(exclude="number").columns
    whole[text] = whole[text].astype(object)
    return whole


def fingerprints(
    X: pd.DataFrame, y: np.ndarray | None, ids: pd.Series | None, *, block: int | None = None
) -> dict[str, Any]:
    """Short fingerprints of the parts of a dataset: ``columns`` by name, ``blocks`` of ``block``
    rows each, in order.

    ``rows`` is the number of rows, ``any_order`` the same for the same rows in whatever order.
    Without ``block`` the table is divided into BLOCKS.
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
    """Fingerprint a hold-out: the data and the row positions that are held out."""
    return _positions_sha256(data_sha256, [np.sort(test)])


def folds_sha256(data_sha256: str, validation_rows: Sequence[np.ndarray]) -> str:
    """Fingerprint folds: the data and the rows of each validation part (0-based positions in the
    table)."""
    return _positions_sha256(data_sha256, [np.sort(rows) for rows in validation_rows])


def _positions_sha256(data_sha256: str, parts: Sequence[np.ndarray]) -> str:
    digest = hashlib.sha256(data_sha256.encode())
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part.astype("<i8").tobytes())
    return digest.hexdigest()
