"""Tell a calibration error from noise: its noise floor, its confidence interval, its test.

The expected calibration error (ECE) is a mean of absolute gaps, so that a perfectly calibrated
model shows one, too: the fewer the members, the larger. No ECE is stated without this noise floor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from churnlab.evaluation.metrics import ECE_BINS, group_members

TOO_FEW = 0.1
"""A noise floor above this leaves nothing to judge: it would hide a gap of ten points."""

GROUPS = 4096
"""Pool probabilities into this many groups when more of them are distinct."""

DRAWS = 2000
"""Draws of the noise in the gaps; they cost a few milliseconds."""

LUCKY = 0.16
"""An ECE below this quantile of a perfectly calibrated model's counts as that quantile for the
upper end, which would fall to 0 where the gaps happen to cancel (a power-constrained limit: Cowan,
Cranmer, Gross and Vitells, 2011, arXiv:1105.3166)."""

DOUBT = 1.5
"""The lower end takes gaps of fewer standard errors than this for noise: then it is above the truth
in at most 6% when a single bin is off, in about 2% when many are."""


class CalibrationError(NamedTuple):
    """The plain ECE, its noise floor, the ECE without noise, and the 95% CI of the true ECE.

    ``floor`` is the mean ECE of a perfectly calibrated model with these probabilities on as many
    members, ``p`` the probability that such a model shows an ECE as large as the plain one.
    ``corrected`` is the true ECE under which the plain one would be the median.
    """

    ece: float
    floor: float
    p: float
    corrected: float
    low: float
    high: float


class BinGaps(NamedTuple):
    """The gaps (predicted minus observed) of the bins, their noise, and that without any gap.

    The gaps, (bins,), are in shares of all members: their absolute values add up to the ECE.
    ``noise`` and ``pure`` are draws (draw, bins) of the gaps' sampling error, for the gaps at hand
    and for a perfectly calibrated model; ``error`` is the standard error of each gap.
    """

    gaps: np.ndarray
    error: np.ndarray
    noise: np.ndarray
    pure: np.ndarray
    floor: float


def calibration_error(y: np.ndarray, probability: np.ndarray, *, seed: int) -> CalibrationError:
    """Return the ECE with its noise floor and a 95% CI that covers the true ECE.

    The CI inverts a test: its ends are the errors under which an ECE as large (as small) as the
    observed one has a probability of 2.5%. The gaps are taken as normal, with the variance of the
    outcomes in each bin; they are scaled to the error in question. That leaves open how the error
    is spread over the bins, which moves the noise: the lower end assumes the few bins with clear
    gaps (the most noise), the upper end all bins (the least). The lower end is 0 unless a perfectly
    calibrated model would show such an ECE in less than 2.5%. The plain ECE is within the CI.

    >>> rng = np.random.default_rng(0)
    >>> probability = rng.uniform(0.1, 0.9, 400)
    >>> found = calibration_error((rng.random(400) < probability).astype(int), probability, seed=0)
    >>> found.low, found.ece < 1.5 * found.floor
    (0.0, True)
    """
    bins = bin_gaps(y, probability, np.random.default_rng(seed))
    size = np.abs(bins.gaps)
    ece = float(size.sum())
    sign = np.where(bins.gaps < 0, -1.0, 1.0)
    clear = sign * np.maximum(size - DOUBT * bins.error, 0)
    if not clear.any():
        clear = bins.gaps * (size == size.max())
    spread = sign * np.sqrt(size**2 + bins.error**2)
    p = 1 - _share_below(ece, bins.pure)
    low = error_at(0.975, ece, clear, bins.noise) if p < 0.025 else 0.0
    usual = max(ece, float(np.quantile(np.abs(bins.pure).sum(axis=1), LUCKY)))
    high = max(ece, error_at(0.025, usual, spread, bins.noise))
    corrected = float(np.clip(error_at(0.5, ece, bins.gaps, bins.noise), low, high))
    return CalibrationError(ece, bins.floor, p, corrected, low, high)


def noise_floor(probability: np.ndarray) -> float:
    """Return the mean ECE of a perfectly calibrated model with these probabilities.

    A gap without cause is normal around 0, so that its mean absolute value is sqrt(2 / pi) standard
    errors (the folded normal distribution: Leone, Nelson and Nottingham, 1961, Technometrics
    3:543).

    >>> round(noise_floor(np.linspace(0.1, 0.9, 400)), 3), round(noise_floor(np.full(400, 0.3)), 3)
    (0.055, 0.018)
    """
    nobody = np.zeros(len(probability), dtype=int)
    return bin_gaps(nobody, probability, np.random.default_rng(0)).floor


def bin_gaps(y: np.ndarray, probability: np.ndarray, rng: np.random.Generator) -> BinGaps:
    """Return the gap of each of ECE_BINS bins of equal size, with draws of its sampling error.

    Members of equal probability share their mean outcome, as in the metric, so that bins which
    share such members err together.
    """
    groups = group_members(y, probability, 0.5, most=GROUPS)
    size = groups.left + groups.stayed
    ends = np.cumsum(size)
    edges = np.linspace(0, ends[-1], ECE_BINS + 1)
    within = np.minimum(edges[1:, None], ends) - np.maximum(edges[:-1, None], ends - size)
    part = np.clip(within, 0, None) / size  # of each group in each bin
    of_left, of_stayed = groups.probability
    predicted = (groups.left * of_left + groups.stayed * of_stayed) / size
    gaps = part @ (size * predicted - groups.left) / ends[-1]
    drawn = rng.standard_normal((DRAWS, ECE_BINS))

    def noise(rate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        covariance = (part * (size * rate * (1 - rate))) @ part.T / ends[-1] ** 2
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.clip(values, 0, None))
        return np.sqrt(np.diag(covariance)), drawn @ root.T

    pure_error, pure = noise(predicted)
    error, observed = noise(np.clip(predicted - part.T @ gaps * ECE_BINS, 0, 1))
    return BinGaps(gaps, error, observed, pure, float(np.sqrt(2 / np.pi) * pure_error.sum()))


def error_at(share: float, ece: float, pattern: np.ndarray, noise: np.ndarray) -> float:
    """Return the true error, spread as ``pattern``, under which that share of ECEs is below
    ``ece``.

    0 if even a perfectly calibrated model shows a smaller ECE less often.
    """
    total = np.abs(pattern).sum()
    unit = pattern / total if total else np.full(len(pattern), 1 / len(pattern))
    if _share_below(ece, noise) <= share:
        return 0.0
    return _bisect(lambda error: _share_below(ece, error * unit + noise) > share)


def _share_below(ece: float, gaps: np.ndarray) -> float:
    """Return the share of draws (draw, bins) whose ECE is below ``ece``."""
    return float(np.mean(np.abs(gaps).sum(axis=1) < ece))


def _bisect(below: Callable[[float], bool], *, steps: int = 20) -> float:
    """Return where ``below`` turns false in [0, 1]."""
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2
