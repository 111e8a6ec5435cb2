"""Read what requests hold as a version's inputs, and word what is wrong with it.

A version carries a copy of this file and runs it where churnlab is not installed: it stands alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from decimal import Decimal
from numbers import Real
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE


class Violation(NamedTuple):
    """What is wrong in a row, in words, and the kind of it (``reason``): type, missing, infinite,
    range, category or rule. ``field`` and ``value`` are those of the first column concerned."""

    row: int
    text: str
    reason: str = "type"
    field: str | None = None
    value: Any = None


class Reader:
    """Read tables as the inputs of a version: ``served`` is its served.json, ``cells`` its
    cells.py."""

    def __init__(self, served: Mapping[str, Any], cells: ModuleType) -> None:
        self.served, self.cells = served, cells

    @property
    def id(self) -> str:
        """The column that is echoed: the dataset's id, or member_id where it declares none."""
        return self.served["id"] or "member_id"

    def with_known_names(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the table under the inputs' names: blanks around a name are no part of it.

        Refuse a table without rows, or in which an input is absent or occurs twice. Other columns
        are ignored with a warning, or refused where the dataset says so.
        """
        known = {*self.served["inputs"], self.id} - {*table.columns}
        names = {name: name.strip(self.cells.BLANKS) for name in table if isinstance(name, str)}
        bare = {name: bare for name, bare in names.items() if bare in known}
        table = table.rename(columns=bare) if bare else table
        self._check_columns(table)
        return table

    def _check_columns(self, table: pd.DataFrame) -> None:
        inputs, columns = self.served["inputs"], set(table.columns)
        if table.empty:
            raise refusal("There is no row; give at least one member.", "rows")
        for name in inputs:
            if name not in columns and name not in self.served["may_be_missing"]:
                text = f"There is no column {name}; the inputs are {', '.join(inputs)}."
                raise refusal(text, "columns", field=name)
        for name in table.columns[table.columns.duplicated()]:
            if name in (*inputs, self.id):
                text = f"Several columns are called {name}; keep one."
                raise refusal(text, "columns", field=name)
        known = {*inputs, self.id, self.served["target"]}
        if extra := [clipped(str(name)) for name in table if name not in known]:
            names = ", ".join(extra[:20]) + (f" and {len(extra) - 20} more" if extra[20:] else "")
            if self.served["extra"] == "refuse":
                text = f"The dataset does not declare the columns {names}; leave them out."
                raise refusal(text, "columns", field=extra[0])
            warnings.warn(f"ignored columns that are no inputs: {names}", stacklevel=4)

    def members(self, table: pd.DataFrame) -> tuple[dict[str, np.ndarray], dict[str, Violation]]:
        """Return the inputs in order, numbers as float64 and categories as text with NaN for gaps;
        and by column the first cell that is neither."""
        none = pd.Series(np.nan, index=table.index)
        read = {name: self.column(name, table.get(name, none)) for name in self.served["inputs"]}
        members = {name: column for name, (column, _) in read.items()}
        return members, {name: wrong for name, (_, wrong) in read.items() if wrong is not None}

    def column(self, name: str, column: pd.Series) -> tuple[np.ndarray, Violation | None]:
        """Return a column as float64 or text, as score reads the same cells of a file, and the
        first cell that cannot be read so; such cells are NaN.

        Text is a number only where the version's own table had text, too, or gaps.
        """
        reading = self.served["reading"][name]
        if reading["kind"] != "category":
            numbers, wrong = self.cells.read_numbers(column, **reading)
            if name not in self.served["texts"] and column.dtype.kind not in "biufcmM":
                wrong |= [isinstance(cell, str) for cell in column.astype(object)]
            for row in np.flatnonzero(wrong)[:1]:
                example = reading.get("format", "YYYY-MM-DD" if reading["kind"] == "date" else "")
                needed = "a date" if reading["kind"] == "date" else "a number"
                needed += f" written like {example}" if example else ""
                cell = column.astype(object).iloc[row]
                text = f"{name} is {_describe(cell)}; give {needed}."
                found = Violation(int(row), text, "type", name, cell)
                return np.where(wrong, np.nan, numbers), found
            return numbers, None
        missing = self.cells.gaps(column, reading.get("missing"))
        fold = reading.get("fold", False)
        column = self.cells.as_listed(column, reading.get("values", ()), fold=fold)
        if isinstance(column.dtype, pd.StringDtype):
            return column.mask(missing).to_numpy(dtype=object, na_value=np.nan), None
        values: list[Any] = []
        violation: Violation | None = None
        codes = self.served["codes"].get(name, {})
        for row, cell in enumerate(column.astype(object)):
            if missing[row]:
                values.append(np.nan)
                continue
            meant = _categories(cell, codes)
            if len(meant) != 1:
                text = f"the text ({' or '.join(meant)})" if meant else "a category as text"
                text = f"{name} is {_describe(cell)}; give {text}."
                violation = violation or Violation(row, text, "type", name, cell)
            values.append(meant[0] if len(meant) == 1 else np.nan)
        return np.array(values, dtype=object), violation

    def with_ids(self, answers: list[dict[str, Any]], ids: Iterable[Any]) -> list[dict[str, Any]]:
        """Return the answers with the members' ids as text in front; who has none, gets none."""
        return [
            answer if _is_missing(member) else {self.id: _as_text(member), **answer}
            for member, answer in zip(ids, answers, strict=True)
        ]


def as_table(given: Any) -> pd.DataFrame:
    """Return as a frame what a notebook or MLflow's server hands over: a frame, columns by name, or
    records. The server wraps single values of a record in arrays."""
    if isinstance(given, pd.DataFrame):
        return given
    try:
        if isinstance(given, Mapping) and all(np.ndim(value) == 0 for value in given.values()):
            given = [given]
        if isinstance(given, list):
            given = [
                {name: np.asarray(value, dtype=object)[()] for name, value in record.items()}
                for record in given
            ]
        return pd.DataFrame(given)
    except (AttributeError, TypeError, ValueError):
        text = "This is no table; give a frame, or a list of one object per row."
        raise refusal(text, "form") from None


def _numbers(cell: Any) -> list[float]:
    """Return the number that a cell holds, nothing if it holds none; true is none."""
    if not isinstance(cell, Real | Decimal) or isinstance(cell, bool):
        return []
    try:
        return [float(cell)]
    except OverflowError:
        return [math.inf]


def _categories(cell: Any, codes: Mapping[str, list[str]]) -> list[str]:
    """Return the categories that a cell may mean: pandas reads the code 007 of a CSV file as 7.

    ``codes`` holds the known categories by the number, or the truth, that they read as.
    """
    if isinstance(cell, str):
        return [cell]
    if not isinstance(cell, Real | Decimal | np.bool_):
        return []
    truth = isinstance(cell, bool | np.bool_)
    read = bool(cell) if truth else _numbers(cell)[0]
    return codes.get(str(read), [_as_text(cell)])


def _as_text(cell: Any) -> str:
    """Return a cell as text; a whole number has no decimals."""
    number = _numbers(cell)
    return str(int(cell)) if number and number[0].is_integer() else str(cell)


def _is_missing(cell: Any) -> bool:
    return not isinstance(cell, str) and bool(pd.api.types.is_scalar(cell) and pd.isna(cell))


def _describe(cell: Any) -> str:
    if isinstance(cell, str):
        return f"the text {clipped(repr(cell))}"
    return f"{clipped(str(cell))} ({type(cell).__name__})"


def clipped(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."


def format_value(value: Any) -> str:
    """Format a value without needless digits: 31.0 is 31."""
    return f"{value:.15g}" if isinstance(value, float) else clipped(str(value))


def refusal(text: str, reason: str, *, value: Any = None, **found: Any) -> MlflowException:
    """Return the error for a request; a server's answer shows what was found where, too."""
    if value is not None:
        value = float(value) if isinstance(value, float) else value  # also that of numpy
        plain = isinstance(value, bool | int | float) and abs(value) < 2**53
        found["value"] = value if plain else clipped(str(value))
    return MlflowException(text, error_code=INVALID_PARAMETER_VALUE, reason=reason, **found)
