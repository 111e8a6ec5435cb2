"""Tables as they are written: CSV, gzip and Parquet, from a path or an address, read before any
contract is asked.

A table that is no table is an InputError. What is wrong with names or cells is kept as faults, so
that the contract can tell them together with its own.
"""

from __future__ import annotations

import csv
import gzip
import io
import shutil
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlparse
from urllib.request import urlopen

import numpy as np
import pandas as pd

from churnlab.data.contract import Contract
from churnlab.data.csv_structure import structure
from churnlab.data.violations import Violation, message
from churnlab.errors import InputError
from churnlab.formatting import clipped, listed

PATIENCE = 60
"""Seconds without a byte after which an address counts as unreachable."""

EMPTY = frozenset(
    (
        *(
            "",
            "#N/A",
            "#N/A N/A",
            "#NA",
            "-1.#IND",
            "-1.#QNAN",
            "-NaN",
            "-nan",
            "1.#IND",
            "1.#QNAN",
            "<NA>",
            "N/A",
        ),
        *("NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    )
)
"""How "no value" is written in a CSV, the empty cell included; a declared category of such a name
is a value."""

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}

NO_TABLES = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"BZh": "compressed with bzip2",
    b"\xfd7zX": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"%PDF": "a PDF",
}
"""What files that people take for tables start with."""

UNREADABLE = (
    *(
        OSError,
        ValueError,
        EOFError,
        ArithmeticError,
        LookupError,
        NotImplementedError,
        HTTPException,
    ),
    *(zlib.error, csv.Error),
)
"""What pandas, pyarrow and their helpers raise about bytes that are no table."""

NO_NAME = "\0"
"""Starts what a column is called that no contract can name: an index, or the second of its name."""

CURE = "give CSV with commas, .csv.gz or Parquet"


@dataclass(frozen=True)
class Table:
    """A raw table and where it came from.

    ``frame`` holds its columns under the contract's names (those that nobody declared are not read
    unless asked for); ``columns`` names all of them. ``lines`` are the file lines of the rows, None
    where rows have no lines; the frame's index is the rows' numbers, with gaps where a row's cells
    are not to be trusted. ``written`` holds every cell as its text under the names in the file,
    where that was asked for.
    """

    frame: pd.DataFrame
    source: str
    columns: tuple[str, ...]
    lines: range | np.ndarray | None = None
    faults: tuple[Violation, ...] = ()
    warnings: tuple[str, ...] = ()
    written: pd.DataFrame | None = None

    def place(self, row: int) -> str:
        """What a row is called: ``line 7`` in a text file, ``row 5`` (counted from 0) elsewhere."""
        return f"row {row}" if self.lines is None else f"line {self.lines[row]}"


def in_memory(
    frame: pd.DataFrame, *, source: str, rename: Mapping[str, str] | None = None
) -> Table:
    """A frame as a table; ``source`` says where it came from."""
    names, faults, remarks = _named([str(name) for name in frame.columns], rename or {})
    frame = frame.set_axis(names, axis="columns").reset_index(drop=True)
    return Table(frame, source, _told_names(names), faults=tuple(faults), warnings=tuple(remarks))


def read_table(
    path: str, contract: Contract | None = None, *, whole: bool = False, encoding: str = "utf-8"
) -> Table:
    """Read CSV (also gzipped), Parquet or a folder of Parquet from a path or URL.

    A ``contract`` says how the file is encoded, which columns are renamed, which are needed and
    which are text even where they look like numbers (the member 007); ``whole`` reads the others,
    too, and every cell as its text. Without a contract everything is read in the given
    ``encoding``, and every fault is an InputError. Raises InputError when there is nothing to read.
    """
    try:
        with _local(path) as file:
            if _is_parquet(file, path):
                table = _read_parquet(file, path, contract, whole=whole)
            else:
                table = _read_csv(file, path, contract, whole=whole, encoding=encoding)
    except InputError:
        raise
    except UNREADABLE as error:
        reason = clipped(" ".join(str(error).split()), 300) or type(error).__name__
        raise _no_table(path, f" ({reason})") from error
    if contract is None and table.faults:
        raise InputError(
            message(table.faults, head=f"{_shown(path)} is not in order", place=table.place)
        )
    return table


def _no_table(path: str, reason: str) -> InputError:
    return InputError(f"{_shown(path)} cannot be read as a table{reason}; {CURE}.")


def _shown(path: str) -> str:
    return path if len(path) <= 300 else f"...{path[-300:]}"


@contextmanager
def _local(path: str) -> Iterator[Path]:
    """The file on this machine; what an address gives is kept for as long as it is read."""
    if "://" not in path:
        file = Path(path)
        if not file.exists():
            raise InputError(
                f"There is no file {_shown(path)}; name an existing table with dataset.path= (or "
                "input=)."
            )
        if not file.is_file() and not file.is_dir():
            raise InputError(f"{_shown(path)} is neither a file nor a folder; {CURE}.")
        yield file
        return
    with tempfile.TemporaryDirectory() as scratch:
        try:
            file = Path(scratch) / (Path(urlparse(path).path).name or "table")
            with urlopen(path, timeout=PATIENCE) as answer, file.open("wb") as copy:
                shutil.copyfileobj(answer, copy)
                promised = answer.headers.get("Content-Length")
        except (OSError, HTTPException, ValueError) as error:
            raise InputError(
                f"{_shown(path)} cannot be reached ({clipped(error, 300)}); check the address."
            ) from error
        if promised and int(promised) != file.stat().st_size:
            raise InputError(
                f"{_shown(path)} broke off after {file.stat().st_size:,} of {promised} bytes; try "
                "again."
            )
        yield file


def _is_parquet(file: Path, path: str) -> bool:
    """Whether a file is Parquet: its first bytes decide, not its ending."""
    if file.is_dir():
        return True
    start = _start(file)
    if not start:
        raise _no_table(path, ": it is empty")
    for sign, kind in NO_TABLES.items():
        if start.startswith(sign):
            raise _no_table(path, f": it is {kind}")
    if start.startswith(b"PAR1"):
        return True
    if file.suffix in (".parquet", ".pq"):
        raise _no_table(path, ": it is not Parquet, whatever its name")
    return False


def _start(file: Path) -> bytes:
    with file.open("rb") as handle:
        return handle.read(4)


def _named(
    written: Sequence[str], rename: Mapping[str, str]
) -> tuple[list[str], list[Violation], list[str]]:
    """The contract's names of the columns, each once; with the faults of the names, and what is to
    be said of them."""
    names = [rename.get(name, name) for name in written]
    faults, remarks = [], []
    if len(names) > 1 and not names[0].strip():  # pandas and R write the numbers of the rows so
        names[0] = NO_NAME
        remarks.append("left out the first column, which has no name: an index")
    unnamed = [number for number, name in enumerate(names) if not name.strip()]
    if unnamed:
        which = listed([number + 1 for number in unnamed])
        text = (
            f"column {which} has no name" if len(unnamed) == 1 else f"columns {which} have no name"
        )
        faults.append(Violation(text, "write a name into the header, or take it out of the file"))
    for name, count in Counter(names).items():
        if count > 1 and name.strip():
            faults.append(
                Violation(
                    f"{count} columns are called {clipped(name)}",
                    "keep one of them, or name them apart",
                )
            )
    seen: Counter[str] = Counter()
    for number, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1 or not name.strip():
            names[number] = f"{NO_NAME}{number}"
    return names, faults, remarks


def _told_names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in names if not name.startswith(NO_NAME))


def _read_parquet(file: Path, path: str, contract: Contract | None, *, whole: bool) -> Table:
    import pyarrow as pa
    import pyarrow.dataset

    if file.is_dir():
        parts = [
            part
            for part in file.rglob("*")
            if part.is_file() and not part.name.startswith((".", "_"))
        ]
        if not parts:
            raise _no_table(path, ": there is no file in the folder")
        strange = [part.name for part in parts if _start(part) != b"PAR1"]
        if strange:
            raise _no_table(path, f": {listed(strange)} in the folder is not Parquet")
    hive = "hive" if file.is_dir() else None
    data = pa.dataset.dataset(file, format="parquet", partitioning=hive)
    schemas = [part.physical_schema for part in data.get_fragments()]
    if any(
        schema != schemas[0] for schema in schemas
    ):  # one part's whole numbers are another part's floats
        schema = pa.unify_schemas([data.schema, *schemas], promote_options="permissive")
        data = pa.dataset.dataset(file, format="parquet", partitioning=hive, schema=schema)
    written = list(data.schema.names)
    names, faults, remarks = _named(written, contract.rename if contract else {})
    columns = _told_names(name for name in names if not name.startswith("__index_level_"))
    if faults:
        return Table(
            pd.DataFrame(columns=names), path, columns, None, tuple(faults), tuple(remarks)
        )
    wanted = None if whole else _wanted(names, contract)
    arrow = data.to_table(
        columns=None if wanted is None else [written[number] for number in wanted]
    )
    frame = arrow.to_pandas()
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    frame = frame.reset_index(drop=True)
    new = dict(zip(written, names, strict=True))
    return Table(
        frame.rename(columns=new),
        path,
        columns,
        warnings=tuple(remarks),
        written=frame if whole else None,
    )


def _wanted(names: Sequence[str], contract: Contract | None) -> list[int]:
    """The positions of the columns that a contract needs; of all that have a name, without one."""
    if contract is None:
        return [number for number, name in enumerate(names) if not name.startswith(NO_NAME)]
    needed = {*contract.columns, contract.target, contract.id}
    return [number for number, name in enumerate(names) if name in needed]


@contextmanager
def _unpacked(file: Path) -> Iterator[IO[bytes]]:
    with file.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        yield gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[misc]


@contextmanager
def _opened(file: Path, encoding: str, *, newline: str | None) -> Iterator[IO[str]]:
    """The text of a file, unpacked and decoded; a byte-order mark is no part of the first name."""
    utf8 = encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    with _unpacked(file) as plain:
        yield io.TextIOWrapper(plain, encoding="utf-8-sig" if utf8 else encoding, newline=newline)


def _read_csv(
    file: Path, path: str, contract: Contract | None, *, whole: bool, encoding: str
) -> Table:
    encoding = contract.encoding if contract else encoding
    try:
        with _opened(file, encoding, newline=None) as text:
            header, above = _header(text)
            _check_header(header, path)
            lines, ragged, cells = structure(text, len(header), above + 1)
    except UnicodeError as error:
        key = "dataset.encoding" if contract else "encoding"
        raise InputError(_said_of_encoding(file, path, encoding, key=key)) from error
    names, faults, remarks = _named(header, contract.rename if contract else {})
    if len(ragged):
        faults.append(_ragged(ragged, cells, len(header)))
    wanted = list(range(len(names))) if whole else _wanted(names, contract)
    if len(ragged) == len(lines):
        frame = pd.DataFrame(columns=names)
    else:
        frame = _cells(file, encoding, names, wanted, contract).drop(index=list(ragged))
    if len(frame) != len(lines) - len(ragged):
        raise InputError(
            f"{_shown(path)} cannot be read as a table: its quotes do not match; a cell that holds "
            "a quote is written "
            'in quotes, with the quote doubled: "a ""b"" c".'
        )
    written = None
    if whole and not faults:
        written = _parsed(
            file, encoding, header, range(len(header)), dtype="str", keep_default_na=False
        )
    return Table(frame, path, _told_names(names), lines, tuple(faults), tuple(remarks), written)


def _header(text: IO[str]) -> tuple[list[str], int]:
    """The cells of the first line that is not blank (none: of an empty file), and the number of
    lines so far."""
    reader = csv.reader(iter(text.readline, ""))
    return next(
        (cells for cells in reader if any(cell.strip() for cell in cells)), []
    ), reader.line_num


def _check_header(header: Sequence[str], path: str) -> None:
    if not header:
        raise _no_table(path, ": it is empty")
    if any("\0" in cell for cell in header):
        raise _binary(path)
    if header[0].lstrip().startswith(("<", "{", "[")):
        raise _no_table(
            path, f": it starts with {clipped(header[0].strip(), 30)!r}, as a web page or JSON does"
        )
    for separator, plural in SEPARATORS.items():
        if ",".join(header).count(separator) >= len(header):
            raise InputError(
                f"{_shown(path)} cannot be read as a table: its header is separated by {plural}, "
                "not by commas; save it with commas between the cells and points in the numbers."
            )


def _binary(path: str) -> InputError:
    return _no_table(path, ": it is binary, not text")


def _ragged(rows: np.ndarray, cells: np.ndarray, width: int) -> Violation:
    found = int(cells[0])
    if found > width:
        mend = "correct the line; a cell with a comma in it stands in quotes, and a number has a decimal point"
    else:
        mend = "correct the line: are its commas there, and its quotes closed?"
    return Violation(
        f"{found} {'cell' if found == 1 else 'cells'} where the header has {width}", mend, rows
    )


def _cells(
    file: Path, encoding: str, names: list[str], wanted: Sequence[int], contract: Contract | None
) -> pd.DataFrame:
    """The wanted columns with the types that their cells have."""
    text = set(contract.text) if contract else set()
    options: dict[str, Any] = {"dtype": {name: "str" for name in names if name in text}}
    declared = (
        {name: set(column.values or ()) for name, column in contract.columns.items()}
        if contract
        else {}
    )
    if any(values & EMPTY for values in declared.values()):
        options["na_values"] = {name: EMPTY - declared.get(name, set()) for name in names}
        options["keep_default_na"] = False
    frame = _parsed(file, encoding, names, wanted, **options)
    # pandas types a long file in pieces: a column that is of several minds is text
    mixed = [
        number
        for number in wanted
        if frame[names[number]].dtype == object
        and pd.api.types.infer_dtype(frame[names[number]], skipna=True).startswith("mixed")
    ]
    if mixed:
        again = _parsed(file, encoding, names, mixed, **options | {"dtype": "str"})
        frame[again.columns] = again
    return frame


def _parsed(
    file: Path, encoding: str, names: list[str], wanted: Sequence[int], **options: Any
) -> pd.DataFrame:
    """What pandas reads: it takes what it wrote to the same bits, so that CSV and Parquet have one
    fingerprint."""
    with _opened(file, encoding, newline="") as text, warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.DtypeWarning)
        _header(text)
        return pd.read_csv(
            text, header=None, names=names, usecols=list(wanted) or [0], index_col=False, **options
        )


def _said_of_encoding(file: Path, path: str, encoding: str, *, key: str) -> str:
    """Where a file is not written in its encoding, and how to declare another."""
    where, cure = (
        "",
        "cp1252 (Western) or cp1251 (Cyrillic)" if encoding.startswith("utf") else "utf-8",
    )
    with _unpacked(file) as lines:
        if lines.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            where, cure = "it", "utf-16"
        lines.seek(0)
        for number, line in enumerate(lines if not where else [], 1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as error:
                if b"\0" not in line:
                    where = f"line {number} (byte 0x{line[error.start]:02x})"
                break
    if not where:
        return str(_binary(path))
    return (
        f"{_shown(path)} cannot be read as a table: {where} is not {encoding}; say how it is "
        f"encoded, as {key}={cure}, or save it as UTF-8."
    )
