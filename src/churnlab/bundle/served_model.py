"""Answer requests to a version: MLflow copies this file into each version and runs it there.

It must not import churnlab, which need not be installed. The version holds what it needs: the churn
pipeline and the segmentation (skops, no pickle), ``served.json`` (inputs, checks, expressions,
threshold, names and actions), ``expressions.py`` (the evaluator), ``cells.py`` (how cells are
read) and ``skops_types.py`` (the types that the skops files may hold).
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from decimal import Decimal
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import skops.io
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

PARAMS = ("threshold", "reasons")
"""What a request may choose."""

MOST = 5
"""How many violations of a row a refusal names."""

Violation = tuple[int, str]
"""A row and what is wrong in it."""

NO_SEGMENT = {"number": None, "name": None, "recommended_action": None}
"""The segment of every member in a version without segments."""


class ServedModel(mlflow.pyfunc.PythonModel):
    """Answer each member with probability, decision, segment, action and reasons."""

    def load_context(self, context: Any) -> None:
        """Read the version's files, and compile what they say."""
        files = {name: Path(path) for name, path in context.artifacts.items()}
        self.served: dict[str, Any] = json.loads(files["served"].read_text(encoding="utf-8"))
        self.expressions, self.cells = _module(files["expressions"]), _module(files["cells"])
        arrays = _module(files["arrays"])
        trusted = _module(files["skops_types"]).TRUSTED
        own = nullcontext()
        if "own" in files:  # the code of the user's own classes
            own = _module(files["import_folder"]).imported_from(files["own"])
        with own:
            churn = skops.io.load(files["churn"], trusted=trusted)
        self.churn = arrays.churn_model(self.served, churn, self.expressions)
        self.segmentation = None
        if "segments" in files:  # a version may have none
            segments = skops.io.load(files["segments"], trusted=[])
            self.segmentation = arrays.Segments(self.served, segments, self.expressions)
        self.reasons = arrays.Reasons(self.served["reasons"], self.expressions)
        self.step: int = arrays.ROWS
        self.checks = [
            (self.expressions.compiled(check["holds"])[0], check) for check in self.served["checks"]
        ]

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[Any]:
        """Return one object per row, in order; ``params``: ``threshold`` (0 to 1) and ``reasons``.

        The columns may come in any order and in any types that hold such values.
        INVALID_PARAMETER_VALUE: a row breaks the dataset's contract; a bad request gets no number.
        """
        params = params or {}
        table = self._without_blanks(_as_table(model_input))
        self._check_columns(table)
        members, unreadable = self._read_members(table)
        chosen = {name: params[name] for name in PARAMS if name in params}
        answers = self.answers(members, len(table), unreadable=unreadable, **chosen)
        if self.id not in table:
            return answers
        return [
            answer if _is_missing(member) else {self.id: _as_text(member), **answer}
            for member, answer in zip(table[self.id].astype(object), answers, strict=True)
        ]

    def answers(
        self,
        members: Mapping[str, np.ndarray],
        rows: int,
        *,
        unreadable: Mapping[str, Violation] | None = None,
        threshold: float | None = None,
        reasons: bool = True,
    ) -> list[dict[str, Any]]:
        """Return one object per row for the inputs as columns: float64, or texts with NaN for gaps.

        ``unreadable`` has the first cell of a column that is neither. INVALID_PARAMETER_VALUE as in
        ``predict``.
        """
        threshold = self.served["threshold"] if threshold is None else threshold
        if not 0 <= threshold <= 1:
            raise _refusal(f"threshold is {threshold}; give a probability between 0 and 1.")
        self._check(members, rows, unreadable or {})
        found: list[dict[str, Any]] = []
        for start in range(0, rows, self.step):
            part = {name: column[start : start + self.step] for name, column in members.items()}
            found += self._answers(part, min(self.step, rows - start), start, threshold, reasons)
        return found

    def _answers(
        self, members: dict[str, np.ndarray], rows: int, start: int, threshold: float, reasons: bool
    ) -> list[dict[str, Any]]:
        if reasons:
            probability, worth = self.churn.with_worth(members, rows)
        else:
            probability, worth = self.churn.probability(members, rows), None
        segments = [NO_SEGMENT] * rows
        if self.segmentation is not None:
            labels = self.segmentation.labels(members, rows)
            self._check_values(self.segmentation, members, labels < 0, start)
            segments = [self.served["segments"][str(label)] for label in labels.tolist()]
        self._check_values(self.churn, members, np.isnan(probability), start)
        answers = [
            {
                "churn_probability": churn,
                "will_churn": churn > threshold,
                "segment": segment["number"],
                "segment_name": segment["name"],
                "recommended_action": segment["recommended_action"],
            }
            for churn, segment in zip(probability.tolist(), segments, strict=True)
        ]
        if worth is not None:
            texts = self.reasons.texts(members, rows, worth)
            for answer, text in zip(answers, texts, strict=True):
                answer["reasons"] = text
        return answers

    def _check_values(
        self, model: Any, members: Mapping[str, np.ndarray], without: np.ndarray, start: int
    ) -> None:
        """Refuse members for whom an expression of the churn model or the segmentation has no
        value."""
        for row in np.flatnonzero(without)[:1]:
            columns = model.features({name: column[[row]] for name, column in members.items()}, 1)
            for name, (_, needed) in model.derived.codes.items():
                if not np.isfinite(columns[name][0]):
                    given = ", ".join(
                        f"{each} is {_format_value(columns[each][0])}" for each in needed
                    )
                    raise _refusal(f"Row {start + row}: {given}; {name} has no value then.")
            raise _refusal(f"Row {start + row}: the model has no value for this member.")

    @property
    def id(self) -> str:
        """The column that is echoed: the dataset's id, or member_id where it declares none."""
        return self.served["id"] or "member_id"

    def _without_blanks(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the table under the inputs' names: blanks around a name are no part of it."""
        known = {*self.served["inputs"], self.id} - {*table.columns}
        names = {name: name.strip(self.cells.BLANKS) for name in table if isinstance(name, str)}
        bare = {name: bare for name, bare in names.items() if bare in known}
        return table.rename(columns=bare) if bare else table

    def _check_columns(self, table: pd.DataFrame) -> None:
        """Refuse a table without rows, or in which an input is absent or occurs twice.

        Other columns are ignored with a warning, or refused where the dataset says so.
        """
        inputs, columns = self.served["inputs"], set(table.columns)
        if table.empty:
            raise _refusal("There is no row; give at least one member.")
        for name in inputs:
            if name not in columns and name not in self.served["may_be_missing"]:
                raise _refusal(f"There is no column {name}; the inputs are {', '.join(inputs)}.")
        for name in table.columns[table.columns.duplicated()]:
            if name in (*inputs, self.id):
                raise _refusal(f"Several columns are called {name}; keep one.")
        known = {*inputs, self.id, self.served["target"]}
        if extra := [_clipped(str(name)) for name in table if name not in known]:
            names = ", ".join(extra[:20]) + (f" and {len(extra) - 20} more" if extra[20:] else "")
            if self.served["extra"] == "refuse":
                raise _refusal(f"The dataset does not declare the columns {names}; leave them out.")
            warnings.warn(f"ignored columns that are no inputs: {names}", stacklevel=3)

    def _read_members(
        self, table: pd.DataFrame
    ) -> tuple[dict[str, np.ndarray], dict[str, Violation]]:
        """Return the inputs in order, numbers as float64 and categories as text with NaN for gaps;
        and by column the first cell that is neither."""
        none = pd.Series(np.nan, index=table.index)
        read = {
            name: self._read_column(name, table.get(name, none)) for name in self.served["inputs"]
        }
        members = {name: column for name, (column, _) in read.items()}
        return members, {name: wrong for name, (_, wrong) in read.items() if wrong is not None}

    def _read_column(self, name: str, column: pd.Series) -> tuple[np.ndarray, Violation | None]:
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
                found = int(row), f"{name} is {_describe(cell)}; give {needed}."
                return np.where(wrong, np.nan, numbers), found
            return numbers, None
        column = self.cells.without_blanks(column, reading.get("values", ()))
        missing = self.cells.gaps(column, reading.get("missing"))
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
                violation = violation or (row, f"{name} is {_describe(cell)}; give {text}.")
            values.append(meant[0] if len(meant) == 1 else np.nan)
        return np.array(values, dtype=object), violation

    def _check(
        self, members: Mapping[str, np.ndarray], rows: int, unreadable: Mapping[str, Violation]
    ) -> None:
        """Refuse rows that break the dataset's contract: name the first with all its violations,
        each with column, value and limit."""
        violations = [*unreadable.values(), *self._violations(members, rows, unreadable)]
        if violations:
            first = min(row for row, _ in violations)
            texts = [text for row, text in violations if row == first]
            raise _refusal(f"Row {first}: {' '.join(texts[:MOST])}")

    def _violations(
        self, members: Mapping[str, np.ndarray], rows: int, unreadable: Mapping[str, Violation]
    ) -> Iterator[Violation]:
        """Yield the first row, and what is wrong in it, of each column with a value that is missing
        or infinite, and of each check."""
        unknown = {}
        for name, column in members.items():
            missing = column != column
            infinite = np.isinf(column) if column.dtype.kind == "f" else np.zeros(rows, bool)
            unknown[name] = missing | infinite
            if name in self.served["may_be_missing"]:
                missing = np.zeros(rows, bool)
            for wrong, found in ((missing, "missing"), (infinite, "infinite")):
                for row in np.flatnonzero(wrong)[:1]:
                    if unreadable.get(name, (-1, ""))[0] == row:
                        continue
                    word = self.served["codes"].get(name, {}).get("nan")
                    fix = f" (for the text {word[0]}: keep_default_na=False in pandas)"
                    yield int(row), f"{name} is {found}; give it a value{fix if word else ''}."
        with np.errstate(all="ignore"):
            for code, check in self.checks:
                broken = np.asarray(eval(code, self.expressions.MEANING, members)) == 0
                if not broken.any():
                    continue
                for name in check["columns"]:
                    broken = broken & ~unknown[name]
                for row in np.flatnonzero(np.broadcast_to(broken, rows))[:1]:
                    found = ", ".join(
                        f"{name} is {_format_value(members[name][row])}"
                        for name in check["columns"]
                    )
                    yield int(row), f"{found}; {check['text']}."


def _as_table(given: Any) -> pd.DataFrame:
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
        raise _refusal("This is no table; give a frame, or a list of one object per row.") from None


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
    return bool(pd.api.types.is_scalar(cell) and pd.isna(cell))


def _describe(cell: Any) -> str:
    if isinstance(cell, str):
        return f"the text {_clipped(repr(cell))}"
    return f"{_clipped(str(cell))} ({type(cell).__name__})"


def _clipped(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."


def _format_value(value: Any) -> str:
    """Format a value without needless digits: 31.0 is 31."""
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _refusal(text: str) -> MlflowException:
    return MlflowException(text, error_code=INVALID_PARAMETER_VALUE)


def _module(path: Path) -> ModuleType:
    """Run a Python file of the version, whatever churnlab is installed; leave nothing compiled."""
    module = ModuleType(f"churnlab_version_{path.stem}")
    exec(
        compile(path.read_text(encoding="utf-8"), str(path), "exec", dont_inherit=True),
        module.__dict__,
    )
    return module


mlflow.models.set_model(ServedModel())
