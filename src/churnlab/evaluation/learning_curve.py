"""Estimate what more members would gain: fit on parts of the members, and extrapolate a power law.

The log loss of a model falls with its n training members about as a + b n^-c.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.stats import t as student
from sklearn.pipeline import Pipeline

from churnlab.evaluation.cross_validation import fold_probability, preparation
from churnlab.evaluation.metric_names import METRICS
from churnlab.evaluation.metrics import group_members, one_metric
from churnlab.formatting import counted
from churnlab.models.splits import Fold
from churnlab.threads import one_thread, spread

PARTS = (8, 4, 2, 1)
"""Each fold's training members are divided into so many parts, and the model is fitted on each."""

EXPONENTS = (0.2, 1.5)
"""The range of c: 1 is the rate of a regression with enough members, trees are slower."""

FEWEST = 10
"""The smallest part must have so many members of each outcome."""


class Doubling(NamedTuple):
    """The fall of the log loss if there were twice as many members, with its 95% CI.

    ``members`` are those that the model has now; ``a``, ``b`` and ``c`` are those of the power law,
    with n in units of ``members``.
    """

    gain: float
    low: float
    high: float
    members: int
    a: float
    b: float
    c: float


def learning_curve(
    model: Pipeline,
    X: pd.DataFrame,
    y: np.ndarray,
    folds: Sequence[Fold],
    *,
    seed: int,
    fewest: int = FEWEST,
) -> pd.DataFrame | None:
    """Fit the model on parts of each fold's training members: fold, members, log_loss.

    There is a row per fold and number of PARTS; ``log_loss``, on the fold's validation members, is
    the mean over the parts, in which each training member is once. ``members`` is the mean size of
    a part. A part of an eighth is inside one of a quarter, and so on; all have the same churn rate.
    None if a part would have fewer than ``fewest`` members who left or stayed.
    """
    parts = [(fold, number, part) for fold in folds for number, part in _parts(fold, y, seed=seed)]
    if min(np.bincount(y[part.train], minlength=2).min() for _, _, part in parts) < fewest:
        return None
    with one_thread():
        prepare = preparation(model, X, y)

        def loss(part: Fold) -> float:
            return _log_loss(y[part.validation], fold_probability(model[-1], prepare(part)))

        losses = spread(loss, [part for *_, part in parts], n_jobs=1)
    rows = [
        (fold.fold, number, len(part.train), loss)
        for (fold, number, part), loss in zip(parts, losses, strict=True)
    ]
    table = pd.DataFrame(rows, columns=["fold", "parts", "members", "log_loss"])
    return table.groupby(["fold", "parts"]).mean().reset_index().drop(columns="parts")


def _log_loss(y: np.ndarray, probability: np.ndarray) -> float:
    """Return the log loss alone, to the bits that ``classification_metrics`` has."""
    groups = group_members(y, probability, 0.5)
    return float(one_metric(groups, groups.left[None], groups.stayed[None], metric="log_loss")[0])


def _parts(fold: Fold, y: np.ndarray, *, seed: int) -> list[tuple[int, Fold]]:
    """Deal a fold's training members, by outcome, into each number of PARTS."""
    shuffled = np.random.default_rng([seed, fold.fold]).permutation(fold.train)
    dealt = shuffled[np.argsort(y[shuffled], kind="stable")]
    return [
        (number, fold._replace(train=np.sort(dealt[first::number])))
        for number in PARTS
        for first in range(number)
    ]


def doubling(curve: pd.DataFrame, *, members: int) -> Doubling:
    """Estimate the fall of the log loss from ``members`` to twice as many.

    The power law is fitted to the mean over the folds, weighted by the members, with c in
    EXPONENTS. The CI is by the jackknife over the K folds (Efron and Stein, 1981, Annals of
    Statistics 9:586), its variance times 1 + K / (K - 1), because the folds share training members
    (Nadeau and Bengio, 2003, Machine Learning 52:239), and the t quantile with K - 1 df.
    """
    losses = curve.pivot(index="fold", columns="members", values="log_loss")
    if losses.isna().any(axis=None):  # the folds' sizes differ by a member
        losses = pd.DataFrame(
            {size: part["log_loss"].to_numpy() for size, part in _by_size(curve).items()}
        )
    size, values, k = losses.columns.to_numpy(float) / members, losses.to_numpy(), len(losses)
    a, b, c = power_law(size, values.mean(axis=0))
    others = [
        _gain(*power_law(size, np.delete(values, one, axis=0).mean(axis=0))) for one in range(k)
    ]
    variance = (k - 1) * float(np.var(others)) * (1 + k / (k - 1))
    gain, margin = _gain(a, b, c), float(student.ppf(0.975, k - 1)) * math.sqrt(variance)
    return Doubling(gain, gain - margin, gain + margin, members, a, b, c)


def _by_size(curve: pd.DataFrame) -> dict[float, pd.DataFrame]:
    """Return the folds' rows of each step of the curve, by their mean number of members."""
    step = curve.groupby("fold")["members"].rank()
    return {float(part["members"].mean()): part for _, part in curve.groupby(step)}


def power_law(size: np.ndarray, loss: np.ndarray) -> tuple[float, float, float]:
    """Fit loss = a + b size^-c by least squares, weighted by size, with c in EXPONENTS.

    >>> size = np.array([0.1, 0.2, 0.4, 0.8])
    >>> [round(value, 3) for value in power_law(size, 0.3 + 0.02 / size)]
    [0.3, 0.02, 1.0]
    """
    weight = np.sqrt(size)

    def line(c: float) -> np.ndarray:
        columns = np.column_stack([np.ones(len(size)), size**-c])
        return np.linalg.lstsq(columns * weight[:, None], loss * weight, rcond=None)[0]

    def misfit(c: float) -> float:
        a, b = line(c)
        return float((((a + b * size**-c - loss) * weight) ** 2).sum()) * 1e6

    c = float(minimize_scalar(misfit, bounds=EXPONENTS, method="bounded").x)
    a, b = line(c)
    return float(a), float(b), c


def _gain(a: float, b: float, c: float) -> float:
    """Return the fall of a + b n^-c from n = 1 to 2."""
    return b * (1 - 2**-c)


def describe(found: Doubling | None) -> str:
    """Say in one sentence what twice as many members would gain.

    >>> describe(Doubling(0.0211, 0.0123, 0.0299, 3200, 0.3, 0.04, 1))
    'Twice as many members would lower the log loss by about 0.0211 (95% CI 0.0123 to 0.0299).'
    """
    if found is None:
        return "The members are too few to tell whether more would help."
    gain, low, high = (
        f"{value:.4f}" if abs(value) >= 0.00005 else f"{value:.1g}" for value in found[:3]
    )
    if max(found.high, -found.low) < 0.00005:
        return "Twice as many members would leave the log loss as it is."
    little = found.high <= METRICS["log_loss"].margin
    if found.low > 0:
        return (
            f"Twice as many members would lower the log loss by about {gain} (95% CI {low} to "
            f"{high}).{' That matters little in practice.' if little else ''}"
        )
    if little:
        return (
            "Twice as many members would change the log loss by too little to matter: by "
            f"{-found.high:+.4f} to {-found.low:+.4f} (95% CI)."
        )
    return (
        f"{counted(found.members, 'member')} are too few to tell whether more would help: twice as "
        f"many would change the log loss by {-found.gain:+.4f} (95% CI {-found.high:+.4f} to "
        f"{-found.low:+.4f})."
    )
