"""What a model sees: the kept columns of a table and those derived from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

from churnlab.errors import InputError
from churnlab.expressions import derive


class Features(TransformerMixin, BaseEstimator):
    """The first step of a logged pipeline: the kept columns, in order, then the derived ones. It learns nothing."""

    def __init__(self, keep: Sequence[str], derive: Mapping[str, str]) -> None:
        self.keep = keep
        self.derive = derive

    def fit(self, X: pd.DataFrame, y: object = None) -> Features:
        """Check that the columns are there and that the expressions can be read."""
        derive(self._kept(X.iloc[:0]), self.derive)
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """The columns of X named in ``keep``, numbers as float64, and the derived ones; the rest is left out."""
        return derive(self._kept(X), self.derive)

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """Names of the columns that ``transform`` gives."""
        return np.array([*self.keep, *self.derive], dtype=object)

    def _kept(self, X: pd.DataFrame) -> pd.DataFrame:
        there = set(X.columns)
        if missing := [column for column in self.keep if column not in there]:
            raise InputError(f"The table has no column {', '.join(missing)}. The features need {', '.join(self.keep)}.")
        kept = X[list(self.keep)]
        dtypes = zip(self.keep, kept.dtypes.to_numpy(), strict=True)
        other = {name: np.float64 for name, dtype in dtypes if dtype.kind in "biuf" and dtype != np.float64}
        return kept.astype(other) if other else kept

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags
