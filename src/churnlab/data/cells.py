"""Read the cells of a column as people write them: numbers, truth in words, dates and gaps.

A table, a scored file and a served version read the same cell to the same value. A version carries
a copy of this file and runs it where churnlab is not installed: it stands alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from datetime import date
from decimal import Decimal
from functools import lru_cache
from numbers import Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a format is checked before pandas is loaded
    import numpy as np
    import pandas as pd

MISSING = frozenset(
    (
        *("", "#N/A N/A", "#N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND"),
        *("1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    )
)
"""How pandas writes a missing value; a declared category of such a name is a value."""

WORDS = {True: ("yes", "true", "y", "t", "on"), False: ("no", "false", "n", "f", "off")}
"""How truth is written in words. YAML reads some of them as true and false."""

TRUTH = {word: float(truth) for truth, words in WORDS.items() for word in words}

FORMAT = re.compile(
    r"(?P<prefix>\D*?)1(?P<thousands>[ \u00a0\u202f,.'’]?)234(?:(?P<decimal>[.,])5)?(?P<suffix>\D*)"
)
"""A format is the number 1234.5 as the column would write it."""

BLANK = r"[ \t\u00a0\u202f]"

BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\u200b\u200c\u200d\u2060\ufeff"
"""What is no part of a cell at its ends: white space, and characters that cannot be seen."""

LOSS = re.compile(
    r"([^\d()+−-]*)\(([^()+−-]*\d[^()+−-]*)\)([^\d()+−-]*)|([^()+−-]*\d[^()+−-]*)[−-]"
)
"""A negative number as bookkeepers write it, in brackets or with the sign behind it."""

LONGEST = 60
"""Characters of a number, more than any has."""

CURRENCY = (
    r"[$€£¥₽₹₺₴₩]|US\$|R\$|USD|EUR|GBP|CHF|RUB|JPY|CNY|INR|BRL|PLN|SEK|NOK|DKK|CZK"
    r"|Rs\.?|kr\.?|zł|руб\.?|р\."
)
UNITS = (
    r"kg|km|cm|mm|GB|MB|TB|kWh|h|hrs?|min|sec|days?|weeks?|mos?|months?|mths?|years?|yrs?"
    r"|лет|мес\.?"
)
MULTIPLES = re.compile("k|m|mn|mln|mio|b|bn|tsd|t|thousand|million|тыс|млн", re.IGNORECASE)
"""Letters that multiply: 12 k is no 12, so such a column stays text."""

WRITTEN = re.compile(
    rf"[+−-]?{BLANK}*(?P<prefix>{CURRENCY})?{BLANK}*[+−-]?{BLANK}*"
    rf"(?P<core>[0-9.,](?:[0-9.,'’ \u00a0\u202f]*[0-9.,])?(?:[eE][+-]?[0-9]+)?)"
    rf"(?P<blank>{BLANK}*)(?P<suffix>%|‰|{CURRENCY}|{UNITS}|(?<={BLANK})[^\W\d_]{{1,12}}\.?"
    rf"|(?:{CURRENCY}|{UNITS})?{BLANK}*(?:/|per{BLANK}){BLANK}*[^\W\d_]{{1,12}}\.?)?",
    re.IGNORECASE,
)

MARKS = [("", "."), *((mark, ".") for mark in ", '’"), (".", ","), (" ", ","), ("", ",")]
"""Thousands separators and decimal marks, the likelier ones first."""

DATE_PARTS = {
    **{"YYYY": "%Y", "YY": "%y", "MMMM": "%B", "MMM": "%b", "MM": "%m", "DD": "%d"},
    **{"HH": "%H", "hh": "%I", "mm": "%M", "ss": "%S", "A": "%p"},
}
"""The parts of a date's format and their codes in strptime."""


@lru_cache(maxsize=256)
def number_pattern(format: str | None) -> tuple[re.Pattern[str], str, str]:
    """Return the pattern of numbers of this format, their thousands separator and decimal mark.

    The format is the number 1234.5 as the column writes it: 1,234.5 or 1.234,5 € or $1234.5; None
    is 1234.5. ValueError: it is no such number.

    >>> number_pattern("1.234,5 €")[1:]
    ('.', ',')
    """
    found = FORMAT.fullmatch("1234.5" if format is None else format.strip())
    thousands, decimal = (found["thousands"], found["decimal"]) if found else ("", None)
    decimal = decimal or ("," if thousands == "." else ".")
    if not found or thousands == decimal:
        raise ValueError(
            f"format={format} must be the number 1234.5 as the column writes it, such as 1,234.5 "
            "or 1.234,5 € or $1234.5"
        )
    group = BLANK if thousands.isspace() else re.escape(thousands)
    # 0,107 holds no thousands
    digits = rf"(?:[1-9][0-9]{{0,2}}(?:{group}[0-9]{{3}})+|[0-9]+)" if thousands else "[0-9]+"
    if thousands == ",":  # 12,34,567 in India
        digits = rf"(?:[1-9][0-9]?(?:,[0-9]{{2}})+,[0-9]{{3}}|{digits})"
    mark = re.escape(decimal)
    core = rf"(?:{digits}(?:{mark}[0-9]*)?|{mark}[0-9]+)(?:[eE][+-]?[0-9]+)?|inf(?:inity)?"
    before, after = (
        rf"(?:{re.escape(part)}{'?' if part.endswith('s') else ''})?"  # 1 month, 2 months
        for part in (found["prefix"].strip(), found["suffix"].strip())
    )
    sign = "(?P<{}>[+−-]?)"
    text = rf"{sign.format('first')}{BLANK}*{before}{BLANK}*{sign.format('second')}{BLANK}*"
    pattern = re.compile(rf"{text}(?P<core>{core}){BLANK}*{after}", re.IGNORECASE)
    return pattern, thousands, decimal


@lru_cache(maxsize=2**16)
def read_number(text: str, format: str | None = None) -> float:
    """Return the number that a text holds in a format, NaN if it holds none.

    >>> read_number("8,993", "1,234.5"), read_number("-1.234,50 €", "1.234,5 €"), read_number("8,9")
    (8993.0, -1234.5, nan)
    """
    pattern, thousands, decimal = number_pattern(format)
    text = text.strip(BLANKS)
    if loss := _loss(text):
        return -read_number(loss, format)
    found = pattern.fullmatch(text)
    if not found or (found["first"] and found["second"]):
        return math.nan
    core = re.sub(BLANK, "", found["core"])
    core = core.replace(thousands, "") if thousands else core
    number = float(core.replace(decimal, "."))
    return -number if (found["first"] or found["second"]) in ("-", "−") else number


def _loss(text: str) -> str | None:
    """Return what is lost by a number as bookkeepers write a loss; None for any other text.

    >>> _loss("$(1,200)"), _loss("12.50-"), _loss("-3")
    ('$1,200', '12.50', None)
    """
    if len(text) > LONGEST or not ("(" in text or text.endswith(("-", "−"))):
        return None
    found = LOSS.fullmatch(text)
    return "".join(found.groups("")) if found else None


def possible_formats(texts: Iterable[str]) -> list[str | None]:
    """Return the formats in which every text is a number, the likeliest first; None is the plain
    1234.5.

    >>> possible_formats(["8,993"]), possible_formats(["1 200 €"]), possible_formats(["12 k", "5"])
    (['1,234.5', '1234,5'], ['1 234.5 €'], [])
    """
    texts = [text.strip(BLANKS) for text in dict.fromkeys(texts)]
    losses = {text: loss for text in texts if (loss := _loss(text))}
    if losses and len(losses) == len(texts):  # codes such as (415)
        return []
    found = [WRITTEN.fullmatch(losses.get(text, text).strip(BLANKS)) for text in texts]
    if not texts or not all(found):
        return []
    parts = [one for one in found if one]
    prefixes = {one["prefix"] for one in parts if one["prefix"]}
    suffixes = {one["suffix"] for one in parts if one["suffix"]}
    singular = {word.removesuffix("s") for word in suffixes}
    both = all(one["prefix"] and one["suffix"] for one in parts)  # as $5 a month
    if len(prefixes) + len(singular) > 1 + both or any(map(MULTIPLES.fullmatch, suffixes)):
        return []
    prefix = "".join(prefixes)
    suffix = max(suffixes, key=len, default="")
    blank = " " if any(one["blank"] and one["suffix"] for one in parts) else ""
    marks = {" " if mark.isspace() else mark for mark in {*"".join(one["core"] for one in parts)}}
    formats: list[str | None] = []
    for thousands, decimal in MARKS:
        format = f"{prefix}1{thousands}234{decimal}5{blank}{suffix}"
        comma = decimal == "." or thousands == "." or "," in marks
        seen = comma and (not thousands or thousands in marks)
        if seen and not any(math.isnan(read_number(text, format)) for text in texts):
            formats.append(None if format == "1234.5" else format)
    if None in formats:  # the plain number is what every program reads
        return [None, *[one for one in formats if one == "1.234,5"]]
    return formats


def as_number(value: float) -> str:
    """Return a number as every program reads it: 8993, not 8993.0."""
    return f"{value:.15g}"


def date_codes(format: str) -> str:
    """Return a format as DD.MM.YYYY in the codes of strptime. ValueError: it is no date's.

    >>> date_codes("DD.MM.YYYY HH:mm")
    '%d.%m.%Y %H:%M'
    """
    codes = re.sub("|".join(DATE_PARTS), lambda found: DATE_PARTS[found[0]], format)
    if not re.search("%Y|%y", codes) or re.search("[A-Za-z]{2}", re.sub("%.", "", codes)):
        raise ValueError(
            f"format={format} must say how the dates are written, with {', '.join(DATE_PARTS)}, "
            "such as DD.MM.YYYY"
        )
    return codes


def gaps(column: pd.Series, missing: Collection[str] | None = None) -> np.ndarray:
    """Return which cells are missing: empty ones, white space, and the words that mean a gap.

    >>> import pandas as pd
    >>> gaps(pd.Series(["gold", " ", "NA", "None"]), ["NA"]).tolist()
    [False, True, True, False]
    """
    import numpy as np
    import pandas as pd

    found = column.isna().to_numpy(dtype="bool")
    if column.dtype.kind in "biufcmM":
        return found
    words = MISSING if missing is None else missing

    def is_word(cell: Any) -> bool:
        return isinstance(cell, str) and (not (text := cell.strip(BLANKS)) or text in words)

    if isinstance(column.dtype, pd.StringDtype):
        codes, texts = pd.factorize(column)
        wordy = np.array([*map(is_word, texts), False], dtype=bool)
        return found | wordy[codes]
    return found | np.fromiter(map(is_word, column.astype(object)), bool, len(column))


def folded(text: str) -> str:
    """Return a text without capitals and needless blanks: texts that fold to one are one value.

    >>> folded(" New  YORK")
    'new york'
    """
    return " ".join(text.strip(BLANKS).split()).casefold()


def as_listed(column: pd.Series, values: Collection[str], *, fold: bool = False) -> pd.Series:
    """Return a column of words in which a cell that has blanks around one of the values is it.

    With ``fold`` a cell that differs from a value in capitals and blanks alone is it, too; without
    values every cell is folded.

    >>> import pandas as pd
    >>> as_listed(pd.Series([" gold", "gold", " silver"]), ["gold"]).tolist()
    ['gold', 'gold', ' silver']
    >>> as_listed(pd.Series(["GOLD ", "gold", "Silver"]), ["Gold"], fold=True).tolist()
    ['Gold', 'Gold', 'Silver']
    """
    import pandas as pd

    typed = isinstance(column.dtype, pd.StringDtype)
    known, cells = {*values}, column.dropna().unique() if typed else column.astype(object)
    usual = {folded(value): value for value in values} if fold else {}
    words = {}
    for cell in cells if known or fold else ():
        if isinstance(cell, str) and cell not in known:
            bare = cell.strip(BLANKS)
            meant = usual.get(folded(cell)) if usual else folded(cell) if fold else None
            words[cell] = bare if bare in known else meant
    words = {cell: meant for cell, meant in words.items() if meant not in (None, cell)}
    if not words:
        return column
    listed_cells = [words.get(cell, cell) if isinstance(cell, str) else cell for cell in column]
    return pd.Series(listed_cells, index=column.index, name=column.name, dtype=object)


def read_numbers(
    column: pd.Series,
    kind: str,
    *,
    format: str | None = None,
    before: str | None = None,
    missing: Collection[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells as float64, NaN where there is none, and which cells are there and wrong.

    A ``binary`` column reads truth and its words as 1 and 0; a ``date`` is its age in days at the
    start of the day ``before``. ``format`` says how text writes the numbers (as 1.234,5 €) or the
    dates (as DD.MM.YYYY; without one by ISO 8601); ``missing`` lists the words that mean a gap.
    """
    import numpy as np
    import pandas as pd

    if column.dtype.kind in ("biuf" if kind == "binary" else "iuf"):
        typed = isinstance(column.dtype, np.dtype)  # which holds no <NA>
        values = (
            column.to_numpy("float64") if typed else column.to_numpy("float64", na_value=np.nan)
        )
        values = _without_codes(values, missing, None if kind == "date" else format)
        if not (kind == "date" and _in_digits(format)):
            return values, np.zeros(len(values), bool)
        column = pd.Series(values)
    gap = gaps(column, missing)
    cells = column.astype(object).to_numpy()
    if kind == "date" and missing:  # a typed day, too, may mean that there is none
        gap = gap | [str(cell)[:10] in missing for cell in cells]
    if kind == "date":
        assert before is not None
        values = _ages(cells, gap, format, before)
        if missing:
            none = np.isin(values, _ages_of_none(tuple(missing), format, before))
            values, gap = np.where(none, np.nan, values), gap | none
    else:
        found = (
            math.nan if gone else _number(cell, kind, format)
            for cell, gone in zip(cells, gap, strict=True)
        )
        values = np.fromiter(found, "float64", len(cells))
    wrong = np.isnan(values) & ~gap
    return (values if kind == "date" else _without_codes(values, missing, format)), wrong


def _without_codes(
    values: np.ndarray, missing: Collection[str] | None, format: str | None
) -> np.ndarray:
    """Return numbers without those that mean a gap, as 999 may."""
    import numpy as np

    codes = {read_number(word, format) for word in missing or ()}
    return np.where(np.isin(values, [*codes]), np.nan, values) if codes else values


def _number(cell: Any, kind: str, format: str | None) -> float:
    """Return the number that a cell holds, NaN if it holds none; true is 1 in a binary column."""
    if isinstance(cell, str):
        word = TRUTH.get(cell.strip(BLANKS).casefold()) if kind == "binary" else None
        return read_number(cell, format) if word is None else word
    truth = isinstance(cell, bool) or type(cell).__name__ == "bool"  # that of numpy
    if not (truth or isinstance(cell, Real | Decimal)) or (truth and kind != "binary"):
        return math.nan
    try:
        return float(cell)
    except OverflowError:
        return math.inf


@lru_cache
def _ages_of_none(missing: tuple[str, ...], format: str | None, before: str) -> list[float]:
    """Return the ages of days that mean a gap, as 1900-01-01 may, however a cell holds them."""
    import numpy as np

    words = np.array(missing, dtype=object)
    ages = _ages(words, np.zeros(len(words), bool), format, before)
    return ages[~np.isnan(ages)].tolist()


def _in_digits(format: str | None) -> bool:
    """Return whether a format writes dates in so many digits that no age in days has as many."""
    return format is not None and len(format) >= 6 and {*format} <= {*"YMDHms"}


def _ages(cells: np.ndarray, gap: np.ndarray, format: str | None, before: str) -> np.ndarray:
    """Return the ages of dates in days; a number is an age already, unless it is a date in digits,
    such as 20260501, which a notebook reads as a number."""
    import numpy as np
    import pandas as pd

    days = np.full(len(cells), np.nan)
    dates: dict[int, Any] = {}
    for row in np.flatnonzero(~gap):
        cell = cells[row]
        if not isinstance(cell, str | date | np.datetime64):
            days[row] = _number(cell, "date", None)
            cell = f"{days[row]:.0f}"
            if not (_in_digits(format) and len(cell) == len(format or "")):
                continue
        dates[int(row)] = cell
    if dates:
        texts = {row: cell.strip(BLANKS) for row, cell in dates.items() if isinstance(cell, str)}
        codes = date_codes(format) if format else "ISO8601"
        read = pd.to_datetime(
            pd.Series(texts, dtype="str"), format=codes, errors="coerce", utc=True
        )
        typed = {row: cell for row, cell in dates.items() if row not in texts}
        typed_read = pd.to_datetime(pd.Series(typed, dtype=object), errors="coerce", utc=True)
        found = pd.concat([part for part in (read, typed_read) if len(part)])
        age = (pd.Timestamp(before, tz="UTC") - found) / pd.Timedelta(days=1)
        days[found.index.to_numpy()] = age.to_numpy(dtype="float64")
    return days
