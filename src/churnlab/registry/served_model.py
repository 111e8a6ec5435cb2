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

MAX_REASONS, MIN_LOG_ODDS = 3, 0.2
"""The most reasons that a member gets, and the least that each adds to the log odds of churn."""

MAX_CELLS = 4_000_000
"""Cells of the table in which reasons are sought at a time."""

MOST = 5
"""How many violations of a row a refusal names."""

Violation = tuple[int, str]
"""A row and what is wrong in it."""

NO_SEGMENT = {"number": None, "name": None, "recommended_action": None}
"""The segment of every member in a version without segments."""


class ServedModel(mlflow.pyfunc.PythonModel):
    """Answer each member with probability, decision, segment, action and reasons."""

    def load_context(self, context: Any) -> None:
        """Read the version's files."""
        files = {name: Path(path) for name, path in context.artifacts.items()}
        self.served: dict[str, Any] = json.loads(files["served"].read_text(encoding="utf-8"))
        self.expressions, self.cells = _module(files["expressions"]), _module(files["cells"])
        trusted = _module(files["skops_types"]).TRUSTED
        own = nullcontext()
        if "own" in files:  # the code of the user's own classes
            own = _module(files["import_folder"]).imported_from(files["own"])
        with own:
            self.churn = skops.io.load(files["churn"], trusted=trusted)
        self.segmentation = None
        if "segments" in files:  # a version may have none
            self.segmentation = skops.io.load(files["segments"], trusted=[])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[Any]:
        """Return one object per row, in order; ``params``: ``threshold`` (0 to 1) and ``reasons``.

        The columns may come in any order and in any types that hold such values.
        INVALID_PARAMETER_VALUE: a row breaks the dataset's contract; a bad request gets no number.
        """
        params = params or {}
        threshold = params.get("threshold", self.served["threshold"])
        if not 0 <= threshold <= 1:
            raise _refusal(f"threshold is {threshold}; give a probability between 0 and 1.")
        table = self._without_blanks(_as_table(model_input))
        self._check_columns(table)
        members, unreadable = self._read_members(table)
        self._check(members, unreadable)
        try:
            probability, segments = self._probability(members), self._segments(members)
        except ValueError as error:  # an expression has no value for one of these members
            raise _refusal(str(error)) from error
        reasons = self._reasons(members, probability) if params.get("reasons", True) else None
        answers = []
        for row, (churn, segment) in enumerate(zip(probability, segments, strict=True)):
            answer: dict[str, Any] = {
                "churn_probability": float(churn),
                "will_churn": bool(churn > threshold),
                "segment": segment["number"],
                "segment_name": segment["name"],
                "recommended_action": segment["recommended_action"],
            }
            if reasons is not None:
                answer["reasons"] = reasons[row]
            answers.append(answer)
        if self.id in table:
            answers = [
                answer if _is_missing(member) else {self.id: _as_text(member), **answer}
                for member, answer in zip(table[self.id].astype(object), answers, strict=True)
            ]
        return answers

    @property
    def id(self) -> str:
        """The column that is echoed: the dataset's id, or member_id where it declares none."""
        return self.served["id"] or "member_id"

    def _without_blanks(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the table under the inputs' names: blanks around a name are no part of it."""
        known = {*self.served["inputs"], self.id} - {*table.columns}
        names = {name: name.strip(self.cells.BLANKS) for name in table if isinstance(name, str)}
        return table.rename(columns={name: bare for name, bare in names.items() if bare in known})

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

    def _read_members(self, table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Violation]]:
        """Return the inputs in order: numbers as float64, categories as text; and by column the
        first cell that is neither."""
        none = pd.Series(np.nan, index=table.index)
        read = {
            name: self._read_column(name, table.get(name, none)) for name in self.served["inputs"]
        }
        members = pd.DataFrame({name: column for name, (column, _) in read.items()})
        return members, {name: wrong for name, (_, wrong) in read.items() if wrong is not None}

    def _read_column(self, name: str, column: pd.Series) -> tuple[Any, Violation | None]:
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
            return column.mask(missing).astype("str").array, None
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
        return pd.array(values, dtype="str"), violation

    def _check(self, members: pd.DataFrame, unreadable: Mapping[str, Violation]) -> None:
        """Refuse rows that break the dataset's contract: name the first with all its violations,
        each with column, value and limit."""
        violations = [*unreadable.values(), *self._violations(members, unreadable)]
        if violations:
            first = min(row for row, _ in violations)
            texts = [text for row, text in violations if row == first]
            raise _refusal(f"Row {first}: {' '.join(texts[:MOST])}")

    def _violations(
        self, members: pd.DataFrame, unreadable: Mapping[str, Violation]
    ) -> Iterator[Violation]:
        """Yield the first row, and what is wrong in it, of each column with a value that is missing
        or infinite, and of each check."""
        infinite = members.isin([np.inf, -np.inf]).to_numpy()
        gaps, places = members.isna().to_numpy(), {name: i for i, name in enumerate(members)}
        missing = gaps & ~members.columns.isin(self.served["may_be_missing"])
        for wrong, found in ((missing, "missing"), (infinite, "infinite")):
            for name in members.columns[np.flatnonzero(wrong.any(axis=0))]:
                row = int(wrong[:, places[name]].argmax())
                if name in unreadable and unreadable[name][0] == row:
                    continue
                word = self.served["codes"].get(name, {}).get("nan")
                fix = f" (for the text {word[0]}: keep_default_na=False in pandas)" if word else ""
                yield row, f"{name} is {found}; give it a value{fix}."
        for check in self.served["checks"]:
            used = [places[name] for name in check["columns"]]
            known = ~(gaps | infinite)[:, used].any(axis=1)
            fails = self.expressions.evaluate(check["holds"], members) == 0
            broken = np.flatnonzero(known & fails)
            if len(broken):
                row = int(broken[0])
                found = ", ".join(
                    f"{name} is {_format_value(members[name].iloc[row])}"
                    for name in check["columns"]
                )
                yield row, f"{found}; {check['text']}."

    def _probability(self, members: pd.DataFrame, *, finite: bool = True) -> np.ndarray:
        """Return churn probabilities; with ``finite=False`` NaN where a feature has no value."""
        keep, derived = self.served["features"]["keep"], self.served["features"]["derive"]
        X = self.expressions.derive(
            _filled(members[keep], self.served["features"]["fill"]), derived, finite=finite
        )
        known = np.isfinite(X[list(derived)].to_numpy()).all(axis=1)
        probability = np.full(len(X), np.nan)
        if known.any():
            probability[known] = self.churn.predict_proba(X[known])[:, 1]
        return probability

    def _segments(self, members: pd.DataFrame) -> list[dict[str, Any]]:
        """Return each member's segment: its number, name and action; null in a version without."""
        if self.segmentation is None:
            return [NO_SEGMENT] * len(members)
        filled = _filled(members, self.served["segment_fill"])
        columns = self.expressions.select(filled, self.served["segment_columns"])
        return [self.served["segments"][str(label)] for label in self.segmentation.predict(columns)]

    def _reasons(self, members: pd.DataFrame, probability: np.ndarray) -> list[list[str]]:
        """Return what raises each member's risk most.

        A group of columns is worth the fall in the log odds of churn when its values are replaced
        by those of the typical (median) member who stayed. Correlated columns are one group, so
        that their effects do not cancel. A replacement that no member could have (a feature has no
        value then) is no reason.
        """
        groups = self.served["reasons"]
        if not groups:
            return [[] for _ in probability]
        step = max(1, MAX_CELLS // (len(groups) * len(members.columns)))
        parts = [slice(start, start + step) for start in range(0, len(members), step)]
        worth = np.hstack([self._worth(members.iloc[part], probability[part]) for part in parts])
        worth = np.where(worth >= MIN_LOG_ODDS, worth, -np.inf)
        order = np.argsort(-worth, axis=0, kind="stable")[:MAX_REASONS]
        texts: dict[tuple[int, int], str] = {}
        for place, group in enumerate(groups):
            rows = np.flatnonzero(np.isfinite(worth[place]) & (order == place).any(axis=0))
            if not len(rows):
                continue
            found = self._texts(group, members.iloc[rows])
            texts |= {(place, int(row)): text for row, text in zip(rows, found, strict=True)}
        return [
            [texts[place, row] for place in order[:, row] if (place, row) in texts]
            for row in range(len(members))
        ]

    def _worth(self, members: pd.DataFrame, probability: np.ndarray) -> np.ndarray:
        """Return how much each group of columns adds to each member's log odds (groups x members).

        Only members whose values are not typical are asked about again.
        """
        groups, typical = self.served["reasons"], self.served["typical"]
        cells = {name: members[name].to_numpy() for name in members}
        other = np.array(
            [
                np.any([cells[name] != typical[name] for name in group["columns"]], axis=0)
                for group in groups
            ]
        )
        places, rows = np.nonzero(other)
        repeated = {name: column[rows] for name, column in cells.items()}
        for place, group in enumerate(groups):
            changed = slice(*np.searchsorted(places, [place, place + 1]))
            for name in group["columns"]:
                repeated[name][changed] = typical[name]
        table = pd.DataFrame(
            {
                name: pd.Series(column, dtype=members[name].dtype)
                for name, column in repeated.items()
            }
        )
        worth = np.zeros(other.shape)
        if len(table):
            log_odds = _log_odds(self._probability(table, finite=False))
            worth[places, rows] = _log_odds(probability)[rows] - log_odds
        return worth

    def _texts(self, group: dict[str, Any], members: pd.DataFrame) -> list[str]:
        """Return a group's text for each member: the first whose ``when`` holds, else its columns'
        values."""
        rows = members[self.served["inputs"]].to_dict("records")
        texts = [
            ", ".join(f"{name} is {_format_value(row[name], 6)}" for name in group["columns"])
            for row in rows
        ]
        for option in reversed(group["texts"]):
            holds = (
                np.ones(len(rows))
                if option["when"] is None
                else self.expressions.evaluate(option["when"], members)
            )
            for row in np.flatnonzero(holds):
                texts[row] = option["text"].format(**rows[row])
        return texts


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


def _filled(members: pd.DataFrame, values: dict[str, Any]) -> pd.DataFrame:
    return members.fillna(values) if members.isna().any(axis=None) else members


def _log_odds(probability: np.ndarray) -> np.ndarray:
    clipped = np.clip(probability, 0.001, 0.999)
    return np.log(clipped / (1 - clipped))


def _format_value(value: Any, digits: int = 15) -> str:
    """Format a value without needless digits: 31.0 is 31."""
    if pd.isna(value):
        return "not known"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


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
