"""Read the forms in which members are sent: a table's names, and its columns when they are needed.

A body of many names that are no inputs costs no more than its bytes: only the inputs become
columns.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

import pandas as pd

from churnlab.data.cells import BLANKS, MISSING, read_number
from churnlab.data.csv_structure import structure
from churnlab.formatting import clipped, counted

FORMS = ("dataframe_records", "dataframe_split", "inputs", "instances")
"""The fields of which a JSON body has exactly one, as for MLflow's server."""

Cells = Sequence[Any] | pd.Series
"""The cells of a column as JSON has them, or as pandas reads them from CSV."""


UNREADABLE = "The CSV cannot be read: a quote is not closed, or a cell is endless."


class Malformed(ValueError):
    """Why a body is no table, as a sentence."""


class Table(NamedTuple):
    """The names of a table's columns, its number of rows, and a column by its place."""

    names: tuple[str, ...]
    rows: int
    column: Callable[[int], Cells]


def read_form(form: str, given: Any) -> Table:
    """Return the table that a form of JSON holds. Malformed: it is none."""
    if form == "dataframe_split":
        return _split(given)
    if form == "dataframe_records" or type(given) is not dict:
        return _records(form, given)
    if list in {*map(type, given.values())}:
        return _columns(form, given)
    return _records(form, [given])  # one member


def _records(form: str, rows: Any) -> Table:
    if type(rows) is not list:
        raise Malformed(f"{form} is {describe(rows)}; give a list of one object per row.")
    for row, record in enumerate(rows if {*map(type, rows)} - {dict} else ()):
        if type(record) is not dict:
            raise Malformed(f"Row {row} is {describe(record)}; give an object of names and values.")
    names = tuple(rows[0]) if rows else ()
    if names and {*map(len, rows)} == {len(names)}:
        with suppress(KeyError):  # all have the same names; the last is there to make it a tuple
            columns = [*zip(*map(itemgetter(*names, names[0]), rows), strict=True)]
            return Table(names, len(rows), columns.__getitem__)
    names = tuple(dict.fromkeys(chain.from_iterable(rows)))
    return Table(names, len(rows), lambda place: [row.get(names[place]) for row in rows])


def _split(given: Any) -> Table:
    if type(given) is not dict or not {"columns", "data"} <= {*given} <= {
        "columns",
        "data",
        "index",
    }:
        raise Malformed("dataframe_split must be an object with columns, data and perhaps index.")
    names, rows = given["columns"], given["data"]
    if type(names) is not list or not {*map(type, names)} <= {str}:
        raise Malformed("columns of dataframe_split must be a list of names.")
    if type(rows) is not list or not {*map(type, rows)} <= {list}:
        raise Malformed("data of dataframe_split must be a list with one list of cells per row.")
    for row, cells in enumerate(rows):
        if len(cells) != len(names):
            found, needed = counted(len(cells), "cell"), counted(len(names), "column")
            raise Malformed(f"Row {row} of data has {found} for {needed}.")
    if "index" in given and (type(given["index"]) is not list or len(given["index"]) != len(rows)):
        raise Malformed("index of dataframe_split must be a list with one label per row; omit it.")
    columns = [*zip(*rows, strict=True)]
    return Table(tuple(names), len(rows), columns.__getitem__)


def _columns(form: str, given: Mapping[str, Any]) -> Table:
    rows = next(len(cells) for cells in given.values() if type(cells) is list)
    for name, cells in given.items():
        if type(cells) is not list or len(cells) != rows:
            length = f" of length {len(cells)}" if type(cells) is list else ""
            found = f"{counted(rows, 'row')}, but {clipped(name)} is {describe(cells)}{length}"
            raise Malformed(f"{form} has {found}; give one cell per row.")
    return Table(tuple(given), rows, [*given.values()].__getitem__)


def describe(value: Any) -> str:
    """Return what a value of JSON is, cut to a few words."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return f"the text {clipped(repr(value))}" if isinstance(value, str) else json.dumps(value)


def known_places(names: Sequence[str], spec: Mapping[str, Any], member: str) -> list[int]:
    """Return the places of the columns that a version looks at: its inputs and the id, ``member``,
    also with blanks around the name; all where the dataset refuses others."""
    known, every = {*spec["inputs"], member}, spec.get("extra") == "refuse"
    return [place for place, name in enumerate(names) if every or name.strip(BLANKS) in known]


def read_csv(body: bytes, spec: Mapping[str, Any]) -> Table:
    """Return the table of a CSV in UTF-8: categories and ids are texts, as ``score`` reads them.

    ``spec`` is the version's served.json. Malformed, also when a column is read: it is no table.
    """
    try:
        text = body.decode("utf-8-sig")
        names, rows = _header_and_rows(text)
    except UnicodeError:
        raise Malformed("The CSV is not UTF-8 text.") from None
    except csv.Error:
        raise Malformed(UNREADABLE) from None

    def column(place: int) -> Cells:
        return parsed().get(place, [None] * rows)  # others are not read

    @cache
    def parsed() -> dict[int, pd.Series]:
        return _parse(text, names, rows, spec)

    return Table(names, rows, column)


def _header_and_rows(text: str) -> tuple[tuple[str, ...], int]:
    """Return the names in the header and the number of rows, which must be as long."""
    lines = io.StringIO(text, newline=None)
    reader = csv.reader(iter(lines.readline, ""))
    names = next((cells for cells in reader if any(cell.strip() for cell in cells)), None)
    if names is None:
        raise Malformed("The CSV is empty; give a header and one line per member.")
    found, ragged, widths = structure(lines, len(names), reader.line_num + 1)
    if len(ragged):
        line, width = found[ragged[0]], counted(int(widths[0]), "cell")
        raise Malformed(f"Line {line} has {width}, but the header has {len(names)}.")
    return tuple(names), len(found)


def _parse(
    text: str, names: Sequence[str], rows: int, spec: Mapping[str, Any]
) -> dict[int, pd.Series]:
    """Return the columns that a version may look at by their places, typed by pandas but for the
    texts."""
    kinds, reading = spec["kinds"], spec.get("reading", {})
    options: dict[str, Any] = {"usecols": [], "dtype": {}, "na_values": {}}
    numbers: set[int] = set()
    for place, name in enumerate(name.strip(BLANKS) for name in names):
        if name in kinds or name == (spec["id"] or "member_id"):
            options["usecols"].append(place)
            words = [""]
            if kinds.get(name, "category") == "category":
                options["dtype"][place] = "str"
            else:
                numbers.add(place)
                words += reading.get(name, {}).get("missing", MISSING)
            options["na_values"][place] = words
    options |= {"keep_default_na": False, "index_col": False, "low_memory": False}
    try:
        frame = pd.read_csv(io.StringIO(text), header=0, names=range(len(names)), **options)
    except (ValueError, OverflowError):
        raise Malformed(UNREADABLE) from None
    if len(frame) != rows:
        raise Malformed(UNREADABLE)
    return {
        place: _with_numbers(frame[place]) if place in numbers else frame[place] for place in frame
    }


def _with_numbers(column: pd.Series) -> pd.Series:
    """Return a column of numbers in which one cell is none with the others as numbers, so that this
    one is the one to be named."""
    if column.dtype.kind in "biuf":
        return column
    numbers = [read_number(cell) if isinstance(cell, str) else cell for cell in column]
    if all(number == number for number in numbers):
        return column
    read = [
        cell if number != number else number for cell, number in zip(column, numbers, strict=True)
    ]
    return pd.Series(read, index=column.index, dtype=object)
