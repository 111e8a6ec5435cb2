"""Read a block as a batch of members, plain ones by pyarrow at once, others as every table is."""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from churnlab.data.cells import BLANKS, MISSING
from churnlab.data.contract import Contract
from churnlab.data.read_csv import Block as Text
from churnlab.data.read_csv import find_separator, read_csv, read_header
from churnlab.data.read_parquet import as_table
from churnlab.data.reading import readable
from churnlab.data.table import UNNAMED, Table, contract_names, named
from churnlab.formatting import listed
from churnlab.scoring.blocks import Block, CsvBlock


class Batch(NamedTuple):
    """A raw table of whole rows, and all its cells as they are written under the file's names."""

    table: Table
    written: pa.Table | None


def read(
    block: Block, contract: Contract, optional: Collection[str], *, typed: bool, plain: bool = True
) -> Batch:
    """Read a block. ``optional`` columns may be absent. ``typed``: numbers need no text.
    ``plain``: rows that can be read at once are."""
    with readable(block.source, key="input"):
        if not isinstance(block, CsvBlock):
            index = [name for name in block.rows.column_names if name.startswith("__index_level_")]
            header = block.rows.column_names
            table = as_table(block.rows, header, block.source, contract, whole=True)
            batch = Batch(table, block.rows.drop_columns(index).replace_schema_metadata())
        else:
            batch = (_plain(block, contract, typed=typed) if plain else None) or _any(
                block, contract
            )
    return batch._replace(table=_with_absent(batch.table, contract, optional))


def _any(block: CsvBlock, contract: Contract) -> Batch:
    """Read rows as every CSV file is read."""
    text = Text(block.head + block.rows)
    table = read_csv(text, block.source, contract, whole=True, encoding="utf-8")
    shift = block.line - 1 - (block.head.count("\n") or block.head.count("\r"))
    lines = None if table.lines is None else np.asarray(table.lines) + shift
    written = table.written
    cells = None if written is None else pa.Table.from_pandas(written, preserve_index=False)
    return Batch(replace(table, lines=lines), cells)


def _plain(block: CsvBlock, contract: Contract, *, typed: bool) -> Batch | None:
    """Read rows without quotes whose numbers are written as every program writes them; None for
    others."""
    rows = f"\n{block.rows}"
    if any(mark in rows for mark in ('"', "\0", "\n\n", "\n\r")) or '"' in block.head:
        return None
    separator = find_separator(io.StringIO(block.head), contract)
    if not rows[rows.rfind("\n", 0, -2) :].strip(f"{BLANKS}{separator}"):
        return None  # no row, if the file ends with it
    header = read_header(io.StringIO(block.head, newline=""), separator)[0]
    names, violations, remarks = contract_names(header, contract)
    if violations or len(names) == 1 or any(name.startswith(UNNAMED) for name in names):
        return None
    numbers = [
        name
        for name in names
        if name in contract.columns
        and len(contract.reading(name)) == 1
        and name not in contract.text
    ]
    kinds = dict.fromkeys(names, pa.string()) | dict.fromkeys(
        numbers if typed else (), pa.float64()
    )
    try:
        cells = _cells(block.rows, names, separator, kinds)
        columns = {name: _values(cells[name], name, contract, numbers) for name in names}
    except pa.ArrowInvalid:
        return None
    lines = range(block.line, block.line + block.rows.count("\n") + (block.rows[-1:] != "\n"))
    if len(cells) != len(lines) or any(
        pc.any(pc.is_nan(columns[name])).as_py() for name in numbers
    ):
        return None
    wanted = [name for name in names if name in {*contract.columns, contract.id}]
    texts = {name: "str" for name in wanted if name not in numbers}
    frame = pd.DataFrame({name: columns[name].to_pandas() for name in wanted}).astype(texts)
    table = Table(frame, block.source, named(names), lines, (), tuple(remarks), separator=separator)
    return Batch(table, cells.rename_columns(header))


def _cells(rows: str, names: list[str], separator: str, kinds: dict[str, pa.DataType]) -> pa.Table:
    """Parse rows without quotes; ArrowInvalid: a cell is no number."""
    return pa.csv.read_csv(
        pa.py_buffer(rows.encode()),
        read_options=pa.csv.ReadOptions(column_names=names, use_threads=False, block_size=2**26),
        parse_options=pa.csv.ParseOptions(
            delimiter=separator, quote_char=False, ignore_empty_lines=False
        ),
        convert_options=pa.csv.ConvertOptions(
            column_types=kinds, null_values=sorted(MISSING), strings_can_be_null=False
        ),
    ).combine_chunks()


def _values(
    cells: pa.ChunkedArray, name: str, contract: Contract, numbers: Collection[str]
) -> pa.ChunkedArray:
    """Return a column's cells as numbers, or as texts without those that mean a gap."""
    if name in numbers and pa.types.is_floating(cells.type):
        return cells
    if name not in contract.columns and name != contract.id:
        return cells
    words = MISSING if name in numbers else {"", *contract.words(name)}
    gap = pc.is_in(cells, pa.array(sorted(words)))
    texts = pc.if_else(gap, pa.scalar(None, pa.string()), cells)
    return texts.cast(pa.float64()) if name in numbers else texts


def _with_absent(table: Table, contract: Contract, optional: Collection[str]) -> Table:
    """Return the table with empty columns for those that the version can do without, as a server
    answers rows without them."""
    absent = [name for name in contract.columns if name in optional and name not in table.columns]
    if not absent or len(absent) == len(contract.columns):
        return table
    frame = table.frame.assign(**dict.fromkeys(absent, np.nan))
    warning = f"there is no column {listed(absent)}: every value counts as missing"
    return replace(
        table,
        frame=frame,
        columns=(*table.columns, *absent),
        warnings=(*table.warnings, warning),
    )


def kind_of(texts: pa.ChunkedArray) -> str:
    """Return the type whose values read the same as a column's texts: int64, float64, bool or, for
    most, string: 007 stays 007."""
    cells = pd.Series(texts.to_pandas(), dtype="str")
    if cells.isin(["True", "False"]).all():
        return "bool"
    numbers = pd.to_numeric(cells, errors="coerce")
    return str(numbers.dtype) if numbers.astype("str").equals(cells) else "string"


def as_typed(cells: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
    """Return texts as the type that ``kind_of`` found."""
    if kind == "bool":
        return pc.equal(cells, "True")
    return cells.cast(pa.type_for_alias(kind))
