"""What a claim says, and the verdict on it once it has been measured.

A claim is a statement that someone made about a table, with the one quantity that decides it. Light
to import: a config is checked by it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from churnlab.formatting import number
from churnlab.models.metric_names import Metric

Quantity = Literal[
    "correlation", "correlation_margin", "risk_ratio", "mean_difference", "mean", "model_difference"
]
Verdict = Literal["holds", "partly", "not shown", "false"]
Group = str | dict[Literal["highest", "lowest", "above", "below"], str]
"""Members: a condition, or by the mean of an expression the segment with the highest or the lowest,
or all segments that are above or below the mean of all members."""

NO_EFFECT: dict[Quantity, float | None] = {
    "correlation": 0,
    "correlation_margin": 0,
    "risk_ratio": 1,
    "mean_difference": 0,
    "mean": None,
    "model_difference": 0,
}
"""The value of each quantity where there is nothing; of a mean the claim has to say it (``than``).
"""

NEEDED: dict[Quantity, set[str]] = {
    "correlation": {"of"},
    "correlation_margin": {"of", "against"},
    "risk_ratio": {"among"},
    "mean_difference": {"of", "among"},
    "mean": {"of", "than"},
    "model_difference": {"of", "against", "metric"},
}
TAKEN: dict[Quantity, set[str]] = {
    "correlation": {"against", "among", "segments"},
    "correlation_margin": {"among", "segments"},
    "risk_ratio": {"of", "against", "segments"},
    "mean_difference": {"against", "segments"},
    "mean": {"among", "segments"},
    "model_difference": set(),
}
"""The keys that each quantity takes besides those it needs; ``than``, ``size`` and ``tolerance`` go
with all."""


@dataclass(frozen=True)
class Claim:
    """One statement and how it is measured. Expressions are over the table's columns, the target as
    0 and 1 included.

    - ``correlation``: Pearson's r of ``of`` with ``against`` (the target unless said otherwise), over the members
      ``among`` whom it is asked (all).
    - ``correlation_margin``: of these columns (``of``) the weakest correlation with the target, less the strongest of
      those (``against``), both without their sign. Above 0 each of these goes more with leaving than any of those.
    - ``risk_ratio``: the share of members with ``of`` (a condition; the target) in the group ``among`` over the same
      share in the group ``against``: those of the others for whom it holds, all others when it is not given.
    - ``mean_difference``: the mean of ``of`` in the group ``among`` less that in the group ``against``, likewise.
    - ``mean``: the mean of ``of`` (of a condition: its share) among a group (all), compared with ``than``.
    - ``model_difference``: the ``metric`` of the model ``of`` less that of the model ``against``, out of fold.

    ``direction`` says on which side of ``than`` (the value without any effect) the quantity is said
    to be; ``same`` says that it is no farther from there than ``tolerance``. ``size`` is the value
    that was stated, give or take the ``tolerance``: how exactly it was said. With ``segments``, one
    of the file's segmentations, ``segment`` is a column, too: the segments' numbers by size, the
    largest 0.
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
    metric: Metric | None = None

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        told = f"quantity={self.quantity}"
        given = {
            key
            for key in ("of", "among", "against", "segments", "metric")
            if getattr(self, key) is not None
        }
        needed, taken = NEEDED[self.quantity], NEEDED[self.quantity] | TAKEN[self.quantity]
        if missing := sorted(key for key in needed if getattr(self, key) is None):
            raise ValueError(f"{told} needs {' and '.join(missing)}")
        if strange := sorted(given - taken):
            raise ValueError(f"{told} takes no {strange[0]}; it takes {', '.join(sorted(taken))}")
        for key in ("of", "against"):
            if isinstance(getattr(self, key), list) and self.quantity != "correlation_margin":
                raise ValueError(f"{told} takes one expression as {key}, not a list")
        for key in ("among", "against"):
            group = getattr(self, key)
            if isinstance(group, dict):
                if key == "against" and self.quantity not in ("risk_ratio", "mean_difference"):
                    raise ValueError(f"{told} takes no segment as against")
                if len(group) != 1:
                    raise ValueError(
                        f"{key} names one of highest, lowest, above and below, as {{highest: Age}}"
                    )
                if self.segments is None:
                    raise ValueError(
                        f"{key} asks for a segment ({{{next(iter(group))}: ...}}), which needs segments"
                    )
        self._check_size()

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
        """The value from which the quantity is said to differ, or not to."""
        value = NO_EFFECT[self.quantity] if self.than is None else self.than
        assert value is not None
        return float(value)

    @property
    def texts(self) -> dict[str, list[str]]:
        """Its expressions, by the key under which they stand."""
        if self.quantity == "model_difference":
            return {}
        found = {key: getattr(self, key) for key in ("of", "among", "against")}
        return {
            key: [*part.values()]
            if isinstance(part, dict)
            else part
            if isinstance(part, list)
            else [part]
            for key, part in found.items()
            if part is not None
        }


def verdict(claim: Claim, low: float, high: float) -> Verdict:
    """The verdict on a claim whose quantity has the 95% interval from ``low`` to ``high``, ends
    included.

    This is the rule. With N the value of no effect and T the tolerance,

    - a claim ``above`` N is **false** when the whole interval lies below N, **not shown** when the interval holds N,
      and otherwise **holds**, unless it states a size and no value from size - T to size + T lies in the interval: then
      the direction holds, the size does not, and it holds **partly**. ``below`` is the same, turned round;
    - a claim ``same`` **holds** when the whole interval lies from N - T to N + T, is **false** when no part of it does,
      and **not shown** otherwise.

    A quantity without an interval (NaN: nobody to compare, nothing that varies) shows nothing.
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
    stated = claim.size is None or (
        low <= claim.size + tolerance and claim.size - tolerance <= high
    )
    return "holds" if stated else "partly"


def said(claim: Claim) -> str:
    """What the claim says of its quantity, in words: ``below 0, −0.44 ± 0.005``."""
    if claim.direction == "same":
        return f"no farther than {_plain(claim.tolerance)} from {_plain(claim.no_effect)}"
    size = "" if claim.size is None else f", {_plain(claim.size)}"
    more = f" ± {_plain(claim.tolerance)}" if size and claim.tolerance else ""
    return f"{claim.direction} {_plain(claim.no_effect)}{size}{more}"


def measured_in_words(value: float, low: float, high: float) -> str:
    """A value with its interval, to as many decimals as the interval's width justifies."""
    width = high - low
    digits = min(max(1 - math.floor(math.log10(width)), 0), 4) if 0 < width < math.inf else 3
    return f"{number(value, digits)} ({number(low, digits)} to {number(high, digits)})"


def counted_verdicts(verdicts: Sequence[Verdict]) -> dict[Verdict, int]:
    """How many claims have each verdict."""
    every: tuple[Verdict, ...] = ("holds", "partly", "not shown", "false")
    return {verdict: sum(of == verdict for of in verdicts) for verdict in every}


def _plain(value: float) -> str:
    return f"{value:g}".replace("-", "−")
