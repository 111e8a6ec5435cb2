"""Format numbers, names and dates for people: values in, plain text out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what only formats numbers loads no pandas
    import pandas as pd

PROGRESS = 15
"""The log level of how far the work is, which a terminal shows in its live line: below INFO."""


class Table(str):
    """A table as plain text; a terminal draws its cells instead, within its own width."""

    columns: list[str]
    rows: list[list[str]]
    numeric: list[bool]
    spare: Sequence[str]

    @classmethod
    def of(
        cls,
        frame: pd.DataFrame,
        *,
        missing: str = "NaN",
        floats: Callable[[float], str] = str,
        left: str | None = None,
        spare: Sequence[str] = (),
        plain: str | None = None,
    ) -> Table:
        """Format a frame; ``left`` is its only column of which the plain text begins at the left.

        ``missing`` stands for a missing value, ``floats`` formats the cells that are floats. A
        terminal without room for whole words leaves out the columns in ``spare``, the first first.
        ``plain`` is the plain text where that is no table.
        """
        align = {left: f"{{:<{frame[left].str.len().max()}}}".format} if left else None
        table = cls(
            frame.to_string(
                index=False,
                na_rep=missing,
                formatters=align,
                float_format=None if floats is str else floats,
            )
            if plain is None
            else plain
        )
        table.columns = [str(name) for name in frame.columns]
        table.rows = [
            [
                missing if is_missing else floats(cell) if isinstance(cell, float) else str(cell)
                for cell, is_missing in zip(row, gaps, strict=True)
            ]
            for row, gaps in zip(frame.to_numpy(object), frame.isna().to_numpy(), strict=True)
        ]
        table.numeric = [dtype.kind in "iuf" for dtype in frame.dtypes]
        table.spare = spare
        return table


class Lines(str):
    """Lines as plain text; ``parts`` are the lines, among which a terminal finds the tables."""

    parts: list[str]

    @classmethod
    def of(cls, parts: Iterable[str]) -> Lines:
        """Join lines and tables.

        >>> Lines.of(["Two", "lines"])
        'Two\\nlines'
        """
        parts = list(parts)
        lines = cls("\n".join(parts))
        lines.parts = parts
        return lines


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


NO_LETTERS = (
    "figures show boxes in place of letters that their font, DejaVu Sans, does not have; tables "
    "and pages have the letters"
)


def of_a_library(category: type[Warning], message: Warning | str) -> str:
    """Return what a library warns of as one line.

    >>> of_a_library(RuntimeWarning, "overflow\\n  in exp")
    'a library warns (RuntimeWarning): overflow in exp'
    """
    if str(message).startswith("Glyph ") and "missing from font" in str(message):
        return NO_LETTERS  # matplotlib warns of each letter
    return f"a library warns ({category.__name__}): {clipped(' '.join(str(message).split()), 160)}"


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


def apart(values: Sequence[Any]) -> list[Any]:
    """Quote the values of a list if one of them has a comma, which else ends a value.

    >>> apart(["Basic, Plus", "gold"]), apart([1, 6])
    (['"Basic, Plus"', '"gold"'], [1, 6])
    """
    return [f'"{value}"' for value in values] if any("," in str(v) for v in values) else [*values]
