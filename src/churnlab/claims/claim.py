"""Declare claims, and give the verdict on a measured claim.

A claim is a statement that someone made about a table, with the one quantity that decides it. Keep
this module light to import: a config is checked by it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from churnlab.evaluation.metric_names import MetricWithoutCosts
from churnlab.formatting import number

Quantity = Literal[
    "correlation", "correlation_margin", "risk_ratio", "mean_difference", "mean", "model_difference"
]
Verdict = Literal["holds", "compatible", "partly", "not shown", "false"]
Group = str | dict[Literal["highest", "lowest", "above", "below"], str]
"""A group of members: a condition, or segments chosen by the mean of an expression: the highest or
the lowest one, or all that are above or below the mean of all members."""

NO_EFFECT: dict[Quantity, float | None] = {
    "correlation": 0,
    "correlation_margin": 0,
    "risk_ratio": 1,
    "mean_difference": 0,
    "mean": None,
    "model_difference": 0,
}
"""The value of each quantity without an effect; for a mean, the claim gives it (``than``)."""

REQUIRED: dict[Quantity, set[str]] = {
    "correlation": {"of"},
    "correlation_margin": {"of", "against"},
    "risk_ratio": {"among"},
    "mean_difference": {"of", "among"},
    "mean": {"of", "than"},
    "model_difference": {"of", "against", "metric"},
}
OPTIONAL: dict[Quantity, set[str]] = {
    "correlation": {"against", "among", "segments"},
    "correlation_margin": {"among", "segments"},
    "risk_ratio": {"of", "against", "segments"},
    "mean_difference": {"against", "segments"},
    "mean": {"among", "segments"},
    "model_difference": set(),
}
"""The keys that each quantity may have besides those it requires; all may have ``than``, ``size``
and ``tolerance``."""


@dataclass(frozen=True)
class Claim:
    """A statement and how to measure it, in expressions over the table's columns and its target
    (0 or 1).

    - ``correlation``: Pearson's r of ``of`` with ``against`` (default: the target), over the
      members ``among`` (default: all).
    - ``correlation_margin``: the weakest absolute correlation of the columns ``of`` with the target
      minus the strongest one of the columns ``against``. Above 0, each of the first correlates more
      with churn than any of the second.
    - ``risk_ratio``: the share with ``of`` (a condition; default: the target) in the group
      ``among``, divided by that in the group ``against``: a condition on the other members
      (default: all others).
    - ``mean_difference``: the mean of ``of`` in ``among`` minus that in ``against``, groups as in
      ``risk_ratio``.
    - ``mean``: the mean of ``of`` (the share, for a condition) in ``among`` (default: all),
      compared with ``than``.
    - ``model_difference``: the out-of-fold ``metric`` of the model ``of`` minus that of
      ``against``.

    ``direction`` is the claimed side of ``than`` (default: no effect); ``same`` claims that the
    quantity is within ``tolerance`` of it. ``size`` is the claimed value, plus or minus
    ``tolerance``. ``segments`` names one of the file's segmentations; expressions then have one
    more column, ``segment``: the segments' numbers by size, 0 the largest.
    """

    source: str
    statement: str
    quantity: Quantity
    direction: Literal["above", "below", "same"]
    of: str | list[str] | None = None
    among: Group | None = None
    against: Group | list[str] | None = None
    than: float | None = None
    size: float | None = None
    tolerance: float = 0.0
    segments: str | None = None
    metric: MetricWithoutCosts | None = None

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        start = f"quantity={self.quantity}"
        required, optional = REQUIRED[self.quantity], OPTIONAL[self.quantity]
        given = {
            key
            for key in ("of", "among", "against", "segments", "metric")
            if getattr(self, key) is not None
        }
        if missing := sorted(key for key in required if getattr(self, key) is None):
            raise ValueError(f"{start} needs {' and '.join(missing)}")
        if unknown := sorted(given - required - optional):
            raise ValueError(
                f"{start} takes no {unknown[0]}; it takes {', '.join(sorted(required | optional))}"
            )
        for key in ("of", "against"):
            if isinstance(getattr(self, key), list) and self.quantity != "correlation_margin":
                raise ValueError(f"{start} takes one expression as {key}, not a list")
        self._check_groups()
        self._check_size()

    def _check_groups(self) -> None:
        for key in ("among", "against"):
            group = getattr(self, key)
            if not isinstance(group, dict):
                continue
            if key == "against" and self.quantity not in ("risk_ratio", "mean_difference"):
                raise ValueError(f"quantity={self.quantity} takes no segment as against")
            if len(group) != 1:
                raise ValueError(
                    f"{key} takes one of highest, lowest, above and below, as in {{highest: Age}}"
                )
            if self.segments is None:
                raise ValueError(f"{key}={group} chooses a segment, which needs segments")

    def _check_size(self) -> None:
        if self.tolerance < 0:
            raise ValueError(f"tolerance={self.tolerance:g} is below 0")
        if self.direction == "same":
            if self.tolerance == 0:
                raise ValueError(
                    "direction=same needs tolerance: how far from no effect still counts as none"
                )
            if self.size is not None:
                raise ValueError("direction=same takes no size; give the value as than")
        elif self.size is not None and (self.size > self.no_effect) != (self.direction == "above"):
            raise ValueError(f"size={self.size:g} is not {self.direction} {self.no_effect:g}")

    @property
    def no_effect(self) -> float:
        """Return the value from which the quantity is claimed to differ, or not to differ."""
        value = NO_EFFECT[self.quantity] if self.than is None else self.than
        assert value is not None
        return float(value)

    @property
    def expressions(self) -> list[tuple[str, str]]:
        """Return the claim's expressions, each with its key."""
        found: list[tuple[str, str]] = []
        if self.quantity != "model_difference":
            for key in ("of", "among", "against"):
                part = getattr(self, key)
                texts = part.values() if isinstance(part, dict) else part
                found += [
                    (key, text) for text in ([texts] if isinstance(texts, str) else texts or [])
                ]
        return found


def verdict(claim: Claim, low: float, high: float) -> Verdict:
    """Return the verdict on a claim from the 95% CI of its quantity, ends included.

    With N the value of no effect and T the tolerance:

    - A claim ``above`` N is **false** if the whole CI is below N and **not shown** if the CI
      contains N. Otherwise it **holds**. If it states a size, it holds only if the whole CI is
      within size - T to size + T; if a part of the CI is, the size is neither shown nor excluded:
      **compatible**; if none is, only the direction holds: **partly**. ``below`` is the mirror
      image.
    - A claim ``same`` **holds** if the whole CI is within N - T to N + T, is **false** if no part
      of it is, and **not shown** otherwise.

    A quantity without a CI (NaN: nobody to compare, or no variation) is **not shown**.

    >>> risk = Claim("board", "Guests leave.", "risk_ratio", "above", among="guest", size=2)
    >>> verdict(risk, 0.8, 1.5), verdict(risk, 1.2, 1.5), verdict(risk, 1.2, 2.5)
    ('not shown', 'partly', 'compatible')
    """
    if math.isnan(low) or math.isnan(high):
        return "not shown"
    none, tolerance = claim.no_effect, claim.tolerance
    if claim.direction == "same":
        if none - tolerance <= low and high <= none + tolerance:
            return "holds"
        return "false" if high < none - tolerance or low > none + tolerance else "not shown"
    if low <= none <= high:
        return "not shown"
    if (low > none) != (claim.direction == "above"):
        return "false"
    if claim.size is None:
        return "holds"
    least, most = claim.size - tolerance, claim.size + tolerance
    if least <= low and high <= most:
        return "holds"
    return "compatible" if low <= most and least <= high else "partly"


def claimed_value(claim: Claim) -> str:
    """Return what a claim states about its quantity: ``below 0, −0.44 ± 0.005``."""
    if claim.direction == "same":
        text = f"within {claim.tolerance:g} of {claim.no_effect:g}"
    else:
        size = "" if claim.size is None else f", {claim.size:g}"
        more = f" ± {claim.tolerance:g}" if size and claim.tolerance else ""
        text = f"{claim.direction} {claim.no_effect:g}{size}{more}"
    return text.replace("-", "−")


def format_interval(value: float, low: float, high: float) -> str:
    """Format a value with its interval, to as many decimals as the interval's width justifies.

    >>> format_interval(0.00444, 0.00127, 0.00758)
    '0.0044 (0.0013 to 0.0076)'
    """
    width = high - low
    digits = min(max(1 - math.floor(math.log10(width)), 0), 4) if 0 < width < math.inf else 3
    return f"{number(value, digits)} ({number(low, digits)} to {number(high, digits)})"


def count_verdicts(verdicts: Sequence[Verdict]) -> dict[Verdict, int]:
    """Count the claims with each verdict."""
    return {verdict: verdicts.count(verdict) for verdict in get_args(Verdict)}
