"""What a model sees: the kept columns of a table, what is missing in them filled in, and those
derived from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

from churnlab.data.expressions import derive
from churnlab.errors import InputError


def typical(X: pd.DataFrame) -> dict[str, float | str]:
    """What stands in for a missing value: the lower median, which is one of the numbers; else what
    is most frequent."""
    values: dict[str, float | str] = {}
    for name, column in X.items():
        known = column.dropna()
        if pd.api.types.is_numeric_dtype(column):
            values[str(name)] = float(known.quantile(interpolation="lower")) if len(known) else 0.0
        else:
            values[str(name)] = str(known.mode().iloc[0]) if len(known) else ""
    return values


class Features(TransformerMixin, BaseEstimator):
    """The first step of a logged pipeline: the kept columns, in order, then the derived ones.

    ``fill_`` is what it learns: the typical value of each column, which stands in for a missing one
    before anything is derived. On a table without gaps it learns nothing that matters.
    """

    def __init__(self, keep: Sequence[str], derive: Mapping[str, str]) -> None:
        self.keep = keep
        self.derive = derive

    def fit(self, X: pd.DataFrame, y: object = None) -> Features:
        """Check that the columns are there and that the expressions can be read; learn what fills a
        gap."""
        kept = self._kept(X)
        derive(kept.iloc[:0], self.derive)
        self.fill_ = typical(kept)
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """The columns of X named in ``keep``, numbers as float64, and the derived ones; the rest is
        left out."""
        return derive(self._filled(X), self.derive)

    def possible(self, X: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
        """``transform`` of members who may not be possible: those whose derived columns are all
        finite, and a mask."""
        table = derive(self._filled(X), self.derive, finite=False)
        known = np.isfinite(table[list(self.derive)].to_numpy()).all(axis=1)
        return table[known], known

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """Names of the columns that ``transform`` gives."""
        return np.array([*self.keep, *self.derive], dtype=object)

    def _filled(self, X: pd.DataFrame) -> pd.DataFrame:
        kept = self._kept(X)
        return kept.fillna(getattr(self, "fill_", {})) if kept.isna().any(axis=None) else kept

    def _kept(self, X: pd.DataFrame) -> pd.DataFrame:
        there = set(X.columns)
        if missing := [column for column in self.keep if column not in there]:
            raise InputError(
                f"The table has no column {', '.join(missing)}. The features need "
                f"{', '.join(self.keep)}."
            )
        kept = X[list(self.keep)]
        dtypes = zip(self.keep, kept.dtypes.to_numpy(), strict=True)
        other = {
            name: np.float64
            for name, dtype in dtypes
            if dtype.kind in "biuf" and dtype != np.float64
        }
        return kept.astype(other) if other else kept

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags
