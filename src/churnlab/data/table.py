"""A raw table, its cells not yet checked: columns under the contract's names, rows with places."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from churnlab.data.cells import BLANKS, read_numbers
from churnlab.data.contract import Contract
from churnlab.data.expressions import columns_in
from churnlab.data.violations import Violation
from churnlab.formatting import clipped, listed

UNNAMED = "\0"
"""Prefix of a column that no contract can name: an index, or the second column of one name."""

TOTALS = re.compile(
    r"(grand |sub)?-?totals?( .*)?|sums?( of .*)?|(gesamt)?summe( .*)?|gesamt(ergebnis)?|insgesamt"
    r"|totale?s?( .*)?|totaal|somme|suma|итого( .*)?|всего( .*)?|合[计計]"
)
"""What people write in front of sums, in lower case."""

AVERAGES = re.compile(
    r"(average|avg|mean)( .*)?|durchschnitt|mittelwert|moyenne|promedio|media|среднее( .*)?"
)

MOST_TOTALS = 3
"""Lines of sums and averages that may stand below a table."""

FEWEST = 5
"""Members above a totals line."""


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


def totals(frame: pd.DataFrame, contract: Contract) -> list[Violation]:
    """Return a violation for each of the last rows of a raw table that is no member but the total
    of the others."""
    texts = [name for name, column in contract.columns.items() if column.kind == "category"]
    named = [name for name in (contract.id, contract.target) if name and not _typed(frame, name)]
    words = frame[[name for name in (*named, *texts) if name in frame]]
    labels = totals_labels(words) if len(words.columns) else []
    if not labels or len(frame) <= FEWEST:
        return []
    kinds = ("numeric", "binary")
    numbers = {
        name: read_numbers(frame[name], **contract.reading(name))[0]
        for name, column in contract.columns.items()
        if column.kind in kinds and name in frame
    }
    found = totals_lines(pd.DataFrame(numbers), labels)
    fix = "this is no member: remove the line"
    return [
        Violation(f"a line of totals ({text})", fix, np.array([row])) for row, text in found.items()
    ]


def _typed(frame: pd.DataFrame, name: str) -> bool:
    return name not in frame or pd.api.types.is_numeric_dtype(frame[name])


def totals_labels(words: pd.DataFrame) -> list[str]:
    """Return the labels of the last rows that may be totals, "" if the last row has no word at all;
    none if it is a member's.

    >>> totals_labels(pd.DataFrame({"name": ["Ann", "Total", "Mean:"], "plan": ["gold", "", None]}))
    ['Total', 'Mean:']
    """
    labels: list[str] = []
    for row in range(len(words) - 1, max(len(words) - 1 - MOST_TOTALS, -1), -1):
        cells = words.iloc[row]
        filled = [text for cell in cells[cells.notna()] if (text := str(cell).strip(BLANKS))]
        label = next((text for text in filled if _is_label(text)), None)
        if label is None and not filled and not labels:
            return [""]
        if label is None:
            break
        labels.insert(0, label)
    return labels


def _is_label(text: str, *patterns: re.Pattern[str]) -> bool:
    plain = text.casefold().strip(f"{BLANKS}:=")
    return any(pattern.fullmatch(plain) for pattern in patterns or (TOTALS, AVERAGES))


def totals_lines(numbers: pd.DataFrame, labels: Sequence[str]) -> dict[int, str]:
    """Say of the last rows, which ``labels`` label, why they are totals; by row, without members.

    Half of the numbers of a line of sums are no less than all rows above together. Of a line of
    means, or of one without a label, all are the means (sums), in two columns or more.
    """
    members = len(numbers) - len(labels)
    if members < FEWEST:
        return {}
    values = numbers.to_numpy(dtype="float64")
    above, found = values[:members], {}
    with np.errstate(all="ignore"):  # a YAML may allow numbers whose sums are none
        sums = np.nansum(above, axis=0)
    means = sums / np.maximum((~np.isnan(above)).sum(axis=0), 1)
    filled = np.isfinite(sums) & ((np.nan_to_num(above) != 0).sum(axis=0) >= FEWEST)
    one_sided = ~((above < 0).any(axis=0) & (above > 0).any(axis=0))
    for row, label in enumerate(labels, members):
        line, there = values[row], ~np.isnan(values[row]) & filled
        average = _is_label(label, AVERAGES)
        hits = np.isclose(line, means if average else sums, rtol=1e-3 if label else 1e-9, atol=0)
        noun, least = "mean" if average else "sum", max(2, there.sum())
        if label and not average:  # the last block of a file knows but a part of the sum
            more = one_sided & (line * np.sign(sums) > np.abs(sums))
            hits, least = hits | more, max(1, there.sum() / 2)
        if (hits & there).sum() >= least:
            column = int(np.flatnonzero(hits & there)[0])
            shown = f"{numbers.columns[column]} is {line[column]:.12g}"
            or_more = "" if average or not label else " or more"
            text = f"{shown}, the {noun} of the rows above{or_more}"
            found[row] = f"{label!r}, and {text}" if label else text
    return found


class NotATable(Exception):
    """Raised with the reason why a file holds no table, and with a fix if another file is none."""


def shorten(path: str) -> str:
    """Return a path as messages show it: of a very long one the end."""
    return (path or "''") if len(path) <= 300 else f"...{path[-300:]}"
