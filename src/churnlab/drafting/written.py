"""Look at how the cells of a raw column are written: numbers, dates, bands, gaps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from churnlab.data.cells import MISSING, date_codes, gaps, possible_formats, read_number

SIGNS = {"?", "-", "--", "---", "–", "—", ".", "..", "*"}
"""Signs that stand for nothing, in a column of words, too."""

UNKNOWN = {"unknown", "missing", "not available", "n.a.", "na", "none", "nil", "blank", "empty"}
"""Words that mean a gap among numbers, in lower case; among words they are values."""

VALUES = {"None"}
"""What pandas takes for a gap and people write as a value: no offer, no contract."""

MOSTLY = 0.9
"""A column of so many numbers is one of numbers, and its few words are gaps."""

MOST_WORDS = 5

SAMPLE = 100
"""Distinct cells that decide at once that a column holds no numbers."""

DATE_FORMATS = (
    *("DD.MM.YYYY", "DD/MM/YYYY", "MM/DD/YYYY", "DD-MM-YYYY", "MM-DD-YYYY", "YYYY/MM/DD"),
    *("YYYY.MM.DD", "DD.MM.YY", "DD/MM/YY", "MM/DD/YY", "DD-MMM-YYYY", "DD-MMM-YY", "DD MMM YYYY"),
    *("YYYYMMDD", "DD.MM.YYYY HH:mm", "DD/MM/YYYY HH:mm", "MM/DD/YYYY HH:mm"),
    *("DD.MM.YYYY HH:mm:ss", "DD/MM/YYYY HH:mm:ss", "MM/DD/YYYY HH:mm:ss", "MM/YYYY"),
)
"""Formats of dates besides ISO 8601; of two that fit, the first."""

DATE_SHAPE = re.compile(
    r"\d{4}-\d\d(-\d\d([T ]\d\d?:\d\d.*)?)?|\d{8}|\d{1,4}([./-])\d{1,2}\3\d{1,4}( \d.*)?"
    r"|\d{1,2}[ -][A-Za-z]{3}[ -]\d{2,4}|\d{1,2}/\d{4}"
)
"""What may be a date; a band such as 1-3 or 10/12 is none."""

BAND = re.compile(
    r"(?P<under><=?|≤|under |below |less than |up to )?\s*[^\w\s.-]?(?P<low>\d+(?:[.,]\d+)*)\s*"
    r"(?P<range>(?:-|–|—|to|/)\s*[^\w\s.-]?\d+(?:[.,]\d+)*)?\s*"
    r"(?P<over>\+|and more|or more|and over|and above)?(?:\s*[^\W\d]+\.?)?|"
    r"(?P<above>>=?|≥|over |above |more than )\s*[^\w\s.-]?(?P<edge>\d+(?:[.,]\d+)*)"
    r"(?:\s*[^\W\d]+\.?)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Look:
    """What a raw column seems to hold, row by row.

    ``missing`` marks the gaps; ``words`` counts the words that they are written with. ``values``
    are the numbers or truth (NaN for gaps), None if it holds others; ``format`` is how text writes
    them (None: as every program does), ``formats`` what else it could mean. ``dates`` are
    timestamps in ``format``. ``texts`` are the cells as text without blanks around them.
    """

    name: str
    missing: np.ndarray
    texts: pd.Series
    words: dict[str, int] = field(default_factory=dict)
    values: np.ndarray | None = None
    format: str | None = None
    formats: Sequence[str | None] = ()
    dates: pd.Series | None = None

    @property
    def known(self) -> pd.Series:
        """The cells that are no gaps, as text."""
        return self.texts[~self.missing]

    @property
    def distinct(self) -> int:
        """The number of different values."""
        return int(self.known.nunique())

    @property
    def compared(self) -> pd.Series:
        """The column as leakage compares it: numbers where it has them, else text."""
        if self.values is not None:
            return pd.Series(self.values, name=self.name)
        if self.dates is not None:
            return pd.Series(self.dates.astype("int64").where(~self.missing), name=self.name)
        return self.texts.where(~self.missing).rename(self.name)


def look_at(raw: pd.Series, *, decimal: str | None = None) -> Look:
    """Look at a raw column, text or typed; ``decimal`` is the mark that other columns show."""
    raw = raw.reset_index(drop=True)
    empty = gaps(raw, ())
    if (typed := _typed(raw, empty)) is not None:
        return typed
    texts = raw.astype("str").str.strip().fillna("")
    counts = texts[~empty].value_counts()
    gap_words = {word for word in counts.index if word in MISSING or word in SIGNS}
    vague = {word for word in counts.index if word.casefold() in UNKNOWN}
    none = gap_words | vague
    others = [word for word in counts.index if word not in none]
    if found := _as_numbers(raw, texts, empty, counts, none, others, decimal):
        return found
    gap_words = _gaps_among_words(gap_words, others)
    missing = empty | texts.isin(gap_words).to_numpy()
    words = {str(word): int(counts[word]) for word in counts.index if word in gap_words}
    plain = Look(str(raw.name), missing, texts, words)
    return _as_dates(plain) or plain


def _typed(raw: pd.Series, empty: np.ndarray) -> Look | None:
    """Look at a column whose file gives its type; None for one of text."""
    kind = pd.api.types.infer_dtype(raw, skipna=True)
    if kind in ("string", "mixed", "bytes"):
        return None
    texts, name = raw.map(_plain).astype("str").fillna(""), str(raw.name)
    if kind in ("integer", "floating", "mixed-integer-float", "decimal", "boolean"):
        values = pd.to_numeric(raw.astype(object).where(~empty, None), errors="coerce")
        return Look(name, empty, texts, values=values.to_numpy("float64", na_value=np.nan))
    if kind in ("datetime64", "datetime", "date"):
        dates = pd.to_datetime(raw, errors="coerce", utc=True)
        return Look(name, empty, texts, dates=dates)
    if kind == "empty":
        return Look(name, empty, texts)
    return None


def _plain(cell: Any) -> str:
    """Return a cell as text, 3.0 as 3."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def _as_numbers(
    raw: pd.Series,
    texts: pd.Series,
    empty: np.ndarray,
    counts: pd.Series,
    gap_words: set[str],
    others: list[str],
    decimal: str | None,
) -> Look | None:
    """Read the column as numbers, if they are; the words among mostly numbers are gaps."""
    numbers = [word for word in others if re.search(r"\d", word)]
    strange = [word for word in others if not re.search(r"\d", word)]
    if not numbers or len(strange) > MOST_WORDS:
        return None
    share = counts[numbers].sum() / counts[[*numbers, *strange]].sum()
    if share < MOSTLY or any(re.fullmatch(r"[+-]?0\d+", word) for word in numbers):
        return None
    formats = possible_formats(numbers) if possible_formats(numbers[:SAMPLE]) else []
    if not formats or _is_date_like(numbers):
        return None
    if decimal == "," and len(formats) > 1:  # the other columns show what the marks mean
        formats = sorted(formats, key=lambda one: not (one or "").endswith(("234,5", ".234,5")))
    format = formats[0]
    found = gap_words | {*strange}
    words = {word: int(counts[word]) for word in counts.index if word in found}
    missing = empty | texts.isin([*words]).to_numpy()
    values = np.array(
        [
            np.nan if gone else read_number(text, format)
            for text, gone in zip(texts, missing, strict=True)
        ]
    )
    name = str(raw.name)
    return Look(name, missing, texts, words, values, format=format, formats=formats[1:])


def _gaps_among_words(found: set[str], others: Sequence[str]) -> set[str]:
    """Return which of pandas' words are gaps in a column of words: None is a value there, and so is
    NA among codes such as EU."""
    values = set(VALUES)
    codes = [word for word in others if re.fullmatch("[A-Z]{2,4}", word)]
    if len(others) > 1 and len(codes) == len(others):
        values.add("NA")
    return found - values


def _is_date_like(texts: Sequence[str]) -> bool:
    """Return whether numbers are dates without separators, as 20260501."""
    sample = texts[:1000]
    if not all(re.fullmatch(r"(19|20)\d{6}", text) for text in sample):
        return False
    codes = date_codes("YYYYMMDD")
    return bool(pd.to_datetime(pd.Series(sample), format=codes, errors="coerce").notna().all())


def _as_dates(look: Look) -> Look | None:
    """Read the column as dates, if all are of one format; None if not."""
    uniques = look.known.unique()
    shaped = [text for text in uniques if DATE_SHAPE.fullmatch(text)]
    if not len(uniques) or len(shaped) < len(uniques):
        return None
    fitting = []
    for format in (None, *DATE_FORMATS):
        codes = date_codes(format) if format else "ISO8601"
        if format is None and not all(re.match(r"\d{4}-", text) for text in uniques):
            continue
        read = pd.to_datetime(pd.Series(uniques), format=codes, errors="coerce", utc=True)
        if read.notna().all():
            fitting.append(format)
    if not fitting:
        return None
    codes = date_codes(fitting[0]) if fitting[0] else "ISO8601"
    dates = pd.to_datetime(look.texts.where(~look.missing), format=codes, errors="coerce", utc=True)
    return Look(
        look.name,
        look.missing,
        look.texts,
        look.words,
        format=fitting[0],
        formats=fitting[1:],
        dates=dates,
    )


def bands(texts: Sequence[str]) -> list[str] | None:
    """Return bands in their order, None if the texts are none.

    >>> bands(["10-12", "1-3", "13+", "< 1"]), bands(["1/2", "3/4", "basic"])
    (['< 1', '1-3', '10-12', '13+'], None)
    """
    places: dict[str, tuple[float, int]] = {}
    marked = False
    for text in texts:
        found = BAND.fullmatch(text.strip())
        if not found:
            return None
        edge = float(re.sub("[,]", "", found["low"] or found["edge"]))
        marked |= any(found[part] for part in ("under", "range", "over", "above"))
        places[text] = (edge, -1 if found["under"] else 1 if found["over"] or found["above"] else 0)
    if not marked or len({*places.values()}) < len(places):
        return None
    return sorted(places, key=lambda text: places[text])
