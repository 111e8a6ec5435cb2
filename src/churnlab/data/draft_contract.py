"""A first contract for a table that nobody has described yet: what its columns seem to be, for a
person to correct."""

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

LIKELY_TARGETS = (
    "churn",
    "churned",
    "left",
    "exited",
    "attrition",
    "cancelled",
    "canceled",
    "target",
    "label",
    "y",
)
"""What columns that say who left are called, in small letters."""

POSITIVE = ("yes", "true", "left", "churned", "exited", "cancelled", "canceled", "1", "1.0")
"""How "left" is written."""

MOST_LEVELS = 50
"""Text with more different values than this is no category."""


@dataclass(frozen=True)
class ColumnDraft:
    """One column as it seems to be: what the YAML is to say, or None when it is better left out,
    and why."""

    name: str
    declared: dict[str, Any] | None
    remark: str


@dataclass(frozen=True)
class Draft:
    """A table as it seems to be; ``candidates`` are the columns with two values when no target is
    certain."""

    rows: int
    target: str | None
    positive: Any
    id: str | None
    columns: list[ColumnDraft]
    candidates: list[str]


def draft(frame: pd.DataFrame, *, target: str | None = None) -> Draft:
    """Look at every column of a raw table; ``target`` names the one that says who left, when it is
    known."""
    nested = [str(name) for name in frame if is_nested(frame[name]).any()]
    if target in nested:
        raise InputError(
            f"The column {target} holds lists or the like and cannot say who left; name another "
            "target=."
        )
    plain = frame.drop(columns=nested)
    two = [str(name) for name in plain if plain[name].nunique() == 2]
    target = target or _likely_target(two)
    positive = None if target is None else _positive(plain[target])
    y = (
        None
        if target is None
        else (plain[target] == positive).to_numpy(dtype="bool", na_value=False)
    )
    given_away = {} if y is None else leaking_columns(plain.drop(columns=target), y)
    drafts = [
        ColumnDraft(name, None, "lists or the like: make columns of what is in them")
        if name in nested
        else _column(frame[name], given_away.get(name))
        for name in map(str, frame)
        if name != target
    ]
    ids = [
        column.name
        for column in drafts
        if column.declared is None and column.remark.startswith("different in")
    ]
    return Draft(
        rows=len(frame),
        target=target,
        positive=positive,
        id=ids[0] if ids else None,
        columns=[column for column in drafts if column.name not in ids[:1]],
        candidates=two,
    )


def as_yaml(found: Draft, *, name: str, path: str, encoding: str) -> str:
    """The dataset's YAML, a remark beside every column, what is better left out as comments."""
    width = max((len(_scalar(column.name)) for column in found.columns), default=0) + 1
    lines = [
        f"# A first contract for {name}, a table of {found.rows:,} rows. Read it, correct it, keep it.",
        f"name: {name}",
        f"path: {_scalar(path)}",
        f"encoding: {encoding}",
        f"target: {'???' if found.target is None else _scalar(found.target)}    # {_said_of_target(found)}",
        f"positive: {_scalar(1 if found.positive is None else found.positive)}    # the value that means left",
        f"id: {'null' if found.id is None else _scalar(found.id)}    # echoed in the answers, never a feature",
        "columns:    # every feature, in order; what is commented out is left out",
    ]
    for column in found.columns:
        key = f"{_scalar(column.name)}:"
        if column.declared is None:
            lines.append(f"  # {key:{width}} {column.remark}")
        else:
            lines.append(f"  {key:{width}} {_inline(column.declared)}    # {column.remark}")
    lines += [
        "rules: {}    # what must hold in every row, as  months_left: End <= Contract",
        "late: []     # columns known only close to the event",
    ]
    return "\n".join(lines) + "\n"


def _said_of_target(found: Draft) -> str:
    if found.target is not None:
        return "which column says who left"
    choice = (
        f"one of {', '.join(found.candidates)}" if found.candidates else "no column has two values"
    )
    return f"which column says who left? {choice}"


def _likely_target(two: list[str]) -> str | None:
    named = [name for name in two if name.lower().replace("_", "").strip() in LIKELY_TARGETS]
    return named[0] if len(named) == 1 else None


def _positive(raw: pd.Series) -> Any:
    """The value that means left: by its name, else the rarer one."""
    values = raw.value_counts()
    for value in values.index:
        if str(value).strip().lower() in POSITIVE:
            return _plain(value)
    return _plain(values.index[-1])


def _column(raw: pd.Series, given_away: float | None) -> ColumnDraft:
    name, known = str(raw.name), raw.dropna()
    missing = f", {len(raw) - len(known):,} missing" if len(known) < len(raw) else ""
    if known.empty:
        return ColumnDraft(name, None, "empty")
    distinct = known.nunique()
    if distinct == 1:
        return ColumnDraft(name, None, f"always {_plain(known.iloc[0])}{missing}")
    numbers = pd.api.types.is_numeric_dtype(known) and not pd.api.types.is_bool_dtype(known)
    values = known.to_numpy(dtype="float64") if numbers else None
    whole = values is not None and bool((values == np.round(values)).all())
    if distinct > max(MOST_LEVELS, 0.95 * len(known)) and (values is None or whole):
        return ColumnDraft(name, None, f"different in nearly every row: an identifier?{missing}")
    if given_away is not None:
        return ColumnDraft(
            name, None, f"tells by itself who left (AUC {given_away:.3f}): written after the event?"
        )
    if values is not None:
        return ColumnDraft(name, _numeric(values, whole=whole), f"{_range(values)}{missing}")
    if pd.api.types.infer_dtype(known) == "boolean":
        return ColumnDraft(name, {"kind": "binary"}, f"true or false{missing}")
    text = known.astype("str")
    if _are_dates(text):
        return ColumnDraft(
            name, None, f"dates, {text.min()} to {text.max()}: make numbers of them, as days since"
        )
    if distinct > MOST_LEVELS:
        return ColumnDraft(name, None, f"text with {distinct:,} different values{missing}")
    levels = sorted(text.unique())
    return ColumnDraft(name, {"kind": "category", "values": levels}, f"{distinct} values{missing}")


def _numeric(values: np.ndarray, *, whole: bool) -> dict[str, Any]:
    """The kind of a column of numbers and its limits: next month's table has its own extremes.

    They are as far beyond the extremes as those are from the median, so that a long tail has room.
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
    """The next number with two digits, away from 0."""
    if value == 0:
        return 0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    rounded = math.copysign(math.ceil(abs(value) / unit) * unit, value)
    return int(rounded) if rounded == int(rounded) else float(f"{rounded:.2g}")


def _range(values: np.ndarray) -> str:
    return f"{values.min():g} to {values.max():g}, median {np.median(values):g}"


def _are_dates(text: pd.Series) -> bool:
    sample = text.head(1000)
    if not sample.str.contains(r"\d.*[-/:.].*\d", regex=True).mean() > 0.95:
        return False
    return bool(pd.to_datetime(sample, errors="coerce", format="mixed").notna().mean() > 0.95)


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value == int(value) else value


def _scalar(value: Any) -> str:
    return (
        yaml.safe_dump(value, allow_unicode=True, width=10_000)
        .removesuffix("\n")
        .removesuffix("\n...")
    )


def _inline(block: dict[str, Any]) -> str:
    return yaml.safe_dump(
        block, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000
    ).strip()
