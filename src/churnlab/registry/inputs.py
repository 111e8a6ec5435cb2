"""Describe a version's inputs: to people, to clients as JSON Schema, and the categories that pandas
reads as something else."""

from __future__ import annotations

from typing import Any

from churnlab.data.cells import MISSING
from churnlab.data.contract import Column
from churnlab.data.dataset import Dataset


def in_words(dataset: Dataset) -> dict[str, str]:
    """Return what each input may be, in words."""
    described = {}
    for name, column in dataset.contract.columns.items():
        format = dataset.contract.reading(name).get("format")
        allowed = [column.kind, *([f"written like {format}"] if format else [])]
        allowed += [limit.allowed for limit in column.limits(name)]
        described[name] = ", ".join([*allowed, *(["may be missing"] * (name in dataset.gaps))])
    return described


def json_schema(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of each input: type, range or values, and its unit in words."""
    words = in_words(dataset)
    return {
        name: _of_column(column, optional=name in dataset.gaps)
        | {"description": f"{words[name]}; in {column.unit}" if column.unit else words[name]}
        for name, column in dataset.contract.columns.items()
    }


def _of_column(column: Column, *, optional: bool) -> dict[str, Any]:
    """Return the schema of a column that holds JSON numbers or texts as they are."""
    if column.kind in ("date", "category"):
        kind = "string"
    else:
        kind = "integer" if column.whole or column.kind == "binary" else "number"
    found: dict[str, Any] = {"type": [kind, "null"] if optional else kind}
    values = (0, 1) if column.kind == "binary" else column.values
    if values is not None and column.unknown == "refuse":
        found["enum"] = [*values, *([None] if optional else [])]
    if column.kind == "numeric":
        low, high = column.bounds
        found |= {} if low is None else {"minimum": low}
        found |= {} if high is None else {"maximum": high}
    return found


def codes(dataset: Dataset) -> dict[str, dict[str, list[str]]]:
    """Return the known categories of each column that pandas reads from a CSV file as a number, as
    true or false, or as missing, by what it reads: 7.0 is 007."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, column in dataset.contract.columns.items():
        if column.kind == "category":
            known = dict.fromkeys([*(column.values or ()), *dataset.X[name].dropna().unique()])
            for text in map(str, known):
                if (read := _as_read(text)) is not None:
                    found.setdefault(name, {}).setdefault(read, []).append(text)
    return found


def _as_read(text: str) -> str | None:
    """Return the number, the truth or the gap that pandas reads a text as, None for any other text.

    >>> _as_read("007"), _as_read("TRUE"), _as_read("None"), _as_read("gold")
    ('7.0', 'True', 'nan', None)
    """
    if text in MISSING:
        return "nan"
    if text in ("True", "TRUE", "true", "False", "FALSE", "false"):
        return text.capitalize()
    try:
        return str(float(text))
    except ValueError:
        return None
