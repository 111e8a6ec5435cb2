"""Refit k-means many times on other rows: starts drawn and followed together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

STEPS = 15
"""Steps of Lloyd's algorithm after which the starts of a refit are ranked: the first decide where a
start ends."""


MOST_STEPS, TOLERANCE = 300, 1e-4
"""Where a start ends: after so many steps, or when the centres move by no more than this of the
columns' variance; scikit-learn's own limits."""


PRODUCTS = 1_000_000
"""Products in one piece of a step: it stays near the processor, and BLAS multiplies more without
packing first."""


LOCAL_TRIALS = 4
"""Candidates for each row of a start; scikit-learn's own number, 2 + log k, but the same for every
k."""


def draw_starts(
    Z: np.ndarray, k: int, *, n_init: int, random_state: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Rows to start k-means from, n_init x k: draws by greedy k-means++, the first j of which start
    j segments.

    One draw serves every number of segments, for k-means++ adds one row after the other, and all
    starts are drawn together, which takes a tenth of the time of one after the other. Arthur and
    Vassilvitskii (2007).
    """
    rng, each = np.random.default_rng(random_state), np.arange(n_init)
    rows, times = (
        Z.astype(np.float32),
        np.ones(len(Z), np.float32) if weights is None else weights.astype(np.float32),
    )
    lengths = (rows**2).sum(axis=1)
    starts = np.empty((n_init, k), dtype=int)
    nearest = np.full(
        (n_init, len(rows)), np.inf, np.float32
    )  # of each row to the rows drawn so far, squared
    for drawn in range(k):
        reach = np.cumsum(
            nearest * times if drawn else np.tile(times, (n_init, 1)), axis=1, dtype=np.float64
        )
        points = rng.random((n_init, LOCAL_TRIALS)) * reach[:, -1:]
        candidates = np.stack(
            [np.searchsorted(*pair) for pair in zip(reach, points, strict=True)]
        ).clip(max=len(Z) - 1)
        towards = rows[candidates.ravel()]
        distances = lengths - 2 * (towards @ rows.T) + lengths[candidates.ravel(), None]
        closer = np.minimum(
            distances.clip(min=0).reshape(n_init, LOCAL_TRIALS, -1), nearest[:, None]
        )
        best = (
            (closer @ times).argmin(axis=1) if drawn else 0 * each
        )  # the first row of a start is any row
        starts[:, drawn], nearest = candidates[each, best], closer[each, best]
    return starts


def best_of(
    Z: np.ndarray, k: int, starts: np.ndarray, *, weights: np.ndarray | None = None
) -> np.ndarray:
    """Centres (k x columns) of k-means from the most promising of the starts (of draw_starts, with
    k rows or more).

    All starts take their first steps of Lloyd's algorithm together, in single precision, in a tenth
    of the time that scikit-learn takes to follow one after the other; the best goes on until
    scikit-learn, too, would stop.
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
    """Centres (starts x k x columns) after one step of Lloyd's algorithm, and how close each row
    was (starts x rows).

    The nearest centre c of a row z is the one of the largest z.c - c.c / 2; what is left out is the
    same for all. A centre without rows stays where it is.
    """
    n_starts, k, _ = at.shape
    towards = np.concatenate([at, -(at**2).sum(axis=-1, keepdims=True) / 2], axis=-1).reshape(
        n_starts * k, -1
    )
    most, sums = (
        np.empty((n_starts, rows.shape[1]), np.float32),
        np.zeros(towards.shape, np.float32),
    )
    piece = max(1, PRODUCTS // towards.size)
    for first in range(0, rows.shape[1], piece):
        part = slice(first, first + piece)
        closeness = (towards @ rows[:, part]).reshape(n_starts, k, -1)
        nearest = closeness.max(axis=1, out=most[:, part])
        members = np.greater_equal(
            closeness, nearest[:, None], out=closeness
        )  # in place: memory is what costs
        sums += members.reshape(n_starts * k, -1) @ moments[part]
    moved, counts = np.split(sums.reshape(n_starts, k, -1), [-1], axis=-1)
    return np.divide(moved, counts, out=at.copy(), where=counts > 0), most


def closest(Z: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The number of each row's nearest centre."""
    return (Z @ centres.T - (centres**2).sum(axis=1) / 2).argmax(axis=1)


def refit(
    Z: np.ndarray,
    ks: Iterable[int],
    n_init: int,
    rng: np.random.Generator,
    *,
    weights: np.ndarray | None = None,
) -> dict[int, np.ndarray]:
    """Centres of k-means for each k on other rows than those of the segmentation, the best of
    ``n_init`` starts."""
    numbers = list(ks)
    seed = int(rng.integers(2**32))
    starts = draw_starts(Z, max(numbers), n_init=n_init, random_state=seed, weights=weights)
    return {k: best_of(Z, k, starts, weights=weights) for k in numbers}


def inertia(Z: np.ndarray, centres: np.ndarray) -> float:
    """The sum of the rows' squared distances to their nearest centres."""
    return float(((Z - centres[closest(Z, centres)]) ** 2).sum())
