"""The rows of a text table: at which lines of the file they stand, and how many cells each has."""

from __future__ import annotations

import csv
import io
from itertools import chain
from typing import IO

import numpy as np

BLOCK = 2**22
"""Characters looked at in one go."""

Rows = tuple[range | np.ndarray, np.ndarray | None, int]
"""Which lines of a block are rows, their numbers of cells (None: all are right), and how many lines
were passed."""


def structure(
    text: IO[str], width: int, line: int
) -> tuple[range | np.ndarray, np.ndarray, np.ndarray]:
    """The file line of every row; which rows have another number of cells than the header; and how
    many those have.

    ``text`` stands behind its header of ``width`` cells, at the beginning of file line ``line``.
    pandas tells neither: it skips blank lines, fills short rows with nothing and cuts long ones.
    UnicodeError: the file is binary.
    """
    parts: list[range | np.ndarray] = []
    ragged, cells = [np.zeros(0, int)], [np.zeros(0, int)]
    rows = 0
    while block := text.read(BLOCK) + text.readline():
        if "\0" in block:
            raise UnicodeError("a zero byte: this is no text")
        lines, counts, passed = (
            _quoted_block(block, text) if '"' in block else _plain_block(block, width)
        )
        if counts is not None:
            wrong = np.flatnonzero(counts != width)
            ragged.append(wrong + rows)
            cells.append(counts[wrong])
        parts.append(
            range(line + lines.start, line + lines.stop)
            if isinstance(lines, range)
            else line + lines
        )
        rows += len(lines)
        line += passed
    return _joined(parts), np.concatenate(ragged), np.concatenate(cells)


def _joined(parts: list[range | np.ndarray]) -> range | np.ndarray:
    """The lines of all rows: a range as long as nothing is skipped, which costs nothing for
    10,000,000 rows."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return range(0)
    first, last, count = int(parts[0][0]), int(parts[-1][-1]), sum(map(len, parts))
    return (
        range(first, last + 1)
        if last - first + 1 == count
        else np.concatenate([np.asarray(part) for part in parts])
    )


def _plain_block(block: str, width: int) -> Rows:
    """The rows of a block without quotes."""
    if not block.endswith("\n"):
        block += "\n"
    bytes_ = np.frombuffer(block.encode(), np.uint8)
    marks = np.flatnonzero((bytes_ == ord(",")) | (bytes_ == ord("\n")))
    ends = bytes_[marks] == ord("\n")
    count = int(ends.sum())
    if width > 1 and len(marks) == count * width and ends[width - 1 :: width].all():
        return range(count), None, count
    last = np.flatnonzero(ends)
    counts = np.diff(last, prepend=-1)
    lines = np.arange(count)
    lonely = np.flatnonzero(counts == 1)
    if len(lonely):  # pandas skips a line of blanks
        ink = np.flatnonzero((bytes_ != ord(" ")) & (bytes_ != ord("\t")) & (bytes_ != ord("\n")))
        stops = marks[last]
        before = np.searchsorted(ink, np.concatenate([[-1], stops[:-1]])[lonely])
        blank = lonely[np.searchsorted(ink, stops[lonely]) == before]
        lines, counts = np.delete(lines, blank), np.delete(counts, blank)
    return lines, counts, count


def _quoted_block(block: str, rest: IO[str]) -> Rows:
    """The rows of a block with quotes: a cell may hold commas and lines, and reach beyond the
    block."""
    end = block.count("\n") + (not block.endswith("\n"))
    reader = csv.reader(chain(io.StringIO(block), iter(rest.readline, "")))
    lines, counts, before = [], [], 0
    for cells in reader:
        if len(cells) > 1 or (cells and cells[0].strip(" \t")):
            lines.append(before)
            counts.append(len(cells))
        before = reader.line_num
        if before >= end:
            break
    return np.array(lines, int), np.array(counts, int), before
