"""Read a CSV file, also gzipped, as a raw table whose rows know their lines."""

from __future__ import annotations

import csv
import gzip
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pandas as pd

from churnlab.data.cells import MISSING, gaps
from churnlab.data.contract import Contract
from churnlab.data.csv_structure import structure
from churnlab.data.table import NotATable, Table, contract_names, named, needed
from churnlab.data.violations import Violation
from churnlab.formatting import clipped, counted

BINARY = "it is binary, not text"

BLOCK = 2**16
"""Bytes at the start of a file that are looked through for what no text has."""

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}

AS_TEXT: dict[str, Any] = {"dtype": "str", "keep_default_na": False}

LOOKED_AT = 20
"""Lines among which the separator of a file without a contract is found."""


class Block(NamedTuple):
    """Rows of a CSV file under its head, as text: it is read as a file of its own."""

    text: str

    def open(self, mode: str) -> IO[bytes]:
        """Open the text as bytes in UTF-8."""
        return io.BytesIO(self.text.encode())


def read_csv(
    file: Path | Block, path: str, contract: Contract | None, *, whole: bool, encoding: str
) -> Table:
    """Read the columns that the contract needs, or all if ``whole``; a contract has its encoding.

    Rows with too few or too many cells are left out of the frame and reported as violations.
    """
    encoding = contract.encoding if contract else encoding
    encoding = "utf-8" if isinstance(file, Block) else encoding
    try:
        with open_text(file, encoding, newline=None) as text:
            separator = find_separator(text, contract)
            header, above = read_header(text, separator)
            check_header(header, separator, contract)
            lines, ragged, cells = structure(text, len(header), above + 1, separator)
    except UnicodeError as error:
        key = "dataset.encoding" if contract else "encoding"
        raise wrong_encoding(file, encoding, key=key) from error
    source = _Source(file, encoding, separator)
    empty = _empty_columns(source, header)
    names, violations, remarks = contract_names(header, contract, empty=empty)
    for n in dict.fromkeys(cells.tolist()):
        violations.append(_ragged(ragged[cells == n], n, len(lines), header, above, separator))
    every = [number for number in range(len(names)) if number not in empty]
    wanted = every if whole else needed(names, contract)
    if len(ragged) == len(lines):
        frame = pd.DataFrame(columns=names)
    else:
        frame = _read_typed(source, names, wanted, contract).drop(index=list(ragged))
    if len(frame) != len(lines) - len(ragged):
        raise csv.Error("pandas finds another number of rows")
    if end := _empty_end(source, names, frame):
        remarks.append(f"left out the last {counted(end, 'row')}, without a value")
        frame = frame.iloc[:-end]
    written = None
    if whole and all(one.rows is not None for one in violations):
        labels = [header[number] if number in every else name for number, name in enumerate(names)]
        written = _as_text(source, labels, every, frame)
    return Table(
        frame,
        path,
        named(names),
        lines,
        tuple(violations),
        tuple(remarks),
        written,
        _gap_texts(source, names, frame, contract),
        separator,
    )


class _Source(NamedTuple):
    """A CSV file and how it is written."""

    file: Path | Block
    encoding: str
    separator: str


@contextmanager
def _open_bytes(file: Path | Block) -> Iterator[IO[bytes]]:
    with file.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        yield gzip.GzipFile(fileobj=raw) if zipped else raw  # type: ignore[misc]


@contextmanager
def open_text(file: Path | Block, encoding: str, *, newline: str | None) -> Iterator[IO[str]]:
    """Open the decompressed, decoded text; a byte-order mark is no part of the first name."""
    utf8 = encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    with _open_bytes(file) as plain:
        yield io.TextIOWrapper(plain, encoding="utf-8-sig" if utf8 else encoding, newline=newline)


def find_separator(text: IO[str], contract: Contract | None) -> str:
    """Return the separator that a contract declares, or the one that gives the first lines of a
    file without one equally many cells, and the most."""
    if contract is not None:
        return "\t" if contract.separator == "tab" else contract.separator
    lines = [line for line in islice(text, 2 * LOOKED_AT) if line.strip()][:LOOKED_AT]
    lines = lines[bool(lines and _names_separator(lines[:1])) :]
    text.seek(0)

    def width(separator: str, start: int = 0) -> int:
        widths = {len(cells) for cells in csv.reader(lines[start:], delimiter=separator)}
        return widths.pop() if len(widths) == 1 else 1

    best = max(SEPARATORS, key=width)  # of equals the first, which is the comma
    return best if width(best) > 1 else max(SEPARATORS, key=lambda one: width(one, start=1))


def read_header(text: IO[str], separator: str) -> tuple[list[str], int]:
    """Return the cells of the first line that is not blank ([] if all are) and its line number.

    A line such as ``sep=;`` above it is Excel's.
    """
    reader = csv.reader(iter(text.readline, ""), delimiter=separator)
    filled = (cells for cells in reader if any(cell.strip() for cell in cells))
    header = next((cells for cells in filled if not _names_separator(cells)), [])
    return header, reader.line_num


def _names_separator(cells: Sequence[str]) -> bool:
    return re.fullmatch(r"\ufeff?sep=.?\s*", "".join(cells), re.IGNORECASE) is not None


def check_header(header: Sequence[str], separator: str, contract: Contract | None) -> None:
    """Refuse a file whose first line is not the header of a CSV with this separator."""
    if not header:
        raise NotATable("it is empty")
    if any("\0" in cell for cell in header):
        raise NotATable(BINARY)
    start = header[0].strip()
    if start.startswith(("<", "{", "[")):
        raise NotATable(f"it starts with {clipped(start, 30)!r}, like HTML or JSON")
    for other, plural in SEPARATORS.items():
        within = sum(cell.strip().count(other) for cell in header)
        if other != separator and within >= len(header):
            if contract is None:
                fix = f"save it with the same number of {plural} in every line"
            else:
                word = "tab" if other == "\t" else f'"{other}"'
                fix = (
                    f"write separator: {word} into the YAML of {contract.name}, or give "
                    f"'++dataset.separator={word}'"
                )
            raise NotATable(
                f"its header is separated by {plural}, not by {SEPARATORS[separator]}", fix
            )


def _as_text(
    source: _Source, names: list[str], wanted: Sequence[int], frame: pd.DataFrame
) -> pd.DataFrame:
    """Return the cells of a frame's rows as they are written."""
    if frame.empty:
        return pd.DataFrame(columns=[names[number] for number in wanted], dtype="str")
    return _parse(source, names, wanted, **AS_TEXT).loc[frame.index]


def _empty_columns(source: _Source, header: Sequence[str]) -> list[int]:
    """Return the positions of the columns without a name and without a cell: a table that was cut
    out of a sheet has some at its end."""
    unnamed = [number for number, name in enumerate(header) if number and not name.strip()]
    if not unnamed:
        return []
    cells = _parse(source, [str(number) for number in range(len(header))], unnamed, **AS_TEXT)
    empty = [gaps(cells[name], ()).all() for name in cells]
    return [number for number, gone in zip(unnamed, empty, strict=True) if gone]


def _gap_texts(
    source: _Source, names: list[str], frame: pd.DataFrame, contract: Contract | None
) -> pd.DataFrame | None:
    """Return the contract's columns with gaps as text, which shows how these are written."""
    wanted = [
        number
        for number, name in enumerate(names)
        if contract and name in contract.columns and name in frame and frame[name].isna().any()
    ]
    return _as_text(source, names, wanted, frame) if wanted else None


def _empty_end(source: _Source, names: list[str], frame: pd.DataFrame) -> int:
    """Count the last rows without a cell: a table that was cut out of a sheet has some."""
    last = frame.tail(1)
    if frame.empty or not all(gaps(last[name], ()).all() for name in last):
        return 0
    cells = _as_text(source, names, range(len(names)), frame)
    filled = ~np.all([gaps(cells[name], ()) for name in cells], axis=0)
    return len(frame) - int(np.flatnonzero(filled).max(initial=-1)) - 1


def _ragged(
    rows: np.ndarray, found: int, of: int, header: Sequence[str], line: int, separator: str
) -> Violation:
    """Return the violation for rows with another number of cells than the header, which is in
    ``line``: it is wrong itself if all rows have the same."""
    mark = SEPARATORS[separator].removesuffix("s")
    if found > len(header):
        fix = f"correct the line; quote a cell that contains a {mark}"
        fix += ", and write decimal points" if separator == "," else ""
    else:
        fix = f"correct the line: is a {mark} or a closing quote missing?"
    if len(rows) == of > 1:
        start = clipped(header[0], 40)
        fix += f", or remove line {line} ({start!r}) if it is above the header"
    text = f"{counted(found, 'cell')} where the header has {len(header)}"
    return Violation(text, fix, rows)


def _read_typed(
    source: _Source, names: list[str], wanted: Sequence[int], contract: Contract | None
) -> pd.DataFrame:
    """Read the wanted columns as numbers or text, whichever their cells are."""
    text = contract.text if contract else []
    options: dict[str, Any] = {"dtype": {name: "str" for name in names if name in text}}
    words = {name: {"", *contract.words(name)} if contract else MISSING for name in names}
    if any(missing != MISSING for missing in words.values()):
        options |= {"na_values": words, "keep_default_na": False}
    frame = _parse(source, names, wanted, **options)
    # pandas types a long file in chunks: a column with numbers in one and text in another is text
    mixed = [
        number
        for number in wanted
        if frame[names[number]].dtype == object
        and pd.api.types.infer_dtype(frame[names[number]], skipna=True).startswith("mixed")
    ]
    if mixed:
        as_text = _parse(source, names, mixed, **options | {"dtype": "str"})
        frame[as_text.columns] = as_text
    return frame


def _parse(
    source: _Source, names: list[str], wanted: Sequence[int], **options: Any
) -> pd.DataFrame:
    """Parse columns with pandas, which reads its own floats to the same bits: CSV and Parquet of a
    table have one fingerprint."""
    reading = open_text(source.file, source.encoding, newline="")
    with reading as text, warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.DtypeWarning)
        read_header(text, source.separator)
        return pd.read_csv(
            text,
            sep=source.separator,
            header=None,
            names=names,
            usecols=list(wanted) or [0],
            index_col=False,
            **options,
        )


def wrong_encoding(file: Path | Block, encoding: str, *, key: str) -> NotATable:
    """Return the error that locates the first bytes not in ``encoding`` and suggests another."""
    guess = f"cp1252 (Western) or {key}=cp1251 (Cyrillic)" if encoding[:3] == "utf" else "utf-8"
    where = ""
    with _open_bytes(file) as lines:
        start = lines.read(BLOCK)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            where, guess = "it", "utf-16"
        lines.seek(0)
        for number, line in enumerate(lines if not where else [], 1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as error:
                if b"\0" not in start + line:  # a picture's first line has none yet
                    where = f"line {number} (byte 0x{line[error.start]:02x})"
                break
    if not where:
        return NotATable(BINARY)
    fix = f"declare its encoding, as {key}={guess}, or save it as UTF-8"
    return NotATable(f"{where} is not {encoding}", fix)
