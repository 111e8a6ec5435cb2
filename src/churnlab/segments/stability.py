"""Measure how stable a segmentation is when the rows change, and against no structure.

Every function examines several numbers of segments k at once: all share one set of resampled rows
and one set of starts on them. The values of one k do not depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from churnlab.segments.refits import Assign, Refit, inertia, refit, refit_nearest
from churnlab.threads import Item, spread

FEW_ROWS = 5_000
"""Up to this many rows one thread computes: iterations of k-means are so short that several threads
would wait for each other more than they work."""

REFERENCE_STARTS = 5
"""Starts on each reference table of the gap statistic. With one, some references end in a bad local
optimum: the gap is up to .012 too large and its standard error up to three times (behaviour
columns, 4,000 rows); with more than five neither moves by more than .002."""


class Agreement(NamedTuple):
    """How well fits on bootstrap resamples agree with the segments of each k.

    ``ari``: the adjusted Rand index, resamples x numbers k; 1 is the same, 0 is chance.
    ``jaccard``: for each k, the mean Jaccard coefficient of each segment with its best match.
    """

    ari: pd.DataFrame
    jaccard: dict[int, np.ndarray]


def bootstrap_agreement(
    Z: np.ndarray,
    labels: Mapping[int, np.ndarray],
    *,
    resamples: int,
    n_init: int,
    random_state: int,
    refit: Refit = refit_nearest,
) -> Agreement:
    """Compare each k's labels (0 .. k-1) with fits on bootstrap resamples, which label all rows.

    Hubert and Arabie (1985); by segment Hennig (2007, Computational Statistics and Data Analysis
    52:258): below .6 a segment is not to be trusted, from .75 on it comes back, from .85 on it is
    highly stable.
    """

    def resample(rng: np.random.Generator) -> list[np.ndarray]:
        # A row drawn twice is a row of weight two: the same problem with a third fewer rows.
        times = np.bincount(rng.integers(len(Z), size=len(Z)), minlength=len(Z))
        fits = refit(Z[times > 0], labels, n_init, rng, weights=times[times > 0].astype(float))
        return [_contingency(labels[k], assign(Z), k) for k, assign in fits.items()]

    generators = _generators(random_state, resamples)
    tables = spread(resample, generators, n_jobs=_n_jobs(len(Z), refit))
    return Agreement(
        ari=pd.DataFrame([[_rand(counts) for counts in of] for of in tables], columns=list(labels)),
        jaccard={
            k: np.mean([best_jaccard(counts) for counts in of_k], axis=0)
            for k, of_k in zip(labels, zip(*tables, strict=True), strict=True)
        },
    )


def prediction_strength(
    Z: np.ndarray,
    ks: Iterable[int],
    *,
    splits: int,
    n_init: int,
    random_state: int,
    refit: Refit = refit_nearest,
) -> pd.DataFrame:
    """Return the prediction strength of each k: splits x numbers k.

    It is the smallest share of a segment's pairs that a fit on other rows keeps together. Each
    split halves the rows, fits both halves and averages the two directions. Tibshirani and Walther
    (2005).
    """
    numbers = list(ks)

    def kept(rows: np.ndarray, own: Assign, other: Assign, k: int) -> float:
        return smallest_share_of_pairs(own(rows), other(rows), k)

    def split(rng: np.random.Generator) -> list[float]:
        first, second = np.array_split(rng.permutation(len(Z)), 2)
        ones, twos = refit(Z[first], numbers, n_init, rng), refit(Z[second], numbers, n_init, rng)
        return [
            (kept(Z[second], twos[k], ones[k], k) + kept(Z[first], ones[k], twos[k], k)) / 2
            for k in numbers
        ]

    n_jobs = _n_jobs(len(Z), refit)
    return _repeat(split, _generators(random_state, splits), numbers, n_jobs=n_jobs)


def smallest_share_of_pairs(labels: np.ndarray, others: np.ndarray, k: int) -> float:
    """Return, over the segments of ``labels``, the smallest share of pairs that ``others`` keeps
    together.

    A segment of fewer than two rows counts as 0: it has no pair to keep together.

    >>> smallest_share_of_pairs(np.array([0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 0]), 2)
    0.3333333333333333
    """
    counts = _contingency(labels, others, k)
    sizes = counts.sum(axis=1)
    together = (counts * (counts - 1)).sum(axis=1)
    return float((together / np.maximum(sizes * (sizes - 1), 1)).min())


def adjusted_rand(labels: np.ndarray, others: np.ndarray, k: int) -> float:
    """Return the adjusted Rand index of two labelings 0 .. k-1: 1 is the same, 0 is chance.

    Hubert and Arabie (1985). scikit-learn's adjusted_rand_score spends more time on checking its
    arguments than on computing.
    """
    return _rand(_contingency(labels, others, k))


def best_jaccard(counts: np.ndarray) -> np.ndarray:
    """Return each row segment's largest Jaccard coefficient with a column segment.

    It is the number of shared rows divided by the number in either one.

    >>> best_jaccard(np.array([[3, 1], [0, 4]]))
    array([0.75, 0.8 ])
    """
    either = counts.sum(axis=1, keepdims=True) + counts.sum(axis=0, keepdims=True) - counts
    return (counts / np.maximum(either, 1)).max(axis=1)


def _rand(counts: np.ndarray) -> float:
    """Return the adjusted Rand index of a contingency table."""
    both, ours, theirs, every = (
        (n * (n - 1)).sum() / 2
        for n in (counts, counts.sum(axis=1), counts.sum(axis=0), counts.sum(keepdims=True))
    )
    chance, most = ours * theirs / every, (ours + theirs) / 2
    return float((both - chance) / (most - chance)) if most > chance else 1.0


def _contingency(labels: np.ndarray, others: np.ndarray, k: int) -> np.ndarray:
    """Count the rows of each pair of labels, k x k."""
    return np.bincount(labels * k + others, minlength=k * k).reshape(k, k).astype(float)


def gap_statistic(
    Z: np.ndarray, inertias: Mapping[int, float], *, references: int, random_state: int
) -> dict[int, tuple[float, float]]:
    """Return the gap statistic of each k and its standard error; k = 1 is one segment, no groups.

    The gap is how far log(inertia) on Z is below that of uniform rows, which fill the box along the
    principal axes. Tibshirani, Walther and Hastie (2001), reference distribution (b).
    """
    centered = Z - Z.mean(axis=0)
    along = centered @ np.linalg.svd(centered, full_matrices=False)[2].T
    low, high = along.min(axis=0), along.max(axis=0)

    def uniform(rng: np.random.Generator) -> list[float]:
        rows = rng.uniform(low, high, along.shape)
        fits = refit(rows, inertias, REFERENCE_STARTS, rng)
        return [np.log(inertia(rows, centers)) for centers in fits.values()]

    n_jobs = _n_jobs(len(Z), refit_nearest)
    logs = _repeat(uniform, _generators(random_state, references), inertias, n_jobs=n_jobs)
    error = logs.std(ddof=0) * np.sqrt(1 + 1 / references)
    return {
        k: (float(logs[k].mean() - np.log(inertia)), float(error[k]))
        for k, inertia in inertias.items()
    }


def heldout_churn_auc(
    values: np.ndarray,
    y: np.ndarray,
    ks: Iterable[int],
    *,
    n_init: int,
    random_state: int,
    folds: int = 5,
    refit: Refit = refit_nearest,
    rescale: bool = True,
) -> dict[int, float]:
    """Return, for each k, how well the segment alone ranks the churn of held-out rows.

    Mean ROC AUC over stratified folds; NaN with fewer than ``folds`` rows in a class. Segments and
    scaler (unless ``rescale`` is false: words keep their weight) are refitted on the other folds,
    whose churn rate per segment is the score. The AUCs are not pooled: a rate that is high on the
    training rows is low on the held-out ones, which would pull a pooled AUC down.
    """
    numbers = list(ks)
    if np.bincount(y, minlength=2).min() < folds:
        return dict.fromkeys(numbers, float("nan"))

    def fold(parts: tuple[np.ndarray, np.ndarray]) -> list[float]:
        train, test = parts
        scaler = StandardScaler(with_mean=rescale, with_std=rescale).fit(values[train])
        here, there = scaler.transform(values[train]), scaler.transform(values[test])
        fits = refit(here, numbers, n_init, np.random.default_rng(random_state))
        aucs = []
        for k, assign in fits.items():
            rates = _churn_rates(assign(here), y[train], k)
            aucs.append(roc_auc_score(y[test], rates[assign(there)]))
        return aucs

    parts = StratifiedKFold(folds, shuffle=True, random_state=random_state).split(values, y)
    means = _repeat(fold, parts, numbers, n_jobs=_n_jobs(len(values), refit)).mean()
    return {k: float(means[k]) for k in numbers}


def _churn_rates(labels: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """Return the churn rate of each of k segments; 0 for one without rows."""
    sizes = np.maximum(np.bincount(labels, minlength=k), 1)
    return np.bincount(labels, weights=y, minlength=k) / sizes


def _generators(random_state: int, n: int) -> list[np.random.Generator]:
    """Make one generator per repetition: all k see the same rows, and a larger ``n`` keeps the
    earlier repetitions."""
    return [np.random.default_rng([random_state, repetition]) for repetition in range(n)]


def _repeat(
    work: Callable[[Item], list[float]],
    items: Iterable[Item],
    ks: Iterable[int],
    *,
    n_jobs: int | None,
) -> pd.DataFrame:
    """Return repetitions x numbers k."""
    return pd.DataFrame(spread(work, items, n_jobs=n_jobs), columns=list(ks))


def _n_jobs(n_rows: int, refit: Refit) -> int | None:
    return 1 if refit is refit_nearest and n_rows <= FEW_ROWS else None
