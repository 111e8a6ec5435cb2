"""What differs between two results that should be the same to the last bit, in a few lines that can
be told.

A difference is a mapping: ``what`` differs, what it was ``before`` and what it is ``after``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from churnlab.data.dataset import Dataset, fingerprints
from churnlab.formatting import listed

Mismatch = dict[str, Any]


def of_values(
    before: Mapping[str, Any], after: Mapping[str, Any], *, told: str = ""
) -> Iterator[Mismatch]:
    """The keys whose values are not equal, or are on one side only; ``told`` says of what they are."""
    for key in {**before, **after}:
        if before.get(key) != after.get(key):
            yield {"what": f"{told}{key}", "before": before.get(key), "after": after.get(key)}


def of_tables(name: str, before: pd.DataFrame, after: pd.DataFrame) -> Iterator[Mismatch]:
    """The columns of a table that are not equal bit by bit: in how many rows, with the first of
    them."""
    if list(before.columns) != list(after.columns):
        yield {
            "what": f"the columns of {name}",
            "before": list(before.columns),
            "after": list(after.columns),
        }
        return
    if len(before) != len(after):
        yield {"what": f"the rows of {name}", "before": len(before), "after": len(after)}
        return
    for column in before:
        old, new = before[column], after[column]
        differ = np.flatnonzero(~((old == new) | (old.isna() & new.isna())))
        if len(differ):
            first = int(differ[0])
            where = f"{column} in {name}, {len(differ)} of {len(before)} rows"
            if pd.api.types.is_float_dtype(old) and pd.api.types.is_float_dtype(new):
                where += f", by {(old - new).abs().max():.3g} at most"
            yield {
                "what": f"{where}; line {first}",
                "before": _plain(old[first]),
                "after": _plain(new[first]),
            }


def of_data(
    report: Mapping[str, Any], outcomes: pd.DataFrame | None, dataset: Dataset
) -> Iterator[Mismatch]:
    """Where a table differs from the one that a run has worked on, as far as the run can tell.

    ``report`` is the run's data_report.json; ``outcomes`` (columns row and y) are those it has
    kept.
    """
    known, y = report.get("fingerprints"), dataset.y
    if report["rows"] != len(y):
        yield {"what": "rows of the table", "before": report["rows"], "after": len(y)}
    if known is not None:
        yield from _of_parts(known, dataset)
    if outcomes is not None:
        old = outcomes.drop_duplicates("row").sort_values("row")
        old = old[old["row"] < len(y)]
        differ = old[old["y"].to_numpy() != y[old["row"].to_numpy()]]
        if len(differ):
            counts = {"before": int(old["y"].sum()), "after": int(y[old["row"].to_numpy()].sum())}
            yield {
                "what": f"outcomes, in rows {listed(differ['row'].tolist())}: who left",
                **counts,
            }
    missing = dataset.report()["missing"]
    yield from of_values(report["missing"], missing, told="values missing in ")


def _of_parts(known: Mapping[str, Any], dataset: Dataset) -> Iterator[Mismatch]:
    """The columns and the blocks of rows whose fingerprints differ."""
    shared, block = min(known["rows"], len(dataset.y)), known["block"]
    ids = None if dataset.ids is None else dataset.ids.iloc[:shared]
    now = fingerprints(dataset.X.iloc[:shared], dataset.y[:shared], ids, block=block)
    same_length = known["rows"] == len(dataset.y)
    if same_length and known["any_order"] == now["any_order"] and known["blocks"] != now["blocks"]:
        yield {
            "what": "order of the rows, which are the same",
            "before": known["blocks"][0],
            "after": now["blocks"][0],
        }
        return
    if list(known["columns"]) != list(now["columns"]):
        yield {
            "what": "columns of the table",
            "before": list(known["columns"]),
            "after": list(now["columns"]),
        }
    elif same_length:
        yield from of_values(known["columns"], now["columns"], told="fingerprint of column ")
    whole = shared // block + (
        shared == known["rows"] and shared % block > 0
    )  # a block that was cut is another one
    differ = [number for number in range(whole) if known["blocks"][number] != now["blocks"][number]]
    if differ:
        first = differ[0]
        where = f"rows, at least one in {listed(_spans(differ, block, shared))}"
        yield {"what": where, "before": known["blocks"][first], "after": now["blocks"][first]}
    elif not same_length:
        yield {
            "what": f"rows from {min(whole * block, shared)} on; those before are the same",
            "before": None,
            "after": None,
        }


def _spans(numbers: Sequence[int], block: int, rows: int) -> list[str]:
    """Blocks as spans of rows, neighbours put together: ``40 to 119``."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number:
            spans[-1][1] = number + 1
        else:
            spans.append([number, number + 1])
    return [f"{first * block} to {min(last * block, rows) - 1}" for first, last in spans]


def _plain(value: Any) -> Any:
    """A cell in Python's own types."""
    return value.item() if hasattr(value, "item") else value
