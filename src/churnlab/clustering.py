"""Segments: k-means on standardised columns, numbered by size. Nothing here knows who left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from churnlab.errors import InputError
from churnlab.expressions import select


def all_columns(X: pd.DataFrame) -> dict[str, str]:
    """Every numeric and binary column of X as an expression of itself, for tables without a preset."""
    return {name: name for name in X.select_dtypes("number").columns}


def segment_frame(X: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """The columns to cluster by, float64: each name with its expression over X; ``Age: Age`` takes a column as it is.

    A later expression may use an earlier column. InputError: a column that X does not have.
    """
    try:
        return select(X, columns)
    except InputError as error:
        raise InputError(
            f"The table cannot be segmented by this preset. {error} Or choose segments=all, which takes every number "
            "column, or write a preset for this table."
        ) from None


def standardized(frame: pd.DataFrame) -> np.ndarray:
    """Columns with mean 0 and standard deviation 1, rows x columns; a constant column becomes 0."""
    broken = [str(name) for name in frame.columns if not np.isfinite(frame[name]).all()]
    if broken:
        raise InputError(
            f"The segmentation's columns {', '.join(broken)} hold values that are no finite numbers; "
            "change their expressions, for instance log1p(x) for log(x)."
        )
    return StandardScaler().fit_transform(frame.to_numpy(np.float64))


def fit_kmeans(Z: np.ndarray, n_clusters: int, *, n_init: int, random_state: int) -> KMeans:
    """Fit k-means and number the segments by size, largest first; ``predict`` gives the same numbers.

    Segments of one size are ordered by their centres' coordinates.
    """
    with one_thread():
        kmeans = KMeans(n_clusters, n_init=n_init, random_state=random_state).fit(Z)
    sizes = np.bincount(kmeans.labels_, minlength=n_clusters)
    order = np.lexsort([*kmeans.cluster_centers_.T[::-1], -sizes])
    kmeans.cluster_centers_ = np.ascontiguousarray(kmeans.cluster_centers_[order])
    kmeans.labels_ = np.argsort(order).astype(kmeans.labels_.dtype)[kmeans.labels_]
    return kmeans


def fit_segmentation(frame: pd.DataFrame, n_clusters: int, *, n_init: int, random_state: int) -> Pipeline:
    """Fit scaler and k-means on all rows; ``predict`` on a segment frame gives the numbers of the nearest centres."""
    scaler = StandardScaler().fit(frame)
    kmeans = fit_kmeans(standardized(frame), n_clusters, n_init=n_init, random_state=random_state)
    return Pipeline([("scale", scaler), ("kmeans", kmeans)])


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold the numeric libraries to one thread: threads that share the rows of a fit add them up in any order.

    With one thread a fit gives the same bits however many cores there are.
    """
    with threadpool_limits(limits=1):
        yield
