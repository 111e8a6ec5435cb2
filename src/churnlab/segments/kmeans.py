"""Fit segments: k-means on standardized columns, numbered by size. Churn is not an input."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from churnlab.data.expressions import columns_in, select
from churnlab.errors import InputError
from churnlab.segments.space import standardized, word_columns
from churnlab.threads import Value, one_thread, spread

MOST_ROWS = 10_000
"""Above this many rows, what would take minutes is computed on a sample of this size, and reported
as such."""


def all_columns(X: pd.DataFrame, *, words: bool = False) -> dict[str, str]:
    """Return every numeric and binary column of X as its own expression: a preset for any table;
    with ``words`` also the columns of words that can take part."""
    taken = {*X.select_dtypes("number").columns, *(word_columns(X) if words else ())}
    return {name: name for name in X.columns if name in taken}


def segment_frame(X: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Compute the columns to cluster by, float64 or words; ``Age: Age`` takes a column unchanged.

    ``columns`` has each name with its expression over X and the columns before it. InputError: a
    column that X does not have.
    """
    try:
        return select(X, columns)
    except InputError as error:
        raise InputError(
            f"This preset does not fit the table. {error} Or choose segments=all, which takes "
            "every number column, or write a preset for this table."
        ) from None


def dependent_columns(columns: Mapping[str, str], sources: Collection[str]) -> list[str]:
    """Return the segmentation's columns that need a column in ``sources``, directly or indirectly.

    >>> dependent_columns({"fall": "total - now", "half": "fall / 2", "Age": "Age"}, ["now"])
    ['fall', 'half']
    """
    dependent = set(sources)
    for name, expression in columns.items():
        if dependent & ({name} if expression == name else set(columns_in(expression))):
            dependent.add(name)
    return [name for name in columns if name in dependent]


def source_columns(columns: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """Return those of a table's columns from which the segmentation's are computed.

    >>> source_columns({"fall": "total - now", "half": "fall / 2"}, ["now", "total", "Age"])
    ['now', 'total']
    """
    return [name for name in names if dependent_columns(columns, [name])]


def fit_kmeans(
    Z: np.ndarray, ks: Iterable[int], *, n_init: int, random_state: int, max_rows: int = MOST_ROWS
) -> dict[int, KMeans]:
    """Fit k-means for each k, the best of ``n_init`` starts; segments are numbered by size.

    The largest segment is 0, equal sizes are ordered by their centers' coordinates, and ``predict``
    gives the same numbers. Above ``max_rows`` rows the starts run on a seeded sample of that size
    and the best one continues on all rows: time grows with the rows, not with rows times starts.
    """
    part = Z[sample_rows(len(Z), max_rows, random_state=random_state)]

    def fit(k: int) -> KMeans:
        kmeans = KMeans(k, n_init=n_init, random_state=random_state).fit(part)
        if len(part) < len(Z):
            kmeans = KMeans(k, init=kmeans.cluster_centers_, n_init=1).fit(Z)
            # The parameters that reproduce it, not the centers it continued from.
            kmeans.set_params(init="k-means++", n_init=n_init, random_state=random_state)
        return _numbered_by_size(kmeans)

    return fit_each(fit, ks)


def fit_each(fit: Callable[[int], Value], ks: Iterable[int]) -> dict[int, Value]:
    """Fit each number of segments, spread over the cores."""
    numbers = sorted(set(ks))
    return dict(zip(numbers, spread(fit, numbers), strict=True))


def fit_segmentation(
    frame: pd.DataFrame, n_clusters: int, *, n_init: int, random_state: int
) -> Pipeline:
    """Fit scaler and k-means on all rows; ``predict`` returns the number of the nearest center."""
    fits = fit_kmeans(standardized(frame), [n_clusters], n_init=n_init, random_state=random_state)
    return segmentation(frame, fits[n_clusters])


def segmentation(frame: pd.DataFrame, kmeans: KMeans) -> Pipeline:
    """Put a frame's scaler before a k-means that was fitted on the standardized frame."""
    return Pipeline([("scale", StandardScaler().fit(frame)), ("kmeans", kmeans)])


def sample_rows(n_rows: int, most: int, *, random_state: int) -> np.ndarray:
    """Return the positions of all rows, or of a seeded sample of ``most``, in order."""
    if n_rows <= most:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(random_state).choice(n_rows, size=most, replace=False))


def principal_plane(Z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project the rows on their first two principal axes.

    Returns the points (rows x 2) and each axis' share of the variance. PCA does not know the
    segments: groups that are separate here are separate in the data.
    """
    with one_thread():
        pca = PCA(min(2, Z.shape[1]), svd_solver="covariance_eigh").fit(Z)
        points = pca.transform(Z)
    missing = 2 - points.shape[1]
    shares = np.pad(pca.explained_variance_ratio_, (0, missing))
    return np.pad(points, ((0, 0), (0, missing))), shares


def _numbered_by_size(kmeans: KMeans) -> KMeans:
    """Renumber the segments in place, the largest first."""
    sizes = np.bincount(kmeans.labels_, minlength=kmeans.n_clusters)
    order = np.lexsort([*kmeans.cluster_centers_.T[::-1], -sizes])
    kmeans.cluster_centers_ = np.ascontiguousarray(kmeans.cluster_centers_[order])
    kmeans.labels_ = np.argsort(order).astype(kmeans.labels_.dtype)[kmeans.labels_]
    return kmeans
