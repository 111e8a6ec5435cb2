"""Test whether two models differ, choose the simplest good one, flag implausible scores."""

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
from churnlab.models.metric_names import LABELS, LOWER_IS_BETTER, METRICS
from churnlab.models.metrics import group_members, one_metric

ALIKE = 1.05
"""Models up to this many times the smallest size count as equally simple: more decimals of a
parameter are no more complexity."""

ALPHA = 0.05
"""The fold test calls a difference significant below this p-value."""


class Difference(NamedTuple):
    """The first model's metric minus the second's, with its 95% CI."""

    delta: float
    ci_low: float
    ci_high: float

    @property
    def significant(self) -> bool:
        """Whether the CI excludes 0."""
        return self.ci_low > 0 or self.ci_high < 0


class FoldTest(NamedTuple):
    """The mean difference over the folds with its 95% CI, the p-value, the number of folds."""

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
    """Return the metric of ``first`` minus that of ``second``, with its 95% paired bootstrap CI.

    Both are probabilities of shape (members,), or (members, repeats), where the metric is averaged
    over the repeats: it rates one model, not their ensemble. Each resample of the members scores
    both sides, so that what the members have in common cancels out. Ranking metrics skip resamples
    without both outcomes; those of an ece are shifted as in ``bootstrap_intervals``.
    """
    sides = [
        [
            _scorer(y, repeat, threshold=threshold, metric=metric)
            for repeat in np.atleast_2d(probability.T)
        ]
        for probability, threshold in zip((first, second), thresholds, strict=True)
    ]
    observed = _mean_scores(sides, np.ones((1, len(y))))
    rng = np.random.default_rng(seed)
    chunk = max(1, 250_000 // len(y))
    drawn = (
        _draw(rng, len(y), min(chunk, resamples - done)) for done in range(0, resamples, chunk)
    )
    values = np.hstack([_mean_scores(sides, counts) for counts in drawn])
    if METRICS[metric].resampling_bias:
        values -= values.mean(axis=1, keepdims=True) - observed
    return Difference(float(observed[0, 0] - observed[1, 0]), *percentiles(values[0] - values[1]))


Scorer = Callable[[np.ndarray], np.ndarray]
"""Maps counts of draws (resample, member) to a metric (resample,)."""


def _scorer(y: np.ndarray, probability: np.ndarray, *, threshold: float, metric: str) -> Scorer:
    """Return the function that scores resamples of these members."""
    groups = group_members(y, probability, threshold)
    order = np.argsort(-probability, kind="stable")
    left = y[order] == 1
    # The first member of each group of equal probability.
    first = np.flatnonzero(np.diff(-probability[order], prepend=-np.inf))

    def score(counts: np.ndarray) -> np.ndarray:
        counts = counts[:, order]
        parts = [counts * left, counts * ~left]
        if len(first) < len(y):
            parts = [np.add.reduceat(part, first, axis=1) for part in parts]
        return one_metric(groups, *parts, metric=metric)

    return score


def _mean_scores(sides: Sequence[Sequence[Scorer]], counts: np.ndarray) -> np.ndarray:
    """Average the metric over each side's repeats: (side, resample)."""
    return np.array([np.mean([score(counts) for score in repeats], axis=0) for repeats in sides])


def _draw(rng: np.random.Generator, members: int, resamples: int) -> np.ndarray:
    """Draw resamples with replacement: how often each member is in each, (resample, member)."""
    drawn = rng.integers(0, members, (resamples, members)) + members * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * members)
    return counts.reshape(resamples, members).astype(np.float64)


def by_repeat(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return y (members,) and probabilities (members, repeats) of out-of-fold predictions, sorted
    by row."""
    wide = predictions.pivot(index="row", columns="repeat", values="probability")
    return predictions.groupby("row")["y"].first().to_numpy(dtype=int), wide.to_numpy()


def fold_error(values: np.ndarray, *, ratio: float) -> float:
    """Return the standard error of a mean over folds whose training members overlap.

    The variance is s^2 (1/J + n_test / n_train), with s^2 the variance over the J folds (n - 1) and
    ``ratio`` the last quotient (Nadeau and Bengio, 2003, Machine Learning 52:239; for repeated
    folds Bouckaert and Frank, 2004, PAKDD).
    """
    return float(values.std(ddof=1) * math.sqrt(1 / len(values) + ratio))


def fold_test(first: np.ndarray, second: np.ndarray, *, ratio: float) -> FoldTest:
    """Compare two models' metric on the same J folds by the corrected resampled t test (J - 1 df).

    ``ratio`` is the members of a fold over the members trained on; the error is ``fold_error``'s.
    """
    differences = first - second
    mean, error = float(differences.mean()), fold_error(differences, ratio=ratio)
    free = len(differences) - 1
    margin = float(student.ppf(0.975, free)) * error
    p = float(2 * student.sf(abs(mean) / error, free)) if error > 0 else float(mean == 0)
    return FoldTest(mean, mean - margin, mean + margin, p, len(differences))


def winner(found: Difference, *, metric: str) -> int | None:
    """Return which of two models is better in this metric: 0, 1, or None if neither.

    >>> winner(Difference(-0.02, -0.03, -0.01), metric="log_loss")
    0
    """
    if not found.significant:
        return None
    return int((found.delta > 0) == (metric in LOWER_IS_BETTER))


def verdict(
    found: Difference, folds: FoldTest | None, *, metric: str, names: tuple[str, str], members: int
) -> tuple[str, str]:
    """Describe a difference in two sentences: what the members show, and whether the folds agree.

    The CI over the members, which decides, takes both models as they are; the fold test also covers
    training on other members. ``folds`` is None where the two were trained on different folds.
    """
    better, label = winner(found, metric=metric), LABELS[metric]
    sign = 0 if better is None else int(np.sign(found.delta))
    if better is None:
        sentence = (
            f"No significant difference between {names[0]} and {names[1]} on these "
            f"{counted(members, 'member')}: the first minus the second is "
            f"{format_difference(found)} in {label}."
        )
    else:
        sentence = (
            f"{names[better]} is better than {names[1 - better]} by "
            f"{format_difference(found, sign)} in {label}."
        )
    if folds is None:
        return sentence, (
            "The two runs have different folds, so there is no fold-by-fold test; the CI over the "
            "members is valid all the same."
        )
    p = f"p = {folds.p:.4f}" if folds.p >= 0.0001 else "p < 0.0001"
    result = (
        f"over {counted(folds.folds, 'fold')}: {format_difference(folds, sign)}, {p} "
        "(Nadeau-Bengio)"
    )
    if (folds.p < ALPHA and folds.delta * found.delta > 0) == found.significant:
        return sentence, f"The fold test agrees {result}."
    if found.significant:
        return sentence, (
            f"The fold test does not confirm this {result}. Trained on other members, the two "
            "might not differ."
        )
    return sentence, f"The fold test does find a difference {result}. More members might show it."


def format_difference(value: Difference | FoldTest, sign: int = 0) -> str:
    """Format a difference with its CI, in the metric's own sign or, where a sentence names the
    better model, times ``sign``.

    >>> loss = Difference(-0.02, -0.03, -0.01)
    >>> format_difference(loss), format_difference(loss, -1)
    ('-0.0200 (95% CI -0.0300 to -0.0100)', '0.0200 (95% CI 0.0100 to 0.0300)')
    """
    number = "{:.4f}" if sign else "{:+.4f}"
    delta, *ends = ((sign or 1) * each for each in (value.delta, value.ci_low, value.ci_high))
    return f"{number} (95% CI {number} to {number})".format(delta, *sorted(ends))


def within_one_standard_error(
    best: np.ndarray, other: np.ndarray, *, paired: bool, ratio: float, lower: bool
) -> bool:
    """Return whether a model's mean over the folds is within one standard error of the best one's.

    The error is that of the fold-by-fold differences, in which what the folds have in common
    cancels out; if the folds differ (``paired`` is false), it is the best model's own, as in the
    book that ``simplest`` cites. ``lower``: the metric is a loss. ``ratio`` as in ``fold_error``.
    """
    worse = float(other.mean() - best.mean()) * (1 if lower else -1)
    return worse <= fold_error(other - best if paired else best, ratio=ratio)


def simplest(sizes: Sequence[float], enough: Callable[[int], bool]) -> int:
    """Return the position of the simplest model that is good enough; the best, which always is,
    comes first.

    This is the 1-SE rule (Breiman, Friedman, Olshen and Stone, 1984, Classification and Regression
    Trees, 3.4.3) if ``enough`` tests for one standard error. ``sizes`` are in bytes, inf where
    unknown; of models about as small as the smallest (``ALIKE``) the better one is chosen.

    >>> simplest([9000, 400, 410], lambda place: place != 1)
    2
    """
    by_size = sorted(range(len(sizes)), key=lambda place: sizes[place])
    smallest = next(place for place in by_size if enough(place))
    return next(
        place
        for place, size in enumerate(sizes)
        if size <= ALIKE * sizes[smallest] and enough(place)
    )


def too_good(scores: Mapping[str, float], ceiling: Mapping[str, float | None]) -> list[str]:
    """Describe the scores beyond what is plausible: losses below their limit, others above it.

    ``ceiling`` maps a score (``cv_roc_auc``, ``test_f1``) to its limit; None is no limit.

    >>> too_good({"cv_roc_auc": 0.999, "test_f1": 0.8}, {"cv_roc_auc": 0.995, "test_f1": 0.97})
    ['cv_roc_auc 0.9990 is above 0.995']
    """
    found = []
    for name, limit in ceiling.items():
        if limit is None or name not in scores:
            continue
        lower = name.partition("_")[2] in LOWER_IS_BETTER
        if scores[name] < limit if lower else scores[name] > limit:
            found.append(f"{name} {scores[name]:.4f} is {'below' if lower else 'above'} {limit:g}")
    return found


def differing_keys(first: Mapping[str, Any], second: Mapping[str, Any]) -> pd.DataFrame:
    """List the keys in which two configs differ: key (dotted), A, B; nan where it is missing."""
    flat = _flat(first), _flat(second)
    keys = [
        key for key in dict.fromkeys([*flat[0], *flat[1]]) if flat[0].get(key) != flat[1].get(key)
    ]
    rows = [(key, *(config.get(key, math.nan) for config in flat)) for key in keys]
    return pd.DataFrame(rows, columns=["key", "A", "B"])


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return every value under its dotted key, as a user would type it."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = (
                value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            )
    return flat
