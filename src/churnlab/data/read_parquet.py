"""Read a Parquet file, or a folder of them, as a raw table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from churnlab.data.contract import Contract
from churnlab.data.table import NotATable, Table, contract_names, named, needed
from churnlab.formatting import listed

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset

MAGIC = b"PAR1"
"""First bytes of every Parquet file."""


def read_parquet(file: Path, path: str, contract: Contract | None, *, whole: bool) -> Table:
    """Read the columns that the contract needs, or all if ``whole``; a named index is a column."""
    data = open_dataset(file)
    names, violations, _ = contract_names(data.schema.names, contract)
    wanted = range(len(names)) if whole else needed(names, contract)
    columns = [] if violations else [data.schema.names[number] for number in wanted]
    return as_table(data.to_table(columns=columns), data.schema.names, path, contract, whole=whole)


def as_table(
    rows: pa.Table, header: list[str], path: str, contract: Contract | None, *, whole: bool
) -> Table:
    """Return rows of a Parquet file, whose columns are ``header``, as a raw table."""
    names, violations, warnings = contract_names(header, contract)
    columns = named(name for name in names if not name.startswith("__index_level_"))
    if violations:
        frame, cells = pd.DataFrame(columns=names), None
    else:
        cells = rows.to_pandas()
        if any(name is not None for name in cells.index.names):
            cells = cells.reset_index()
        cells = cells.reset_index(drop=True)
        frame = cells.rename(columns=dict(zip(header, names, strict=True)))
        key = contract.id if contract is not None else None
        if key is not None and key in frame:
            ids = _whole_numbers(rows[header[names.index(key)]])
            frame = frame if ids is None else frame.assign(**{key: ids})
    written = cells if whole else None
    return Table(frame, path, columns, None, tuple(violations), tuple(warnings), written)


def _whole_numbers(ids: pa.ChunkedArray) -> pd.Series | None:
    """Return ids that are whole numbers as such, for next to a gap pandas makes 7.0 of 7; None:
    they are none."""
    import pyarrow as pa

    if pa.types.is_floating(ids.type):
        try:
            ids = ids.cast(pa.int64())
        except pa.ArrowInvalid:
            return None
    return ids.to_pandas(types_mapper=pd.ArrowDtype) if pa.types.is_integer(ids.type) else None


def open_dataset(file: Path) -> pyarrow.dataset.Dataset:
    """Open the file or folder; parts whose types differ (int64 and double) get a common schema."""
    import pyarrow as pa
    import pyarrow.dataset

    if file.is_dir():
        parts = [part for part in file.rglob("*") if not part.name.startswith((".", "_"))]
        parts = [part for part in parts if part.is_file()]
        if not parts:
            raise NotATable("there is no file in the folder")
        strange = [part.name for part in parts if first_bytes(part) != MAGIC]
        if strange:
            files = f"{listed(strange, 3)} in the folder {'is' if len(strange) == 1 else 'are'}"
            raise NotATable(
                f"{files} not Parquet", "name one file, or a folder of nothing but Parquet files"
            )
    hive = "hive" if file.is_dir() else None
    data = pa.dataset.dataset(file, format="parquet", partitioning=hive)
    schemas = [part.physical_schema for part in data.get_fragments()]
    if all(schema == schemas[0] for schema in schemas):
        return data
    schema = pa.unify_schemas([data.schema, *schemas], promote_options="permissive")
    return pa.dataset.dataset(file, format="parquet", partitioning=hive, schema=schema)


def first_bytes(file: Path) -> bytes:
    """Return the first four bytes of a file, which identify its format."""
    with file.open("rb") as handle:
        return handle.read(4)
