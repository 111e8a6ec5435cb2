"""A raw table, its cells not yet checked: columns under the contract's names, rows with places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from churnlab.data.cells import BLANKS
from churnlab.data.contract import Contract
from churnlab.data.expressions import columns_in
from churnlab.data.violations import Violation
from churnlab.formatting import clipped, listed

UNNAMED = "\0"
"""Prefix of a column that no contract can name: an index, or the second column of one name."""


@dataclass(frozen=True)
class Table:
    """A raw table and its source.

    ``frame`` holds the columns that were read, under the contract's names; its index numbers the
    rows and skips those with too few or too many cells. ``columns`` names all columns of the
    source. ``lines`` are the file lines of the rows, None where rows have no lines. ``written``
    holds every cell as text under the names in the file, if the whole table was requested.
    ``gap_texts`` holds the columns of a CSV file with missing values as text.
    ``separator`` is that of a CSV file.
    """

    frame: pd.DataFrame
    source: str
    columns: tuple[str, ...]
    lines: range | np.ndarray | None = None
    violations: tuple[Violation, ...] = ()
    warnings: tuple[str, ...] = ()
    written: pd.DataFrame | None = None
    gap_texts: pd.DataFrame | None = None
    separator: str = ","

    def place(self, row: int) -> str:
        """Return ``line 7`` for a row of a text file, ``row 5`` (0-based) for any other."""
        return f"row {row}" if self.lines is None else f"line {self.lines[row]}"


def in_memory(
    frame: pd.DataFrame, *, source: str, rename: Mapping[str, str] | None = None
) -> Table:
    """Make a table of a frame; ``source`` is where messages say it comes from."""
    names, violations, warnings = contract_names(map(str, frame.columns), rename=rename)
    frame = frame.set_axis(names, axis="columns").reset_index(drop=True)
    return Table(
        frame, source, named(names), violations=tuple(violations), warnings=tuple(warnings)
    )


def contract_names(
    written: Iterable[str],
    contract: Contract | None = None,
    *,
    rename: Mapping[str, str] | None = None,
    empty: Collection[int] = (),
) -> tuple[list[str], list[Violation], list[str]]:
    """Return the contract's names of the columns, each once, with violations and warnings.

    Blanks around a name are no part of it, unless the contract has them. A column without a name of
    its own gets one that starts with UNNAMED; it is no violation at the positions ``empty``, where
    no row has a cell.
    """
    rename = contract.rename if contract else rename or {}
    written = list(written)
    declared = {*contract.columns, contract.target, contract.id} if contract else set()
    plain = [
        name
        if name in rename or (bare := name.strip(BLANKS)) in written or name in declared
        else bare
        for name in written
    ]
    names = [rename.get(name, name) for name in plain]
    violations, warnings = [], []
    if len(names) > 1 and not names[0].strip(
        BLANKS
    ):  # pandas and R write the numbers of the rows so
        names[0] = UNNAMED
        warnings.append("left out the first column, which has no name: an index")
    blank = [number + 1 for number, name in enumerate(names) if not name.strip(BLANKS)]
    if gone := [number for number in blank if number - 1 in empty]:
        blank = [number for number in blank if number not in gone]
        columns = "column" if len(gone) == 1 else "columns"
        warnings.append(f"left out {columns} {listed(gone)}, without a name and without a value")
    if blank:
        text, them = ("column {} has", "it") if len(blank) == 1 else ("columns {} have", "them")
        fix = f"name {them} in the header, or remove {them} from the file"
        if len(blank) >= len(names) / 2:
            fix = f"remove the lines above the header, or name {them} there"
        violations.append(Violation(f"{text.format(listed(blank))} no name", fix))
    for name, count in Counter(names).items():
        if count > 1 and name.strip(BLANKS):
            text = f"{count} columns are called {clipped(name)}"
            violations.append(Violation(text, "keep one of them, or rename the others"))
    seen = set()
    for number, name in enumerate(names):
        if name in seen or not name.strip(BLANKS):
            names[number] = f"{UNNAMED}{number}"
        seen.add(name)
    return names, violations, warnings


def named(names: Iterable[str]) -> tuple[str, ...]:
    """Return the columns that have a name of their own."""
    return tuple(name for name in names if not name.startswith(UNNAMED))


def needed(names: Sequence[str], contract: Contract | None) -> list[int]:
    """Return the positions of the columns that a contract needs, without one of all named ones."""
    if contract is None:
        return [number for number, name in enumerate(names) if not name.startswith(UNNAMED)]
    wanted = {*contract.columns, contract.target, contract.id}
    if contract.rows_where is not None:
        wanted |= {*columns_in(contract.rows_where)}
    return [number for number, name in enumerate(names) if name in wanted]


class NotATable(Exception):
    """Raised with the reason why a file holds no table, and with a fix if another file is none."""


def shorten(path: str) -> str:
    """Return a path as messages show it: of a very long one the end."""
    return (path or "''") if len(path) <= 300 else f"...{path[-300:]}"
