"""Measure how two models differ, choose the simplest good one, flag implausible scores."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t as student

from churnlab.evaluation.calibration_error import CalibrationError, calibration_error
from churnlab.evaluation.metric_names import LOWER_IS_BETTER, METRICS
from churnlab.evaluation.metrics import group_members, one_metric, will_churn
from churnlab.evaluation.performance import percentiles
from churnlab.models.decision import ContactEconomics

ALIKE = 1.05
"""Models up to this many times the smallest size count as equally simple: more decimals of a
parameter are no more complexity."""


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
    thresholds: tuple[float | np.ndarray, float | np.ndarray],
    resamples: int = 1000,
    seed: int,
    groups: np.ndarray | None = None,
    costs: ContactEconomics | None = None,
) -> Difference:
    """Return the metric of ``first`` minus that of ``second``, with its 95% paired bootstrap CI.

    Both are probabilities of shape (members,), or (members, draws), where the metric is averaged
    over the draws of the folds: it rates one model, not their ensemble. A threshold is a number, or
    an array of the same shape: that of each prediction. Each resample of the members scores both
    sides, so that what the members have in common cancels out. Ranking metrics skip resamples
    without both outcomes. ``groups`` numbers the members from 0 if some have several rows, which
    are then drawn together; ``costs`` are those of a contact. For an ece see ``_error_difference``.
    """
    if METRICS[metric].resampling_bias:
        return _error_difference(y, first, second, seed=seed)
    sides = [
        _scorers(y, probability, threshold, metric=metric, costs=costs)
        for probability, threshold in zip((first, second), thresholds, strict=True)
    ]
    observed = _mean_scores(sides, np.ones((1, len(y))))
    rng = np.random.default_rng(seed)
    chunk = max(1, 250_000 // len(y))
    size = len(y) if groups is None else int(groups.max()) + 1
    drawn = (_draw(rng, size, min(chunk, resamples - done)) for done in range(0, resamples, chunk))
    if groups is not None:
        drawn = (counts[:, groups] for counts in drawn)
    values = np.hstack([_mean_scores(sides, counts) for counts in drawn])
    return Difference(float(observed[0, 0] - observed[1, 0]), *percentiles(values[0] - values[1]))


def _error_difference(
    y: np.ndarray, first: np.ndarray, second: np.ndarray, *, seed: int
) -> Difference:
    """Return the difference of two calibration errors, its CI from the ends of their own CIs.

    Pairing does not help here: each error has its own noise floor, which does not cancel out. The
    CI covers the difference in at least 95%, of models about equal in nearly all tables.
    """
    if np.array_equal(first, second):
        return Difference(0.0, 0.0, 0.0)
    sides = [
        np.mean(
            [calibration_error(y, draw, seed=seed) for draw in np.atleast_2d(probability.T)],
            axis=0,
        )
        for probability in (first, second)
    ]
    one, other = (CalibrationError(*map(float, side)) for side in sides)
    return Difference(one.ece - other.ece, one.low - other.high, one.high - other.low)


Scorer = Callable[[np.ndarray], np.ndarray]
"""Maps counts of draws (resample, member) to a metric (resample,)."""


def _scorers(
    y: np.ndarray,
    probability: np.ndarray,
    threshold: float | np.ndarray,
    *,
    metric: str,
    costs: ContactEconomics | None,
) -> list[Scorer]:
    """Return, for each draw, the function that scores resamples of these members."""
    if METRICS[metric].thresholded:
        # all that counts, and thresholds that differ by fold leave no common order of the members
        probability = will_churn(probability, threshold).astype(np.float64)
    return [_scorer(y, draw, metric=metric, costs=costs) for draw in np.atleast_2d(probability.T)]


def _scorer(
    y: np.ndarray, probability: np.ndarray, *, metric: str, costs: ContactEconomics | None
) -> Scorer:
    """Return the function that scores resamples of these members."""
    groups = group_members(y, probability, 0.5, costs=costs)
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
    """Average the metric over each side's draws: (side, resample)."""
    return np.array([np.mean([score(counts) for score in draws], axis=0) for draws in sides])


def _draw(rng: np.random.Generator, members: int, resamples: int) -> np.ndarray:
    """Draw resamples with replacement: how often each member is in each, (resample, member)."""
    drawn = rng.integers(0, members, (resamples, members)) + members * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * members)
    return counts.reshape(resamples, members).astype(np.float64)


def by_draw(predictions: pd.DataFrame, column: str = "probability") -> np.ndarray:
    """Return a column of out-of-fold predictions as (members, draws), the members sorted by row."""
    return predictions.pivot(index="row", columns="repeat", values=column).to_numpy()


def shared_draws(
    first: pd.DataFrame, second: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Return the out-of-fold predictions of the draws in which both have the same folds.

    A draw is known by its content (the rows of each fold), whatever its number. Both tables come
    back with equal rows, folds and repeats, in the same order; None if no draw is shared.
    """
    sides = [
        {_draw_key(draw): draw for _, draw in table.sort_values("row").groupby("repeat")}
        for table in (first, second)
    ]
    common = [key for key in sides[0] if key in sides[1]]
    if not common:
        return None
    tables = [
        pd.concat(
            [
                side[key].assign(fold=sides[0][key]["fold"].to_numpy(), repeat=number)
                for number, key in enumerate(common)
            ],
            ignore_index=True,
        )
        for side in sides
    ]
    return tables[0], tables[1]


def _draw_key(draw: pd.DataFrame) -> tuple[bytes, bytes]:
    """Return what two draws of the same folds have in common, however the folds are numbered."""
    return draw["row"].to_numpy(np.int64).tobytes(), pd.factorize(draw["fold"])[0].tobytes()


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
    p = float(2 * student.sf(abs(mean) / error, free)) if error > 0 else float(mean == 0)
    return FoldTest(mean, *fold_interval(differences, ratio=ratio), p, len(differences))


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


def fold_interval(values: np.ndarray, *, ratio: float) -> tuple[float, float]:
    """Return the 95% CI of a mean over folds, from ``fold_error`` (t, J - 1 df)."""
    margin = float(student.ppf(0.975, len(values) - 1)) * fold_error(values, ratio=ratio)
    return float(values.mean()) - margin, float(values.mean()) + margin


FEW = 800
"""Ceilings are stated for so many members or more; of fewer, a score may be beyond by luck."""


class Implausible(NamedTuple):
    """A score beyond its ceiling, in words, and whether that is no luck: with FEW members or more
    it is none, with fewer if its 95% CI is beyond the ceiling, too."""

    text: str
    sure: bool


def implausible(
    scores: Mapping[str, float], ceiling: Mapping[str, float | None]
) -> dict[str, Implausible]:
    """Return the scores beyond what is plausible: losses below their limit, others above it.

    ``ceiling`` maps a score (``cv_roc_auc``, ``test_f1``) to its limit; None is no limit. The ends
    of a score's 95% CI are among the ``scores`` (``test_f1_low``, ``test_f1_high``), and how many
    members it is of (``test_members``, ``cv_members``).

    >>> implausible({"cv_roc_auc": 0.999, "test_f1": 0.8}, {"cv_roc_auc": 0.995, "test_f1": 0.97})
    {'cv_roc_auc': Implausible(text='cv_roc_auc 0.9990 is above 0.995', sure=True)}
    >>> few = {"test_f1": 0.98, "test_f1_low": 0.9, "test_f1_high": 1, "test_members": 100}
    >>> implausible(few, {"test_f1": 0.97})["test_f1"]
    Implausible(text='test_f1 0.9800 (95% CI 0.9000 to 1.0000) is above 0.97', sure=False)
    """
    found = {}
    for name, limit in ceiling.items():
        if limit is None or name not in scores:
            continue
        lower = name.partition("_")[2] in LOWER_IS_BETTER
        value, low, high = scores[name], *(scores.get(f"{name}_{end}") for end in ("low", "high"))
        if value >= limit if lower else value <= limit:
            continue
        shown, worst = f"{name} {value:.4f}", value
        if low is not None and high is not None:
            shown, worst = f"{shown} (95% CI {low:.4f} to {high:.4f})", high if lower else low
        text = f"{shown} is {'below' if lower else 'above'} {limit:g}"
        many = scores.get(f"{name.partition('_')[0]}_members", FEW) >= FEW
        found[name] = Implausible(text, many or (worst < limit if lower else worst > limit))
    return found


def too_good(scores: Mapping[str, float], ceiling: Mapping[str, float | None]) -> list[str]:
    """Describe the scores that are ``implausible`` beyond chance."""
    return [found.text for found in implausible(scores, ceiling).values() if found.sure]


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
