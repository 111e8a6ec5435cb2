"""Numbers, names and dates as people read them: values in, plain text out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from typing import Any


def number(value: float, digits: int = 3) -> str:
    """A number with that many decimals, thousands separated; a dash for nan."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "−∞"
    said = f"{value:,.{digits}f}".replace("-", "−")
    return said.removeprefix("−") if not said.strip("−0.,") else said


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage: ``26.5%``."""
    return f"{number(100 * share, digits)}%" if math.isfinite(share) else number(share)


def whole(count: float) -> str:
    """A count, thousands separated."""
    return number(count, 0)


def counted(count: int, noun: str) -> str:
    """A count with its noun: ``1 member``, ``1,061 members``."""
    return f"{whole(count)} {noun}{'' if count == 1 else 's'}"


def spoken(name: str) -> str:
    """The name of a column, a model or a check without underscores."""
    return " ".join(str(name).split("_"))


def setting(value: str) -> str:
    """A parameter's logged value; a long decimal by its three leading digits."""
    try:
        return value if len(value) <= 6 else f"{float(value):.3g}"
    except ValueError:
        return value


def lasted(seconds: float) -> str:
    """A time in its largest unit: ``8 s``, ``5 min``, ``3 h``, ``12 d``."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{whole(seconds // size)} {unit}"
    return f"{whole(seconds)} s"


def day(when: date) -> str:
    """A date as ``1 May 2026``."""
    return f"{when.day} {when:%B %Y}"


def clipped(text: Any, length: int = 40) -> str:
    """A text that is not longer than that: a cell may hold a novel."""
    text = str(text)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def listed(names: Sequence[Any], most: int = 10, *, length: int = 40) -> str:
    """Names, separated by commas; of very many the first, of very long ones the start."""
    shown = ", ".join(
        f"{name:g}" if isinstance(name, float) else clipped(name, length) for name in names[:most]
    )
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
