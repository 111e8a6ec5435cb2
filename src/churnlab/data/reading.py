"""Read tables: CSV, gzip and Parquet, from a path or a URL, before a contract checks the cells.

A file that holds no table raises InputError. Violations in names and lines are kept in the table,
so that one message reports them together with those in the cells.
"""

from __future__ import annotations

import csv
import re
import tempfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from http.client import HTTPException
from itertools import chain
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import urlopen

import pandas as pd

from churnlab.data.contract import Contract
from churnlab.data.read_csv import read_csv
from churnlab.data.read_parquet import MAGIC, first_bytes, read_parquet
from churnlab.data.table import NotATable, Table, shorten
from churnlab.data.violations import message
from churnlab.errors import InputError, JobError, in_systems_words
from churnlab.formatting import clipped

TIMEOUT = 60
"""Seconds without a byte after which a URL counts as unreachable."""

OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"BZh": "compressed with bzip2",
    b"\xfd7zX": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"%PDF": "a PDF",
}
"""First bytes of files that people take for tables."""

UNREADABLE = (
    *(OSError, ValueError, EOFError, ArithmeticError, LookupError, NotImplementedError),
    *(HTTPException, zlib.error, csv.Error),
)
"""What pandas and pyarrow raise about bytes that are no table."""


def read_table(
    path: str,
    contract: Contract | None = None,
    *,
    key: str = "dataset.path",
    whole: bool = False,
    encoding: str = "utf-8",
) -> Table:
    """Read CSV (also gzipped), Parquet or a folder of Parquet from a path or URL.

    A ``contract`` declares the encoding, the names, which columns are needed and which are text
    even if they look like numbers (the member 007); ``whole`` reads the other columns, too, and
    every cell as text. Without a contract all columns are read in the given ``encoding``, and every
    violation raises InputError, as does a path without a table. ``key`` of the command line gives
    the path.
    """
    with readable(path, key=key), local_file(path, key=key) as file:
        if is_parquet(file):
            table = read_parquet(file, path, contract, whole=whole)
        else:
            table = read_csv(file, path, contract, whole=whole, encoding=encoding)
    if contract is None and table.violations:
        head = f"{shorten(path)} is not a valid table"
        raise InputError(message(table.violations, head=head, place=table.place))
    return table


@contextmanager
def readable(path: str, *, key: str) -> Iterator[None]:
    """Say of what cannot be read as a table why, as an InputError."""
    try:
        yield
    except InputError:
        raise
    except (*UNREADABLE, NotATable) as error:
        any_table = f"give CSV, .csv.gz or Parquet with {key}=FILE"
        reason, fix, *_ = *_reason(error), any_table
        raise InputError(f"{shorten(path)} cannot be read as a table: {reason}; {fix}.") from error


def _reason(error: Exception) -> tuple[str, ...]:
    """Return why bytes are no table, and perhaps a fix; the library's own words are the cause."""
    match error:
        case NotATable():
            return error.args
        case csv.Error() | pd.errors.ParserError():
            fix = 'close every quote, and write a cell with a quote in it as "a ""b"" c"'
            return "its quotes do not match", fix
        case OSError(strerror=str(text)):
            return f"the system reports {text!r}", "correct that, or name another file"
    return "it is damaged or cut off", "copy or save it again"


@contextmanager
def local_file(path: str, *, key: str, folder: Path | None = None) -> Iterator[Path]:
    """Yield the file or folder on this machine; a URL is downloaded for as long as it is read, into
    a folder of its own in ``folder`` (None: where the system keeps temporary files)."""
    if "://" not in path:
        file = Path(path)
        if not path or not file.exists():
            place = "" if file.is_absolute() else f" ({shorten(str(file.absolute()))})"
            raise InputError(
                f"There is no file {shorten(path)}{place}; name an existing table with {key}=FILE."
            )
        if not file.is_file() and not file.is_dir():
            raise NotATable("it is neither a file nor a folder")
        yield file
        return
    with ExitStack() as stack:
        received = stack.enter_context(closing(_received(path, key=key)))
        first = next(received, b"")  # before anything is written
        try:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
            file = scratch / (_file_name(path) or "table")
            with file.open("wb") as copy:
                for chunk in chain([first], received):
                    copy.write(chunk)
        except OSError as error:
            raise JobError(
                f"The download of {shorten(path)} cannot be written to "
                f"{folder or tempfile.gettempdir()} ({in_systems_words(error)}). Correct that "
                "and run the same command again."
            ) from error
        yield file


def _file_name(url: str) -> str:
    """Return the name of the file at the end of a URL, as short as a name may be here."""
    return Path(urlparse(url).path).name[-100:]


def _received(path: str, *, key: str) -> Generator[bytes]:
    """Yield the bytes behind a URL.

    InputError: there is no such thing, or not all of it arrives.
    """
    size: int | None = None
    try:
        with urlopen(path, timeout=TIMEOUT) as response:
            size, expected = 0, getattr(response, "length", None)
            for chunk in iter(partial(response.read1, 2**20), b""):
                size += len(chunk)
                yield chunk
    except (OSError, HTTPException, ValueError) as error:
        reason = re.sub(r"<urlopen error (\[Errno -?\d+\] )?(.*)>", r"\2", str(error))
        reason = clipped(reason, 300)
        raise InputError(
            f"{shorten(path)} cannot be reached ({reason}); check {key}=URL."
            if size is None
            else f"The download of {shorten(path)} broke off after {size:,} bytes ({reason}); run "
            "the same command again."
        ) from error
    if expected and expected != size:
        raise InputError(
            f"The download of {shorten(path)} broke off after {size:,} of {expected:,} bytes; run "
            "the same command again."
        )


def is_parquet(file: Path) -> bool:
    """Return whether a file is Parquet: its first bytes decide, not its suffix."""
    if file.is_dir():
        return True
    start = first_bytes(file)
    if not start:
        raise NotATable("it is empty")
    for signature, kind in OTHER_FORMATS.items():
        if start.startswith(signature):
            raise NotATable(f"it is {kind}")
    if start == MAGIC:
        return True
    if file.suffix in (".parquet", ".pq"):
        raise NotATable("it is not Parquet, despite its name")
    return False
