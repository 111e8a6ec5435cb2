"""Draft a table as init does, and read what was drafted back as every other command does."""

import csv
import os
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from omegaconf import OmegaConf

from churnlab.config.groups import DatasetKeys
from churnlab.data.reading import read_table
from churnlab.data.validation import Checked, check
from churnlab.drafting.as_yaml import as_yaml
from churnlab.drafting.draft import Draft, cells_of, draft
from churnlab.drafting.layout import check_lines

CASES = Path(os.environ.get("CHURNLAB_CASES", Path(__file__).parents[3] / "shared/cases-2"))
"""Small invented tables with a quirk each, where they are at hand."""


class Drafted(NamedTuple):
    """A draft, its YAML as Hydra reads it, and the table as the YAML reads it (None: no target)."""

    found: Draft
    keys: dict[str, Any]
    checked: Checked | None

    @property
    def columns(self) -> dict[str, Any]:
        """The declared columns."""
        return self.keys["columns"] or {}

    @property
    def notes(self) -> str:
        """All that the draft says, in one text."""
        notes = [*self.found.notes]
        for column in self.found.columns:
            notes += [f"{column.name}: {note}" for note in (*column.notes, column.remark)]
        return "\n".join(notes)


def drafted(path: Path, *, target: str | None = None) -> Drafted:
    """Draft a file; the YAML is read as Hydra reads it, and checked against the file."""
    table = read_table(str(path), key="path", whole=True)
    cells = cells_of(table)
    check_lines(cells, table)
    found = draft(table, target=target)
    text = as_yaml(found, name="any", path=str(path), encoding="utf-8", separator=table.separator)
    keys = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    assert isinstance(keys, dict)
    if found.target is None or not keys["columns"]:
        return Drafted(found, keys, None)
    contract = DatasetKeys.model_validate(keys).contract
    return Drafted(found, keys, check(read_table(str(path), contract), contract))


def written(columns: dict[str, list[Any]], folder: Path, *, separator: str = ",") -> Path:
    """Write columns of cells as a CSV file."""
    path = folder / "table.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def frame_of(columns: dict[str, list[Any]]) -> pd.DataFrame:
    """Return columns of cells as a frame of objects."""
    return pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in columns.items()})
