"""Find numbers and days that stand for unknown: -1, 999 or 1900-01-01 among values unlike them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from churnlab.drafting.names import names_age, names_count
from churnlab.drafting.written import Look
from churnlab.formatting import counted

CODES = (-1, -9, -99, -999, -9999, 99, 999, 9999, 99999, 999999)

DAYS = pd.to_datetime(
    [
        *("1753-01-01", "1800-01-01", "1899-12-30", "1899-12-31", "1900-01-01", "1901-01-01"),
        *("1970-01-01", "2099-12-31"),
    ],
    utc=True,
)
"""Days that databases and sheets write for none."""

OLDEST = 120
"""Years that nobody is older than, and that no dates of living members lie back."""

APART = 3
"""A code is so many times the largest other number."""

YEARS_APART = 10
"""Such a day is so many years before or after all others."""

OFTEN = 5
"""A code among the others is in so many cells, and so many times as frequent as they are."""


def without_unknown(look: Look) -> tuple[Look, list[str]]:
    """Return the look without codes that must mean unknown, and a note on each that may.

    A code must if it is far from all others, repeated, and impossible by the column's meaning, as a
    negative age is.
    """
    notes = []
    for value, cells, alone in [*_codes(look)]:
        texts = look.texts[cells]
        if look.dates is not None and look.format is None:
            texts = texts.str[:10]
        words = {str(word): int(count) for word, count in texts.value_counts().items()}
        if alone and cells.sum() > 1 and _is_impossible(look, value):
            look = _without(look, cells, words)
            continue
        written = ", ".join(f'"{word}"' for word in sorted({*look.words, *words}))
        binary = look.values is not None and {*_known(look.values, cells)} <= {0.0, 1.0}
        keys = f"{{kind: binary, missing: [{written}]}}" if binary else f"missing: [{written}]"
        who = f"{counted(int(cells.sum()), 'member')} {'has' if cells.sum() == 1 else 'have'}"
        notes.append(f"{who} {next(iter(words))}; if this means unknown, write {keys}")
    return look, notes


def _codes(look: Look) -> Iterator[tuple[float | pd.Timestamp, np.ndarray, bool]]:
    """Yield each code among the values, its cells, and whether it is far from all others."""
    if look.dates is not None:
        days = look.dates.dt.normalize()
        for day in DAYS:
            cells = (days == day).to_numpy() & ~look.missing
            others = days[~look.missing & ~cells]
            if cells.any() and others.nunique() > 1:
                far = pd.DateOffset(years=YEARS_APART)
                alone = bool(others.min() > day + far or others.max() < day - far)
                if alone or _is_frequent(cells, others):
                    yield day, cells, alone
    elif look.values is not None:
        present = {*np.unique(look.values[~look.missing])}
        codes = [code for code in CODES if code in present]
        for code in codes:
            cells = look.values == code
            others = pd.Series(_known(look.values, np.isin(look.values, codes)))
            if others.nunique() < 2:
                continue
            alone = others.min() >= 0 and (code < 0 or code >= APART * others.max())
            extreme = code < others.min() or code > others.max()
            if alone or (extreme and abs(code) > 99 and _is_frequent(cells, others)):
                yield float(code), cells, bool(alone)


def _known(values: np.ndarray, cells: np.ndarray) -> np.ndarray:
    return values[~cells & ~np.isnan(values)]


def _is_frequent(cells: np.ndarray, others: pd.Series) -> bool:
    return bool(cells.sum() >= OFTEN * max(1.0, others.value_counts().median()))


def _is_impossible(look: Look, value: float | pd.Timestamp) -> bool:
    """Return whether nobody has such a value: a negative age, 999 years, a day before them all."""
    if isinstance(value, pd.Timestamp):
        latest = look.dates.max() if look.dates is not None else value
        return bool(latest.year - value.year >= OLDEST)
    age = names_age(look.name)
    return (age and value > OLDEST) or (value < 0 and (age or names_count(look.name)))


def _without(look: Look, cells: np.ndarray, words: dict[str, int]) -> Look:
    """Return the look in which these cells are gaps, written with these words."""
    values = None if look.values is None else np.where(cells, np.nan, look.values)
    dates = None if look.dates is None else look.dates.mask(cells)
    missing = look.missing | cells
    return replace(look, missing=missing, words=look.words | words, values=values, dates=dates)
