"""Members: a table on disk or in memory becomes a checked dataset with a fingerprint, and is split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from churnlab.contract import Contract, check
from churnlab.tables import Table


@dataclass(frozen=True)
class Dataset:
    """A table that keeps its contract.

    ``X`` holds the features in the contract's order with one row a member, ``y`` is 1 for those who left (None in
    a table to be scored), ``ids`` the echoed column. ``sha256`` is the same for any file format of one table.
    """

    contract: Contract
    X: pd.DataFrame
    y: np.ndarray
    ids: pd.Series | None
    source: str
    sha256: str
    warnings: tuple[str, ...]

    @property
    def frame(self) -> pd.DataFrame:
        """The features and the target (0 and 1) side by side, as MLflow shows the dataset."""
        return self.X.assign(**{self.contract.target: self.y.astype("float64")})


def make_dataset(table: Table, contract: Contract) -> Dataset:
    """Check a raw table against its contract and fingerprint it over all rows."""
    X, y, ids, warnings = check(table, contract)
    assert y is not None
    return Dataset(contract, X, y, ids, table.source, data_sha256(X, y, ids), tuple(warnings))


def data_sha256(X: pd.DataFrame, y: np.ndarray, ids: pd.Series | None) -> str:
    """Fingerprint a dataset: id, features in order, target; order-sensitive, over every row."""
    whole = X.assign(**{"target of the contract": y.astype("float64")})
    if ids is not None:
        whole.insert(0, "id of the contract", ids)
    text = whole.select_dtypes(exclude="number").columns
    whole[text] = whole[text].astype(object)
    digest = hashlib.sha256(repr([str(name) for name in whole.columns]).encode())
    digest.update(pd.util.hash_pandas_object(whole, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def split_sha256(data_sha256: str, test: np.ndarray) -> str:
    """Fingerprint a hold-out: the data and the row positions that are held out."""
    return _positions_sha256(data_sha256, [np.sort(test)])


def folds_sha256(data_sha256: str, validation_rows: Sequence[np.ndarray]) -> str:
    """Fingerprint folds: the data and the rows of each validation part (0-based positions in the table)."""
    return _positions_sha256(data_sha256, [np.sort(rows) for rows in validation_rows])


def _positions_sha256(data_sha256: str, parts: Sequence[np.ndarray]) -> str:
    digest = hashlib.sha256(data_sha256.encode())
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part.astype("<i8").tobytes())
    return digest.hexdigest()
