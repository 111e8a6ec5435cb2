"""Segments: k-means on standardised columns, numbered by size. Nothing here knows who left."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from churnlab.data.expressions import columns_in, select
from churnlab.errors import InputError
from churnlab.threads import on_all_cores, one_thread

MOST_ROWS = 10_000
"""Above this many rows a sample of as many carries what would otherwise cost minutes; it is always
said."""


def all_columns(X: pd.DataFrame) -> dict[str, str]:
    """Every numeric and binary column of X as an expression of itself, for tables without a preset."""
    return {name: name for name in X.select_dtypes("number").columns}


def segment_frame(X: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """The columns to cluster by, float64: each name with its expression over X; ``Age: Age`` takes
    a column as it is.

    A later expression may use an earlier column. InputError: a column that X does not have.
    """
    try:
        return select(X, columns)
    except InputError as error:
        raise InputError(
            f"The table cannot be segmented by this preset. {error} Or choose segments=all, which "
            "takes every number column, or write a preset for this table."
        ) from None


def standardized(frame: pd.DataFrame) -> np.ndarray:
    """Columns with mean 0 and standard deviation 1, rows x columns; a constant column becomes 0."""
    broken = [str(name) for name in frame.columns if not np.isfinite(frame[name]).all()]
    if broken:
        raise InputError(
            f"The segmentation's columns {', '.join(broken)} hold values that are no finite "
            "numbers; change their expressions, for instance log1p(x) for log(x)."
        )
    return StandardScaler().fit_transform(frame.to_numpy(np.float64))


def columns_from(columns: Mapping[str, str], sources: Collection[str]) -> list[str]:
    """Those of the segmentation's columns that need one of the table's ``sources``, directly or
    through others."""
    touched = set(sources)
    for name, expression in columns.items():
        if touched & ({name} if expression == name else set(columns_in(expression))):
            touched.add(name)
    return [name for name in columns if name in touched]


def fit_kmeans(
    Z: np.ndarray, ks: Iterable[int], *, n_init: int, random_state: int, max_rows: int = MOST_ROWS
) -> dict[int, KMeans]:
    """Fit k-means for each k, the best of ``n_init`` starts; segments are numbered by size, the
    largest 0.

    ``predict`` gives the same numbers; segments of one size are ordered by their centres'
    coordinates. Above ``max_rows`` rows the starts are followed on a seeded sample of that size,
    and the best goes on from there on all rows: time grows with the rows, not with rows times
    starts.
    """
    part = Z[sample_rows(len(Z), max_rows, random_state=random_state)]

    def fit(k: int) -> KMeans:
        kmeans = KMeans(k, n_init=n_init, random_state=random_state).fit(part)
        if len(part) < len(Z):
            kmeans = KMeans(k, init=kmeans.cluster_centers_, n_init=1).fit(Z)
            kmeans.set_params(
                init="k-means++", n_init=n_init, random_state=random_state
            )  # how it can be made again
        return _numbered_by_size(kmeans)

    numbers = sorted(set(ks))
    return dict(zip(numbers, on_all_cores(fit, numbers), strict=True))


def fit_segmentation(
    frame: pd.DataFrame, n_clusters: int, *, n_init: int, random_state: int
) -> Pipeline:
    """Fit scaler and k-means on all rows; ``predict`` on a segment frame gives the numbers of the
    nearest centres."""
    fits = fit_kmeans(standardized(frame), [n_clusters], n_init=n_init, random_state=random_state)
    return segmentation(frame, fits[n_clusters])


def segmentation(frame: pd.DataFrame, kmeans: KMeans) -> Pipeline:
    """The scaler of a segment frame before a k-means that was fitted on the frame, standardised."""
    return Pipeline([("scale", StandardScaler().fit(frame)), ("kmeans", kmeans)])


def sample_rows(n_rows: int, most: int, *, random_state: int) -> np.ndarray:
    """Positions of all rows, in order, or of a seeded sample of ``most`` when there are more."""
    if n_rows <= most:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(random_state).choice(n_rows, size=most, replace=False))


def plane(Z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows on their first two principal axes (rows x 2), and the share of the variance that
    each axis shows.

    Principal axes know nothing of the segments: groups that lie apart here do so by themselves.
    """
    with one_thread():
        pca = PCA(min(2, Z.shape[1]), svd_solver="covariance_eigh").fit(Z)
        points = pca.transform(Z)
    lacking = 2 - points.shape[1]
    return np.pad(points, ((0, 0), (0, lacking))), np.pad(
        pca.explained_variance_ratio_, (0, lacking)
    )


def _numbered_by_size(kmeans: KMeans) -> KMeans:
    sizes = np.bincount(kmeans.labels_, minlength=kmeans.n_clusters)
    order = np.lexsort([*kmeans.cluster_centers_.T[::-1], -sizes])
    kmeans.cluster_centers_ = np.ascontiguousarray(kmeans.cluster_centers_[order])
    kmeans.labels_ = np.argsort(order).astype(kmeans.labels_.dtype)[kmeans.labels_]
    return kmeans
