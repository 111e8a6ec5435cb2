"""Members: a table on disk or in memory becomes a checked dataset with a fingerprint, and is split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from churnlab.contract import Contract, check
from churnlab.errors import InputError


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


@dataclass(frozen=True)
class Split:
    """Row positions of the training part and of the hold-out; ``sha256`` covers the data and the hold-out."""

    train: np.ndarray
    test: np.ndarray
    sha256: str


def read_table(path: str, *, text: Sequence[str] = ()) -> tuple[pd.DataFrame, int | None]:
    """Read CSV (also .gz), Parquet or a folder of Parquet from a path or URL.

    ``text`` names the columns of a CSV that are text even where they look like numbers (the member 007).
    Returns the raw table and the file line of its first row (None for Parquet). Raises InputError when there is
    nothing to read.
    """
    url = "://" in path
    if not url and not Path(path).exists():
        raise InputError(f"There is no file {path}; name an existing table with dataset.path= (or input=).")
    try:
        if path.endswith((".parquet", ".pq")) or (not url and Path(path).is_dir()):
            return pd.read_parquet(path), None
        # pandas reads what it has written to the same bits, so that CSV and Parquet have one fingerprint.
        return pd.read_csv(path, dtype=dict.fromkeys(text, "str"), low_memory=False), 2
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{path} cannot be read as a table ({reason}); give CSV with commas, .csv.gz or Parquet."
        ) from error


def make_dataset(frame: pd.DataFrame, contract: Contract, *, source: str, first_line: int | None = None) -> Dataset:
    """Check a raw table against its contract and fingerprint it over all rows."""
    X, y, warnings = check(frame, contract, source=source, first_line=first_line)
    assert y is not None
    ids = None if contract.id is None else frame[contract.id].astype("str").reset_index(drop=True)
    return Dataset(contract, X, y, ids, source, data_sha256(X, y, ids), tuple(warnings))


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
