"""Settle what a point or comma means in numbers that can be read in two ways, a thousandfold apart.

Such are 8,993 and 7.447, if every cell has exactly three digits behind the mark.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from churnlab.data.cells import CURRENCY, number_pattern, read_number
from churnlab.drafting.written import Look

VARIED = 5
"""So many different endings behind the mark are no thirds or quarters."""

EXPONENT = r"\d[eE][+-]?\d"


def unit_of(format: str | None) -> str:
    """Return the currency sign or unit of a format, "" if it has none."""
    return "" if format is None else re.sub(r"1.?234(.5)?", "", format).strip()


def settled(looks: dict[str, Look], *, separator: str) -> dict[str, Look]:
    """Return the looks, in which numbers that can be read in two ways are read in the likelier one.

    ``formats`` keeps the other one where a person has to decide.
    """
    shown = _shown_marks(looks.values())
    return {
        name: _settle(look, shown, separator)
        if look.values is not None and len(look.formats) == 1
        else look
        for name, look in looks.items()
    }


def _shown_marks(looks: Iterable[Look]) -> set[str]:
    """Return the decimal marks that other numbers show for certain; those without a unit count
    more."""
    plain: set[str] = set()
    others: set[str] = set()
    for look in looks:
        if look.values is None or look.formats:
            continue
        known = look.known[~look.known.str.contains(EXPONENT, regex=True)]
        if known.str.contains(r"\d[.,]\d", regex=True).any():
            (others if unit_of(look.format) else plain).add(number_pattern(look.format)[2])
    return plain or others


def _settle(look: Look, shown: set[str], separator: str) -> Look:
    ways = {number_pattern(format)[2]: format for format in (look.format, *look.formats)}
    texts = look.known.unique()
    mark = "," if any(re.search(r"\d,\d", text) for text in texts) else "."
    if {*ways} != {".", ","}:
        return look
    other = "." if mark == "," else ","
    powers = any(re.search(EXPONENT, text) for text in texts)  # 7.447e+09 holds no thousands
    thousands = not powers and _means_thousands(look, [*texts], mark, shown, separator)
    format, left = (ways[other], ways[mark]) if thousands else (ways[mark], ways[other])
    sure = powers or (format is None and (separator == "," or shown == {"."}))
    values = [
        np.nan if gone else read_number(text, format)
        for text, gone in zip(look.texts, look.missing, strict=True)
    ]
    return replace(look, values=np.array(values), format=format, formats=[] if sure else [left])


def _means_thousands(
    look: Look, texts: list[str], mark: str, shown: set[str], separator: str
) -> bool:
    """Return whether the mark likelier separates thousands: in money, beside numbers below 1,000
    without it, or where other columns show the other mark before decimals."""
    if re.match(CURRENCY, unit_of(look.format), re.IGNORECASE):
        return True
    if len(shown) == 1:
        return shown != {mark}
    marked = [text for text in texts if mark in text]
    bare = [text for text in texts if mark not in text]
    below = [text for text in bare if 0 < abs(read_number(text, look.format)) < 1000]
    endings = {text.rpartition(mark)[2] for text in marked}
    if below and len(below) == sum(text.strip("-+ ") != "0" for text in bare):
        return len(endings) >= VARIED
    return mark == "," == separator
