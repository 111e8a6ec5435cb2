"""Join finished parts to the output, which appears complete or not at all."""

from __future__ import annotations

import gzip
import io
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from churnlab.scoring import parts
from churnlab.scoring.batch import as_typed
from churnlab.scoring.counts import Counts
from churnlab.scoring.part import Scoring

FEW = 10_000
"""Rows by which is decided how the columns of a Parquet file are written."""


def rejected_file(output: Path) -> Path:
    """Return where the rejected rows of an output are."""
    return output.with_name(f"{output.name}.rejected.csv")


@contextmanager
def building(output: Path, folder: Path) -> Iterator[Path]:
    """Yield a path in the folder of parts that becomes the output in the end."""
    path = folder / f"building.{output.name}"
    yield path
    os.replace(path, output)


def write_rejected(scoring: Scoring, count: int, output: Path, form: Mapping[str, Any]) -> None:
    """Write the rejected rows of all parts."""
    with (
        building(output, scoring.folder) as path,
        path.open("w", encoding="utf-8", newline="") as file,
    ):
        header = True
        for number in range(count):
            frame = parts.rejected(scoring.folder, number)
            if frame is not None:
                frame.to_csv(file, index=False, header=header, **form)
                header = False


def write(
    scoring: Scoring, count: int, output: Path, counts: Counts, metadata: Mapping[str, str]
) -> None:
    """Write the accepted rows of all parts; ``metadata`` goes into a Parquet file."""
    with building(output, scoring.folder) as path:
        if scoring.ending == ".parquet":
            _write_parquet(scoring.folder, count, path, counts.kinds, metadata)
        else:
            with path.open("wb") as file:
                file.write(_header(scoring, counts))
                for number in range(count):
                    part = scoring.folder / f"{number:06d}.csv"
                    if part.exists():
                        with part.open("rb") as content:
                            shutil.copyfileobj(content, file, 2**20)


def _header(scoring: Scoring, counts: Counts) -> bytes:
    """Return the header of a CSV."""
    text = io.StringIO()
    sep = counts.separator or ","
    pd.DataFrame(columns=counts.columns).to_csv(text, index=False, sep=sep)
    content = text.getvalue().encode()
    return gzip.compress(content, 6, mtime=0) if scoring.ending == ".csv.gz" else content


def _write_parquet(
    folder: Path,
    count: int,
    path: Path,
    kinds: Mapping[str, str],
    metadata: Mapping[str, str],
) -> None:
    """Write each part as a row group, its columns with the types that suit all parts."""
    writer: pq.ParquetWriter | None = None
    try:
        for number in range(count):
            rows = parts.rows(folder, number)
            if rows is None:
                continue
            for name, kind in kinds.items():
                if kind != "string":
                    at = rows.column_names.index(name)
                    rows = rows.set_column(at, name, as_typed(rows[name], kind))
            if writer is None:
                schema = rows.schema.with_metadata(metadata)
                writer = pq.ParquetWriter(path, schema, use_dictionary=_repeating(rows))
            writer.write_table(rows.cast(writer.schema))
    finally:
        if writer is not None:
            writer.close()


def _repeating(rows: pa.Table) -> list[str]:
    """Return the columns whose values repeat: those a dictionary makes smaller."""
    few = rows.slice(0, FEW)
    return [
        name
        for name, kind in zip(few.column_names, few.schema.types, strict=True)
        if not pa.types.is_floating(kind) or pc.count_distinct(few[name]).as_py() < len(few) / 4
    ]
