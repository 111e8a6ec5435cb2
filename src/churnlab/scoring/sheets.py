"""Write files for people who open them in a spreadsheet: cells that it would run are escaped, and
several files appear together or not at all."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

SIGNS = "=+@\uff1d\uff0b\uff0d\uff20-"
"""The first characters of a cell that spreadsheets run as a formula, the wide ones included."""

RUN = re.compile(f"[\t\r\n{SIGNS}]")

INSIDE = re.compile(f"(?<=[,;\t\n])(?=[{SIGNS}])")
"""Where a cell begins in a spreadsheet that splits at another separator than the file's."""

NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?")


def escaped(cell: Any) -> Any:
    """Return a cell that no spreadsheet runs: a text that starts like a formula gets an apostrophe
    in front of it, unless it is a plain number, and so does a formula behind a separator or a line
    end. A carriage return, at which a spreadsheet starts a new row and to_csv quotes nothing,
    becomes a line feed.

    >>> [escaped(cell) for cell in ("=1+1", "-5", "-5+cmd", "007", "gold;=1+1", None, -5.0)]
    ["'=1+1", '-5', "'-5+cmd", '007', "gold;'=1+1", None, -5.0]
    """
    if not isinstance(cell, str):
        return cell
    cell = INSIDE.sub("'", cell.replace("\r\n", "\n").replace("\r", "\n"))
    return f"'{cell}" if RUN.match(cell) and not NUMBER.fullmatch(cell) else cell


@contextmanager
def appearing_together(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield a temporary path for each file; in the end they take their names, the last one last.

    After an error none of them appears, and nothing is left of them; what a kill leaves is written
    over by the next attempt.
    """
    building = [file.with_name(f".new.{file.name}") for file in files]
    try:
        yield building
        for path, file in zip(building, files, strict=True):
            path.replace(file)
    finally:
        for path in building:
            path.unlink(missing_ok=True)


@contextmanager
def sheet(
    path: Path, columns: Mapping[str, pa.DataType], form: Mapping[str, Any]
) -> Iterator[Callable[[pa.Table], None]]:
    """Open a file of these columns and yield what appends rows to it: Parquet, .csv.gz or CSV, by
    the ending of its name. ``form``: the separator and the decimal mark of a CSV (sep, decimal).
    A CSV begins with the mark by which spreadsheets know UTF-8."""
    schema = pa.schema(columns)
    if path.suffix == ".parquet":
        with pq.ParquetWriter(path, schema) as writer:
            yield lambda rows: writer.write_table(rows.cast(schema))
        return
    with _opened(path) as file:
        header = pd.DataFrame(columns=[escaped(name) for name in columns])
        header.to_csv(file, index=False, **form)
        yield lambda rows: _as_cells(rows.cast(schema)).to_csv(
            file, index=False, header=False, **form
        )


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "wt", encoding="utf-8-sig", newline="")
    return path.open("w", encoding="utf-8-sig", newline="")


def _as_cells(rows: pa.Table) -> pd.DataFrame:
    """Return rows as they are written: whole numbers stay whole next to gaps, texts escaped."""
    frame = rows.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    for name, kind in zip(rows.column_names, rows.schema.types, strict=True):
        if pa.types.is_string(kind):
            frame[name] = frame[name].map(escaped)
    return frame
