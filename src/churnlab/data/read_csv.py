"""Read a CSV file, also gzipped, as a raw table whose rows know their lines."""

from __future__ import annotations

import csv
import gzip
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from churnlab.data.contract import Contract
from churnlab.data.csv_structure import structure
from churnlab.data.table import NotATable, Table, contract_names, named, needed
from churnlab.data.violations import Violation
from churnlab.formatting import clipped

BINARY = "it is binary, not text"

MISSING = frozenset(
    (
        *("", "#N/A N/A", "#N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND"),
        *("1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    )
)
"""How pandas writes a missing value; a declared category of such a name is a value."""

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def read_csv(
    file: Path, path: str, contract: Contract | None, *, whole: bool, encoding: str
) -> Table:
    """Read the columns that the contract needs, or all if ``whole``; a contract has its encoding.

    Rows with too few or too many cells are left out of the frame and reported as violations.
    """
    encoding = contract.encoding if contract else encoding
    try:
        with _open_text(file, encoding, newline=None) as text:
            header, above = _header(text)
            _check_header(header)
            lines, ragged, cells = structure(text, len(header), above + 1)
    except UnicodeError as error:
        key = "dataset.encoding" if contract else "encoding"
        raise _wrong_encoding(file, encoding, key=key) from error
    names, violations, remarks = contract_names(header, contract.rename if contract else {})
    if len(ragged):
        violations.append(_ragged(ragged, cells, len(header)))
    wanted = range(len(names)) if whole else needed(names, contract)
    if len(ragged) == len(lines):
        frame = pd.DataFrame(columns=names)
    else:
        frame = _read_typed(file, encoding, names, wanted, contract).drop(index=list(ragged))
    if len(frame) != len(lines) - len(ragged):
        raise csv.Error("pandas finds another number of rows")
    written = None
    if whole and not violations:
        as_text: dict[str, Any] = {"dtype": "str", "keep_default_na": False}
        written = _parse(file, encoding, header, range(len(header)), **as_text)
    return Table(frame, path, named(names), lines, tuple(violations), tuple(remarks), written)


@contextmanager
def _open_bytes(file: Path) -> Iterator[IO[bytes]]:
    with file.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        yield gzip.GzipFile(fileobj=raw) if zipped else raw  # type: ignore[misc]


@contextmanager
def _open_text(file: Path, encoding: str, *, newline: str | None) -> Iterator[IO[str]]:
    """Open the decompressed, decoded text; a byte-order mark is no part of the first name."""
    utf8 = encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    with _open_bytes(file) as plain:
        yield io.TextIOWrapper(plain, encoding="utf-8-sig" if utf8 else encoding, newline=newline)


def _header(text: IO[str]) -> tuple[list[str], int]:
    """Return the cells of the first line that is not blank ([] if all are) and its line number."""
    reader = csv.reader(iter(text.readline, ""))
    header = next((cells for cells in reader if any(cell.strip() for cell in cells)), [])
    return header, reader.line_num


def _check_header(header: Sequence[str]) -> None:
    """Refuse a file whose first line is not the header of a CSV with commas."""
    if not header:
        raise NotATable("it is empty")
    if any("\0" in cell for cell in header):
        raise NotATable(BINARY)
    start = header[0].strip()
    if start.startswith(("<", "{", "[")):
        raise NotATable(f"it starts with {clipped(start, 30)!r}, like HTML or JSON")
    for separator, plural in SEPARATORS.items():
        if ",".join(header).count(separator) >= len(header):
            raise NotATable(
                f"its header is separated by {plural}, not by commas",
                "save it with commas between the cells and points in the numbers",
            )


def _ragged(rows: np.ndarray, cells: np.ndarray, width: int) -> Violation:
    """Return the violation for rows with another number of cells than the header's ``width``."""
    found = int(cells[0])
    if found > width:
        fix = "correct the line; quote a cell that contains a comma, and write decimal points"
    else:
        fix = "correct the line: is a comma or a closing quote missing?"
    text = f"{found} {'cell' if found == 1 else 'cells'} where the header has {width}"
    return Violation(text, fix, rows)


def _read_typed(
    file: Path, encoding: str, names: list[str], wanted: Sequence[int], contract: Contract | None
) -> pd.DataFrame:
    """Read the wanted columns as numbers or text, whichever their cells are."""
    text = contract.text if contract else []
    options: dict[str, Any] = {"dtype": {name: "str" for name in names if name in text}}
    columns = contract.columns.items() if contract else ()
    declared = {name: set(column.values or ()) for name, column in columns}
    if any(values & MISSING for values in declared.values()):
        options["na_values"] = {name: MISSING - declared.get(name, set()) for name in names}
        options["keep_default_na"] = False
    frame = _parse(file, encoding, names, wanted, **options)
    # pandas types a long file in chunks: a column with numbers in one and text in another is text
    mixed = [
        number
        for number in wanted
        if frame[names[number]].dtype == object
        and pd.api.types.infer_dtype(frame[names[number]], skipna=True).startswith("mixed")
    ]
    if mixed:
        as_text = _parse(file, encoding, names, mixed, **options | {"dtype": "str"})
        frame[as_text.columns] = as_text
    return frame


def _parse(
    file: Path, encoding: str, names: list[str], wanted: Sequence[int], **options: Any
) -> pd.DataFrame:
    """Parse columns with pandas, which reads its own floats to the same bits: CSV and Parquet of a
    table have one fingerprint."""
    with _open_text(file, encoding, newline="") as text, warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.DtypeWarning)
        _header(text)
        return pd.read_csv(
            text, header=None, names=names, usecols=list(wanted) or [0], index_col=False, **options
        )


def _wrong_encoding(file: Path, encoding: str, *, key: str) -> NotATable:
    """Return the error that locates the first bytes not in ``encoding`` and suggests another."""
    guess = f"cp1252 (Western) or {key}=cp1251 (Cyrillic)" if encoding[:3] == "utf" else "utf-8"
    where = ""
    with _open_bytes(file) as lines:
        if lines.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            where, guess = "it", "utf-16"
        lines.seek(0)
        for number, line in enumerate(lines if not where else [], 1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as error:
                if b"\0" not in line:
                    where = f"line {number} (byte 0x{line[error.start]:02x})"
                break
    if not where:
        return NotATable(BINARY)
    fix = f"declare its encoding, as {key}={guess}, or save it as UTF-8"
    return NotATable(f"{where} is not {encoding}", fix)
