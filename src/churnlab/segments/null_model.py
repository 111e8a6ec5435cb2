"""Test whether segments are groups, against tables with the same columns but without groups.

Any cut of a cloud of members comes back on other members of the same cloud, so stability shows no
groups. The null model is a parametric bootstrap: tables with the same margins and the same
correlations, whose dependence is that of one Gaussian cloud. Hennig and Lin (2015, Statistics and
Computing 25:821).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import norm

from churnlab.segments.refits import refit
from churnlab.segments.space import Layout
from churnlab.segments.stability import FEW_ROWS
from churnlab.threads import spread

ALPHA = 0.05
"""Below this p, segments are shown to be groups."""

STARTS = 5
"""Starts of each fit. The members and the null tables are fitted alike, so fewer starts cost power,
not validity."""

BETWEEN = 0.15
"""Members this near to the plane halfway between two centers, as a share of the centers' distance,
lie between two segments. Chosen by power in simulations (tests/simulations/test_groups.py): a
narrower strip holds too few members, and a wider one is no valley."""

TERMS = 60
"""Terms of the Hermite expansion: a pair of binary columns takes most, and its correlation is then
off by less than .01 up to a latent correlation of .98."""


class Structure(NamedTuple):
    """How compact and how separate segments are; the larger, the more like groups."""

    compactness: float
    separation: float


class NullModel:
    """A Gaussian copula with the margins and the Pearson correlations of a table.

    NORTA, "normal to anything": Cario and Nelson (1997). A margin is the column's own values, so
    binary columns stay binary, counts stay counts and words stay words. The levels of a column of
    words are ordered by what the other columns are like (word_scores).
    """

    def __init__(self, Z: np.ndarray, layout: Layout | None = None) -> None:
        self.Z, self.layout = Z, layout or Layout(Z.shape[1])
        scores = Z[:, : self.layout.numbers]
        for block in self.layout.blocks[self.layout.numbers :]:
            scores = np.column_stack([scores, word_scores(Z, block)])
        self.order = np.argsort(scores, axis=0, kind="stable")
        self.root = _root(latent_correlations(scores))

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a table of as many rows; its numbers are standardized."""
        n_rows, numbers = len(self.Z), self.layout.numbers
        latent = rng.standard_normal(self.order.shape) @ self.root.T
        ranks = (ndtr(latent) * n_rows).astype(np.intp).clip(max=n_rows - 1)
        rows = np.take_along_axis(self.order, ranks, axis=0)
        drawn = np.hstack([self.Z[rows[:, i], block] for i, block in enumerate(self.layout.blocks)])
        drawn[:, :numbers] = _standardized(drawn[:, :numbers])
        return drawn


def word_scores(Z: np.ndarray, block: slice) -> np.ndarray:
    """Return a number per row for a column of words, whose levels have the coordinates ``block``.

    The numbers of the levels are those that correlate most with the other columns together: the
    first axis of the levels' means in these columns.
    """
    held = (Z[:, block] > 0).astype(float)
    others = np.delete(Z, np.arange(Z.shape[1])[block], axis=1)
    share = np.sqrt(held.mean(axis=0))
    share[share == 0] = 1  # a level that no row has: its number is of no consequence
    means = held.T @ (others - others.mean(axis=0)) / len(Z) / share[:, None]
    axis = np.linalg.svd(np.column_stack([means, 0 * share]), full_matrices=False)[0][:, 0] / share
    # Levels that are alike must not be the same number: they would change places.
    axis += 1e-9 * (1 + np.arange(len(axis)))
    return held @ axis


def groups_p_value(
    Z: np.ndarray,
    k: int,
    *,
    tables: int,
    random_state: int,
    n_init: int = STARTS,
    layout: Layout | None = None,
    measure: Callable[..., Structure] | None = None,
) -> float:
    """Return the p-value of "these k segments are no groups", from ``tables`` null tables.

    p = (1 + hits) / (tables + 1), where a hit is a null table that is at least as compact; likewise
    for separation, and the larger p counts: groups must be both (an intersection-union test, Berger
    1982). All tables are segmented into k like the members, so p is right however k was found.
    ``measure`` segments a table and returns its Structure: ``structure``, or a clusterer's own.
    """
    null, measured = NullModel(Z, layout), measure or structure
    members, *generators = np.random.default_rng(random_state).spawn(tables + 1)

    def draw(rng: np.random.Generator) -> Structure:
        return measured(null.draw(rng), k, n_init=n_init, rng=rng)

    n_jobs = 1 if measure is None and len(Z) <= FEW_ROWS else None
    drawn = np.array(spread(draw, generators, n_jobs=n_jobs))
    whole = Z.copy()
    whole[:, : null.layout.numbers] = _standardized(Z[:, : null.layout.numbers])
    observed = np.array(measured(whole, k, n_init=n_init, rng=members))
    return float((1 + (drawn >= observed).sum(axis=0).max()) / (tables + 1))


def structure(Z: np.ndarray, k: int, *, n_init: int, rng: np.random.Generator) -> Structure:
    """Segment rows into k and measure how compact and how separate the segments are.

    Compactness is -log(inertia); separation is minus the share of rows that lie BETWEEN two
    segments, 0 when nobody does: groups have a valley between them, a cloud has none.
    """
    centers = refit(Z, [k], n_init, rng)[k]
    squares = (Z**2).sum(axis=1)[:, None] - 2 * Z @ centers.T + (centers**2).sum(axis=1)
    rows, order = np.arange(len(Z)), np.argsort(squares, axis=1)[:, :2].T
    nearest, second = squares[rows, order[0]], squares[rows, order[1]]
    apart = ((centers[order[0]] - centers[order[1]]) ** 2).sum(axis=1)
    # The distance to the plane halfway between two centers is (second - nearest) / (2 apart^.5).
    between = second - nearest < 2 * BETWEEN * apart
    inertia = max(float(nearest.clip(min=0).sum()), np.finfo(float).tiny)
    return Structure(-float(np.log(inertia)), -float(between.mean()))


def groups_sentence(p: float, *, stable: bool, better: int | None = None) -> str:
    """Say whether segments are groups, or a cut that comes back, or not even that.

    ``better`` is a number of segments with a lower BIC (choose_k.better_k): the members of a bent
    cloud are cut into stable pieces, and more pieces always fit better.

    >>> groups_sentence(0.02, stable=True)
    'shown to be groups (p = 0.02)'
    >>> groups_sentence(0.32, stable=True)
    'a cut that comes back on other members, not shown to be groups (p = 0.32)'
    """
    if p < ALPHA and better is None:
        cut = "" if stable else ", but this cut may not come back on other members"
        return f"shown to be groups (p = {p:.2g}){cut}"
    comes_back = "comes back" if stable else "may not come back"
    more = f", and {better} segments have a lower BIC" if better is not None else ""
    return f"a cut that {comes_back} on other members, not shown to be groups (p = {p:.2g}{more})"


def latent_correlations(Z: np.ndarray) -> np.ndarray:
    """Return the correlations of normal variables that give the columns their correlations.

    A margin is a function f of a normal variable; with its Hermite coefficients a_n, two columns
    correlate by the sum of a_n b_n r^n over n (Mehler 1866), which grows with r: bisection. A
    correlation that the margins cannot reach becomes the nearest one that they can.
    """
    coefficients = np.array([_hermite_coefficients(column) for column in Z.T])
    one, other = np.triu_indices(len(coefficients), 1)
    products = coefficients[one] * coefficients[other]
    scaled = _standardized(Z)
    wanted = (scaled.T @ scaled / len(Z))[one, other]
    low, high = np.full(len(one), -1.0), np.ones(len(one))
    for _ in range(40):
        middle = (low + high) / 2
        powers = middle[:, None] ** np.arange(1, TERMS + 1)
        less = (products * powers).sum(axis=1) < wanted
        low, high = np.where(less, middle, low), np.where(less, high, middle)
    latent = np.eye(len(coefficients))
    found = np.where(products.any(axis=1), (low + high) / 2, 0.0)  # a constant goes with nothing
    latent[one, other] = latent[other, one] = found
    return latent


def _hermite_coefficients(column: np.ndarray) -> np.ndarray:
    """Return E[f(z) h_n(z)], n = 1 .. TERMS, of a column's quantile function f, standardized.

    f is a step function, so the integral is a sum over its steps; h_n are the normalized Hermite
    polynomials, by their recurrence.
    """
    values, counts = np.unique(column, return_counts=True)
    at = ndtri(np.cumsum(counts)[:-1] / len(column))
    steps = np.diff(values) / (column.std() or 1.0) * norm.pdf(at)
    before, polynomial = np.zeros_like(at), np.ones_like(at)
    coefficients = np.empty(TERMS)
    for n in range(1, TERMS + 1):
        coefficients[n - 1] = (steps * polynomial).sum() / np.sqrt(n)
        following = (at * polynomial - np.sqrt(n - 1) * before) / np.sqrt(n)
        before, polynomial = polynomial, following
    return coefficients


def _root(correlations: np.ndarray) -> np.ndarray:
    """Return a matrix whose product with its transpose is the nearest correlation matrix.

    Negative eigenvalues become 0 and the diagonal 1 again: pairs that were solved one by one need
    not fit together.
    """
    values, vectors = np.linalg.eigh(correlations)
    root = vectors * np.sqrt(values.clip(min=0.0))
    return root / np.sqrt((root**2).sum(axis=1, keepdims=True))


def _standardized(Z: np.ndarray) -> np.ndarray:
    """Scale columns to mean 0 and standard deviation 1; constants become 0."""
    scale = Z.std(axis=0)
    return (Z - Z.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
