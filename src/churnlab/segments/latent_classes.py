"""Fit latent classes: a mixture whose columns are independent within a class, for mixed tables.

A number is normal within a class, with the class's own mean and variance, and a column of words has
the class's own shares: latent class and latent profile analysis in one (Vermunt and Magidson 2002).
A distance must weigh a word against a number before anything is known; the mixture learns from the
table what each column tells about the class.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from churnlab.segments.refits import nearest_center, plusplus_starts, refit
from churnlab.segments.space import Layout

FLOOR = 0.05
"""Least variance of a number within a class, as a share of its variance in the table: a class of
equal values (no purchase, one month) would otherwise have an infinite likelihood."""

TINY = 1e-12
"""Below this a variance or a share is 0, but for rounding."""

PRIOR = 0.5
"""Rows of the table's own shares that each class is given, so that no word is impossible in it."""

ROUNDS = ((10, 5), (20, 1))
"""EM iterations after which the starts are ranked by likelihood, and how many stay."""

MAX_ITER, TOL = 500, 1e-6
QUICK_ITER, QUICK_TOL = 60, 1e-5
"""When the best start has converged: after this many iterations, or when an iteration adds less
than this to the mean log-likelihood of a row. Refits on other rows are quick: who is in which class
changes little after that, while the likelihood, which BIC compares, still grows."""


class Classes(NamedTuple):
    """Fitted classes: log prior times density of a row is ``features(row) @ coef.T + intercept``.

    ``coef`` is k x features, ``log_likelihood`` the sum over the rows, and ``bic`` Schwarz's (1978)
    criterion, the lower the better.
    """

    coef: np.ndarray
    intercept: np.ndarray
    log_likelihood: float
    bic: float


def features(Z: np.ndarray, layout: Layout) -> np.ndarray:
    """Return what the log density is linear in: squares of numbers, numbers, and 0 or 1 per level.

    A level's coordinate is above 0 where a row has the level.
    """
    numbers = Z[:, : layout.numbers]
    return np.hstack([numbers**2, numbers, Z[:, layout.numbers :] > 0])


def class_shares(rows: np.ndarray, classes: Classes) -> np.ndarray:
    """Return the probability of each class (rows x k) for rows of ``features``."""
    logs = rows @ classes.coef.T + classes.intercept
    likely = np.exp(logs - logs.max(axis=1, keepdims=True))
    return likely / likely.sum(axis=1, keepdims=True)


def fit_classes(
    Z: np.ndarray,
    layout: Layout,
    ks: Iterable[int],
    *,
    n_init: int,
    rng: np.random.Generator,
    weights: np.ndarray | None = None,
    quick: bool = False,
) -> dict[int, Classes]:
    """Fit classes for each k by EM, the best of ``n_init`` starts (Dempster et al. 1977).

    The starts are those of k-means, and the best k-means itself. All take their first iterations
    together. ``quick``: fewer iterations.
    """
    numbers, table = list(ks), _Table(Z, layout, weights, quick=quick)
    drawn = plusplus_starts(
        Z, max(numbers), n_init=n_init, random_state=int(rng.integers(2**32)), weights=weights
    )
    centers = refit(Z, numbers, n_init, rng, weights=weights)
    return {
        k: table.best([Z[start[:k]] for start in drawn] + [centers[k]] if k > 1 else [centers[k]])
        for k in numbers
    }


class _Table:
    """The rows of one fit, and EM on them."""

    def __init__(
        self, Z: np.ndarray, layout: Layout, weights: np.ndarray | None, *, quick: bool
    ) -> None:
        self.Z, self.layout, self.F = Z, layout, features(Z, layout)
        self.weighted = weights is not None
        self.weights = np.ones(len(Z)) if weights is None else weights
        self.most, self.tol = (QUICK_ITER, QUICK_TOL) if quick else (MAX_ITER, TOL)
        self.rows = float(self.weights.sum())
        self.whole = self.weights @ self.F / self.rows
        p = layout.numbers
        variance = self.whole[:p] - self.whole[p : 2 * p] ** 2
        self.floor = np.where(variance > TINY, FLOOR * variance, 1.0)  # constants say nothing

    def best(self, starts: list[np.ndarray]) -> Classes:
        """Return the classes of the most likely start; each is k points, whose nearest rows are
        a class at first."""
        k = len(starts[0])
        near = np.stack([nearest_center(self.Z, start) for start in starts])
        R = 0.9 * np.eye(k)[near].transpose(1, 0, 2) + 0.1 / k  # rows x starts x classes
        for steps, kept in ROUNDS if len(starts) > 1 else ():
            for _ in range(steps):
                R, found = self._expect(*self._maximize(R))
            R = R[:, np.argsort(-found, kind="stable")[:kept]]
        before = -np.inf
        for _ in range(self.most):
            coef, intercept = self._maximize(R)
            R, found = self._expect(coef, intercept)
            if found[0] - before < self.tol * self.rows:
                break
            before = found[0]
        free = k - 1 + k * (2 * self.layout.numbers + sum(n - 1 for n in self.layout.levels))
        likelihood = float(found[0])
        bic = free * float(np.log(self.rows)) - 2 * likelihood
        return Classes(coef[0], intercept[0], likelihood, bic)

    def _expect(self, coef: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each row's class probabilities, and each start's log-likelihood."""
        starts, k, width = coef.shape
        logs = (self.F @ coef.reshape(-1, width).T).reshape(-1, starts, k)
        logs += intercept
        most = logs.max(axis=2, keepdims=True)
        logs -= most
        likely = np.exp(logs, out=logs)  # in place: memory traffic is the cost
        whole = likely.sum(axis=2, keepdims=True)
        likely /= whole
        return likely, self.weights @ (most + np.log(whole))[:, :, 0]

    def _maximize(self, R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients (starts x k x features) and intercepts (starts x k)."""
        n, starts, k = R.shape
        weighted = R.reshape(n, -1)
        if self.weighted:
            weighted = weighted * self.weights[:, None]
        sums = (weighted.T @ self.F).reshape(starts, k, -1)
        size = weighted.sum(axis=0).reshape(starts, k, 1) + 1e-9
        p = self.layout.numbers
        mean = sums[..., p : 2 * p] / size
        variance = np.maximum(sums[..., :p] / size - mean**2, self.floor)
        prior = PRIOR * self.whole[2 * p :]
        shares = (sums[..., 2 * p :] + prior) / (size + PRIOR)
        constant = (mean**2 / variance + np.log(2 * np.pi * variance)).sum(axis=-1) / 2
        coef = np.concatenate(
            [-0.5 / variance, mean / variance, np.log(shares.clip(min=TINY))], axis=-1
        )
        return coef, np.log(size[..., 0] / self.rows) - constant
