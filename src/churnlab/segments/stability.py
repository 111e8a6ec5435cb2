"""How far a k-means segmentation can be trusted: what stays when the rows change, and what no
structure would give.

Every function examines several numbers of segments at once: one set of other rows, and one set of
starts on them, serves them all. The values of one number do not depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from churnlab.segments.refits import closest, inertia, refit
from churnlab.threads import Item, on_all_cores

FEW_ROWS = 5_000
"""Up to so many rows one thread computes: steps are so short that threads would wait for each other
more than work."""


def bootstrap_ari(
    Z: np.ndarray,
    labels: Mapping[int, np.ndarray],
    *,
    resamples: int,
    n_init: int,
    random_state: int,
) -> pd.DataFrame:
    """Agreement of each k's labels with fits on bootstrap resamples that label all rows: resamples
    x numbers k.

    1 is the same segmentation, 0 is chance. Hubert and Arabie (1985); Hennig (2007).
    """

    def resample(rng: np.random.Generator) -> list[float]:
        # A row drawn twice is a row of weight two: the same problem with a third of the rows less.
        times = np.bincount(rng.integers(len(Z), size=len(Z)), minlength=len(Z))
        fits = refit(Z[times > 0], labels, n_init, rng, weights=times[times > 0].astype(float))
        return [adjusted_rand(labels[k], closest(Z, centres), k) for k, centres in fits.items()]

    return _of_each(resample, _generators(random_state, resamples), labels, n_rows=len(Z))


def prediction_strength(
    Z: np.ndarray, ks: Iterable[int], *, splits: int, n_init: int, random_state: int
) -> pd.DataFrame:
    """The smallest share of a segment's pairs that centres from other rows keep together: splits x
    numbers k.

    Each split halves the rows, fits both halves and averages the two directions. Tibshirani and
    Walther (2005).
    """
    numbers = list(ks)

    def split(rng: np.random.Generator) -> list[float]:
        first, second = np.array_split(rng.permutation(len(Z)), 2)
        ones, twos = refit(Z[first], numbers, n_init, rng), refit(Z[second], numbers, n_init, rng)
        values = []
        for k, one, two in zip(numbers, ones.values(), twos.values(), strict=True):
            there = smallest_share_of_pairs(closest(Z[second], two), closest(Z[second], one), k)
            back = smallest_share_of_pairs(closest(Z[first], one), closest(Z[first], two), k)
            values.append((there + back) / 2)
        return values

    return _of_each(split, _generators(random_state, splits), numbers, n_rows=len(Z))


def smallest_share_of_pairs(labels: np.ndarray, others: np.ndarray, k: int) -> float:
    """Over the segments of ``labels``, the smallest share of its pairs that ``others`` gives one
    label.

    A segment with fewer than two rows counts as 0: there is nothing that was kept together.
    """
    counts = _crossed(labels, others, k)
    sizes = counts.sum(axis=1)
    together = (counts * (counts - 1)).sum(axis=1)
    return float((together / np.maximum(sizes * (sizes - 1), 1)).min())


def adjusted_rand(labels: np.ndarray, others: np.ndarray, k: int) -> float:
    """Adjusted Rand index of two labellings with numbers below k: 1 is the same, 0 is chance.
    Hubert and Arabie (1985).

    scikit-learn's adjusted_rand_score, which looks at its arguments for longer than it computes.
    """
    counts = _crossed(labels, others, k)
    both, ours, theirs, every = (
        (n * (n - 1)).sum() / 2
        for n in (counts, counts.sum(axis=1), counts.sum(axis=0), counts.sum(keepdims=True))
    )
    chance, most = ours * theirs / every, (ours + theirs) / 2
    return float((both - chance) / (most - chance)) if most > chance else 1.0


def _crossed(labels: np.ndarray, others: np.ndarray, k: int) -> np.ndarray:
    """How many rows have each pair of numbers, k x k."""
    return np.bincount(labels * k + others, minlength=k * k).reshape(k, k).astype(float)


def gap_statistic(
    Z: np.ndarray, inertias: Mapping[int, float], *, references: int, random_state: int
) -> dict[int, tuple[float, float]]:
    """Per k how far log(inertia) on Z lies below that of uniform rows, and the standard error of
    that gap.

    The uniform rows fill the box along the principal axes. Tibshirani, Walther and Hastie (2001),
    null (b).
    """
    centred = Z - Z.mean(axis=0)
    along = centred @ np.linalg.svd(centred, full_matrices=False)[2].T
    low, high = along.min(axis=0), along.max(axis=0)

    def uniform(rng: np.random.Generator) -> list[float]:
        # Rows without structure have no bad local optimum to avoid: one start is enough.
        rows = rng.uniform(low, high, along.shape)
        return [
            np.log(inertia(rows, centres)) for centres in refit(rows, inertias, 1, rng).values()
        ]

    logs = _of_each(uniform, _generators(random_state, references), inertias, n_rows=len(Z))
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
) -> dict[int, float]:
    """Per k how well the segment alone ranks the churn of rows it was not fitted on: mean ROC AUC
    over folds.

    Folds are stratified. Scaler and k-means are refitted on the other folds, whose churn rate per
    segment is the score. NaN: fewer than ``folds`` rows in a class. The mean and not the pooled
    AUC, because a rate that is high on the training rows is low on the held-out ones, which pulls
    the pooled value down.
    """
    numbers = list(ks)
    if np.bincount(y, minlength=2).min() < folds:
        return dict.fromkeys(numbers, float("nan"))

    def fold(parts: tuple[np.ndarray, np.ndarray]) -> list[float]:
        train, test = parts
        scaler = StandardScaler().fit(values[train])
        here, there = scaler.transform(values[train]), scaler.transform(values[test])
        fits = refit(here, numbers, n_init, np.random.default_rng(random_state))
        return [
            roc_auc_score(
                y[test], _rates(closest(here, centres), y[train], k)[closest(there, centres)]
            )
            for k, centres in fits.items()
        ]

    parts = StratifiedKFold(folds, shuffle=True, random_state=random_state).split(values, y)
    means = _of_each(fold, parts, numbers, n_rows=len(values)).mean()
    return {k: float(means[k]) for k in numbers}


def _rates(labels: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """The churn rate of each segment's rows."""
    return np.bincount(labels, weights=y, minlength=k) / np.maximum(
        np.bincount(labels, minlength=k), 1
    )


def _generators(random_state: int, n: int) -> list[np.random.Generator]:
    """One generator a repetition: the same rows for every k, and more repetitions keep the earlier
    ones."""
    return [np.random.default_rng([random_state, repetition]) for repetition in range(n)]


def _of_each(
    work: Callable[[Item], list[float]], items: Iterable[Item], ks: Iterable[int], *, n_rows: int
) -> pd.DataFrame:
    """Repetitions x numbers k, each made of about ``n_rows`` rows."""
    return pd.DataFrame(
        on_all_cores(work, items, n_jobs=1 if n_rows <= FEW_ROWS else None), columns=list(ks)
    )
