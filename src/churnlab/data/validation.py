"""Whether a table keeps its contract: what keeps it is read as it is, what breaks it is told, all
in one pass."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from churnlab.data import quality
from churnlab.data.contract import Column, Contract
from churnlab.data.expressions import check_expression, columns_in, evaluate
from churnlab.data.reading import Table
from churnlab.data.violations import Violation, message
from churnlab.errors import InputError
from churnlab.formatting import clipped, listed

WORDS = ("yes", "no", "true", "false", "y", "n", "t", "f", "on", "off")
"""How truth is written in words."""


def row_checks(contract: Contract) -> list[dict[str, Any]]:
    """What must hold in every row, as expressions that a served model can check without this
    module.

    Each check has ``columns`` (whose values to tell), ``holds`` (the expression) and ``text`` (what
    is allowed).
    """
    checks = []
    for name, column in contract.columns.items():
        quoted, limits = f"`{name}`", []
        values = (0, 1) if column.kind == "binary" else column.values
        if values is not None and column.unknown == "refuse":
            limits.append(
                (
                    f"{quoted} in [{', '.join(map(repr, values))}]",
                    f"one of {listed(values, len(values))}",
                )
            )
        low, high = column.bounds
        if low is not None:
            limits.append((f"{quoted} >= {low!r}", f"at least {low:g}"))
        if high is not None:
            limits.append((f"{quoted} <= {high!r}", f"at most {high:g}"))
        if column.whole:
            limits.append((f"floor({quoted}) == {quoted}", "a whole number"))
        checks += [
            {"columns": [name], "holds": holds, "text": f"it must be {text}"}
            for holds, text in limits
        ]
    for rule in contract.rules.values():
        checks.append(
            {"columns": columns_in(rule), "holds": rule, "text": f"it must hold that {rule}"}
        )
    return checks


class Checked(NamedTuple):
    """A table that keeps its contract.

    ``X`` holds the features (numeric and binary as float64, categories as text, in the contract's
    order), ``y`` is 1 for those who left (None where it is not needed), ``ids`` the echoed column
    (None without one).
    """

    X: pd.DataFrame
    y: np.ndarray | None
    ids: pd.Series | None
    warnings: list[str]


def check(table: Table, contract: Contract, *, needs_target: bool = True) -> Checked:
    """Read a raw table by its contract. Raises InputError with every fault found, the worst first."""
    frame, rows = table.frame, table.frame.index.to_numpy()
    faults = [*table.faults, *_missing_columns(table, contract, needs_target=needs_target)]
    if frame.empty and not faults:
        faults.append(
            Violation("the table has a header and no rows", "give it at least one member")
        )
    y = ids = None
    columns: dict[str, pd.Series] = {}
    found: list[Violation] = []
    for name in [name for name in contract.columns if name in frame and len(frame)]:
        columns[name], broken = _read_column(
            frame[name], contract.columns[name], dataset=contract.name
        )
        found += broken
    X = _frame(columns)
    found += _broken_rules(X, contract)
    if contract.id in frame:
        ids = frame[contract.id].astype("str").reset_index(drop=True)
        found += _repeated_ids(ids, contract)
    if needs_target and contract.target in frame and len(frame):
        y, broken = _read_target(frame[contract.target], contract)
        found += broken or quality.leaks(X, y, contract)
    faults += [
        fault if fault.rows is None else replace(fault, rows=rows[fault.rows]) for fault in found
    ]
    if faults:
        source = table.source if len(table.source) <= 300 else f"...{table.source[-300:]}"
        raise InputError(
            message(
                faults,
                head=f"{source} does not keep the contract of dataset {contract.name}",
                place=table.place,
            )
        )
    warnings = [
        *table.warnings,
        *_undeclared(table, contract),
        *quality.gaps(X),
        *_unknown(X, contract),
    ]
    if y is not None:
        warnings += quality.warnings(X, y, contract)
    return Checked(X, y, ids, warnings)


def _frame(columns: dict[str, pd.Series]) -> pd.DataFrame:
    return pd.DataFrame(columns).reset_index(drop=True)


def _missing_columns(
    table: Table, contract: Contract, *, needs_target: bool
) -> Iterator[Violation]:
    missing = [name for name in contract.columns if name not in table.columns]
    there = f"(the table has {listed(table.columns, 20)})"
    if missing:
        yield Violation(
            f"there is no column {listed(missing)} {there}",
            f"add it, or take it out of dataset.columns in the YAML of {contract.name}"
            f"{_renamed(missing[0], table, contract)}",
        )
    if needs_target and contract.target not in table.columns:
        yield Violation(
            f"there is no target column {contract.target} {there}",
            f"add it, or name the right one with dataset.target={_renamed(contract.target, table, contract)}",
        )
    if contract.id is not None and contract.id not in table.columns:
        yield Violation(
            f"there is no id column {contract.id}",
            f"add it, or say dataset.id=null when members have none{_renamed(contract.id, table, contract)}",
        )


def _renamed(name: str, table: Table, contract: Contract) -> str:
    """How to take a column that is called so but for letter case, spaces and the like."""
    near = [other for other in table.columns if _bare(other) == _bare(name)]
    return (
        f", or write rename: {{{near[0]!r}: {name}}} into the YAML of {contract.name}"
        if near
        else ""
    )


def _bare(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _undeclared(table: Table, contract: Contract) -> list[str]:
    declared = {*contract.columns, contract.target, contract.id}
    extra = [name for name in table.columns if name not in declared]
    return (
        [f"left out columns that the dataset does not declare: {listed(extra, 20)}"]
        if extra
        else []
    )


def _unknown(X: pd.DataFrame, contract: Contract) -> Iterator[str]:
    """The categories that are accepted though the YAML does not name them."""
    for name, column in contract.columns.items():
        if column.unknown == "accept" and column.values is not None:
            known = X[name].dropna()
            others = known[~known.isin(column.values)]
            if len(others):
                yield (
                    f"{name}: {listed(others.unique().tolist(), 5)} in {len(others):,} of "
                    f"{len(X):,} rows, which dataset.columns.{name}.values does not name; to a "
                    "model they are none of those it names"
                )


def _read_column(
    raw: pd.Series, column: Column, *, dataset: str
) -> tuple[pd.Series, list[Violation]]:
    """One column as float64 (or text, for a category) without its wrong cells, and what is wrong in
    it."""
    name = str(raw.name)
    missing = raw.isna().to_numpy()
    if missing.all():
        empty = Violation(
            f"column {name} is empty in all {len(raw)} rows",
            f"give it values, or take it out of dataset.columns in the YAML of {dataset}",
        )
        return pd.Series(
            np.nan, index=raw.index, dtype="str" if column.kind == "category" else "float64"
        ), [empty]
    read = _read_category if column.kind == "category" else _read_numbers
    return read(raw, missing, column, dataset=dataset)


def _read_category(
    raw: pd.Series, missing: np.ndarray, column: Column, *, dataset: str
) -> tuple[pd.Series, list[Violation]]:
    nested = is_nested(raw)
    if nested.any():
        mend = "make columns of what is in it, or take it out of dataset.columns"
        message = f"column {raw.name}: {{value}} is a list or the like, not a category"
        return raw.mask(nested).astype("str"), _fault_where(nested, raw, message, mend)
    text = raw.astype("str")
    if column.values is None or column.unknown == "accept":
        return text, []
    broken = ~missing & ~text.isin([str(value) for value in column.values]).to_numpy()
    faults = _fault_where(
        broken,
        text,
        f"column {raw.name}: {{value}} is not one of {listed(column.values)}",
        f"correct it, or add it to dataset.columns.{raw.name}.values",
    )
    return text.mask(broken) if faults else text, faults


def _read_numbers(
    raw: pd.Series, missing: np.ndarray, column: Column, *, dataset: str
) -> tuple[pd.Series, list[Violation]]:
    values = _to_numbers(raw, truth=column.kind == "binary")
    words = ~missing & np.isnan(values)
    broken = words.copy()
    faults = []
    if words.any():
        first = raw.iloc[np.flatnonzero(words)[0]]
        faults += _fault_where(
            words, raw, f"column {raw.name}: {{value}} is not a number", _mended(first)
        )
    for wrong, text, setting in _limits(values, column):
        faults += _fault_where(
            wrong,
            raw,
            f"column {raw.name}: {{value}} {text}",
            f"correct it, or change dataset.columns.{raw.name}.{setting} in the YAML of {dataset}",
        )
        broken |= wrong
    return pd.Series(
        np.where(broken, np.nan, values) if faults else values, index=raw.index
    ), faults


def _limits(values: np.ndarray, column: Column) -> Iterator[tuple[np.ndarray, str, str]]:
    """Which numbers are not allowed, what is said of them, and the key that would allow them."""
    finite = np.isfinite(values)
    yield np.isinf(values), "is not a finite number", "kind"
    known = (0, 1) if column.kind == "binary" else column.values
    if known is not None:
        held = reduce(np.logical_or, [values == value for value in known]) if known else ~finite
        yield (
            finite & ~held,
            f"is not one of {listed(known)}",
            "kind" if column.kind == "binary" else "values",
        )
    low, high = column.bounds
    if low is not None:
        yield finite & (values < low), f"is below {low:g}", "min"
    if high is not None:
        yield finite & (values > high), f"is above {high:g}", "max"
    if column.whole:
        yield finite & (values != np.round(values)), "is not a whole number", "whole"


def is_nested(raw: pd.Series) -> np.ndarray:
    """Which cells hold lists, mappings or the like, as those of a Parquet file can."""
    if raw.dtype != object:
        return np.zeros(len(raw), bool)
    return ~raw.map(pd.api.types.is_scalar).to_numpy(dtype="bool")


def _to_numbers(raw: pd.Series, *, truth: bool) -> np.ndarray:
    """The numbers of a column, NaN where there is none: dates are none, and truth is one only for
    ``truth``."""
    kind = pd.api.types.infer_dtype(raw, skipna=True)
    if kind.startswith(("date", "time", "period", "interval")) or (kind == "boolean" and not truth):
        return np.full(len(raw), np.nan)
    try:
        return pd.to_numeric(raw, errors="coerce").to_numpy(dtype="float64", na_value=np.nan)
    except (
        TypeError,
        ValueError,
        OverflowError,
    ):  # lists, or whatever else a Parquet file can hold
        return np.full(len(raw), np.nan)


def _mended(value: Any) -> str:
    """How a cell that should hold a number is corrected, by what it looks like."""
    text = str(value).strip()
    if text.casefold() in WORDS:
        return "correct it: write 1 and 0 and declare kind: binary, or declare the column as kind: category"
    if re.fullmatch(r"[+-]?\d+,\d+", text):
        return "correct it: write it with a point, not with a comma"
    if re.match(r"\d{4}-\d\d?-\d\d?|\d\d?[./]\d\d?[./]\d{2,4}", text):
        return "correct it: make a number of the date, as days since, or take the column out of dataset.columns"
    return "correct it, or declare the column as kind: category"


def _fault_where(broken: np.ndarray, raw: pd.Series, text: str, mend: str) -> list[Violation]:
    """A fault for the rows where ``broken`` holds, with the first value found there written into
    ``text``."""
    rows = np.flatnonzero(broken)
    if not len(rows):
        return []
    first = raw.iloc[rows[0]]
    shown = repr(clipped(first)) if isinstance(first, str) else clipped(first)
    return [Violation(text.replace("{value}", shown), mend, rows)]


def _broken_rules(X: pd.DataFrame, contract: Contract) -> list[Violation]:
    """The rules that do not hold, among the rows whose cells are all right by themselves."""
    faults = []
    for name, rule in contract.rules.items():
        check_expression("", rule, list(contract.columns))
        needed = columns_in(rule)
        if any(column not in X for column in needed):
            continue
        known = np.flatnonzero(X[needed].notna().all(axis="columns"))
        rows = known[evaluate(rule, X.iloc[known] if len(known) < len(X) else X) == 0]
        if len(rows):
            first = X.iloc[rows[0]]
            named = ", ".join(f"{column} = {listed([first[column]])}" for column in needed)
            faults.append(
                Violation(
                    f"rule {name}: {rule} does not hold ({named})",
                    f"correct the row, or change dataset.rules.{name} in the YAML of {contract.name}",
                    rows,
                )
            )
    return faults


def _repeated_ids(ids: pd.Series, contract: Contract) -> list[Violation]:
    return _fault_where(
        (ids.duplicated() & ids.notna() & (ids != "")).to_numpy(),
        ids,
        f"id {contract.id}: {{value}} is there already",
        "keep one row a member, or say dataset.id=null when it is no identifier",
    )


def _read_target(raw: pd.Series, contract: Contract) -> tuple[np.ndarray, list[Violation]]:
    """1 for who left and 0 for who stayed, and what is wrong with that."""
    name, positive = contract.target, contract.positive
    missing = raw.isna().to_numpy()
    left = (raw == positive).to_numpy(dtype="bool", na_value=False)
    if not left.any():  # 1 in a YAML may be the text 1 in a table
        left = (raw.astype("str") == str(positive)).to_numpy(dtype="bool", na_value=False)
    y = left.astype("int64")
    if missing.all():
        text = f"target {name} is empty in all {len(raw)} rows"
        return y, [Violation(text, "fill it in, or name the right column with dataset.target=")]
    faults = []
    if missing.any():
        mend = "fill it in, or leave these rows out"
        faults.append(
            Violation(f"target {name}: the value is missing", mend, np.flatnonzero(missing))
        )
    known = raw[~missing]
    found = list(
        dict.fromkeys(map(str, (known.astype("str") if known.dtype == object else known).unique()))
    )
    said = listed(found, 5)
    if len(found) > 2:
        text = f"target {name} has {len(found)} different values ({said})"
        faults.append(
            Violation(
                text,
                "give a column with two values, and name the one that means left: dataset.positive=",
            )
        )
    elif not left.any():
        text = f"target {name} is never {positive} (found: {said})"
        mend = "name the value that means left with dataset.positive=, or give a table with leavers"
        faults.append(Violation(text, mend))
    elif left[~missing].all():
        text = f"target {name} has one class only: every member has {positive}"
        faults.append(Violation(text, "give a table with members who stayed, too"))
    return y, faults
