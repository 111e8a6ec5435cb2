"""Draft a dataset YAML from a table alone, for a person to correct."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import yaml

from churnlab.data.quality import leaking_columns
from churnlab.data.validation import is_nested
from churnlab.errors import InputError
from churnlab.formatting import counted, listed

LIKELY_TARGETS = (
    *("churn", "churned", "left", "exited", "attrition", "cancelled", "canceled"),
    *("target", "label", "y"),
)
"""Usual names of the target, in lower case."""

POSITIVE = ("yes", "true", "left", "churned", "exited", "cancelled", "canceled", "1", "1.0")
"""Usual values for members who left, in lower case."""

MOST_LEVELS = 50
"""Text with more distinct values than this is no category."""

IDENTIFIER = "distinct in nearly every row: an identifier?"


@dataclass(frozen=True)
class ColumnDraft:
    """The draft of one column: its keys in the YAML, or None to leave it out, and a remark why."""

    name: str
    declared: dict[str, Any] | None
    remark: str


@dataclass(frozen=True)
class Draft:
    """The draft of a dataset YAML; ``candidates`` for the target have two values."""

    rows: int
    target: str | None
    positive: Any
    id: str | None
    columns: list[ColumnDraft]
    candidates: list[str]


def draft(frame: pd.DataFrame, *, target: str | None = None) -> Draft:
    """Draft every column of a raw table; ``target`` names the target column, None to guess it."""
    nested = [str(name) for name in frame if is_nested(frame[name]).any()]
    plain = frame.drop(columns=nested)
    two = [str(name) for name in plain if plain[name].nunique() == 2]
    if target is not None and target not in two:
        counts = plain.get(target, pd.Series(dtype="str")).value_counts().items()
        values = [f"{_python_value(value)} ({counted(n, 'row')})" for value, n in counts]
        found = "lists or the like" if target in nested else listed(values, 5) or "nothing"
        raise InputError(
            f"The column {target} holds {found} and cannot be the target, which has two values: "
            "who left and who stayed. Name another column with target= "
            f"({_candidates(two)}), or add one that says who left."
        )
    target = target or _likely_target(two)
    positive, leaking = None, {}
    if target is not None:
        positive = _positive(plain[target])
        y = (plain[target] == positive).to_numpy(dtype="bool", na_value=False)
        leaking = leaking_columns(plain.drop(columns=target), y)
    drafts = [
        ColumnDraft(name, None, "lists or the like: turn their contents into columns")
        if name in nested
        else _column(frame[name], leaking.get(name))
        for name in map(str, frame)
        if name != target
    ]
    ids = [column.name for column in drafts if column.remark.startswith(IDENTIFIER)]
    return Draft(
        rows=len(frame),
        target=target,
        positive=positive,
        id=ids[0] if ids else None,
        columns=[column for column in drafts if column.name not in ids[:1]],
        candidates=two,
    )


def as_yaml(found: Draft, *, name: str, path: str, encoding: str) -> str:
    """Return the dataset's YAML with a remark on every column; columns left out are comments."""
    target, remark = _scalar(found.target), "the column that says who left"
    if found.target is None:
        target, remark = "???", f"which column says who left? {_candidates(found.candidates)}"
    positive = 1 if found.positive is None else found.positive
    width = max((len(_scalar(column.name)) for column in found.columns), default=0) + 1
    lines = [
        f"# A draft contract for {name}, a table of {found.rows:,} rows: read it and correct it.",
        f"name: {_scalar(name)}",
        f"path: {_scalar(path)}",
        f"encoding: {encoding}",
        f"target: {target}    # {remark}",
        f"positive: {_scalar(positive)}    # the value that means left",
        f"id: {_scalar(found.id)}    # copied to the output, never a feature",
        "columns:    # every feature, in order; commented-out columns are left out",
    ]
    for column in found.columns:
        key = f"{_scalar(column.name)}:"
        if column.declared is None:
            lines.append(f"  # {key:{width}} {column.remark}")
        else:
            lines.append(f"  {key:{width}} {_inline(column.declared)}    # {column.remark}")
    lines += [
        "rules: {}    # expressions that hold in every row, as  months_left: End <= Contract",
        "late: []     # columns known only close to the event",
    ]
    return "\n".join(lines) + "\n"


def _candidates(two: list[str]) -> str:
    return f"one of {', '.join(two)}" if two else "no column has two values"


def _likely_target(two: list[str]) -> str | None:
    named = [name for name in two if name.lower().replace("_", "").strip() in LIKELY_TARGETS]
    return named[0] if len(named) == 1 else None


def _positive(raw: pd.Series) -> Any:
    """Return the value that means left: by its name, else the rarer one."""
    values = raw.value_counts()
    for value in values.index:
        if str(value).strip().lower() in POSITIVE:
            return _python_value(value)
    return _python_value(values.index[-1])


def _column(raw: pd.Series, leakage: float | None) -> ColumnDraft:
    """Draft one column; ``leakage`` is its AUC if it predicts the outcome by itself."""
    name, known = str(raw.name), raw.dropna()
    missing = f", {len(raw) - len(known):,} missing" if len(known) < len(raw) else ""
    if known.empty:
        return ColumnDraft(name, None, "empty")
    distinct = known.nunique()
    if distinct == 1:
        return ColumnDraft(name, None, f"always {_python_value(known.iloc[0])}{missing}")
    numbers = pd.api.types.is_numeric_dtype(known) and not pd.api.types.is_bool_dtype(known)
    values = known.to_numpy(dtype="float64") if numbers else None
    whole = values is not None and bool((values == np.round(values)).all())
    if distinct > max(MOST_LEVELS, 0.95 * len(known)) and (values is None or whole):
        return ColumnDraft(name, None, f"{IDENTIFIER}{missing}")
    if leakage is not None:
        remark = f"alone predicts who left (AUC {leakage:.3f}): recorded after the event?"
        return ColumnDraft(name, None, remark)
    if values is not None:
        found = f"{values.min():g} to {values.max():g}, median {np.median(values):g}{missing}"
        return ColumnDraft(name, _numeric(values, whole=whole), found)
    if pd.api.types.infer_dtype(known) == "boolean":
        return ColumnDraft(name, {"kind": "binary"}, f"true or false{missing}")
    text = known.astype("str")
    if _are_dates(text):
        remark = f"dates, {text.min()} to {text.max()}: turn them into numbers, as days since"
        return ColumnDraft(name, None, remark)
    if distinct > MOST_LEVELS:
        return ColumnDraft(name, None, f"text with {distinct:,} distinct values{missing}")
    levels = sorted(text.unique())
    return ColumnDraft(name, {"kind": "category", "values": levels}, f"{distinct} values{missing}")


def _numeric(values: np.ndarray, *, whole: bool) -> dict[str, Any]:
    """Draft the kind and limits of a column of numbers.

    The limits are as far beyond the extremes as those are from the median: next month's table has
    its own extremes, and a long tail needs room.
    """
    if set(np.unique(values)) <= {0.0, 1.0}:
        return {"kind": "binary"}
    low, middle, high = float(values.min()), float(np.median(values)), float(values.max())
    limits = {
        "min": 0 if low >= 0 else _outward(2 * low - middle),
        "max": _outward(2 * high - middle),
    }
    return {"kind": "numeric", **limits} | ({"whole": True} if whole else {})


def _outward(value: float) -> float | int:
    """Round away from 0 to two significant digits."""
    if value == 0:
        return 0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    rounded = math.copysign(math.ceil(abs(value) / unit) * unit, value)
    return int(rounded) if rounded == int(rounded) else float(f"{rounded:.2g}")


def _are_dates(text: pd.Series) -> bool:
    sample = text.head(1000)
    if not sample.str.contains(r"\d.*[-/:.].*\d", regex=True).mean() > 0.95:
        return False
    return bool(pd.to_datetime(sample, errors="coerce", format="mixed").notna().mean() > 0.95)


def _python_value(value: Any) -> Any:
    """Return a cell as a Python object for YAML, 3.0 as 3."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _scalar(value: Any) -> str:
    text = yaml.safe_dump(value, allow_unicode=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _inline(block: dict[str, Any]) -> str:
    return yaml.safe_dump(
        block, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000
    ).strip()
