"""Draft the keys of one column: its kind and limits, or why it is left out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from churnlab.data.cells import BLANKS, MISSING, TRUTH, as_number, folded, read_number
from churnlab.data.contract import ABSURD
from churnlab.drafting.marks import unit_of
from churnlab.drafting.names import names_place
from churnlab.drafting.unknown import without_unknown
from churnlab.drafting.written import Look, bands
from churnlab.formatting import counted, listed

MOST_LEVELS = 50
"""A category with more values than this is encoded by churn rates, not value by value."""

MANY_ROWS = 10
"""Members that a value of such a category has on average; fewer teach nothing."""

NEARLY = 0.95
"""Text that is different in a larger share of the rows is an identifier, or free text."""

HALF = 0.5
"""Text of many words that is different in a larger share of the rows is free text."""

LONG = 4

OTHER_SIZE = 5
"""Numbers with and without a unit whose medians differ so many times mean different things."""

MANY_BARE = 0.05
"""Such numbers are left out if each kind fills a larger share of the cells."""

MULTIPLIED = re.compile(r"\D?\d[\d.,]*\s*(k|m|mn|mln|mio|bn|tsd\.?|тыс\.?|млн)", re.IGNORECASE)
"""A number that a letter multiplies: 12k is 12,000, and 12m may be months."""


@dataclass(frozen=True)
class ColumnDraft:
    """The draft of one column: its keys in the YAML, or None to leave it out, and a remark why.

    ``notes`` are what a person should know or decide, one sentence each.
    """

    name: str
    declared: dict[str, Any] | None
    remark: str
    notes: tuple[str, ...] = ()


def draft_column(look: Look, *, before: date | None, decimal: str) -> ColumnDraft:
    """Draft a column that is no target, id or leak.

    ``before`` is the day before which dates have their age, ``decimal`` the mark of the file.
    """
    if look.missing.all():
        return ColumnDraft(look.name, None, "empty")
    if look.distinct == 1:
        return ColumnDraft(look.name, None, f"always {look.known.iloc[0]}{_gaps(look)}")
    if look.dates is None and (look.values is None or _is_place(look)):
        return _text(look)
    look, notes = without_unknown(look)
    made = _number(look, decimal) if look.dates is None else _date(look, before)
    return replace(made, notes=(*made.notes, *notes))


def _is_place(look: Look) -> bool:
    """Return whether plain numbers are postal codes."""
    return names_place(look.name) and look.format is None


def _gaps(look: Look) -> str:
    """Say how many values are missing, and how that is written."""
    if not look.missing.any():
        return ""
    words = ", ".join(f"{word!r} {count:,}" for word, count in look.words.items())
    return f", {int(look.missing.sum()):,} missing{f' ({words})' if words else ''}"


def _missing(look: Look) -> dict[str, Any]:
    """Return the key for words that mean a gap, none if they are those that pandas knows."""
    return {} if {*look.words} <= MISSING else {"missing": sorted(look.words)}


def _but_for(look: Look, noun: str) -> list[str]:
    """Say which words among numbers or dates count as missing."""
    words = [_in_cells(word, look.words) for word in look.words]
    count = "counts" if [*look.words.values()] == [1] else "count"
    return [f"{noun} but for {listed(words, 5)}, which {count} as missing"] if words else []


def _date(look: Look, before: date | None) -> ColumnDraft:
    assert look.dates is not None
    first, last = (look.texts.iloc[int(row)] for row in (look.dates.argmin(), look.dates.argmax()))
    declared: dict[str, Any] = {"kind": "date", "before": str(before)}
    declared |= {"format": look.format} if look.format else {}
    notes = [f"dates, read as their age in days before {before}: choose the day of the table"]
    if look.formats:
        notes.append(f"not sure whether they are {look.format} or {look.formats[0]}")
    notes += _but_for(look, "dates")
    remark = f"dates, {first} to {last}{_gaps(look)}"
    return ColumnDraft(look.name, declared | _missing(look), remark, tuple(notes))


def _binary(look: Look, values: str) -> ColumnDraft:
    """Draft a column of two values, and say that its gaps mean neither."""
    empty = int(look.missing.sum()) - sum(look.words.values())
    gaps = [_in_cells(word, look.words) for word in look.words]
    gaps += [f"{counted(empty, 'empty cell')}"] * bool(empty)
    count = "counts" if look.missing.sum() == 1 else "count"
    notes = [f"{values} but for {listed(gaps, 5)}, which {count} as missing"] if gaps else []
    declared = {"kind": "binary"} | _missing(look)
    return ColumnDraft(look.name, declared, f"{values}{_gaps(look)}", tuple(notes))


def _number(look: Look, decimal: str) -> ColumnDraft:
    assert look.values is not None
    values = look.values[~look.missing]
    found = f"{values.min():g} to {values.max():g}, median {np.median(values):g}{_gaps(look)}"
    if {*np.unique(values)} <= {0.0, 1.0} and look.format is None:
        truth = {*look.known} <= {"True", "False"}
        return _binary(look, "true or false" if truth else "1 or 0")
    whole = bool((values == np.round(values)).all())
    declared = numeric_limits(values, whole=whole)
    if look.format is not None and not (look.format == "1234,5" and decimal == ","):
        declared |= {"format": look.format}
    elif look.format is None and decimal == "," and not _reads(look, "1234,5"):
        declared |= {"format": "1234.5"}
    if unit := unit_of(look.format):
        declared |= {"unit": unit}
    mixed, share = _mixed_units(look, unit)
    if share >= MANY_BARE:
        return ColumnDraft(look.name, None, f"{mixed}: write them alike{_gaps(look)}")
    notes = [f"{mixed}: write them alike"] if mixed else []
    if look.format is not None or look.formats:
        shown = look.known[~_bare(look) if unit else look.known.str.contains(r"\D")].iloc[0]
        number = as_number(read_number(shown, look.format))
        notes.append(f"numbers, written as {shown}, which is read as {number}")
        if look.formats:
            other = look.formats[0]
            meant = as_number(read_number(shown, other))
            notes.append(f"not sure: if {shown} is {meant}, write format: {other or '1234.5'!r}")
    notes += _but_for(look, "numbers")
    return ColumnDraft(look.name, declared | _missing(look), found, tuple(notes))


def _reads(look: Look, format: str) -> bool:
    """Return whether a format reads every number of a column."""
    return not any(math.isnan(read_number(text, format)) for text in look.known.unique())


def _bare(look: Look) -> pd.Series:
    """Return which known cells are numbers without a unit."""
    return look.known.str.fullmatch(r"[-+−()\d.,'’\s]*([eE][-+]?\d+)?")


def _mixed_units(look: Look, unit: str) -> tuple[str, float]:
    """Say that only some cells have the unit, and return the share of the fewer, if the others are
    of another size; else nothing and 0."""
    if not unit or look.values is None:
        return "", 0
    bare = _bare(look).to_numpy(dtype="bool")
    sizes = np.abs(look.values[~look.missing])
    without, with_unit = (part[part > 0] for part in (sizes[bare], sizes[~bare]))
    if not len(without) or not len(with_unit):
        return "", 0
    ratio = float(np.median(with_unit) / np.median(without))
    shares = unit in "%‰" and without.max() <= 1 < with_unit.max()
    if not shares and 1 / OTHER_SIZE < ratio < OTHER_SIZE:
        return "", 0
    text = f"not sure: {counted(int((~bare).sum()), 'cell')} have {unit}, {bare.sum():,} have none"
    compared = f"these are {'smaller' if ratio > 1 else 'larger'}"
    return f"{text}, and {compared}", min(bare.mean(), 1 - bare.mean())


def _text(look: Look) -> ColumnDraft:
    levels = sorted(look.known.unique())
    truth = {level.casefold() for level in levels}
    if truth <= {*TRUTH} and len({TRUTH[word] for word in truth}) == 2:
        return _binary(look, " or ".join(levels))
    look, fold, folds = _folded(look)
    levels = sorted(look.known.unique())
    if all(MULTIPLIED.fullmatch(level) for level in levels):
        remark = f"numbers that a letter multiplies, as {levels[0]}: write them out{_gaps(look)}"
        return ColumnDraft(look.name, None, remark)
    rows, notes = len(look.known), (*folds, *_word_notes(look))
    if look.distinct > max(MOST_LEVELS, NEARLY * rows) or _is_free(look):
        remark = f"distinct in nearly every row: an identifier or free text?{_gaps(look)}"
        return ColumnDraft(look.name, None, remark)
    ordered = bands(levels)
    if ordered is not None and len(levels) <= MOST_LEVELS:
        declared = {"kind": "category", "values": ordered, "ordered": True} | fold
        remark = f"{len(levels)} bands in their order{_gaps(look)}"
        return ColumnDraft(look.name, declared | _missing(look), remark, notes)
    if len(levels) > MOST_LEVELS and rows < MANY_ROWS * len(levels):
        remark = f"text with {len(levels):,} distinct values{_gaps(look)}"
        return ColumnDraft(look.name, None, remark)
    if len(levels) > MOST_LEVELS:
        declared = {"kind": "category", "encoding": "target", "unknown": "accept"} | fold
        if look.read is not None and (look.read.astype("str").str.strip(BLANKS) != look.read).any():
            declared |= {"fold": True}  # without values nothing else takes the blanks away
        remark = f"{len(levels):,} values, encoded by the churn rate of their members{_gaps(look)}"
        return ColumnDraft(look.name, declared | _missing(look), remark, notes)
    declared = {"kind": "category", "values": levels} | fold
    if "???" in levels:  # which a configuration takes for a value that is not given yet
        declared = {"kind": "category"} | fold
    return ColumnDraft(
        look.name, declared | _missing(look), f"{len(levels)} values{_gaps(look)}", notes
    )


def _folded(look: Look) -> tuple[Look, dict[str, Any], list[str]]:
    """Return the look with the usual spelling of values that differ in capitals and blanks alone,
    the key that makes them one, and the note about it; nothing of both where there are none."""
    counts = look.known.value_counts()
    spelled: dict[str, list[str]] = {}
    for text in counts.index:
        spelled.setdefault(folded(text), []).append(text)
    several = [texts for texts in spelled.values() if len(texts) > 1]
    if not several:
        return look, {}, []
    cells = {text: _in_cells(text, counts) for texts in several for text in texts}
    shown = [
        f"{first!r} is also written {listed([cells[one] for one in others], 3, length=80)}"
        for first, *others in several[:3]
    ]
    more = f" (and {len(several) - 3} more)" if len(several) > 3 else ""
    note = (
        f"{'; '.join(shown)}{more}: one value each (fold: true); if they differ, list all without"
    )
    usual = {text: texts[0] for texts in several for text in texts}
    texts = look.texts.map(lambda text: usual.get(text, text))
    return replace(look, texts=texts), {"fold": True}, [f"{note} fold"]


def _in_cells(word: str, counts: Mapping[str, int] | pd.Series) -> str:
    return f"{word!r} in {counted(int(counts[word]), 'cell')}"


def _word_notes(look: Look) -> list[str]:
    """Say which words of a column of words may be gaps, and which gaps may be values."""
    counts = look.known.value_counts()
    values = [_in_cells(word, counts) for word in counts.index if word in MISSING]
    gaps = [_in_cells(word, look.words) for word in look.words]
    notes = []
    if values:
        notes.append(f"{listed(values, 5)}: a value here; if it is a gap, take it out of values")
    if gaps:
        notes.append(
            f"{listed(gaps, 5)}: counts as missing; if it is a value, write it into values"
        )
    return notes


def _is_free(look: Look) -> bool:
    """Return whether text is free: long, or in a small table different in nearly every row."""
    share = look.distinct / max(len(look.known), 1)
    words = look.known.str.count(r"\s+").mean() + 1
    return share > HALF and (words >= LONG or share > NEARLY) and look.distinct > LONG


def numeric_limits(values: np.ndarray, *, whole: bool) -> dict[str, Any]:
    """Draft the kind and limits of a column of numbers.

    The limits are as far beyond the extremes as those are from the median: next month's table has
    its own extremes, and a long tail needs room.
    """
    low, middle, high = float(values.min()), float(np.median(values)), float(values.max())
    limits = {
        "min": 0 if low >= 0 else _outward(2 * low - middle),
        "max": _outward(2 * high - middle),
    }
    return {"kind": "numeric", **limits} | ({"whole": True} if whole else {})


def _outward(value: float) -> float | int:
    """Round away from 0 to two significant digits."""
    if value == 0:
        return 0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    rounded = math.copysign(math.ceil(abs(value) / unit) * unit, value)
    whole = abs(rounded) < ABSURD and rounded == int(rounded)
    return int(rounded) if whole else float(f"{rounded:.2g}")
