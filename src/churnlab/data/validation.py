"""Check a raw table against its contract in one pass: typed columns, or every violation at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from churnlab.data import quality
from churnlab.data.cells import (
    WORDS,
    as_listed,
    as_number,
    gaps,
    possible_formats,
    read_number,
    read_numbers,
)
from churnlab.data.contract import Contract, Limit
from churnlab.data.expressions import check_expression, columns_in, evaluate
from churnlab.data.table import Table, shorten, totals
from churnlab.data.violations import Violation, message
from churnlab.errors import InputError
from churnlab.formatting import clipped, listed


def row_checks(contract: Contract) -> list[dict[str, Any]]:
    """Return what must hold in every row, as expressions that a served model evaluates.

    Each check has ``columns`` (whose values a message shows), ``holds`` (the expression) and
    ``text`` (what is allowed).
    """
    checks = [
        {"columns": [name], "holds": limit.holds, "text": f"it must be {limit.allowed}"}
        for name, column in contract.columns.items()
        for limit in column.limits(name)
    ]
    return checks + [
        {"columns": columns_in(rule), "holds": rule, "text": f"it must hold that {rule}"}
        for rule in contract.rules.values()
    ]


class Checked(NamedTuple):
    """A table that keeps its contract.

    ``X`` holds the features (numeric and binary as float64, categories as text, in the contract's
    order), ``y`` is 1 for those who left (None where it is not needed), ``ids`` the id column
    (None without one).
    """

    X: pd.DataFrame
    y: np.ndarray | None
    ids: pd.Series | None
    warnings: list[str]


def check(table: Table, contract: Contract, *, needs_target: bool = True) -> Checked:
    """Read the cells of a raw table as its contract declares them.

    Raises InputError with every violation found, the worst first.
    """
    table = _taking_part(table, contract) if needs_target else table
    (X, y, ids, warnings), violations = inspect(table, contract, needs_target=needs_target)
    if violations:
        head = f"{shorten(table.source)} violates the contract of dataset {contract.name}"
        raise InputError(message(violations, head=head, place=table.place))
    warnings += [*quality.gaps(X, _gap_words(table, contract)), *_unlisted_categories(X, contract)]
    if y is not None:
        warnings += quality.warnings(X, y, contract, ids)
        warnings += quality.target_codes(table.frame[contract.target], y, contract)
    return Checked(X, y, ids, warnings)


def inspect(
    table: Table, contract: Contract, *, needs_target: bool
) -> tuple[Checked, list[Violation]]:
    """Read the cells of a raw table, wrong ones missing, and return every violation.

    ``rows`` of a violation are the table's own.
    """
    frame, y, ids = table.frame, None, None
    violations = [*table.violations, *_missing_columns(table, contract, needs_target=needs_target)]
    warnings = [*table.warnings]
    if undeclared := _undeclared(table, contract):
        text = f"the dataset does not declare the columns {listed(undeclared, 20)}"
        fix = (
            f"leave them out, or declare them in dataset.columns in the YAML of {contract.name}, "
            "or ignore them with dataset.extra=ignore"
        )
        violations += [Violation(text, fix)] * (contract.extra == "refuse")
        warnings.append(
            f"left out columns that the dataset does not declare: {listed(undeclared, 20)}"
        )
    if frame.empty and not violations:
        violations.append(Violation("the table has a header and no rows", "give at least one row"))
    columns: dict[str, pd.Series] = {}
    found = totals(frame, contract)
    for name in [name for name in contract.columns if name in frame and len(frame)]:
        columns[name], broken = _read_column(frame[name], contract, may_be_empty=not needs_target)
        found += broken
    X = pd.DataFrame(columns).reset_index(drop=True)
    found += _broken_rules(X, contract)
    if contract.id in frame:
        ids = frame[contract.id].astype("str").reset_index(drop=True)
        found += _repeated_ids(ids, contract)
    if needs_target and contract.target in frame and len(frame):
        y, broken = _read_target(frame[contract.target], contract)
        found += broken or quality.leaks(X, y, contract)
    rows = frame.index.to_numpy()
    violations += [one if one.rows is None else replace(one, rows=rows[one.rows]) for one in found]
    return Checked(X, y, ids, warnings), violations


def _missing_columns(
    table: Table, contract: Contract, *, needs_target: bool
) -> Iterator[Violation]:
    missing = [name for name in contract.columns if name not in table.columns]
    there = f"(the table has {listed(table.columns, 20) or 'no columns'})"
    if missing:
        are, them = ("is no column", "it") if len(missing) == 1 else ("are no columns", "them")
        yield Violation(
            f"there {are} {listed(missing)} {there}",
            f"add {them}, or take {them} out of dataset.columns in the YAML of {contract.name}"
            f"{_suggest_rename(missing[0], table, contract)}",
        )
    target = contract.target if needs_target else None
    for role, name, otherwise in (
        ("target", target, "name the right one with dataset.target="),
        ("id", contract.id, "set dataset.id=null if members have none"),
    ):
        if name is not None and name not in table.columns:
            yield Violation(
                f"there is no {role} column {name or repr(name)} {there}",
                f"add it, or {otherwise}{_suggest_rename(name, table, contract)}",
            )


def _suggest_rename(name: str, table: Table, contract: Contract) -> str:
    """Suggest the column that has this name but for case, spaces and punctuation, "" for none."""
    near = [other for other in table.columns if _letters(other) == _letters(name)]
    yaml = f"the YAML of {contract.name}"
    return f", or write rename: {{{near[0]!r}: {name}}} into {yaml}" if near else ""


def _letters(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _undeclared(table: Table, contract: Contract) -> list[str]:
    declared = {*contract.columns, contract.target, contract.id}
    if contract.rows_where is not None:
        declared |= {*columns_in(contract.rows_where)}
    return [name for name in table.columns if name not in declared]


def _unlisted_categories(X: pd.DataFrame, contract: Contract) -> Iterator[str]:
    """Warn of categories that ``unknown: accept`` lets in."""
    for name, column in contract.columns.items():
        if column.unknown == "accept" and column.values is not None:
            known = X[name].dropna()
            others = known[~known.isin(column.values)]
            if len(others):
                yield quality.unlisted(name, others.unique().tolist(), len(others), len(X))


def _read_column(
    raw: pd.Series, contract: Contract, *, may_be_empty: bool
) -> tuple[pd.Series, list[Violation]]:
    """Return a column as float64 (a category as text), wrong cells missing, and its violations.

    A batch to be scored may have no value in any row; the version decides whether it needs one.
    """
    name, dataset = str(raw.name), contract.name
    column, key = contract.columns[name], f"dataset.columns.{name}"
    reading = contract.reading(name)
    missing = gaps(raw, reading.get("missing"))
    if missing.all():
        fix = f"fill it in, or take it out of dataset.columns in the YAML of {dataset}"
        empty = Violation(f"column {name} is empty in all {len(raw)} rows", fix)
        dtype = "str" if column.kind == "category" else "float64"
        nothing = pd.Series(np.nan, index=raw.index, dtype=dtype)
        return nothing, [] if may_be_empty else [empty]
    if column.kind == "category":
        words = as_listed(raw, reading.get("values", ()), fold=column.fold)
        values, violations = _read_category(words, missing)
    else:
        values, violations = _read_numbers(raw, reading)
    wrong = np.zeros(len(raw), bool)
    for limit in column.limits("value"):
        broken = _breaks(limit, values)
        add = limit.key == "values"
        change = f"add {{value}} to {key}.values" if add else f"change {key}.{limit.key}"
        violations += _violations_where(
            broken,
            values if column.kind == "category" else raw,
            f"column {name}: {{value}} {limit.broken}",
            f"correct it, or {change} in the YAML of {dataset}",
        )
        wrong |= broken
    return values.mask(wrong) if wrong.any() else values, violations


def _read_category(raw: pd.Series, missing: np.ndarray) -> tuple[pd.Series, list[Violation]]:
    nested = is_nested(raw)
    text = f"column {raw.name}: {{value}} is a list or the like, not a category"
    fix = "turn its contents into columns, or take it out of dataset.columns"
    gone = nested | missing
    values = raw.mask(gone) if gone.any() else raw
    return values.astype("str"), _violations_where(nested, raw, text, fix)


def _read_numbers(raw: pd.Series, reading: dict[str, Any]) -> tuple[pd.Series, list[Violation]]:
    numbers, words = read_numbers(raw, **reading)
    infinite = np.isinf(numbers)
    noun = "date" if reading["kind"] == "date" else "number"
    written = f" written like {reading['format']}" if "format" in reading else ""
    fix = _number_fix(raw[words].iloc[0], reading) if words.any() else ""
    text = f"column {raw.name}: {{value}} is not a"
    violations = _violations_where(words, raw, f"{text} {noun}{written}", fix)
    violations += _violations_where(infinite, raw, f"{text} finite number", "correct it")
    return pd.Series(np.where(infinite, np.nan, numbers), index=raw.index), violations


def _gap_words(table: Table, contract: Contract) -> dict[str, dict[str, int]]:
    """Count by column the words with which gaps are written, "" for an empty cell."""
    counts = {}
    for name in contract.columns:
        raw = table.frame[name]
        if table.gap_texts is not None and name in table.gap_texts:
            raw = table.gap_texts[name].loc[raw.index]
        if raw.dtype.kind not in "biufcmM":
            words = raw[gaps(raw, contract.words(name)) & raw.notna().to_numpy()].astype("str")
            counts[name] = {str(word): int(n) for word, n in words.value_counts().items()}
    return counts


def _taking_part(table: Table, contract: Contract) -> Table:
    """Return the table of the rows that ``rows_where`` selects, all without it."""
    if contract.rows_where is None or table.frame.empty:
        return table
    where = contract.rows_where
    if lacking := [name for name in columns_in(where) if name not in table.frame]:
        raise InputError(
            f"{shorten(table.source)} has no column {listed(lacking)}, which dataset.rows_where "
            f"needs ({where}); correct it in the YAML of {contract.name}."
        )
    part = table.frame[evaluate(where, table.frame) != 0]
    left_out = len(table.frame) - len(part)
    if part.empty:
        raise InputError(
            f"{shorten(table.source)} has no row in which {where} holds; correct "
            f"dataset.rows_where in the YAML of {contract.name}."
        )
    warning = f"{left_out:,} of {len(table.frame):,} rows take no part: {where} does not hold there"
    return replace(table, frame=part, warnings=(*table.warnings, *[warning] * bool(left_out)))


def _breaks(limit: Limit, values: pd.Series) -> np.ndarray:
    """Return where a known value breaks a limit on ``value``; text is judged once per category."""
    if pd.api.types.is_numeric_dtype(values):
        holds = evaluate(limit.holds, pd.DataFrame({"value": values}))
        return values.notna().to_numpy() & (holds == 0)
    codes, categories = pd.factorize(values)
    holds = evaluate(limit.holds, pd.DataFrame({"value": categories}))
    return np.append(holds, 1)[codes] == 0  # the code of a missing value is -1


def is_nested(raw: pd.Series) -> np.ndarray:
    """Return which cells hold lists, mappings or the like, as those of a Parquet file can."""
    if raw.dtype != object:
        return np.zeros(len(raw), bool)
    return ~raw.map(pd.api.types.is_scalar).to_numpy(dtype="bool")


def _number_fix(value: Any, reading: dict[str, Any]) -> str:
    """Return how to fix a cell that should hold a number or a date, by what it looks like."""
    text = str(value).strip()
    category = "declare the column as kind: category"
    if reading["kind"] == "date":
        return "correct it, or say how the column writes its dates, as format: DD.MM.YYYY"
    if text.casefold() in {*WORDS[True], *WORDS[False]}:
        return f"correct it: write 1 and 0 (kind: binary), or {category}"
    formats = possible_formats([text]) if isinstance(value, str) else []
    if any(formats):
        meant = [
            f"write {as_number(read_number(text, one))} (format: {one!r})" for one in formats if one
        ]
        return (
            f"correct it: {', or '.join(meant)}; a format in the YAML says how the column writes "
            "its numbers"
        )
    if re.match(r"\d{4}-\d\d?-\d\d?|\d\d?[./]\d\d?[./]\d{2,4}", text):
        return (
            "correct it: declare the column as kind: date, before: a day, or take it out of "
            "dataset.columns"
        )
    return f"correct it, or {category}"


def _violations_where(broken: np.ndarray, raw: pd.Series, text: str, fix: str) -> list[Violation]:
    """Return one violation for the rows where ``broken`` holds, none if there is no such row.

    ``{value}`` in ``text`` and ``fix`` becomes the value of ``raw`` in the first of these rows.
    """
    rows = np.flatnonzero(broken)
    if not len(rows):
        return []
    first = raw.iloc[rows[0]]
    value = repr(clipped(first)) if isinstance(first, str) else clipped(first)
    return [Violation(text.replace("{value}", value), fix.replace("{value}", value), rows)]


def _broken_rules(X: pd.DataFrame, contract: Contract) -> Iterator[Violation]:
    """Yield the rules that do not hold, judged in rows whose cells keep their own limits."""
    for name, rule in contract.rules.items():
        check_expression("", rule, list(contract.columns))
        needed = columns_in(rule)
        if any(column not in X for column in needed):
            continue
        known = np.flatnonzero(X[needed].notna().all(axis="columns"))
        rows = known[evaluate(rule, X.iloc[known] if len(known) < len(X) else X) == 0]
        if len(rows):
            first = X.iloc[rows[0]]
            values = ", ".join(f"{column} = {listed([first[column]])}" for column in needed)
            yield Violation(
                f"rule {name}: {rule} does not hold ({values or 'it names no column'})",
                f"correct the row, or change dataset.rules.{name} in the YAML of {contract.name}",
                rows,
            )


def _repeated_ids(ids: pd.Series, contract: Contract) -> list[Violation]:
    """Return the rows whose id an earlier row has, unless the contract lets members have several.

    Without the id the same person could be in the training part and in the hold-out.
    """
    if contract.repeated_ids:
        return []
    return _violations_where(
        ids.duplicated().to_numpy() & ~gaps(ids, ()),
        ids,
        f"id {contract.id}: {{value}} occurs in an earlier row, too",
        "keep one row per member, or set dataset.repeated_ids=true, which keeps all rows of one "
        "member on one side of every split",
    )


def _read_target(raw: pd.Series, contract: Contract) -> tuple[np.ndarray, list[Violation]]:
    """Return 1 for members who left and 0 for those who stayed, and the target's violations."""
    name, positive = contract.target, contract.positive
    missing = gaps(raw, contract.words(name))
    left = (raw == positive).to_numpy(dtype="bool", na_value=False)
    known = raw[~missing]
    worded = known.dtype == object or isinstance(known.dtype, pd.StringDtype)
    values = known.astype("str").str.strip() if worded else known
    folded = worded and values.nunique() > 2  # No and NO are one
    if not left.any() or worded:  # 1 in a YAML may be the text 1 in a table, blanks are no part
        cells, words = raw.astype("str").str.strip(), [str(positive).strip()]
        if folded:
            values, cells = values.str.casefold(), cells.str.casefold()
            words = [words[0].casefold()]
        if isinstance(positive, bool) and not left.any():  # true is the unquoted yes or on
            cells, words = cells.str.casefold(), [*WORDS[positive]]
        left = left | cells.isin(words).to_numpy(dtype="bool", na_value=False)
    y = left.astype("int64")
    if missing.all():
        text = f"target {name} is empty in all {len(raw)} rows"
        return y, [Violation(text, "fill it in, or name the right column with dataset.target=")]
    violations = []
    if missing.any():
        fix, rows = "fill it in, or leave these rows out", np.flatnonzero(missing)
        violations.append(Violation(f"target {name}: the value is missing", fix, rows))
    found = list(dict.fromkeys(map(str, values.unique())))
    shown = listed(found, 5)
    if len(found) > 2:
        text = f"target {name} has {len(found)} different values ({shown})"
        fix = "give a column with two values, and set dataset.positive= to the one that means left"
        violations.append(Violation(text, fix))
    elif not left.any():
        text = f"target {name} is never {positive or repr(positive)} (found: {shown})"
        fix = "set dataset.positive= to the value that means left, or add members who left"
        violations.append(Violation(text, fix))
    elif left[~missing].all():
        text = f"target {name} has one class only: every member has {positive}"
        violations.append(Violation(text, "add members who stayed"))
    return y, violations
