"""Whether two models differ, which of several is enough, and which is too good to be true."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t as student

from churnlab.formatting import counted
from churnlab.models.evaluation import percentiles
from churnlab.models.metric_names import LOWER_IS_BETTER
from churnlab.models.metrics import group_members, one_metric

ALIKE = 1.05
"""Models up to this many times as large as the smallest are as simple: a parameter with more
decimals is not more."""

SURE = 0.05
"""A p-value below it is a difference."""


class Difference(NamedTuple):
    """The first model's metric minus the second's, with its 95% interval."""

    delta: float
    ci_low: float
    ci_high: float

    @property
    def shown(self) -> bool:
        """Whether the members show a difference at all: the interval does not hold 0."""
        return self.ci_low > 0 or self.ci_high < 0


class FoldTest(NamedTuple):
    """What the folds say of a difference: its mean with 95% interval, the p-value, the number of
    folds."""

    delta: float
    ci_low: float
    ci_high: float
    p: float
    folds: int


def paired_difference(
    y: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    metric: str,
    thresholds: tuple[float, float],
    resamples: int = 1000,
    seed: int,
) -> Difference:
    """The metric of ``first`` minus that of ``second`` on the same members, with its 95% paired
    bootstrap interval.

    Both are probabilities of shape (members,), or (members, repeats), where the metric is the mean
    over the repeats: how good one model is, not all of them together. Every resample of the members
    scores both sides, so that what the members have in common cancels out; a resample without both
    outcomes has no ranking and is left out there. The resamples of an ece are shifted back, as in
    ``bootstrap_intervals``.
    """
    sides = [
        [
            _scorer(y, repeat, threshold=threshold, metric=metric)
            for repeat in np.atleast_2d(probability.T)
        ]
        for probability, threshold in zip((first, second), thresholds, strict=True)
    ]
    said = _mean_scores(sides, np.ones((1, len(y))))
    rng = np.random.default_rng(seed)
    chunk = max(1, 250_000 // len(y))
    drawn = (
        _draw(rng, len(y), min(chunk, resamples - done)) for done in range(0, resamples, chunk)
    )
    values = np.hstack([_mean_scores(sides, counts) for counts in drawn])
    if metric == "ece":
        values -= values.mean(axis=1, keepdims=True) - said
    return Difference(float(said[0, 0] - said[1, 0]), *percentiles(values[0] - values[1]))


Scorer = Callable[[np.ndarray], np.ndarray]
"""From how often each member is drawn into each resample (resample, member) to a metric of each
resample."""


def _scorer(y: np.ndarray, probability: np.ndarray, *, threshold: float, metric: str) -> Scorer:
    groups = group_members(y, probability, threshold)
    order = np.argsort(-probability, kind="stable")
    left = y[order] == 1
    first = np.flatnonzero(
        np.diff(-probability[order], prepend=-np.inf)
    )  # of the members with one probability

    def score(counts: np.ndarray) -> np.ndarray:
        counts = counts[:, order]
        parts = [counts * left, counts * ~left]
        if len(first) < len(y):
            parts = [np.add.reduceat(part, first, axis=1) for part in parts]
        return one_metric(groups, *parts, metric=metric)

    return score


def _mean_scores(sides: Sequence[Sequence[Scorer]], counts: np.ndarray) -> np.ndarray:
    """The mean over a side's repeats: (side, resample)."""
    return np.array([np.mean([score(counts) for score in repeats], axis=0) for repeats in sides])


def _draw(rng: np.random.Generator, members: int, resamples: int) -> np.ndarray:
    """How often each member is drawn into each resample: (resample, member)."""
    drawn = rng.integers(0, members, (resamples, members)) + members * np.arange(resamples)[:, None]
    return (
        np.bincount(drawn.ravel(), minlength=resamples * members)
        .reshape(resamples, members)
        .astype(np.float64)
    )


def by_repeat(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold predictions as y (members) and probabilities (members, repeats), in the order of
    the rows."""
    wide = predictions.pivot(index="row", columns="repeat", values="probability")
    return predictions.groupby("row")["y"].first().to_numpy(dtype=int), wide.to_numpy()


def fold_error(values: np.ndarray, *, ratio: float) -> float:
    """Standard error of the mean of values measured on folds that share their training members.

    Variance s^2 (1/J + n_test / n_train), with s^2 the variance over the J folds (n - 1) and
    ``ratio`` the last quotient: Nadeau and Bengio, Inference for the Generalization Error, Machine
    Learning 52, 2003; for repeated folds Bouckaert and Frank, PAKDD 2004.
    """
    return float(values.std(ddof=1) * math.sqrt(1 / len(values) + ratio))


def fold_test(first: np.ndarray, second: np.ndarray, *, ratio: float) -> FoldTest:
    """The corrected resampled t test of a metric of two models on the same J folds, with J - 1
    degrees of freedom.

    ``ratio`` is members of a fold over members trained on. The error is ``fold_error``'s.
    """
    differences = first - second
    mean, error, free = (
        float(differences.mean()),
        fold_error(differences, ratio=ratio),
        len(differences) - 1,
    )
    margin = float(student.ppf(0.975, free)) * error
    p = float(2 * student.sf(abs(mean) / error, free)) if error > 0 else float(mean == 0)
    return FoldTest(mean, mean - margin, mean + margin, p, len(differences))


def winner(found: Difference, *, metric: str) -> int | None:
    """Which of two models is better in this metric: 0, 1, or None where the members show no
    difference."""
    if not found.shown:
        return None
    return int((found.delta > 0) == (metric in LOWER_IS_BETTER))


def verdict(
    found: Difference, folds: FoldTest | None, *, metric: str, names: tuple[str, str], members: int
) -> tuple[str, str]:
    """A difference in two sentences: what the members show, which decides, and what the folds say
    to it.

    The interval over the members takes both models as they are; the folds also ask whether the two
    would differ when trained on other members. ``folds`` is None where the two have not the same
    folds.
    """
    who = winner(found, metric=metric)
    if who is None:
        said = (
            f"No difference between {names[0]} and {names[1]} that these "
            f"{counted(members, 'member')} can show: the first minus the second is "
            f"{_interval(found, found)} in {metric}."
        )
    else:
        said = f"{names[who]} is better by {_interval(found, found)} in {metric} than {names[1 - who]}."
    if folds is None:
        return said, (
            "Their folds are not the same: the members are, so that the interval stands, but fold "
            "by fold they cannot be compared."
        )
    p = f"p = {folds.p:.4f}" if folds.p >= 0.0001 else "p < 0.0001"
    told = f"over {counted(folds.folds, 'fold')}: {_interval(folds, found)}, {p} (Nadeau-Bengio)"
    if (folds.p < SURE and folds.delta * found.delta > 0) == found.shown:
        return said, f"The same {told}."
    if found.shown:
        return (
            said,
            f"Not as sure {told}: the same two, trained on other members, might not differ.",
        )
    return said, f"But it is steady {told}: more members might show it."


def _interval(told: Difference | FoldTest, found: Difference) -> str:
    """A difference with its interval; where the members show one it is without a sign: the words
    say who is better."""
    turned = -1 if found.shown and found.delta < 0 else 1
    form = "{:.4f} (95% {:.4f} to {:.4f})" if found.shown else "{:+.4f} (95% {:+.4f} to {:+.4f})"
    return form.format(turned * told.delta, *sorted((turned * told.ci_low, turned * told.ci_high)))


def as_good(
    best: np.ndarray, other: np.ndarray, *, paired: bool, ratio: float, lower: bool
) -> bool:
    """Whether a model's mean over the folds is within one standard error of the best one's.

    The error is that of the differences fold by fold, in which what the folds have in common
    cancels out; where the folds are not the same (``paired`` is false), the best one's own, as in
    the book that ``simplest`` names. ``lower``: the metric is a loss. ``ratio`` as in
    ``fold_error``.
    """
    worse = float(other.mean() - best.mean()) * (1 if lower else -1)
    return worse <= fold_error(other - best if paired else best, ratio=ratio)


def simplest(sizes: Sequence[float], enough: Callable[[int], bool]) -> int:
    """Position of the simplest model that is good enough; the models come in order, the best
    (always enough) first.

    That is the 1-SE rule of Breiman, Friedman, Olshen and Stone, Classification and Regression
    Trees, 1984, section 3.4.3, when ``enough`` says who is within one standard error of the best.
    ``sizes`` are in bytes, inf where unknown; of models as large as the smallest (``ALIKE``) it is
    the better one.
    """
    smallest = next(
        place
        for place in sorted(range(len(sizes)), key=lambda place: sizes[place])
        if enough(place)
    )
    return next(
        place
        for place, size in enumerate(sizes)
        if size <= ALIKE * sizes[smallest] and enough(place)
    )


def too_good(scores: Mapping[str, float], ceiling: Mapping[str, float | None]) -> list[str]:
    """What is beyond the ceiling of what is plausible, in words: for a loss below it, for the
    others above it.

    ``ceiling`` maps a score (``cv_roc_auc``, ``test_f1``) to its limit; null is none.
    """
    found = []
    for name, limit in ceiling.items():
        lower = name.partition("_")[2] in LOWER_IS_BETTER
        if (
            limit is not None
            and name in scores
            and (scores[name] < limit if lower else scores[name] > limit)
        ):
            found.append(f"{name} {scores[name]:.4f} is {'below' if lower else 'above'} {limit:g}")
    return found


def differing_keys(first: Mapping[str, Any], second: Mapping[str, Any]) -> pd.DataFrame:
    """The keys in which two configs differ: key (dotted), A, B; nan where a config has no such key."""
    flat = _flat(first), _flat(second)
    keys = [
        key for key in dict.fromkeys([*flat[0], *flat[1]]) if flat[0].get(key) != flat[1].get(key)
    ]
    rows = [(key, *(config.get(key, math.nan) for config in flat)) for key in keys]
    return pd.DataFrame(rows, columns=["key", "A", "B"])


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Every value by its dotted key, as it would be typed."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = _typed(value)
    return flat


def _typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
