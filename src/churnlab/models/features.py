"""Compute a model's features: keep columns, fill their gaps, derive new ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

from churnlab.data.expressions import columns_in, derive
from churnlab.errors import InputError


def typical(X: pd.DataFrame) -> dict[str, float | str]:
    """Return the value that fills a gap in each column: the lower median, or the most frequent
    category.

    >>> typical(pd.DataFrame({"age": [20.0, 30.0, 50.0, 60.0], "plan": ["a", "b", "b", None]}))
    {'age': 30.0, 'plan': 'b'}
    """
    values: dict[str, float | str] = {}
    for name, column in X.items():
        known = column.dropna()
        if pd.api.types.is_numeric_dtype(column):
            values[str(name)] = float(known.quantile(interpolation="lower")) if len(known) else 0.0
        else:
            values[str(name)] = str(known.mode().iloc[0]) if len(known) else ""
    return values


class Features(TransformerMixin, BaseEstimator):
    """Transform a table to the kept columns, in order, and the derived ones: a pipeline's first
    step.

    ``fill_`` holds the typical value of each column, which fills gaps before anything is derived.
    """

    def __init__(self, keep: Sequence[str], derive: Mapping[str, str]) -> None:
        self.keep = keep
        self.derive = derive

    def fit(self, X: pd.DataFrame, y: object = None) -> Features:
        """Check the columns and expressions, and learn the values that fill gaps."""
        kept = self._kept(X)
        derive(kept.iloc[:0], self.derive)
        self.fill_ = typical(kept)
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return the kept columns of X, numbers as float64, and the derived ones."""
        return derive(self._filled(X), self.derive)

    def possible(self, X: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
        """Transform the members of X whose derived columns are finite, and return their mask."""
        table = derive(self._filled(X), self.derive, finite=False)
        known = np.isfinite(table[list(self.derive)].to_numpy()).all(axis=1)
        return table[known], known

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """Return the names of the columns that ``transform`` makes."""
        return np.array([*self.keep, *self.derive], dtype=object)

    def _filled(self, X: pd.DataFrame) -> pd.DataFrame:
        kept = self._kept(X)
        return kept.fillna(getattr(self, "fill_", {})) if kept.isna().any(axis=None) else kept

    def _kept(self, X: pd.DataFrame) -> pd.DataFrame:
        if missing := [column for column in self.keep if column not in X.columns]:
            raise InputError(
                f"The table has no column {', '.join(missing)}. The features need "
                f"{', '.join(self.keep)}."
            )
        kept = X[list(self.keep)]
        to_float = {
            name: np.float64
            for name, dtype in zip(self.keep, kept.dtypes.to_numpy(), strict=True)
            if dtype.kind in "biuf" and dtype != np.float64
        }
        return kept.astype(to_float) if to_float else kept

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags


def without_columns(features: Features, columns: Collection[str]) -> Features:
    """Return unfitted features without these columns and all that is derived from them.

    >>> derived = {"half": "now / 2", "less": "half - 1", "old": "Age > 60"}
    >>> early = without_columns(Features(["now", "Age"], derived), ["now"])
    >>> early.keep, list(early.derive)
    (['Age'], ['old'])
    """
    gone = set(columns)
    for name, expression in features.derive.items():
        if gone & set(columns_in(expression)):
            gone.add(name)
    kept = [name for name in features.keep if name not in gone]
    return Features(
        kept, {name: text for name, text in features.derive.items() if name not in gone}
    )


def found_on_sentence(name: str, dataset: str) -> str:
    """Say on whose members features were found: their scores on these are somewhat too good.

    >>> found_on_sentence("habits", "club")
    'The habits features were found on members of club: a hold-out among them is not new to them.'
    """
    return (
        f"The {name} features were found on members of {dataset}: a hold-out among them is not new "
        "to them."
    )
