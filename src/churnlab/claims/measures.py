"""Measure claims on a table: each quantity with its 95% CI and p-value.

Claims are measured on all members. A row without a value that a claim needs is left out of that
claim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from churnlab.claims.claim import Claim, Quantity
from churnlab.claims.groups import (
    SEGMENT,
    among,
    condition,
    descriptive,
    faces_every_rival,
    outside,
    two_groups,
)
from churnlab.claims.multiplicity import LEVEL, p_value
from churnlab.data.expressions import check_expression, columns_in, evaluate
from churnlab.errors import InputError
from churnlab.evaluation.comparison import fold_test, paired_difference
from churnlab.evaluation.performance import classification_metrics
from churnlab.explore import statistics
from churnlab.formatting import counted
from churnlab.segments.shares import Interval, share_difference, share_interval

REPORTED = 3
"""Faulty claims that are reported at once: each message lists all columns."""


class Measured(NamedTuple):
    """A quantity with its 95% CI (NaN where there is nothing to measure), the members it describes
    or, without a CI, why nothing can be said about them, and the p-value of the verdict."""

    value: float
    low: float
    high: float
    about: str
    p: float = math.nan


class Estimate(NamedTuple):
    """A quantity, its CI by error, the sizes of the groups, among how many groups these were chosen
    (``Selected.choices``), and words about the members if the sizes do not say enough."""

    value: float
    interval: Interval
    sizes: tuple[int, ...]
    choices: int = 1
    about: str = ""


@dataclass(frozen=True)
class ClaimContext:
    """The data that claims are measured on.

    ``frame`` has one row per member: the columns and the ``target`` as 0 or 1. ``segments`` has
    each member's segment by segmentation, and ``made_of`` the columns behind it. ``probabilities``
    has each member's out-of-fold churn probability by model, one column per draw of the folds;
    ``folds`` each member's fold in each draw. ``resamples`` and ``seed`` are the bootstrap's.
    """

    frame: pd.DataFrame
    target: str
    segments: Mapping[str, np.ndarray] = field(default_factory=dict)
    made_of: Mapping[str, Collection[str]] = field(default_factory=dict)
    probabilities: Mapping[str, np.ndarray] = field(default_factory=dict)
    folds: np.ndarray | None = None
    resamples: int = 1000
    seed: int = 0


def check_claims(claims: Mapping[str, Claim], columns: Collection[str], *, where: str) -> None:
    """Check that a table with these columns can decide the claims; InputError names faulty keys.

    ``where`` is the key of the claims in the config.
    """
    errors = []
    for name, claim in claims.items():
        known = [*columns, SEGMENT] if claim.segments else columns
        for key, expression in claim.expressions:
            try:
                check_expression("", expression, known)
            except InputError as error:
                errors.append(f"{where}.{name}.{key}: {error}")
    if errors:
        more = [f"and {len(errors) - REPORTED} more"] if len(errors) > REPORTED else []
        raise InputError("\n".join([*errors[:REPORTED], *more]))


def measure(claim: Claim, context: ClaimContext) -> Measured:
    """Measure a claim's quantity.

    InputError: an expression does not give numbers, or a condition values other than 0 and 1.
    """
    find = _against_each if faces_every_rival(claim, context.target) else MEASURES[claim.quantity]
    found = find(claim, context)

    def interval(error: float) -> tuple[float, float]:
        return found.interval(error / found.choices)

    low, high = interval(LEVEL)
    about = found.about or _about(claim, found, known=not math.isnan(low))
    notes = [descriptive(claim, context.made_of.get(claim.segments or "", ()))]
    if found.choices > 1 and not math.isnan(low):
        notes.insert(0, f"the CI allows for a choice among {found.choices}")
    about = "; ".join([about, *filter(None, notes)])
    return Measured(found.value, low, high, about, p_value(claim, interval))


def _about(claim: Claim, found: Estimate, *, known: bool) -> str:
    """Say whom an interval is about, or why there is none."""
    sizes = found.sizes
    about = " against ".join(counted(size, "member") for size in sizes)
    if 0 in sizes:
        group = claim.against if sizes[0] and claim.against else claim.among
        where = "outside" if sizes[0] and not claim.against else "in"
        shown = str(group).replace("'", "") if isinstance(group, dict) else group or "without gaps"
        return f"no member is {where} the group {shown}, so nothing can be said"
    if not known:
        return f"nothing can be said about {about}: too few, or all alike"
    return f"over {about}" if len(sizes) == 1 else about


def _nothing(error: float) -> tuple[float, float]:
    return math.nan, math.nan


def _scaled(
    value: float,
    low: float,
    high: float,
    *,
    df: float = math.inf,
    scale: Callable[[float], float] = float,
    back: Callable[[float], float] = float,
) -> Interval:
    """Return the CI of any error from the 95% CI, which is that of a t with ``df`` on a scale.

    Each side keeps its own width (Altman and Bland, 2011, BMJ 343:d2090 and d2304).
    """
    at, below, above = scale(value), scale(value) - scale(low), scale(high) - scale(value)
    usual = stats.t.isf(LEVEL / 2, df)

    def interval(error: float) -> tuple[float, float]:
        wider = float(stats.t.isf(error / 2, df) / usual)
        return back(at - below * wider), back(at + above * wider)

    return interval


def _rows(claim: Claim, context: ClaimContext, *more: str) -> pd.DataFrame:
    """Return the rows with every value that the claim's expressions, and ``more``, need."""
    frame = context.frame
    if claim.segments is not None:
        if SEGMENT in frame:
            raise InputError(
                f"There is a column {SEGMENT} already; rename it to measure claims about segments."
            )
        frame = frame.assign(**{SEGMENT: context.segments[claim.segments].astype("float64")})
    expressions = [*more, *(expression for _, expression in claim.expressions)]
    needed = {column for expression in expressions for column in columns_in(expression)}
    return frame.dropna(subset=sorted(needed))


def _correlation(claim: Claim, context: ClaimContext) -> Estimate:
    """Measure Pearson's r with the CI of explore.statistics.correlation."""
    against = f"`{context.target}`" if claim.against is None else str(claim.against)
    frame, _, choices = among(claim, _rows(claim, context, against))
    x, y = evaluate(str(claim.of), frame), evaluate(against, frame)
    value, low, high = statistics.correlation(x, y)
    exact = math.isnan(value) or abs(value) == 1 or low == high
    interval = (
        (lambda _: (low, high))
        if exact
        else _scaled(value, low, high, scale=math.atanh, back=math.tanh)
    )
    return Estimate(value, interval, (len(frame),), choices)


def _correlation_margin(claim: Claim, context: ClaimContext) -> Estimate:
    """Measure the margin with a bootstrap CI that follows from those of all pairs.

    A pair is the absolute correlation of one column minus that of another, with its percentile CI;
    the margin is the smallest pair. The lower end is the smallest of the pairs' lower ends: all
    pairs are above it only if each is (intersection-union test; Berger, 1982, Technometrics
    24:295). The upper end is the smallest of their Bonferroni upper ends: some pair is below it.
    The extremes of all columns in each resample would be biased, the margin downwards.
    """
    assert isinstance(claim.against, str | list)
    target = f"`{context.target}`"
    frame, _, choices = among(claim, _rows(claim, context, target))
    of, against = (
        [side] if isinstance(side, str) else side or [] for side in (claim.of, claim.against)
    )
    columns = np.column_stack([evaluate(text, frame) for text in [*of, *against, target]])
    drawn = _resampled_correlations(columns, resamples=context.resamples, seed=context.seed)
    if np.isnan(drawn[0]).any():
        return Estimate(math.nan, _nothing, (len(frame),))
    drawn *= np.where(drawn[0] < 0, -1, 1)  # |r|, without a fold at 0 in the resamples
    pairs = (drawn[:, : len(of), None] - drawn[:, None, len(of) :]).reshape(len(drawn), -1)
    low, high = np.nanpercentile(pairs[1:], [2.5, 97.5], axis=0)
    usual, several = stats.norm.isf(LEVEL / 2), pairs.shape[1] > 1
    # So far out no percentile of some hundred resamples is known.
    above = np.nanstd(pairs[1:], axis=0) * usual if several else high - pairs[0]

    def interval(error: float) -> tuple[float, float]:
        each, all_of_them = stats.norm.isf([error / 2, error / 2 / pairs.shape[1]]) / usual
        lower = pairs[0] - (pairs[0] - low) * each
        upper = pairs[0] + above * all_of_them
        return float(lower.min()), float(upper.min())

    return Estimate(float(pairs[0].min()), interval, (len(frame),), choices)


def _resampled_correlations(columns: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """Correlate each column with the last one, on all rows and then on resamples.

    Shape: 1 + resamples x columns - 1.
    """
    n, rng = len(columns), np.random.default_rng(seed)
    if n == 0:
        return np.full((1 + resamples, columns.shape[1] - 1), math.nan)
    spread = columns.std(axis=0)
    z = (columns - columns.mean(axis=0)) / np.where(spread > 0, spread, math.nan)
    moments = np.hstack([z, z**2, z[:, :-1] * z[:, -1:]])
    weights = (np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(resamples))
    means = np.array([moments.mean(axis=0), *((weight @ moments) / n for weight in weights)])
    first, second, product = np.split(means, [z.shape[1], 2 * z.shape[1]], axis=1)
    variance = second - first**2
    covariance = product - first[:, :-1] * first[:, -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        return covariance / np.sqrt(variance[:, :-1] * variance[:, -1:])


def _risk_ratio(claim: Claim, context: ClaimContext) -> Estimate:
    """Measure the ratio with the CI of explore.statistics.risk_ratio."""
    of = f"`{context.target}`" if claim.of is None else str(claim.of)
    frame, first, choices = two_groups(claim, _rows(claim, context, of))
    hits = condition(of, frame)
    groups = tuple((int(hits[side].sum()), int(side.sum())) for side in (first, ~first))
    found = statistics.risk_ratio(first, hits.astype(int))

    def interval(error: float) -> tuple[float, float]:
        return statistics.ratio_interval(*groups[0], *groups[1], confidence=1 - error)

    known = not math.isnan(found["low"])
    sizes = groups[0][1], groups[1][1]
    return Estimate(found["risk_ratio"], interval if known else _nothing, sizes, choices)


def _mean_difference(claim: Claim, context: ClaimContext) -> Estimate:
    """Measure the difference with Welch's CI; of two shares with Newcombe's hybrid score CI."""
    frame, first, choices = two_groups(claim, _rows(claim, context))
    values = evaluate(str(claim.of), frame)
    sizes = int(first.sum()), int((~first).sum())
    sides = values[first], values[~first]
    if not all(sizes):
        return Estimate(math.nan, _nothing, sizes)
    difference = float(sides[0].mean() - sides[1].mean())
    if np.isin(values, (0, 1)).all():
        return Estimate(difference, share_difference(*sides), sizes, choices)
    if min(sizes) < 2 or not any(np.ptp(side) for side in sides):
        return Estimate(difference, _nothing, sizes)
    welch = stats.ttest_ind(*sides, equal_var=False)
    return Estimate(
        difference, lambda error: tuple(welch.confidence_interval(1 - error)), sizes, choices
    )


def _mean(claim: Claim, context: ClaimContext) -> Estimate:
    """Measure the mean with Student's CI, or the share with Wilson's."""
    frame, _, choices = among(claim, _rows(claim, context))
    values = evaluate(str(claim.of), frame)
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    if n and np.isin(values, (0, 1)).all():
        return Estimate(mean, share_interval(values), (n,), choices)
    if n < 2:
        return Estimate(mean, _nothing, (n,))
    half = float(stats.t.isf(LEVEL / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))
    return Estimate(mean, _scaled(mean, mean - half, mean + half, df=n - 1), (n,), choices)


def _against_each(claim: Claim, context: ClaimContext) -> Estimate:
    """Measure a group against the strongest of all other segments.

    As for a margin of correlations: the group is above all only if it is above each, so the CI's
    end on the claimed side is that of the pair that is worst for the claim; the other end is the
    Bonferroni end of the pair that is.
    """
    measure_pair = MEASURES[claim.quantity]
    of = [] if claim.of is not None else [f"`{context.target}`"]
    others = outside(claim, _rows(claim, context, *of))
    pairs = [
        measure_pair(replace(claim, against=f"{SEGMENT} == {number:g}"), context)
        for number in np.unique(others[SEGMENT])
    ]
    if not pairs:
        return MEASURES[claim.quantity](claim, context)
    worst = min if claim.direction == "above" else max
    strongest = worst(pairs, key=lambda pair: pair.value)

    def interval(error: float) -> tuple[float, float]:
        each = [pair.interval(error) for pair in pairs]
        one_of_them = [pair.interval(error / len(pairs)) for pair in pairs]
        ends = each, one_of_them
        lows, highs = ends if claim.direction == "above" else ends[::-1]
        return worst(low for low, _ in lows), worst(high for _, high in highs)

    return strongest._replace(interval=interval)


def _model_difference(claim: Claim, context: ClaimContext) -> Estimate:
    """Measure the difference with the hull of two CIs; churn is predicted above .5.

    The paired bootstrap over the members takes the trained models as they are; the test of Nadeau
    and Bengio over the folds also covers training on other members. Both models are compared on
    the draws of folds that both have.
    """
    y = context.frame[context.target].to_numpy()
    draws = [context.probabilities[str(name)] for name in (claim.of, claim.against)]
    draws = [each.reshape(len(y), -1) for each in draws]
    shared = min(each.shape[1] for each in draws)
    of, against = (each[:, :shared] for each in draws)
    assert claim.metric is not None
    found = paired_difference(
        y,
        of,
        against,
        metric=claim.metric,
        thresholds=(0.5, 0.5),
        resamples=context.resamples,
        seed=context.seed,
    )
    intervals = [_scaled(*found)]
    about = f"{claim.metric} out of fold, over {counted(len(y), 'member')}"
    if context.folds is not None:
        folds = context.folds.reshape(len(y), -1)[:, :shared]
        scores = [_fold_scores(y, each, folds, metric=claim.metric) for each in (of, against)]
        per_draw = int(folds.max()) + 1
        test = fold_test(*scores, ratio=1 / (per_draw - 1))
        intervals.append(_scaled(test.delta, test.ci_low, test.ci_high, df=test.folds - 1))
        about += f" and {counted(test.folds, 'fold')}"

    def hull(error: float) -> tuple[float, float]:
        lows, highs = zip(*(interval(error) for interval in intervals), strict=True)
        return min(lows), max(highs)

    return Estimate(found.delta, hull, (len(y),), about=about)


def _fold_scores(
    y: np.ndarray, probability: np.ndarray, folds: np.ndarray, *, metric: str
) -> np.ndarray:
    """Return the metric of each fold of each draw."""
    return np.array(
        [
            classification_metrics(y[rows], draw[rows], threshold=0.5)[metric]
            for draw, fold in zip(probability.T, folds.T, strict=True)
            for rows in (fold == number for number in range(int(fold.max()) + 1))
        ]
    )


MEASURES: Mapping[Quantity, Callable[[Claim, ClaimContext], Estimate]] = {
    "correlation": _correlation,
    "correlation_margin": _correlation_margin,
    "risk_ratio": _risk_ratio,
    "mean_difference": _mean_difference,
    "mean": _mean,
    "model_difference": _model_difference,
}
