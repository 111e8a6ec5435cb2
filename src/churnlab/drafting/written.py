"""Look at how the cells of a raw column are written: numbers, dates, bands, gaps."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from churnlab.data.cells import (
    BLANKS,
    MISSING,
    TRUTH,
    date_codes,
    gaps,
    possible_formats,
    read_number,
)

SIGNS = {
    *("?", "-", "--", "---", "–", "—", ".", "..", "*", "\\N", "#DIV/0!", "#VALUE!", "#REF!"),
    *("#NAME?", "#NUM!", "#NULL!"),
}
"""Signs that stand for nothing, in a column of words, too: those of sheets and databases, too."""

UNKNOWN = {
    *("unknown", "missing", "not available", "not applicable", "n.a.", "na", "none", "nil"),
    *("blank", "empty", "(blank)", "(null)", "(none)", "undefined", "no data", "tbd", "tba"),
    *("k.a.", "k. a.", "inf", "-inf", "infinity", "-infinity", "keine", "unbekannt", "inconnu"),
    *("desconocido", "неизвестно", "нет данных", "нет"),
}
"""Words that mean a gap among numbers or dates, in lower case; among words they are values."""

VALUES = {"None"}
"""What pandas takes for a gap and people write as a value: no offer, no contract."""

MOSTLY = 0.9
"""A column of so many numbers (or dates) is one of them, and its few words are gaps."""

MOST_WORDS = 5

PLENTY = 20
"""So many different numbers beside a single word in at most half of the cells are numbers, too."""

FEW_TYPOS = 0.02
"""In so large a share of the cells a column of many numbers may hold typing errors."""

SAMPLE = 100
"""Distinct cells that decide at once that a column holds no numbers."""

DAYS = (
    *("DD.MM.YYYY", "DD/MM/YYYY", "MM/DD/YYYY", "DD-MM-YYYY", "MM-DD-YYYY", "YYYY/MM/DD"),
    *("YYYY.MM.DD", "DD.MM.YY", "DD/MM/YY", "MM/DD/YY", "DD-MM-YY", "DD-MMM-YYYY", "DD-MMM-YY"),
    *("DD MMM YYYY", "DD MMMM YYYY", "MMM DD, YYYY", "MMMM DD, YYYY", "YYYYMMDD"),
)

DATE_FORMATS = (
    *(
        *DAYS,
        "MM/YYYY",
        "MMM YYYY",
        "MMMM YYYY",
        "MMM-YYYY",
        "MMM-YY",
        "YYYYMM",
        "YYYY-MM-DD hh:mm A",
    ),
    *(f"{day} {time}" for time in ("HH:mm", "HH:mm:ss", "hh:mm A", "hh:mm:ss A") for day in DAYS),
)
"""Formats of dates besides ISO 8601; of two that fit, the first."""

DATE_SHAPE = re.compile(
    r"\d{4}-\d\d(-\d\d([T ]\d\d?:\d\d.*)?)?"
    r"|(\d{8}|\d{1,4}(?P<mark>[./-])\d{1,2}(?P=mark)\d{1,4}|\d{1,2}[ -][A-Za-z]{3,9}[ -]\d{2,4}"
    r"|[A-Za-z]{3,9} \d{1,2}, \d{4})( \d\d?:\d\d.*)?"
    r"|\d{1,2}/\d{4}|\d{6}|[A-Za-z]{3,9}[ -]\d{4}|[A-Za-z]{3}-\d\d"
)
"""What may be a date; a band such as 1-3 or 10/12 is none."""

LAST_YEAR = 2200
"""A date of a later year, such as 9999-12-31, says that there is none."""

NUMBER = r"\d+(?:[.,]\d+)*(?:[kKmM](?![^\W\d_]))?"

SIGN = r"[^\w\s.\[(-]?"

UNIT = r"[^\W\d]+\.?"

BAND = re.compile(
    rf"(?P<under><=?|≤|under |below |less than |up to )?\s*{SIGN}(?P<low>{NUMBER})\s*"
    rf"(?P<range>(?:-|–|—|~|\.{{2,3}}|to|/)\s*{SIGN}{NUMBER}\s*)?(?:{UNIT}\s*)??"
    rf"(?P<over>\+|(?:and|or) (?:more|over|above|older)|plus)?(?:\s*{UNIT})?"
    rf"|(?P<above>>=?|≥|over |above |more than )\s*{SIGN}(?P<edge>{NUMBER})(?:\s*{UNIT})?",
    re.IGNORECASE,
)

INTERVAL = re.compile(r"[\[(]\s*(-?\d+(?:\.\d+)?|-inf)\s*,\s*(-?\d+(?:\.\d+)?|\+?inf)\s*[\])]")
"""A band as pandas.cut writes it: (18.0, 25.0]."""


@dataclass(frozen=True)
class Look:
    """What a raw column seems to hold, row by row.

    ``missing`` marks the gaps; ``words`` counts the words that they are written with. ``values``
    are the numbers or truth (NaN for gaps), None if it holds others; ``format`` is how text writes
    them (None: as every program does), ``formats`` what else it could mean. ``dates`` are
    timestamps in ``format``. ``texts`` are the cells as text without blanks around them, ``read``
    those of the column as every command reads it.
    """

    name: str
    missing: np.ndarray
    texts: pd.Series
    words: dict[str, int] = field(default_factory=dict)
    values: np.ndarray | None = None
    format: str | None = None
    formats: Sequence[str | None] = ()
    dates: pd.Series | None = None
    read: pd.Series | None = None

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


def look_at(raw: pd.Series) -> Look:
    """Look at a raw column, text or typed."""
    raw = raw.reset_index(drop=True)
    empty = gaps(raw, ())
    if (typed := _typed(raw, empty)) is not None:
        return typed
    texts = raw.astype("str").str.strip(BLANKS).fillna("")
    counts = texts[~empty].value_counts()
    gap_words = {word for word in counts.index if word in MISSING or word in SIGNS}
    vague = {word for word in counts.index if word.casefold() in UNKNOWN}
    none = gap_words | vague
    others = [word for word in counts.index if word not in none]
    if found := _as_numbers(raw, texts, empty, counts, none, others):
        return found
    gap_words = _gaps_among_words(gap_words, others, vague - gap_words)
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
        numbers = pd.to_numeric(raw.astype(object).where(~empty, None), errors="coerce")
        values = numbers.to_numpy("float64", na_value=np.nan)
        endless = np.isinf(values)
        words = _counts(texts[endless])
        return Look(name, empty | endless, texts, words, values=values)
    if kind in ("datetime64", "datetime", "date"):
        dates = pd.to_datetime(raw, errors="coerce", utc=True)
        far = dates.dt.year > LAST_YEAR
        words = _counts(texts[far].str[:10])
        return Look(name, empty | far.to_numpy(), texts, words, dates=dates.mask(far))
    if kind == "empty":
        return Look(name, empty, texts)
    return None


def _counts(words: pd.Series) -> dict[str, int]:
    return {str(word): int(count) for word, count in words.value_counts().items()}


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
) -> Look | None:
    """Read the column as numbers, if they are; the words among mostly numbers are gaps."""
    digits = [word for word in others if re.search(r"\d", word)]
    typos = _typos(digits, counts)
    numbers = [word for word in digits if word not in typos]
    strange = [word for word in others if word in typos or word not in {*digits}]
    if not numbers or len(strange) > MOST_WORDS:
        return None
    share = counts[numbers].sum() / counts[[*numbers, *strange]].sum()
    plenty = len(strange) == 1 and len(numbers) >= PLENTY and share >= 1 / 2
    if not (share >= MOSTLY or plenty) or any(re.fullmatch(r"[+-]?0\d+", word) for word in numbers):
        return None
    formats = possible_formats(numbers) if possible_formats(numbers[:SAMPLE]) else []
    if not formats or _is_date_like(numbers):
        return None
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


def _typos(digits: list[str], counts: pd.Series) -> set[str]:
    """Return the few words with digits, as 12O.5, that are no numbers in a column of many."""
    if possible_formats(digits[:SAMPLE]) and possible_formats(digits):
        return set()
    for part in (digits[:SAMPLE], digits):  # most columns of words need no second look
        typos = [word for word in part if not possible_formats([word])]
        if len(typos) > MOST_WORDS or len(digits) - len(typos) < PLENTY:
            return set()
    return {*typos} if counts[typos].sum() <= FEW_TYPOS * counts[digits].sum() else set()


def _gaps_among_words(found: set[str], others: Sequence[str], vague: set[str]) -> set[str]:
    """Return which words are gaps in a column of words: None is a value there, and so is NA among
    codes such as EU, but neither is one beside Yes and No.

    Of the ``vague`` words (na, unknown) those are gaps that are one of the others in small letters.
    """
    truth = {TRUTH.get(word.casefold()) for word in others}
    if truth == {0.0, 1.0}:
        likely = {word.casefold() for word in MISSING}
        return found | {word for word in vague if word.casefold() in likely}
    values = set(VALUES)
    codes = [word for word in others if re.fullmatch("[A-Z]{2,4}", word)]
    if len(others) > 1 and len(codes) == len(others):
        values.add("NA")
    kept = found - values
    alike = {word.casefold() for word in kept}
    return kept | {word for word in vague if word.casefold() in alike}


def _is_date_like(texts: Sequence[str]) -> bool:
    """Return whether numbers are dates without separators, as 20260501, or months, as 202605."""
    sample = pd.Series(texts[:1000])
    for digits, format in ((8, "YYYYMMDD"), (6, "YYYYMM")):
        if sample.str.fullmatch(rf"(19|20)\d{{{digits - 2}}}").all():
            read = pd.to_datetime(sample, format=date_codes(format), errors="coerce")
            return bool(read.notna().all())
    return False


def _as_dates(look: Look) -> Look | None:
    """Read the column as dates of one format, if nearly all are; its few other words are gaps."""
    counts = look.known.value_counts()
    shaped = pd.Series([text for text in counts.index if DATE_SHAPE.fullmatch(text)], dtype="str")
    if shaped.empty or len(counts) - len(shaped) > MOST_WORDS:
        return None
    gaps_in = {format: _no_dates(shaped, format, counts) for format in _likely_formats(shaped)}
    fitting = {format: words for format, words in gaps_in.items() if words is not None}
    fewest = min(map(len, fitting.values()), default=0)
    formats = [format for format, words in fitting.items() if len(words) == fewest]
    if not formats:
        return None
    none = fitting[formats[0]]
    missing = look.missing | look.texts.isin(none).to_numpy()
    dates = _read_dates(look.texts.where(~missing), formats[0])
    words = look.words | {word: int(counts[word]) for word in none}
    return Look(
        look.name,
        missing,
        look.texts,
        words,
        format=formats[0],
        formats=formats[1:],
        dates=dates,
    )


def _likely_formats(texts: pd.Series) -> Iterator[str | None]:
    """Yield the formats in which half of the first texts are dates; None is ISO 8601."""
    sample = texts.head(SAMPLE)
    iso = sample.str.match(r"\d{4}-").mean() >= 1 / 2
    for format in (*[None] * bool(iso), *DATE_FORMATS):
        if _read_dates(sample, format).notna().mean() >= 1 / 2:
            yield format


def _read_dates(texts: pd.Series, format: str | None) -> pd.Series:
    codes = date_codes(format) if format else "ISO8601"
    return pd.to_datetime(texts, format=codes, errors="coerce", utc=True)


def _no_dates(shaped: pd.Series, format: str | None, counts: pd.Series) -> list[str] | None:
    """Return the words that are no dates in a format: few, or such as stand for none; None if they
    are more."""
    read = _read_dates(shaped, format)
    far = shaped[read.dt.year > LAST_YEAR]
    known = shaped[read.notna() & ~shaped.isin(far)]
    others = counts.index.difference(list(known), sort=False)
    says_none = [
        word
        for word in others
        if word.casefold() in UNKNOWN or re.fullmatch(r"[0:\s./-]+", word) or word in {*far}
    ]
    doubtful = counts[others.difference(says_none)].sum()
    known_rows = counts[known].sum()
    few = len(others) <= MOST_WORDS and known_rows >= MOSTLY * (known_rows + doubtful)
    return list(others) if few and known_rows else None


def bands(texts: Sequence[str]) -> list[str] | None:
    """Return bands in their order, None if the texts are none.

    >>> bands(["10-12", "1-3", "13+", "< 1"]), bands(["1/2", "3/4", "basic"])
    (['< 1', '1-3', '10-12', '13+'], None)
    >>> bands(["$40K - $60K", "Less than $40K", "$60K +"]), bands(["(9, 12]", "(-inf, 9]"])
    (['Less than $40K', '$40K - $60K', '$60K +'], ['(-inf, 9]', '(9, 12]'])
    """
    places: dict[str, tuple[float, int]] = {}
    marked = False
    for text in texts:
        if interval := INTERVAL.fullmatch(text.strip()):
            places[text], marked = (float(interval[1]), 0), True
            continue
        found = BAND.fullmatch(text.strip())
        edge = math.nan if found is None else _edge(found["low"] or found["edge"])
        if found is None or math.isnan(edge):
            return None
        marked |= any(found[part] for part in ("under", "range", "over", "above"))
        places[text] = (edge, -1 if found["under"] else 1 if found["over"] or found["above"] else 0)
    if not marked or len({*places.values()}) < len(places):
        return None
    return sorted(places, key=lambda text: places[text])


def _edge(text: str) -> float:
    """Return the number at the edge of a band: 40K is 40,000; NaN if it is none, as in 1.2.3."""
    digits = text.rstrip("kKmM").replace(",", "")
    if re.fullmatch(r"\d{1,3}(\.\d{3}){2,}", digits):
        digits = digits.replace(".", "")
    thousand = {"k": 1e3, "m": 1e6}.get(text[-1].casefold(), 1)
    return float(digits) * thousand if digits.count(".") < 2 else math.nan
