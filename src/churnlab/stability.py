"""How far a k-means segmentation can be trusted: what stays when the rows change, and what no structure would give."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from churnlab.clustering import one_thread


def bootstrap_ari(
    Z: np.ndarray, labels: np.ndarray, k: int, *, resamples: int, n_init: int, random_state: int
) -> np.ndarray:
    """Agreement of the full fit's labels with fits on bootstrap resamples that label all rows, one value a resample.

    1 is the same segmentation, 0 is chance. Hubert and Arabie (1985); Hennig (2007).
    """
    values = []
    with _refits():
        for rng in _generators(random_state, resamples):
            drawn = rng.integers(len(Z), size=len(Z))
            values.append(adjusted_rand_score(labels, _kmeans(Z[drawn], k, n_init, rng).predict(Z)))
    return np.array(values)


def prediction_strength(Z: np.ndarray, k: int, *, splits: int, n_init: int, random_state: int) -> np.ndarray:
    """The smallest share of a segment's pairs that centres from other rows keep together, one value a split.

    Each split halves the rows, fits both halves and averages the two directions. Tibshirani and Walther (2005).
    """
    values = []
    with _refits():
        for rng in _generators(random_state, splits):
            first, second = np.array_split(rng.permutation(len(Z)), 2)
            one, two = _kmeans(Z[first], k, n_init, rng), _kmeans(Z[second], k, n_init, rng)
            there = smallest_share_of_pairs(two.labels_, one.predict(Z[second]), k)
            back = smallest_share_of_pairs(one.labels_, two.predict(Z[first]), k)
            values.append((there + back) / 2)
    return np.array(values)


def smallest_share_of_pairs(labels: np.ndarray, others: np.ndarray, k: int) -> float:
    """Over the segments of ``labels``, the smallest share of its pairs that ``others`` gives one label.

    A segment with fewer than two rows counts as 0: there is nothing that was kept together.
    """
    counts = np.zeros((k, k))
    np.add.at(counts, (labels, others), 1)
    sizes = counts.sum(axis=1)
    together = (counts * (counts - 1)).sum(axis=1)
    return float((together / np.maximum(sizes * (sizes - 1), 1)).min())


def gap_statistic(Z: np.ndarray, inertia: float, k: int, *, references: int, random_state: int) -> tuple[float, float]:
    """How far log(inertia) lies below that of uniform rows, and the standard error of that gap.

    The uniform rows fill the box along the principal axes. Tibshirani, Walther and Hastie (2001), null (b).
    """
    centred = Z - Z.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2]
    along = centred @ axes.T
    logs = []
    with _refits():
        for rng in _generators(random_state, references):
            uniform = rng.uniform(along.min(axis=0), along.max(axis=0), size=along.shape)
            # Rows without structure have no bad local optimum to avoid: one start is enough.
            logs.append(np.log(_kmeans(uniform, k, 1, rng).inertia_))
    return float(np.mean(logs) - np.log(inertia)), float(np.std(logs) * np.sqrt(1 + 1 / references))


def heldout_churn_auc(
    values: np.ndarray, y: np.ndarray, k: int, *, n_init: int, random_state: int, folds: int = 5
) -> float:
    """How well the segment alone ranks the churn of rows it was not fitted on: mean ROC AUC over stratified folds.

    Scaler and k-means are refitted on the other folds, whose churn rate per segment is the score. NaN: fewer than
    ``folds`` rows in a class. The mean and not the pooled AUC, because a rate that is high on the training rows
    is low on the held-out ones, which pulls the pooled value down.
    """
    if np.bincount(y, minlength=2).min() < folds:
        return float("nan")
    scores = []
    with _refits():
        for train, test in StratifiedKFold(folds, shuffle=True, random_state=random_state).split(values, y):
            scaler = StandardScaler().fit(values[train])
            kmeans = KMeans(k, n_init=n_init, random_state=random_state).fit(scaler.transform(values[train]))
            left = np.bincount(kmeans.labels_, weights=y[train], minlength=k)
            rate = left / np.maximum(np.bincount(kmeans.labels_, minlength=k), 1)
            scores.append(roc_auc_score(y[test], rate[kmeans.predict(scaler.transform(values[test]))]))
    return float(np.mean(scores))


def _generators(random_state: int, n: int) -> Iterator[np.random.Generator]:
    """One generator a repetition: the same rows for every k, and more repetitions keep the earlier ones."""
    return (np.random.default_rng([random_state, repetition]) for repetition in range(n))


def _kmeans(Z: np.ndarray, k: int, n_init: int, rng: np.random.Generator) -> KMeans:
    return KMeans(k, n_init=n_init, random_state=int(rng.integers(2**32))).fit(Z)


@contextmanager
def _refits() -> Iterator[None]:
    """One thread, and a resample with fewer distinct rows than k is no warning."""
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
