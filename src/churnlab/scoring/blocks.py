"""Cut what is to be scored into blocks of whole rows: CSV, gzip or Parquet, a folder, a URL.

What must be known of a whole file is decided here, so that a block can be read by itself: where a
row ends, on which line it is, and that rows without a cell at the end of a file are none.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, NamedTuple

import pyarrow as pa

from churnlab.data.cells import BLANKS
from churnlab.data.contract import Contract
from churnlab.data.read_csv import (
    check_header,
    find_separator,
    open_text,
    read_header,
    wrong_encoding,
)
from churnlab.data.read_parquet import MAGIC, first_bytes, open_dataset
from churnlab.data.reading import is_parquet, local_file, readable
from churnlab.data.table import shorten
from churnlab.errors import InputError

ROWS = 65_536
"""Rows of a Parquet block."""

SIZE = 2**22
"""Characters of a CSV block, some 80,000 rows of a dozen columns."""


class CsvBlock(NamedTuple):
    """Whole rows of a CSV file as text; ``head`` are the lines up to its header, ``line`` is that
    of the first row. ``read`` is the share of the input that is read so far."""

    number: int
    source: str
    head: str
    rows: str
    line: int
    read: float


class ParquetBlock(NamedTuple):
    """Rows of a Parquet file or folder from ``row`` on."""

    number: int
    source: str
    rows: pa.Table
    row: int
    read: float


Block = CsvBlock | ParquetBlock


@dataclass(frozen=True)
class Members:
    """What is to be scored: files of one kind on this machine. ``source`` is what the user wrote.

    ``state`` identifies what is read: it changes when a file changes.
    """

    source: str
    place: Path
    files: tuple[Path, ...]
    parquet: bool
    contract: Contract
    sha256: str | None

    @property
    def state(self) -> list[Any]:
        """Return name, size and time of change of each file; of a URL what was downloaded."""
        if self.sha256 is not None:
            return [self.source, self.sha256]
        with readable(self.source, key="input"):
            stats = [(file, file.stat()) for file in self.files]
        return [[str(file.absolute()), stat.st_size, stat.st_mtime_ns] for file, stat in stats]

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks in order."""
        return self._parquet_blocks() if self.parquet else self._csv_blocks()

    def _parquet_blocks(self) -> Iterator[Block]:
        data, row, number = open_dataset(self.place), 0, 0
        total, waiting = data.count_rows(), []
        batches = data.to_batches(batch_size=ROWS, batch_readahead=1, fragment_readahead=1)
        for batch in batches:
            waiting.append(batch)
            if (rows := sum(map(len, waiting))) >= ROWS or row + rows == total:
                table = pa.Table.from_batches(waiting, data.schema)
                yield ParquetBlock(number, self.source, table, row, (row + rows) / total)
                row, number, waiting = row + rows, number + 1, []
        if not number:
            yield ParquetBlock(0, self.source, data.schema.empty_table(), 0, 1.0)

    def _csv_blocks(self) -> Iterator[Block]:
        first: list[str] | None = None
        number, sizes, before = 0, [file.stat().st_size for file in self.files], 0
        for file, size in zip(self.files, sizes, strict=True):
            source = self.source if len(self.files) == 1 else f"{shorten(self.source)}/{file.name}"
            try:
                with open_text(file, self.contract.encoding, newline="") as text:
                    separator, head = find_separator(text, self.contract), list[str]()
                    header, above = read_header(_recorded(text, head), separator)  # type: ignore[arg-type]
                    check_header(header, separator, self.contract)
                    if (first := first or header) != header:
                        raise InputError(
                            f"{source} has another header than {self.files[0].name}; the files of "
                            "a folder must have the same columns in the same order."
                        )
                    for rows, line in _whole_rows(text, above + 1, separator):
                        read = (before + _position(text)) / max(sum(sizes), 1)
                        yield CsvBlock(number, source, "".join(head), rows, line, read)
                        number += 1
            except UnicodeError as error:
                key = "dataset.encoding"
                raise wrong_encoding(file, self.contract.encoding, key=key) from error
            before += size


def _recorded(text: IO[str], lines: list[str]) -> SimpleNamespace:
    """Return what reads lines and keeps them, the last one ended."""

    def readline() -> str:
        line = text.readline()
        lines.append(line if not line or line.endswith(("\n", "\r")) else f"{line}\n")
        return line

    return SimpleNamespace(readline=readline)


def _position(text: IO[str]) -> int:
    """Return how many bytes of a file are read, be they zipped."""
    plain: Any = text.buffer  # type: ignore[attr-defined]
    return int(getattr(plain, "fileobj", plain).tell())


@contextmanager
def opened(path: str, contract: Contract, *, folder: Path) -> Iterator[Members]:
    """Yield what a path or URL holds; a URL is downloaded into ``folder`` for so long."""
    with ExitStack() as stack:
        with readable(path, key="input"):
            place = stack.enter_context(local_file(path, key="input", folder=folder))
            members = _members(path, place, contract)
        yield members


def _members(path: str, place: Path, contract: Contract) -> Members:
    files = [place]
    if place.is_dir():
        found = (file for file in place.rglob("*") if not file.name.startswith((".", "_")))
        files = sorted(file for file in found if file.is_file())
    parquet = is_parquet(place)
    if place.is_dir() and files and MAGIC not in map(first_bytes, files):
        parquet = any(map(is_parquet, files))  # which refuses what is no text
    sha256 = None
    if "://" in path:
        with place.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return Members(path, place, tuple(files), parquet, contract, sha256)


def _whole_rows(text: IO[str], line: int, separator: str) -> Iterator[tuple[str, int]]:
    """Yield rows, and the file line of the first.

    Rows without a cell go to the next block: at the end of a file they are none.
    """
    rest, is_first = "", True
    while True:
        more = text.read(SIZE)
        rest += more
        end = _end(rest, separator) if more else len(rest)
        if end or (not more and is_first):
            rows, rest = rest[:end], rest[end:]
            yield rows, line
            line += rows.count("\n") or rows.count("\r")
            is_first = False
        if not more:
            return


def _end(text: str, separator: str) -> int:
    """Return where the last whole row with a cell ends."""
    mark = "\n" if "\n" in text else "\r"
    end = text.rfind(mark) + 1
    if '"' in text:
        lines = io.StringIO(text, newline="").readlines()
        reader, ends = csv.reader(iter(lines), delimiter=separator), [0, 0]
        for _ in reader:
            ends.append(reader.line_num)
        end = sum(map(len, lines[: ends[-2]]))  # the last row may go on
    while end:
        start = text.rfind(mark, 0, end - 1) + 1
        if text[start:end].strip(f'{BLANKS}{separator}"'):
            break
        end = start
    return end
