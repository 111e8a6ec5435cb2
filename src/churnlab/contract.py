"""The contract of a table: which columns it has, what they may hold, and what is said when they do not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from churnlab.errors import InputError

if TYPE_CHECKING:  # the config is read before pandas is worth its start-up time
    import numpy as np
    import pandas as pd

Kind = Literal["binary", "numeric", "category"]

FAULTS_TOLD = 10


@dataclass(frozen=True)
class Column:
    """One feature column as a dataset's YAML declares it; bounds are inclusive.

    ``unit`` names what it is counted in; ``cut`` splits a numeric column where explore compares churn above and below.
    """

    kind: Kind
    min: float | None = None
    max: float | None = None
    whole: bool = False
    values: tuple[int | float | str, ...] | None = None
    unit: str | None = None
    cut: float | None = None

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.kind == "category":
            if self.whole or self.min is not None or self.max is not None:
                raise ValueError("a category has no min, max or whole; give values=[...], or kind=numeric")
            if self.values is not None:  # 1 in a YAML is the text 1 in a table
                object.__setattr__(self, "values", tuple(map(str, self.values)))
        elif any(isinstance(value, str) for value in self.values or ()):
            raise ValueError(f"a {self.kind} column has numbers for values; give them, or kind=category")


@dataclass(frozen=True)
class Contract:
    """What every table of one dataset holds: its features in order, its target, its row rules.

    ``positive`` is the value of ``target`` that means "left"; ``late`` names the columns that are known only
    close to the event; ``rules`` are pandas expressions that are true in every row.
    """

    name: str
    target: str
    positive: int | float | str
    columns: Mapping[str, Column]
    id: str | None = None
    rules: Mapping[str, str] = field(default_factory=dict)
    late: tuple[str, ...] = ()

    @property
    def text(self) -> list[str]:
        """The columns that are text even where they look like numbers: categories and the id."""
        categories = [name for name, column in self.columns.items() if column.kind == "category"]
        return categories if self.id is None else [*categories, self.id]


def row_checks(contract: Contract) -> list[dict[str, Any]]:
    """What must hold in every row, as expressions that a served model can check without this module.

    Each check has ``columns`` (whose values to tell), ``holds`` (the expression) and ``text`` (what is allowed).
    """
    from churnlab.expressions import columns_in

    checks = []
    for name, column in contract.columns.items():
        quoted, limits = f"`{name}`", []
        values = (0, 1) if column.kind == "binary" else column.values
        if values is not None:
            limits.append((f"{quoted} in [{', '.join(map(repr, values))}]", f"one of {_listed(values)}"))
        if column.min is not None:
            limits.append((f"{quoted} >= {column.min!r}", f"at least {column.min:g}"))
        if column.max is not None:
            limits.append((f"{quoted} <= {column.max!r}", f"at most {column.max:g}"))
        if column.whole:
            limits.append((f"floor({quoted}) == {quoted}", "a whole number"))
        checks += [{"columns": [name], "holds": holds, "text": f"it must be {text}"} for holds, text in limits]
    for rule in contract.rules.values():
        checks.append({"columns": columns_in(rule), "holds": rule, "text": f"it must hold that {rule}"})
    return checks


def _listed(values: Iterable[float | str]) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


@dataclass(frozen=True)
class Fault:
    """One way in which a table breaks its contract; ``rows`` are 0-based positions of the rows concerned."""

    text: str
    mend: str
    rows: np.ndarray | None = None


def check(
    frame: pd.DataFrame, contract: Contract, *, source: str, first_line: int | None, needs_target: bool = True
) -> tuple[pd.DataFrame, np.ndarray | None, list[str]]:
    """Read a raw table by its contract.

    ``first_line`` is the file line of the first row (2 in a CSV with a header) or None where rows have no lines.
    Returns the features (numeric and binary as float64, categories as text, in the contract's order), the target
    as 0 and 1 (None when it is not needed), and the warnings. Raises InputError with every fault found.
    """
    faults = list(_missing_columns(frame, contract, needs_target=needs_target))
    if not faults and frame.empty:
        faults = [Fault("the table has a header and no rows", "give it at least one member")]
    if faults:
        raise InputError(_told(faults, contract, source=source, first_line=first_line))
    columns: dict[str, pd.Series] = {}
    for name, column in contract.columns.items():
        columns[name], found = _read_column(frame[name], column, dataset=contract.name)
        faults += found
    X = _frame(columns)
    if not faults:
        faults += _broken_rules(X, contract)
    y = None
    if needs_target:
        y, found = _read_target(frame[contract.target], contract)
        faults += found
    if faults:
        raise InputError(_told(faults, contract, source=source, first_line=first_line))
    return X, y, _warnings(frame, contract)


def _frame(columns: dict[str, pd.Series]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns).reset_index(drop=True)


def _missing_columns(frame: pd.DataFrame, contract: Contract, *, needs_target: bool) -> Iterator[Fault]:
    missing = [name for name in contract.columns if name not in frame.columns]
    if missing:
        yield Fault(
            f"there is no column {', '.join(missing)} (the table has {', '.join(map(str, frame.columns[:40]))})",
            f"add it, or take it out of dataset.columns in the YAML of {contract.name}",
        )
    if needs_target and contract.target not in frame.columns:
        yield Fault(
            f"there is no target column {contract.target}",
            "add it, or name the right one with dataset.target=",
        )
    if contract.id is not None and contract.id not in frame.columns:
        yield Fault(f"there is no id column {contract.id}", "add it, or say dataset.id=null when members have none")


def _read_column(raw: pd.Series, column: Column, *, dataset: str) -> tuple[pd.Series, list[Fault]]:
    """One column as float64 (or text, for a category), with what is wrong in it."""
    import numpy as np

    name = str(raw.name)
    where = f"column {name}"
    missing = raw.isna().to_numpy()
    faults = []
    if missing.any():
        faults.append(
            Fault(
                f"{where}: the value is missing",
                "fill it in, or leave these rows out",
                np.flatnonzero(missing),
            )
        )
    if column.kind == "category":
        text = raw.astype("str")
        if column.values is not None:
            levels = [str(value) for value in column.values]
            faults += _fault_where(
                ~missing & ~text.isin(levels).to_numpy(),
                text,
                f"{where}: {{value}} is not one of {', '.join(levels)}",
                f"correct it, or add it to dataset.columns.{name}.values",
            )
        return text, faults
    numbers = _to_numbers(raw)
    values = numbers.to_numpy()
    faults += _fault_where(
        ~missing & np.isnan(values),
        raw,
        f"{where}: {{value}} is not a number",
        "correct it, or declare the column as kind: category",
    )
    known: tuple[int | float | str, ...] | None = (0, 1) if column.kind == "binary" else column.values
    finite = np.isfinite(values)
    limits: list[tuple[np.ndarray, str, str]] = [(np.isinf(values), "is not a finite number", "kind")]
    if known is not None:
        listed = _listed(known)
        setting = "kind" if column.kind == "binary" else "values"
        limits.append(
            (finite & ~np.isin(values, np.array(known, dtype=np.float64)), f"is not one of {listed}", setting)
        )
    if column.min is not None:
        limits.append((finite & (values < column.min), f"is below {column.min:g}", "min"))
    if column.max is not None:
        limits.append((finite & (values > column.max), f"is above {column.max:g}", "max"))
    if column.whole:
        limits.append((finite & (values != np.round(values)), "is not a whole number", "whole"))
    for broken, text_, setting in limits:
        faults += _fault_where(
            broken,
            raw,
            f"{where}: {{value}} {text_}",
            f"correct it, or change dataset.columns.{name}.{setting} in the YAML of {dataset}",
        )
    return numbers, faults


def _to_numbers(raw: pd.Series) -> pd.Series:
    import pandas as pd

    return pd.to_numeric(raw, errors="coerce").astype("float64")


def _fault_where(broken: np.ndarray, raw: pd.Series, text: str, mend: str) -> list[Fault]:
    """A fault for the rows where ``broken`` holds, with the first value found there written into ``text``."""
    import numpy as np

    rows = np.flatnonzero(broken)
    if not len(rows):
        return []
    first = raw.iloc[rows[0]]
    shown = repr(str(first)[:40]) if isinstance(first, str) else f"{first}"
    return [Fault(text.replace("{value}", shown), mend, rows)]


def _broken_rules(X: pd.DataFrame, contract: Contract) -> list[Fault]:
    import numpy as np

    from churnlab.expressions import columns_in, evaluate

    faults = []
    for name, rule in contract.rules.items():
        rows = np.flatnonzero(evaluate(rule, X) == 0)
        if len(rows):
            first = X.iloc[rows[0]]
            named = ", ".join(f"{column} = {_listed([first[column]])}" for column in columns_in(rule))
            faults.append(
                Fault(
                    f"rule {name}: {rule} does not hold ({named})",
                    f"correct the row, or change dataset.rules.{name} in the YAML of {contract.name}",
                    rows,
                )
            )
    return faults


def _read_target(raw: pd.Series, contract: Contract) -> tuple[np.ndarray, list[Fault]]:
    import numpy as np

    name = contract.target
    missing = raw.isna().to_numpy()
    y = (raw == contract.positive).to_numpy(dtype="int64", na_value=0)
    if missing.any():
        return y, [
            Fault(
                f"target {name}: the value is missing",
                "fill it in, or leave these rows out",
                np.flatnonzero(missing),
            )
        ]
    found = raw.unique()
    listed = ", ".join(str(value) for value in found[:5])
    if len(found) > 2:
        text = f"target {name} has {len(found)} different values ({listed}...)"
        return y, [Fault(text, "give a column with two values, and name the one that means left: dataset.positive=")]
    if not y.any():
        text = f"target {name} is never {contract.positive} (found: {listed})"
        return y, [Fault(text, "name the value that means left with dataset.positive=, or give a table with leavers")]
    if y.all():
        text = f"target {name} has one class only: every member has {contract.positive}"
        return y, [Fault(text, "give a table with members who stayed, too")]
    return y, []


def _warnings(frame: pd.DataFrame, contract: Contract) -> list[str]:
    declared = {*contract.columns, contract.target, contract.id}
    extra = [str(name) for name in frame.columns if name not in declared]
    return [f"left out columns that the dataset does not declare: {', '.join(extra)}"] if extra else []


def _told(faults: list[Fault], contract: Contract, *, source: str, first_line: int | None) -> str:
    lines = [_sentence(fault, first_line) for fault in faults[:FAULTS_TOLD]]
    if len(faults) == 1:
        return f"{source} does not keep the contract of dataset {contract.name}: {lines[0]}"
    more = f" The first {FAULTS_TOLD}:" if len(faults) > FAULTS_TOLD else ""
    head = f"{source} does not keep the contract of dataset {contract.name}, {len(faults)} faults.{more}"
    return "\n  - ".join([head, *lines])


def _sentence(fault: Fault, first_line: int | None) -> str:
    if fault.rows is None:
        return f"{fault.text}; {fault.mend}."
    first = int(fault.rows[0])
    where = f"row {first}" if first_line is None else f"line {first + first_line}"
    count = len(fault.rows)
    more = "" if count == 1 else f" (and in {count - 1} more {'row' if count == 2 else 'rows'})"
    return f"{where}, {fault.text}{more}; {fault.mend}."
