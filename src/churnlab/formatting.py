"""Format numbers, names and dates for people: values in, plain text out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from typing import Any


def number(value: float, digits: int = 3) -> str:
    """Format a number with that many decimals and a thousands separator; NaN is a dash.

    >>> number(-1234.5, 1), number(-0.0004), number(float("nan"))
    ('−1,234.5', '0.000', '–')
    """
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "−∞"
    text = f"{value:,.{digits}f}".replace("-", "−")
    return text.removeprefix("−") if not text.strip("−0.,") else text


def signed(value: float, digits: int) -> str:
    """Format a number with its sign, and zero without one.

    >>> signed(0.44, 1), signed(-0.44, 1), signed(0.04, 1)
    ('+0.4', '−0.4', '0.0')
    """
    text = number(value, digits)
    return f"+{text}" if value > 0 and text.strip("0.") else text


def percent(share: float, digits: int = 1) -> str:
    """Format a share as a percentage.

    >>> percent(0.26525), percent(1, 0)
    ('26.5%', '100%')
    """
    return f"{number(100 * share, digits)}%" if math.isfinite(share) else number(share)


def small(p: float) -> str:
    """Format a p-value or q-value to three decimals; a smaller one by its bound.

    >>> small(0.0312), small(0.00002)
    ('0.031', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else number(p)


def whole(count: float) -> str:
    """Format a count with a thousands separator."""
    return number(count, 0)


def counted(count: int, noun: str) -> str:
    """Format a count with its noun.

    >>> counted(1, "member"), counted(1061, "member")
    ('1 member', '1,061 members')
    """
    return f"{whole(count)} {noun}{'' if count == 1 else 's'}"


def readable(name: str) -> str:
    """Return the name of a column, model or check with spaces instead of underscores."""
    return " ".join(str(name).split("_"))


def short_value(value: str) -> str:
    """Round the logged value of a parameter to three significant digits if it is a long number."""
    try:
        return value if len(value) <= 6 else f"{float(value):.3g}"
    except ValueError:
        return value


def duration(seconds: float) -> str:
    """Format a time in its largest unit: ``8 s``, ``5 min``, ``3 h``, ``12 d``."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{whole(seconds // size)} {unit}"
    return f"{whole(seconds)} s"


def day(when: date) -> str:
    """Format a date: ``1 May 2026``."""
    return f"{when.day} {when:%B %Y}"


def typed(value: Any) -> str:
    """Spell a value as one types it on a command line.

    >>> typed([None, True, 0.5, {"kind": "numeric"}])
    '[null,true,0.5,{kind: numeric}]'
    """
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {typed(part)}' for key, part in value.items())}}}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(map(typed, value))}]" if isinstance(value, list) else str(value)


def clipped(text: Any, length: int = 40) -> str:
    """Cut a text to at most this length.

    >>> clipped("a cell may hold a novel", 13)
    'a cell may...'
    """
    text = str(text)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def elided(text: str, length: int) -> str:
    """Cut the middle of a text longer than this: levels and numbered names differ at the end.

    >>> elided("strength and conditioning for beginners", 24)
    'strength and … beginners'
    """
    if len(text) <= length:
        return text
    return f"{text[: length // 2].rstrip()} … {text[-(length // 2 - 3) :].lstrip()}"


def listed(names: Sequence[Any], most: int = 10, *, length: int = 40) -> str:
    """Join names with commas, at most ``most`` of them, each cut to ``length``.

    >>> listed(["Age", "Phone", "gender"], 2)
    'Age, Phone and 1 more'
    """
    shown = ", ".join(
        f"{name:g}" if isinstance(name, float) else clipped(name, length) for name in names[:most]
    )
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
