"""Measure claims on a table: each quantity with its 95% interval.

Nothing here chooses anything: claims are measured on all members, as an exploration is. A row that
lacks a value that a claim asks for is left out of that claim.
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
"""The column that a claim with a segmentation may use, too."""

TOLD = 3
"""So many faulty claims are told at once; each message names all columns."""

EXTREMES: Mapping[str, Callable[[pd.Series], object]] = {
    "highest": lambda means: means == means.max(),
    "lowest": lambda means: means == means.min(),
}
"""Which of the segments' means are meant."""


class Measured(NamedTuple):
    """A quantity with its 95% interval, and about whom it was asked in words; NaN where there is
    nothing to measure."""

    value: float
    low: float
    high: float
    about: str


@dataclass(frozen=True)
class ClaimContext:
    """What claims are measured on.

    ``frame`` holds the columns and the ``target`` as 0 and 1, one row a member; ``segments`` the
    number of each member's segment, by segmentation; ``probabilities`` what each model says of them
    out of fold. ``resamples`` and ``seed`` are those of the bootstrap.
    """

    frame: pd.DataFrame
    target: str
    segments: Mapping[str, np.ndarray] = field(default_factory=dict)
    probabilities: Mapping[str, np.ndarray] = field(default_factory=dict)
    resamples: int = 1000
    seed: int = 0


def check_claims(claims: Mapping[str, Claim], columns: Collection[str], *, where: str) -> None:
    """Refuse claims that cannot be measured on a table with these columns, every fault with its
    claim and key.

    ``where`` is the key under which the claims stand.
    """
    faults = []
    for name, claim in claims.items():
        known = [*columns, SEGMENT] if claim.segments else columns
        for key, text in [(key, text) for key, texts in claim.texts.items() for text in texts]:
            try:
                check_expression("", text, known)
            except InputError as error:
                faults.append(f"{where}.{name}.{key}: {error}")
    if faults:
        raise InputError(
            "\n".join(faults[:TOLD])
            + (f"\nand {len(faults) - TOLD} more" if len(faults) > TOLD else "")
        )


def measure(claim: Claim, ground: ClaimContext) -> Measured:
    """The claim's quantity on this ground; InputError where an expression gives no number, or a
    condition is none."""
    return MEASURES[claim.quantity](claim, ground)


def _rows(claim: Claim, ground: ClaimContext, *more: str) -> pd.DataFrame:
    """The rows that have every value that the claim, and ``more``, ask for."""
    frame = ground.frame
    if claim.segments is not None:
        if SEGMENT in frame:
            raise InputError(
                f"There is a column {SEGMENT} already; rename it to measure claims about segments."
            )
        frame = frame.assign(**{SEGMENT: ground.segments[claim.segments].astype("float64")})
    texts = [*more, *(text for texts in claim.texts.values() for text in texts)]
    needed = {column for text in texts for column in columns_in(text)}
    return frame.dropna(subset=sorted(needed))


def _condition(expression: str, frame: pd.DataFrame) -> np.ndarray:
    """Who keeps a condition, as a mask."""
    values = evaluate(expression, frame)
    if not np.isin(values, (0, 1)).all():
        raise InputError(
            f"{expression} is no condition: it has values other than 0 and 1. Compare it, as in x "
            "> 0."
        )
    return values == 1


def _members(group: Group, frame: pd.DataFrame) -> np.ndarray:
    """Who belongs to a group, as a mask; a segment's mean is compared with those of the segments in
    this frame.

    A segment is chosen by the members that it is then measured on: between two that are nearly
    alike in what they are chosen by, the interval of just that is too sure.
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


def _two_groups(claim: Claim, frame: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """The rows of both groups and a mask of those in the first; the second is looked for outside
    the first."""
    assert isinstance(claim.among, str | dict)
    first = _members(claim.among, frame)
    if claim.against is None:
        return frame, first
    assert isinstance(claim.against, str | dict)
    others = frame[~first]
    second = others[_members(claim.against, others)] if len(others) else others
    return pd.concat([frame[first], second]), np.arange(first.sum() + len(second)) < first.sum()


def _correlation(claim: Claim, ground: ClaimContext) -> Measured:
    """Pearson's r with the interval of `exploration.correlations`."""
    of, against = (
        str(claim.of),
        f"`{ground.target}`" if claim.against is None else str(claim.against),
    )
    frame = _rows(claim, ground, against)
    if claim.among is not None:
        frame = frame[_members(claim.among, frame)]
    value, low, high = statistics.correlation(evaluate(of, frame), evaluate(against, frame))
    return Measured(value, low, high, f"over {counted(len(frame), 'member')}")


def _correlation_margin(claim: Claim, ground: ClaimContext) -> Measured:
    """The margin with its bootstrap percentile interval.

    Every resample finds its own weakest and its own strongest, which makes the margin smaller there
    than it is: where several compete the interval is too cautious, never too sure.
    """
    assert isinstance(claim.against, str | list)
    target = f"`{ground.target}`"
    frame = _rows(claim, ground, target)
    if claim.among is not None:
        frame = frame[_members(claim.among, frame)]
    sides = [[side] if isinstance(side, str) else side or [] for side in (claim.of, claim.against)]
    columns = np.column_stack([evaluate(text, frame) for text in [*sides[0], *sides[1], target]])
    drawn = np.abs(_resampled_correlations(columns, resamples=ground.resamples, seed=ground.seed))
    margins = drawn[:, : len(sides[0])].min(axis=1) - drawn[:, len(sides[0]) :].max(axis=1)
    about = f"over {counted(len(frame), 'member')}"
    if np.isnan(margins[0]):
        return Measured(math.nan, math.nan, math.nan, about)
    low, high = np.nanpercentile(margins[1:], [2.5, 97.5])
    return Measured(float(margins[0]), float(low), float(high), about)


def _resampled_correlations(columns: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """r of each column but the last with the last, on all rows and then on resamples: 1 + resamples
    rows."""
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
    with np.errstate(invalid="ignore", divide="ignore"):
        return (product - first[:, :-1] * first[:, -1:]) / np.sqrt(
            variance[:, :-1] * variance[:, -1:]
        )


def _risk_ratio(claim: Claim, ground: ClaimContext) -> Measured:
    """The ratio with the interval of `exploration.risk_ratio`."""
    of = f"`{ground.target}`" if claim.of is None else str(claim.of)
    frame, first = _two_groups(claim, _rows(claim, ground, of))
    found = statistics.risk_ratio(first, _condition(of, frame).astype(int))
    return Measured(found["risk_ratio"], found["low"], found["high"], _about(first))


def _mean_difference(claim: Claim, ground: ClaimContext) -> Measured:
    """The difference with Welch's interval, or of two shares with Newcombe's (1998, Statistics in
    Medicine 17:873).

    Newcombe's is made of both shares' Wilson intervals and also knows what nobody or everybody
    does.
    """
    of = str(claim.of)
    frame, first = _two_groups(claim, _rows(claim, ground))
    values = evaluate(of, frame)
    about = _about(first)
    if first.all() or not first.any():
        return Measured(math.nan, math.nan, math.nan, about)
    if np.isin(values, (0, 1)).all():
        (p, a, b), (q, c, d) = (_share(values[side]) for side in (first, ~first))
        low, high = p - q - math.hypot(p - a, d - q), p - q + math.hypot(b - p, q - c)
        return Measured(p - q, low, high, about)
    means = statistics.class_means(pd.DataFrame({"of": values}), first.astype(int)).iloc[0]
    return Measured(float(means["difference"]), float(means["low"]), float(means["high"]), about)


def _mean(claim: Claim, ground: ClaimContext) -> Measured:
    """The mean with Student's interval, or the share with Wilson's."""
    frame = _rows(claim, ground)
    if claim.among is not None:
        frame = frame[_members(claim.among, frame)]
    values, about = evaluate(str(claim.of), frame), f"of {counted(len(frame), 'member')}"
    if np.isin(values, (0, 1)).all():
        return Measured(*(_share(values)), about)
    if len(values) < 2:
        return Measured(
            float(values.mean()) if len(values) else math.nan, math.nan, math.nan, about
        )
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return Measured(
        float(values.mean()), float(values.mean() - half), float(values.mean() + half), about
    )


def _share(values: np.ndarray) -> tuple[float, float, float]:
    """The share of ones with Wilson's interval."""
    if not len(values):
        return math.nan, math.nan, math.nan
    found = statistics.churn_rate(int(values.sum()), len(values))
    return found["churn_rate"], found["low"], found["high"]


def _model_difference(claim: Claim, ground: ClaimContext) -> Measured:
    """The difference with its paired bootstrap interval; who is above .5 is said to leave."""
    y = ground.frame[ground.target].to_numpy()
    of, against = (ground.probabilities[str(name)] for name in (claim.of, claim.against))
    effort = {"resamples": ground.resamples, "seed": ground.seed}
    assert claim.metric is not None
    found = paired_difference(y, of, against, metric=claim.metric, thresholds=(0.5, 0.5), **effort)
    return Measured(*found, f"{claim.metric} out of fold")


def _about(first: np.ndarray) -> str:
    return f"{counted(int(first.sum()), 'member')} against {counted(int((~first).sum()), 'member')}"


MEASURES: Mapping[Quantity, Callable[[Claim, ClaimContext], Measured]] = {
    "correlation": _correlation,
    "correlation_margin": _correlation_margin,
    "risk_ratio": _risk_ratio,
    "mean_difference": _mean_difference,
    "mean": _mean,
    "model_difference": _model_difference,
}
