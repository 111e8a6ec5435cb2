"""Turn the columns of a segmentation into coordinates in which segments are sought and drawn.

Every column has the same weight, a variance of 1: a number is standardized, and a column of words
becomes one column per level, scaled so that their variances add up to 1 (Hennig and Liao 2013,
Journal of the Royal Statistical Society C 62:309). Yes and No weigh what 1 and 0 do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from churnlab.errors import InputError

MOST_LEVELS = 20
"""A column of words with more levels is left out: each level is a share to be found in each
segment, and with hundreds of them one column outweighs all evidence of the others."""


class Undivided(InputError):
    """A table whose members cannot be divided: no usable column, or too few rows that differ."""


class Layout(NamedTuple):
    """The columns of the coordinates: first ``numbers`` numbers, then those of each column of
    words, one per level."""

    numbers: int
    levels: tuple[int, ...] = ()

    @property
    def blocks(self) -> list[slice]:
        """Return the coordinates of each column.

        >>> Layout(1, (3,)).blocks
        [slice(0, 1, None), slice(1, 4, None)]
        """
        ends = np.cumsum([0, *[1] * self.numbers, *self.levels]).tolist()
        return [slice(*pair) for pair in zip(ends[:-1], ends[1:], strict=True)]


class Space(NamedTuple):
    """The coordinates Z of a frame's rows (rows x columns) and their layout."""

    Z: np.ndarray
    layout: Layout


def word_columns(X: pd.DataFrame) -> list[str]:
    """Return the columns of words that can take part in a segmentation."""
    words = X.select_dtypes(exclude="number")
    return [str(name) for name in words if 2 <= words[name].nunique() <= MOST_LEVELS]


def space_of(frame: pd.DataFrame, words: Sequence[str] = ()) -> Space:
    """Return the coordinates of a frame whose columns ``words`` are levels, all others numbers."""
    numbers = [name for name in frame.columns if name not in words]
    parts = [standardized(frame[numbers])] if numbers else []
    levels = []
    for name in words:
        held = pd.get_dummies(frame[name]).to_numpy(np.float64)
        held = held - held.mean(axis=0)
        levels.append(held.shape[1])
        parts.append(held / np.sqrt(held.var(axis=0).sum() or 1.0))
    Z = parts[0] if len(parts) == 1 else np.hstack(parts)
    return Space(Z, Layout(len(numbers), tuple(levels)))


def standardized(frame: pd.DataFrame) -> np.ndarray:
    """Scale columns to mean 0 and standard deviation 1 (rows x columns); constants become 0."""
    if words := [str(name) for name in frame.select_dtypes(exclude="number")]:
        raise InputError(
            f"The segmentation's columns {', '.join(words)} contain words, which this clusterer "
            "does not take; choose clusterer=mixed, or leave them out."
        )
    broken = [str(name) for name in frame.columns if not np.isfinite(frame[name]).all()]
    if broken:
        raise InputError(
            f"The segmentation's columns {', '.join(broken)} contain values that are not finite "
            "numbers; change their expressions, for instance log1p(x) for log(x)."
        )
    return StandardScaler().fit_transform(frame.to_numpy(np.float64))


def feature_columns(frame: pd.DataFrame, words: Sequence[str]) -> ColumnTransformer:
    """Fit the scikit-learn transformer from a frame to latent_classes.features.

    A word that the frame does not have is 0 at every level: it says nothing about the class.
    """
    numbers = [name for name in frame.columns if name not in words]
    squares = make_pipeline(StandardScaler(), FunctionTransformer(np.square))
    levels = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    parts = [("squares", squares, numbers), ("numbers", StandardScaler(), numbers)]
    return ColumnTransformer(
        [part for part in [*parts, ("words", levels, [*words])] if part[2]]
    ).fit(frame)
