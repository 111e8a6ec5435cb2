"""Find the rows of a CSV: the file line of each, and its number of cells."""

from __future__ import annotations

import csv
import io
from itertools import chain
from typing import IO

import numpy as np

BLOCK = 2**22
"""Characters scanned at a time."""

Rows = tuple[range | np.ndarray, np.ndarray | None, int]
"""The lines of a block that are rows, their numbers of cells (None: all right), its line count."""


def structure(
    text: IO[str], width: int, line: int, separator: str = ","
) -> tuple[range | np.ndarray, np.ndarray, np.ndarray]:
    """Return the file lines of the rows, the rows of another width than the header, their widths.

    A width is a number of cells, which the ASCII character ``separator`` separates. ``text`` is
    positioned behind the header, at the start of file line ``line``. pandas reports none of this:
    it skips blank lines, pads short rows and cuts long ones. Raises UnicodeError for a binary file.
    """
    parts: list[range | np.ndarray] = []
    ragged, cells = [np.zeros(0, int)], [np.zeros(0, int)]
    rows = 0
    while block := text.read(BLOCK) + text.readline():
        if "\0" in block:
            raise UnicodeError("a zero byte: this is no text")
        quoted = '"' in block
        lines, counts, passed = (
            _quoted_block(block, text, separator)
            if quoted
            else _plain_block(block, width, separator)
        )
        if counts is not None:
            wrong = np.flatnonzero(counts != width)
            ragged.append(wrong + rows)
            cells.append(counts[wrong])
        if isinstance(lines, range):
            parts.append(range(line + lines.start, line + lines.stop))
        else:
            parts.append(line + lines)
        rows += len(lines)
        line += passed
    return _join(parts), np.concatenate(ragged), np.concatenate(cells)


def _join(parts: list[range | np.ndarray]) -> range | np.ndarray:
    """Return the lines of all rows, if none is skipped as a range, which costs no memory."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return range(0)
    first, last = int(parts[0][0]), int(parts[-1][-1])
    if last - first + 1 == sum(map(len, parts)):
        return range(first, last + 1)
    return np.concatenate([np.asarray(part) for part in parts])


def _plain_block(block: str, width: int, separator: str) -> Rows:
    """Find the rows of a block without quotes."""
    if not block.endswith("\n"):
        block += "\n"
    bytes_ = np.frombuffer(block.encode(), np.uint8)
    marks = np.flatnonzero((bytes_ == ord(separator)) | (bytes_ == ord("\n")))
    ends = bytes_[marks] == ord("\n")
    count = int(ends.sum())
    if width > 1 and len(marks) == count * width and ends[width - 1 :: width].all():
        return range(count), None, count
    last = np.flatnonzero(ends)
    counts = np.diff(last, prepend=-1)
    lines = np.arange(count)
    single = np.flatnonzero(counts == 1)
    if len(single):  # pandas skips a line of blanks
        ink = np.flatnonzero((bytes_ != ord(" ")) & (bytes_ != ord("\t")) & (bytes_ != ord("\n")))
        stops = marks[last]
        before = np.searchsorted(ink, np.concatenate([[-1], stops[:-1]])[single])
        blank = single[np.searchsorted(ink, stops[single]) == before]
        lines, counts = np.delete(lines, blank), np.delete(counts, blank)
    return lines, counts, count


def _quoted_block(block: str, rest: IO[str], separator: str) -> Rows:
    """Find the rows of a block with quotes: a cell may hold separators and line ends, and reach
    beyond the block."""
    end = block.count("\n") + (not block.endswith("\n"))
    reader = csv.reader(chain(io.StringIO(block), iter(rest.readline, "")), delimiter=separator)
    lines, counts, before = [], [], 0
    for cells in reader:
        if len(cells) > 1 or (cells and cells[0].strip(" \t")):
            lines.append(before)
            counts.append(len(cells))
        before = reader.line_num
        if before >= end:
            break
    return np.array(lines, int), np.array(counts, int), before
