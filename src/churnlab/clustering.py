"""Segments: k-means on standardised columns, numbered by size. Nothing here knows who left."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import pandas as pd
from joblib import cpu_count
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from churnlab.errors import InputError
from churnlab.expressions import columns_in, select

Item = TypeVar("Item")
Value = TypeVar("Value")

MOST_ROWS = 10_000
"""Above this many rows a sample of as many carries what would otherwise cost minutes; it is always said."""

STEPS = 15
"""Steps of Lloyd's algorithm after which the starts of a refit are ranked: the first decide where a start ends."""

MOST_STEPS, TOLERANCE = 300, 1e-4
"""Where a start ends: after so many steps, or when the centres move by no more than this of the columns' variance;
scikit-learn's own limits."""

PRODUCTS = 1_000_000
"""Products in one piece of a step: it stays near the processor, and BLAS multiplies more without packing first."""

LOCAL_TRIALS = 4
"""Candidates for each row of a start; scikit-learn's own number, 2 + log k, but the same for every k."""


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


def columns_from(columns: Mapping[str, str], sources: Collection[str]) -> list[str]:
    """Those of the segmentation's columns that need one of the table's ``sources``, directly or through others."""
    touched = set(sources)
    for name, expression in columns.items():
        if touched & ({name} if expression == name else set(columns_in(expression))):
            touched.add(name)
    return [name for name in columns if name in touched]


def fit_kmeans(
    Z: np.ndarray, ks: Iterable[int], *, n_init: int, random_state: int, max_rows: int = MOST_ROWS
) -> dict[int, KMeans]:
    """Fit k-means for each k, the best of ``n_init`` starts; segments are numbered by size, the largest 0.

    ``predict`` gives the same numbers; segments of one size are ordered by their centres' coordinates. Above
    ``max_rows`` rows the starts are followed on a seeded sample of that size, and the best goes on from there on all
    rows: time grows with the rows, not with rows times starts.
    """
    part = Z[sample_rows(len(Z), max_rows, random_state=random_state)]

    def fit(k: int) -> KMeans:
        kmeans = KMeans(k, n_init=n_init, random_state=random_state).fit(part)
        if len(part) < len(Z):
            kmeans = KMeans(k, init=kmeans.cluster_centers_, n_init=1).fit(Z)
            kmeans.set_params(init="k-means++", n_init=n_init, random_state=random_state)  # how it can be made again
        return _numbered_by_size(kmeans)

    numbers = sorted(set(ks))
    return dict(zip(numbers, on_all_cores(fit, numbers), strict=True))


def fit_segmentation(frame: pd.DataFrame, n_clusters: int, *, n_init: int, random_state: int) -> Pipeline:
    """Fit scaler and k-means on all rows; ``predict`` on a segment frame gives the numbers of the nearest centres."""
    fits = fit_kmeans(standardized(frame), [n_clusters], n_init=n_init, random_state=random_state)
    return segmentation(frame, fits[n_clusters])


def segmentation(frame: pd.DataFrame, kmeans: KMeans) -> Pipeline:
    """The scaler of a segment frame before a k-means that was fitted on the frame, standardised."""
    return Pipeline([("scale", StandardScaler().fit(frame)), ("kmeans", kmeans)])


def draw_starts(
    Z: np.ndarray, k: int, *, n_init: int, random_state: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Rows to start k-means from, n_init x k: draws by greedy k-means++, the first j of which start j segments.

    One draw serves every number of segments, for k-means++ adds one row after the other, and all starts are drawn
    together, which takes a tenth of the time of one after the other. Arthur and Vassilvitskii (2007).
    """
    rng, each = np.random.default_rng(random_state), np.arange(n_init)
    rows, times = Z.astype(np.float32), np.ones(len(Z), np.float32) if weights is None else weights.astype(np.float32)
    lengths = (rows**2).sum(axis=1)
    starts = np.empty((n_init, k), dtype=int)
    nearest = np.full((n_init, len(rows)), np.inf, np.float32)  # of each row to the rows drawn so far, squared
    for drawn in range(k):
        reach = np.cumsum(nearest * times if drawn else np.tile(times, (n_init, 1)), axis=1, dtype=np.float64)
        points = rng.random((n_init, LOCAL_TRIALS)) * reach[:, -1:]
        candidates = np.stack([np.searchsorted(*pair) for pair in zip(reach, points, strict=True)]).clip(max=len(Z) - 1)
        towards = rows[candidates.ravel()]
        distances = lengths - 2 * (towards @ rows.T) + lengths[candidates.ravel(), None]
        closer = np.minimum(distances.clip(min=0).reshape(n_init, LOCAL_TRIALS, -1), nearest[:, None])
        best = (closer @ times).argmin(axis=1) if drawn else 0 * each  # the first row of a start is any row
        starts[:, drawn], nearest = candidates[each, best], closer[each, best]
    return starts


def best_of(Z: np.ndarray, k: int, starts: np.ndarray, *, weights: np.ndarray | None = None) -> np.ndarray:
    """Centres (k x columns) of k-means from the most promising of the starts (of draw_starts, with k rows or more).

    All starts take their first steps of Lloyd's algorithm together, in single precision, in a tenth of the time that
    scikit-learn takes to follow one after the other; the best goes on until scikit-learn, too, would stop.
    """
    times = np.ones(len(Z)) if weights is None else weights
    rows = np.vstack([Z.T, np.ones(len(Z))]).astype(np.float32)
    moments = np.column_stack([Z * times[:, None], times]).astype(np.float32)
    at = Z[starts[:, :k]].astype(np.float32)
    if len(at) > 1:
        for _ in range(STEPS):
            at, closeness = _step(at, rows, moments)
        at = at[[np.argmax(closeness @ times)]]
    near = TOLERANCE * Z.var(axis=0).mean()
    for _ in range(MOST_STEPS):
        before, (at, _) = at, _step(at, rows, moments)
        if ((at - before) ** 2).sum() <= near:
            break
    return at[0].astype(np.float64)


def _step(at: np.ndarray, rows: np.ndarray, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres (starts x k x columns) after one step of Lloyd's algorithm, and how close each row was (starts x rows).

    The nearest centre c of a row z is the one of the largest z.c - c.c / 2; what is left out is the same for all. A
    centre without rows stays where it is.
    """
    n_starts, k, _ = at.shape
    towards = np.concatenate([at, -(at**2).sum(axis=-1, keepdims=True) / 2], axis=-1).reshape(n_starts * k, -1)
    most, sums = np.empty((n_starts, rows.shape[1]), np.float32), np.zeros(towards.shape, np.float32)
    piece = max(1, PRODUCTS // towards.size)
    for first in range(0, rows.shape[1], piece):
        part = slice(first, first + piece)
        closeness = (towards @ rows[:, part]).reshape(n_starts, k, -1)
        nearest = closeness.max(axis=1, out=most[:, part])
        members = np.greater_equal(closeness, nearest[:, None], out=closeness)  # in place: memory is what costs
        sums += members.reshape(n_starts * k, -1) @ moments[part]
    moved, counts = np.split(sums.reshape(n_starts, k, -1), [-1], axis=-1)
    return np.divide(moved, counts, out=at.copy(), where=counts > 0), most


def closest(Z: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The number of each row's nearest centre."""
    return (Z @ centres.T - (centres**2).sum(axis=1) / 2).argmax(axis=1)


def sample_rows(n_rows: int, most: int, *, random_state: int) -> np.ndarray:
    """Positions of all rows, in order, or of a seeded sample of ``most`` when there are more."""
    if n_rows <= most:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(random_state).choice(n_rows, size=most, replace=False))


def plane(Z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows on their first two principal axes (rows x 2), and the share of the variance that each axis shows.

    Principal axes know nothing of the segments: groups that lie apart here do so by themselves.
    """
    with one_thread():
        pca = PCA(min(2, Z.shape[1]), svd_solver="covariance_eigh").fit(Z)
        points = pca.transform(Z)
    lacking = 2 - points.shape[1]
    return np.pad(points, ((0, 0), (0, lacking))), np.pad(pca.explained_variance_ratio_, (0, lacking))


def _numbered_by_size(kmeans: KMeans) -> KMeans:
    sizes = np.bincount(kmeans.labels_, minlength=kmeans.n_clusters)
    order = np.lexsort([*kmeans.cluster_centers_.T[::-1], -sizes])
    kmeans.cluster_centers_ = np.ascontiguousarray(kmeans.cluster_centers_[order])
    kmeans.labels_ = np.argsort(order).astype(kmeans.labels_.dtype)[kmeans.labels_]
    return kmeans


def on_all_cores(work: Callable[[Item], Value], items: Iterable[Item], *, n_jobs: int | None = None) -> list[Value]:
    """What ``work`` makes of each item, in the items' order; a thread for each core, each computing alone.

    Threads, for the loops of scikit-learn and BLAS let go of Python's lock, and a process would first import them all.
    """
    with one_thread(), ThreadPoolExecutor(n_jobs or cpu_count(), initializer=threadpool_limits, initargs=(1,)) as pool:
        return list(pool.map(work, items))


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold the numeric libraries to one thread: threads that share the rows of a fit add them up in any order.

    With one thread a fit gives the same bits however many cores there are.
    """
    with threadpool_limits(limits=1):
        yield
