"""Refit k-means many times on other rows: all starts are initialized and iterated together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

import numpy as np

ROUNDS, MANY, MORE_ROUNDS = ((15, 1),), 6, ((15, 5), (60, 1))
"""Lloyd iterations after which the starts of a refit are ranked, and how many stay: the first ones
decide in which local optimum a start ends. Above MANY segments they do so later: on the thirteen
columns of the course, 15 iterations choose a start that is more than .1% worse than the best in a
fifth of the refits, MORE_ROUNDS in a twentieth (7 and 8 segments, 40 resamples)."""

MAX_ITER, TOL = 300, 1e-4
"""When the best start has converged: after this many iterations, or when the centers move by no
more than this share of the columns' variance. These are scikit-learn's own limits."""

CHUNK_PRODUCTS = 1_000_000
"""Products in one chunk of an iteration: it fits the processor's cache, and BLAS multiplies larger
matrices only after packing them."""

LOCAL_TRIALS = 4
"""Candidates for each row of a start. scikit-learn takes 2 + log k; here all k take the same."""


Assign = Callable[[np.ndarray], np.ndarray]
"""What labels rows 0 .. k-1."""


class Refit(Protocol):
    """What fits each k on some rows and returns for each what labels any rows."""

    def __call__(
        self,
        Z: np.ndarray,
        ks: Iterable[int],
        n_init: int,
        rng: np.random.Generator,
        *,
        weights: np.ndarray | None = None,
    ) -> dict[int, Assign]: ...


def plusplus_starts(
    Z: np.ndarray, k: int, *, n_init: int, random_state: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Draw ``n_init`` starts by greedy k-means++: row positions, n_init x k.

    k-means++ adds one row after the other, so the first j rows of a start initialize j segments,
    and one draw serves every number of segments. All starts are drawn together, which takes a tenth
    of the time of one after the other. Arthur and Vassilvitskii (2007).
    """
    rng, each = np.random.default_rng(random_state), np.arange(n_init)
    rows = Z.astype(np.float32)
    times = (np.ones(len(Z)) if weights is None else weights).astype(np.float32)
    lengths = (rows**2).sum(axis=1)
    starts = np.empty((n_init, k), dtype=int)
    nearest = np.full((n_init, len(rows)), np.inf, np.float32)  # squared, to the rows drawn so far
    for drawn in range(k):
        potential = nearest * times if drawn else np.tile(times, (n_init, 1))
        cumulated = np.cumsum(potential, axis=1, dtype=np.float64)
        points = rng.random((n_init, LOCAL_TRIALS)) * cumulated[:, -1:]
        candidates = np.stack(
            [np.searchsorted(*pair) for pair in zip(cumulated, points, strict=True)]
        ).clip(max=len(Z) - 1)
        towards = rows[candidates.ravel()]
        distances = lengths - 2 * (towards @ rows.T) + lengths[candidates.ravel(), None]
        closer = np.minimum(
            distances.clip(min=0).reshape(n_init, LOCAL_TRIALS, -1), nearest[:, None]
        )
        # The first row of a start is any row: all candidates are as good.
        best = (closer @ times).argmin(axis=1) if drawn else 0 * each
        starts[:, drawn], nearest = candidates[each, best], closer[each, best]
    return starts


def best_centers(
    Z: np.ndarray, k: int, starts: np.ndarray, *, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return the k-means centers (k x columns) from the most promising of the starts.

    ``starts`` come from plusplus_starts, with k rows or more. All take their first Lloyd iterations
    together, in single precision, in a tenth of the time that scikit-learn takes for one after the
    other; the best one is iterated until it converges.
    """
    times = np.ones(len(Z)) if weights is None else weights
    rows = np.vstack([Z.T, np.ones(len(Z))]).astype(np.float32)
    moments = np.column_stack([Z * times[:, None], times]).astype(np.float32)
    centers = Z[starts[:, :k]].astype(np.float32)
    if len(centers) > 1:
        for steps, kept in MORE_ROUNDS if k > MANY else ROUNDS:
            for _ in range(steps):
                centers, closeness = _lloyd_step(centers, rows, moments)
            centers = centers[np.argsort(-(closeness @ times), kind="stable")[:kept]]
    near = TOL * Z.var(axis=0).mean()
    for _ in range(MAX_ITER):
        before, (centers, _) = centers, _lloyd_step(centers, rows, moments)
        if ((centers - before) ** 2).sum() <= near:
            break
    return centers[0].astype(np.float64)


def _lloyd_step(
    centers: np.ndarray, rows: np.ndarray, moments: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the centers after one Lloyd iteration, and how close each row was to its center.

    Shapes: starts x k x columns, and starts x rows. The center c nearest to a row z has the largest
    z.c - c.c / 2; the term that is left out is the same for all centers. A center without rows
    stays where it is.
    """
    n_starts, k, _ = centers.shape
    towards = np.concatenate([centers, -(centers**2).sum(axis=-1, keepdims=True) / 2], axis=-1)
    towards = towards.reshape(n_starts * k, -1)
    most = np.empty((n_starts, rows.shape[1]), np.float32)
    sums = np.zeros(towards.shape, np.float32)
    size = max(1, CHUNK_PRODUCTS // towards.size)
    for first in range(0, rows.shape[1], size):
        chunk = slice(first, first + size)
        closeness = (towards @ rows[:, chunk]).reshape(n_starts, k, -1)
        nearest = closeness.max(axis=1, out=most[:, chunk])
        # In place: memory traffic is the cost.
        members = np.greater_equal(closeness, nearest[:, None], out=closeness)
        sums += members.reshape(n_starts * k, -1) @ moments[chunk]
    moved, counts = np.split(sums.reshape(n_starts, k, -1), [-1], axis=-1)
    return np.divide(moved, counts, out=centers.copy(), where=counts > 0), most


def nearest_center(Z: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Return the number of each row's nearest center.

    >>> nearest_center(np.array([[0.0], [9.0]]), np.array([[1.0], [8.0]]))
    array([0, 1])
    """
    return (Z @ centers.T - (centers**2).sum(axis=1) / 2).argmax(axis=1)


def refit(
    Z: np.ndarray,
    ks: Iterable[int],
    n_init: int,
    rng: np.random.Generator,
    *,
    weights: np.ndarray | None = None,
) -> dict[int, np.ndarray]:
    """Fit k-means for each k, the best of ``n_init`` starts; returns the centers, k x columns."""
    numbers = list(ks)
    seed = int(rng.integers(2**32))
    starts = plusplus_starts(Z, max(numbers), n_init=n_init, random_state=seed, weights=weights)
    return {k: best_centers(Z, k, starts, weights=weights) for k in numbers}


def refit_nearest(
    Z: np.ndarray,
    ks: Iterable[int],
    n_init: int,
    rng: np.random.Generator,
    *,
    weights: np.ndarray | None = None,
) -> dict[int, Assign]:
    """Fit k-means for each k, as refit does; a row belongs to its nearest center."""
    fits = refit(Z, ks, n_init, rng, weights=weights)
    return {k: partial(nearest_center, centers=centers) for k, centers in fits.items()}


def inertia(Z: np.ndarray, centers: np.ndarray) -> float:
    """Return the sum of the rows' squared distances to their nearest centers."""
    return float(((Z - centers[nearest_center(Z, centers)]) ** 2).sum())
