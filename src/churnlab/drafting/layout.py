"""Find lines of a table that are no members: descriptions under the header, headers, totals."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd

from churnlab.data.cells import BLANKS, gaps, possible_formats
from churnlab.data.table import MOST_TOTALS, Table, totals_labels, totals_lines
from churnlab.drafting.written import look_at
from churnlab.errors import InputError
from churnlab.formatting import clipped, listed

MOST_LINES = 3
"""Lines of descriptions, units or types that may stand under a header."""

SAMPLE = 200


def check_lines(cells: pd.DataFrame, table: Table) -> None:
    """Refuse a table that ends with totals, and a CSV file with lines that describe the columns, or
    repeat the header, or without a header, or with a single column."""
    if totals := _totals(cells):
        verb = "holds" if len(totals) == 1 else "hold"
        why = "; ".join(totals.values())
        raise InputError(_message(table, [*totals], f"{verb} totals ({why})"))
    if table.lines is None:
        return
    if cells.shape[1] == 1:
        raise InputError(
            f"{table.source} has a single column, {clipped(str(cells.columns[0]), 60)}: cells are "
            "separated by commas, semicolons, tabs or vertical bars; save it with one of them."
        )
    stripped = cells.apply(lambda column: column.astype("str").str.strip(BLANKS))
    names = np.array([str(name).strip(BLANKS) for name in cells])
    numbers = [name for name in names if possible_formats([name])]
    words = [
        name
        for name, column in zip(names, stripped, strict=True)
        if (stripped[column] == name).sum() > 1
    ]
    if numbers and words and len(numbers) + len(words) >= len(names) / 2:
        raise InputError(
            f"{table.source}: the first line looks like a member, not like a header "
            f"({numbers[0]}, {words[0]}); write a line with the names of the columns above it."
        )
    repeated = np.flatnonzero((stripped.to_numpy() == names).all(axis=1))
    if len(repeated):
        raise InputError(_message(table, repeated, "repeats the header"))
    for count in range(1, MOST_LINES + 1):
        if column := _described(stripped, count):
            found = clipped(repr(stripped[column].iloc[0]))
            what = f"describes the columns ({column}: {found}, and numbers below)"
            raise InputError(_message(table, np.arange(count), what))


def _totals(cells: pd.DataFrame) -> dict[int, str]:
    """Return why the last rows are totals, by row; none if they are members."""
    words = cells.tail(MOST_TOTALS).map(lambda cell: "" if _is_number(cell) else cell)
    if not (labels := totals_labels(words)):
        return {}
    looks = {str(name): look_at(cells[name]) for name in cells}
    numbers = {name: look.values for name, look in looks.items() if look.values is not None}
    return totals_lines(pd.DataFrame(numbers, index=range(len(cells))), labels)


def _is_number(cell: Any) -> bool:
    return bool(possible_formats([cell])) if isinstance(cell, str) else isinstance(cell, Number)


def _described(cells: pd.DataFrame, count: int) -> str | None:
    """Return a column of numbers below so many first rows, of which none holds a number; None if
    the first rows are members like the others."""
    if len(cells) < count + 3:
        return None
    first, rest = cells.iloc[:count], cells.iloc[count : count + SAMPLE]
    if any(possible_formats([text]) for text in np.unique(first.to_numpy().astype(str))):
        return None
    for name in cells:
        known = rest[name][~gaps(rest[name])]
        if len(known) and not gaps(first[name]).any() and possible_formats(known):
            return str(name)
    return None


def _message(table: Table, rows: Sequence[int] | np.ndarray, what: str) -> str:
    lines = [str(row if table.lines is None else table.lines[int(row)]) for row in rows]
    one, noun = len(lines) == 1, "row" if table.lines is None else "line"
    head = f"{table.source}: {noun}{'' if one else 's'} {listed(lines, 5)} {what}, and "
    head += "is no member" if one else "are no members"
    if table.lines is None or "://" in table.source or table.source.endswith(".gz"):
        return f"{head}; remove {'it' if one else 'them'} from the file."
    stem, dot, ending = table.source.rpartition(".")
    clean = f"{stem}_members.{ending}" if dot else f"{table.source}_members"
    remove = "".join(f"{line}d;" for line in lines).removesuffix(";")
    words = f"sed {shlex.quote(remove)} {shlex.quote(table.source)} > {shlex.quote(clean)}"
    return (
        f"{head}; remove {'it' if one else 'them'}: {words} && churnlab init {shlex.quote(clean)}"
    )
