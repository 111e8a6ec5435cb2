"""List the mismatches between two results that should be equal to the last bit.

A mismatch is a mapping: ``what`` differs, and its values ``before`` and ``after``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from churnlab.data.dataset import Dataset, fingerprints
from churnlab.formatting import listed

Mismatch = dict[str, Any]


def value_mismatches(
    before: Mapping[str, Any], after: Mapping[str, Any], *, prefix: str = ""
) -> Iterator[Mismatch]:
    """Yield the keys whose values differ or are on one side only, with a ``prefix`` in ``what``.

    >>> list(value_mismatches({"C": 1, "tol": 0.1}, {"C": 2, "tol": 0.1}, prefix="parameter "))
    [{'what': 'parameter C', 'before': 1, 'after': 2}]
    """
    for key in {**before, **after}:
        if before.get(key) != after.get(key):
            yield _mismatch(f"{prefix}{key}", before.get(key), after.get(key))


def _mismatch(what: str, before: Any, after: Any) -> Mismatch:
    return {"what": what, "before": before, "after": after}


def table_mismatches(name: str, before: pd.DataFrame, after: pd.DataFrame) -> Iterator[Mismatch]:
    """Yield the columns that are not equal bit by bit, with the number of rows and the first."""
    if list(before.columns) != list(after.columns):
        yield _mismatch(f"the columns of {name}", list(before.columns), list(after.columns))
        return
    if len(before) != len(after):
        yield _mismatch(f"the rows of {name}", len(before), len(after))
        return
    for column in before:
        old, new = before[column], after[column]
        differ = np.flatnonzero(~((old == new) | (old.isna() & new.isna())))
        if len(differ):
            first = int(differ[0])
            where = f"{column} in {name}, {len(differ)} of {len(before)} rows"
            if pd.api.types.is_float_dtype(old) and pd.api.types.is_float_dtype(new):
                where += f", by {(old - new).abs().max():.3g} at most"
            values = [
                cell.item() if hasattr(cell, "item") else cell for cell in (old[first], new[first])
            ]
            yield _mismatch(f"{where}; line {first}", *values)


def data_mismatches(
    report: Mapping[str, Any], outcomes: pd.DataFrame | None, dataset: Dataset
) -> Iterator[Mismatch]:
    """Yield where a table differs from that of a run, as far as the run's artifacts show.

    ``report`` is the run's data_report.json; ``outcomes`` has the columns row (0-based) and y.
    """
    known, y = report.get("fingerprints"), dataset.y
    if report["rows"] != len(y):
        yield _mismatch("rows of the table", report["rows"], len(y))
    if known is not None:
        yield from _of_parts(known, dataset)
    if outcomes is not None:
        old = outcomes.drop_duplicates("row").sort_values("row")
        old = old[old["row"] < len(y)]
        differ = old[old["y"].to_numpy() != y[old["row"].to_numpy()]]
        if len(differ):
            what = f"outcomes in rows {listed(differ['row'].tolist())}: members who left"
            yield _mismatch(what, int(old["y"].sum()), int(y[old["row"].to_numpy()].sum()))
    missing = dataset.report()["missing"]
    yield from value_mismatches(report["missing"], missing, prefix="values missing in ")


def _of_parts(known: Mapping[str, Any], dataset: Dataset) -> Iterator[Mismatch]:
    """Yield the columns and the blocks of rows whose fingerprints differ."""
    shared, block = min(known["rows"], len(dataset.y)), known["block"]
    ids = None if dataset.ids is None else dataset.ids.iloc[:shared]
    now = fingerprints(dataset.X.iloc[:shared], dataset.y[:shared], ids, block=block)
    same_length = known["rows"] == len(dataset.y)
    if same_length and known["any_order"] == now["any_order"] and known["blocks"] != now["blocks"]:
        what = "order of the rows; the rows themselves are equal"
        yield _mismatch(what, known["blocks"][0], now["blocks"][0])
        return
    if list(known["columns"]) != list(now["columns"]):
        yield _mismatch("columns of the table", list(known["columns"]), list(now["columns"]))
    elif same_length:
        yield from value_mismatches(
            known["columns"], now["columns"], prefix="fingerprint of column "
        )
    # the last block can be compared only if it is not cut short
    whole = shared // block + (shared == known["rows"] and shared % block > 0)
    differ = [number for number in range(whole) if known["blocks"][number] != now["blocks"][number]]
    if differ:
        first = differ[0]
        where = f"rows, at least one in {listed(_spans(differ, block, shared))}"
        yield _mismatch(where, known["blocks"][first], now["blocks"][first])
    elif not same_length:
        start = min(whole * block, shared)
        yield _mismatch(f"rows from {start} on; the rows before are equal", None, None)


def _spans(numbers: Sequence[int], block: int, rows: int) -> list[str]:
    """Return blocks as spans of rows, with neighbors merged: ``40 to 119``."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number:
            spans[-1][1] = number + 1
        else:
            spans.append([number, number + 1])
    return [f"{first * block} to {min(last * block, rows) - 1}" for first, last in spans]
