"""Measure claims on a table: each quantity with its 95% CI.

Claims are measured on all members, because they choose nothing. A row without a value that a claim
needs is left out of that claim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from churnlab.claims.claim import Claim, Group, Quantity
from churnlab.data.expressions import check_expression, columns_in, evaluate
from churnlab.errors import InputError
from churnlab.explore import statistics
from churnlab.formatting import counted
from churnlab.models.comparison import paired_difference

SEGMENT = "segment"
"""The extra column that a claim with a segmentation may use."""

REPORTED = 3
"""Faulty claims that are reported at once: each message lists all columns."""

Interval = tuple[float, float, float]
"""A value and the ends of its 95% CI."""

NOTHING: Interval = (math.nan, math.nan, math.nan)

EXTREMES: Mapping[str, Callable[[pd.Series], object]] = {
    "highest": lambda means: means == means.max(),
    "lowest": lambda means: means == means.min(),
}
"""How each word chooses among the segments' means."""


class Measured(NamedTuple):
    """A quantity with its 95% CI (NaN where there is nothing to measure), and the members it
    describes or, without a CI, why nothing can be said about them."""

    value: float
    low: float
    high: float
    about: str


@dataclass(frozen=True)
class ClaimContext:
    """The data that claims are measured on.

    ``frame`` has one row per member: the columns and the ``target`` as 0 or 1. ``segments`` has
    each member's segment by segmentation, ``probabilities`` each member's out-of-fold churn
    probability by model. ``resamples`` and ``seed`` are those of the bootstrap.
    """

    frame: pd.DataFrame
    target: str
    segments: Mapping[str, np.ndarray] = field(default_factory=dict)
    probabilities: Mapping[str, np.ndarray] = field(default_factory=dict)
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
    return MEASURES[claim.quantity](claim, context)


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


def _condition(expression: str, frame: pd.DataFrame) -> np.ndarray:
    """Return a mask of the rows that meet a condition."""
    values = evaluate(expression, frame)
    if not np.isin(values, (0, 1)).all():
        raise InputError(
            f"{expression} is not a condition: it has values other than 0 and 1. Compare it, as in "
            "x > 0."
        )
    return values == 1


def _members(group: Group, frame: pd.DataFrame) -> np.ndarray:
    """Return a mask of the members of a group; segments are compared within this frame.

    A segment is chosen by the same members that it is then measured on: if the claim is about the
    value it is chosen by, and another segment is close, the CI is too narrow.
    """
    if isinstance(group, str):
        return _condition(group, frame)
    ((which, expression),) = group.items()
    values = pd.Series(evaluate(expression, frame), index=frame.index)
    means = values.groupby(frame[SEGMENT]).mean()
    if which in EXTREMES:
        chosen = means.index[np.asarray(EXTREMES[which](means))]
    else:
        chosen = means.index[means > values.mean() if which == "above" else means < values.mean()]
    return frame[SEGMENT].isin(chosen).to_numpy()


def _among(claim: Claim, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the claim's group; all rows if it names none."""
    return frame if claim.among is None else frame[_members(claim.among, frame)]


def _two_groups(claim: Claim, frame: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the rows of both groups and a mask of the first; the second is outside the first."""
    assert isinstance(claim.among, str | dict)
    first = _members(claim.among, frame)
    if claim.against is None:
        return frame, first
    assert isinstance(claim.against, str | dict)
    others = frame[~first]
    second = others[_members(claim.against, others)] if len(others) else others
    return pd.concat([frame[first], second]), np.arange(first.sum() + len(second)) < first.sum()


def _correlation(claim: Claim, context: ClaimContext) -> Measured:
    """Measure Pearson's r with the CI of explore.statistics.correlation."""
    against = f"`{context.target}`" if claim.against is None else str(claim.against)
    frame = _among(claim, _rows(claim, context, against))
    x, y = evaluate(str(claim.of), frame), evaluate(against, frame)
    return _measured(claim, statistics.correlation(x, y), len(frame))


def _correlation_margin(claim: Claim, context: ClaimContext) -> Measured:
    """Measure the margin with its bootstrap percentile CI.

    Each resample picks its own weakest and its own strongest column, which biases its margin
    downwards: with several close columns the CI is conservative.
    """
    assert isinstance(claim.against, str | list)
    target = f"`{context.target}`"
    frame = _among(claim, _rows(claim, context, target))
    sides = [[side] if isinstance(side, str) else side or [] for side in (claim.of, claim.against)]
    columns = np.column_stack([evaluate(text, frame) for text in [*sides[0], *sides[1], target]])
    drawn = np.abs(_resampled_correlations(columns, resamples=context.resamples, seed=context.seed))
    margins = drawn[:, : len(sides[0])].min(axis=1) - drawn[:, len(sides[0]) :].max(axis=1)
    if np.isnan(margins[0]):
        return _measured(claim, NOTHING, len(frame))
    low, high = np.nanpercentile(margins[1:], [2.5, 97.5])
    return _measured(claim, (float(margins[0]), float(low), float(high)), len(frame))


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


def _risk_ratio(claim: Claim, context: ClaimContext) -> Measured:
    """Measure the ratio with the CI of explore.statistics.risk_ratio."""
    of = f"`{context.target}`" if claim.of is None else str(claim.of)
    frame, first = _two_groups(claim, _rows(claim, context, of))
    found = statistics.risk_ratio(first, _condition(of, frame).astype(int))
    interval = found["risk_ratio"], found["low"], found["high"]
    return _measured(claim, interval, first.sum(), (~first).sum())


def _mean_difference(claim: Claim, context: ClaimContext) -> Measured:
    """Measure the difference with Welch's CI; of two shares with Newcombe's hybrid score CI.

    Newcombe (1998, Statistics in Medicine 17:873), method 10, combines both shares' Wilson CIs and
    also works for shares of 0 and 1.
    """
    of = str(claim.of)
    frame, first = _two_groups(claim, _rows(claim, context))
    values = evaluate(of, frame)
    sizes = first.sum(), (~first).sum()
    if not all(sizes):
        return _measured(claim, NOTHING, *sizes)
    if np.isin(values, (0, 1)).all():
        (p, a, b), (q, c, d) = (_share(values[side]) for side in (first, ~first))
        low, high = p - q - math.hypot(p - a, d - q), p - q + math.hypot(b - p, q - c)
        return _measured(claim, (p - q, low, high), *sizes)
    means = statistics.class_means(pd.DataFrame({"of": values}), first.astype(int)).iloc[0]
    interval = float(means["difference"]), float(means["low"]), float(means["high"])
    return _measured(claim, interval, *sizes)


def _mean(claim: Claim, context: ClaimContext) -> Measured:
    """Measure the mean with Student's CI, or the share with Wilson's."""
    frame = _among(claim, _rows(claim, context))
    values = evaluate(str(claim.of), frame)
    n = len(values)
    if np.isin(values, (0, 1)).all():
        return _measured(claim, _share(values) if n else NOTHING, n)
    mean, half = float(values.mean()), math.nan
    if n > 1:
        half = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n))
    return _measured(claim, (mean, mean - half, mean + half), n)


def _share(values: np.ndarray) -> Interval:
    """Return the share of ones with Wilson's CI."""
    found = statistics.churn_rate(int(values.sum()), len(values))
    return found["churn_rate"], found["low"], found["high"]


def _model_difference(claim: Claim, context: ClaimContext) -> Measured:
    """Measure the difference with its paired bootstrap CI; churn is predicted above .5."""
    y = context.frame[context.target].to_numpy()
    of, against = (context.probabilities[str(name)] for name in (claim.of, claim.against))
    effort = {"resamples": context.resamples, "seed": context.seed}
    assert claim.metric is not None
    found = paired_difference(y, of, against, metric=claim.metric, thresholds=(0.5, 0.5), **effort)
    return Measured(*found, f"{claim.metric} out of fold")


def _measured(claim: Claim, interval: Interval, *sizes: int) -> Measured:
    """Add whom an interval is about, or why there is none; ``sizes`` are those of the groups."""
    about = " against ".join(counted(size, "member") for size in sizes)
    if 0 in sizes:
        group = claim.against if sizes[0] and claim.against else claim.among
        where = "outside" if sizes[0] and not claim.against else "in"
        shown = str(group).replace("'", "") if isinstance(group, dict) else group or "without gaps"
        about = f"no member is {where} the group {shown}, so nothing can be said"
    elif math.isnan(interval[1]):
        about = f"nothing can be said about {about}: too few, or all alike"
    elif len(sizes) == 1:
        about = f"over {about}"
    return Measured(*interval, about)


MEASURES: Mapping[Quantity, Callable[[Claim, ClaimContext], Measured]] = {
    "correlation": _correlation,
    "correlation_margin": _correlation_margin,
    "risk_ratio": _risk_ratio,
    "mean_difference": _mean_difference,
    "mean": _mean,
    "model_difference": _model_difference,
}
