"""Answer requests to a version: MLflow copies this file into each version and runs it there.

It must not import churnlab, which need not be installed. The version holds what it needs: the churn
pipeline and the segmentation (skops, no pickle), ``served.json`` (inputs, checks, expressions,
threshold, names and actions), ``expressions.py`` (the evaluator), ``cells.py`` and ``reading.py``
(how members are read), ``arrays.py`` and ``coordinates.py`` (what is computed) and
``skops_types.py`` (the types that the skops files may hold).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import reduce
from operator import attrgetter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import skops.io

if TYPE_CHECKING:  # a version has no churnlab
    from churnlab.bundle.reading import Violation

PARAMS = ("threshold", "reasons")
"""What a request may choose."""

CODE = ("expressions", "cells", "reading", "coordinates", "arrays")
"""The files of Python code that a version carries besides this one."""

MOST = 5
"""How many violations of a row a refusal names."""


class Scores(NamedTuple):
    """What a version says of each row, as columns: ``labels`` number the segmentation's own
    segments (None: it has none), ``reasons`` are texts (None: not wanted)."""

    probability: np.ndarray
    will_churn: np.ndarray
    labels: np.ndarray | None
    reasons: list[list[str]] | None


NO_SEGMENT = {"number": None, "name": None, "recommended_action": None}
"""The segment of every member in a version without segments."""


class ServedModel(mlflow.pyfunc.PythonModel):
    """Answer each member with probability, decision, segment, action and reasons."""

    def load_context(self, context: Any) -> None:
        """Read the version's files, and compile what they say."""
        files = {name: Path(path) for name, path in context.artifacts.items()}
        self.served: dict[str, Any] = json.loads(files["served"].read_text(encoding="utf-8"))
        code = SimpleNamespace(**{name: _module(files[name]) for name in CODE})
        self.expressions, self.reading, arrays = code.expressions, code.reading, code.arrays
        self.reader = code.reading.Reader(self.served, code.cells)
        trusted = _module(files["skops_types"]).TRUSTED
        own = nullcontext()
        if "own" in files:  # the code of the user's own classes
            own = _module(files["import_folder"]).imported_from(files["own"])
        with own:
            churn = skops.io.load(files["churn"], trusted=trusted)
        self.churn = arrays.churn_model(self.served, churn, code)
        self.segmentation = None
        if "segments" in files:  # a version may have none
            segments = skops.io.load(files["segments"], trusted=[])
            self.segmentation = arrays.Segments(self.served, segments, code)
        self.reasons = arrays.Reasons(self.served["reasons"], code)
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
        reader = self.reader
        table = reader.with_known_names(self.reading.as_table(model_input))
        members, unreadable = reader.members(table)
        chosen = {name: params[name] for name in PARAMS if name in params}
        answers = self.answers(members, len(table), unreadable=unreadable, **chosen)
        given = reader.id in table
        return reader.with_ids(answers, table[reader.id].astype(object)) if given else answers

    def answers(
        self, members: Mapping[str, np.ndarray], rows: int, **asked: Any
    ) -> list[dict[str, Any]]:
        """Return one object per row; the arguments are those of ``scores``."""
        scores = self.scores(members, rows, **asked)
        segments = [NO_SEGMENT] * rows
        if scores.labels is not None:
            segments = [self.served["segments"][str(label)] for label in scores.labels.tolist()]
        answers = [
            {
                "churn_probability": churn,
                "will_churn": leaves,
                "segment": segment["number"],
                "segment_name": segment["name"],
                "recommended_action": segment["recommended_action"],
            }
            for churn, leaves, segment in zip(
                scores.probability.tolist(), scores.will_churn.tolist(), segments, strict=True
            )
        ]
        if scores.reasons is not None:
            for answer, text in zip(answers, scores.reasons, strict=True):
                answer["reasons"] = text
        return answers

    def scores(
        self,
        members: Mapping[str, np.ndarray],
        rows: int,
        *,
        unreadable: Mapping[str, Violation] | None = None,
        threshold: float | None = None,
        reasons: bool = True,
    ) -> Scores:
        """Return what the version says of its inputs as columns: float64, or texts with NaN for
        gaps.

        ``unreadable`` has the first cell of a column that is neither. INVALID_PARAMETER_VALUE as in
        ``predict``.
        """
        threshold = self.served["threshold"] if threshold is None else threshold
        if not 0 <= threshold <= 1:
            text = f"threshold is {threshold}; give a probability between 0 and 1."
            raise self.reading.refusal(text, "params", field="threshold", value=threshold)
        self._check(members, rows, unreadable or {})
        probability = np.empty(rows)
        labels = None if self.segmentation is None else np.empty(rows, np.int64)
        texts: list[list[str]] | None = [] if reasons else None
        for start in range(0, rows, self.step):
            part = {name: column[start : start + self.step] for name, column in members.items()}
            chosen, size = slice(start, start + self.step), min(self.step, rows - start)
            worth = None
            if reasons:
                found, worth = self.churn.with_worth(part, size)
            else:
                found = self.churn.probability(part, size)
            if self.segmentation is not None and labels is not None:
                labels[chosen] = self.segmentation.labels(part, size)
                self._check_values(self.segmentation, part, labels[chosen] < 0, start)
            self._check_values(self.churn, part, np.isnan(found), start)
            probability[chosen] = found
            if worth is not None and texts is not None:
                texts += self.reasons.texts(part, size, worth)
        return Scores(probability, probability > threshold, labels, texts)

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
                        f"{each} is {self.reading.format_value(columns[each][0])}"
                        for each in needed
                    )
                    text = f"Row {start + row}: {given}; {name} has no value then."
                    raise self.reading.refusal(text, "value", row=start + int(row), field=needed[0])
            text = f"Row {start + row}: the model has no value for this member."
            raise self.reading.refusal(text, "value", row=start + int(row))

    def _check(
        self, members: Mapping[str, np.ndarray], rows: int, unreadable: Mapping[str, Violation]
    ) -> None:
        """Refuse rows that break the dataset's contract: name the first with all its violations,
        each with column, value and limit."""
        if self._keeps(members) and not unreadable:
            return
        violations = [*unreadable.values(), *self._violations(members, rows, unreadable)]
        if violations:
            first = min(violations, key=attrgetter("row"))
            texts = [violation.text for violation in violations if violation.row == first.row]
            text = f"Row {first.row}: {' '.join(texts[:MOST])}"
            raise self.reading.refusal(
                text, first.reason, row=first.row, field=first.field, value=first.value
            )

    def _keeps(self, members: Mapping[str, np.ndarray]) -> bool:
        """Return whether all is known and every check holds: the short answer for most requests."""
        with np.errstate(all="ignore"):
            known = all(
                (np.isfinite(column) if column.dtype.kind == "f" else column == column).all()
                for column in members.values()
            )
            checks = (eval(code, self.expressions.MEANING, members) for code, _ in self.checks)
            return known and bool(np.all(reduce(np.logical_and, checks, True)))

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
                    if name in unreadable and unreadable[name].row == row:
                        continue
                    words = self.served["codes"].get(name, {}).get("nan", ())
                    fix = [
                        f" (for the text {word}: keep_default_na=False in pandas)" for word in words
                    ]
                    text = f"{name} is {found}; give it a value{''.join(fix[:1])}."
                    yield self.reading.Violation(int(row), text, found, name)
        with np.errstate(all="ignore"):
            for code, check in self.checks:
                broken = np.asarray(eval(code, self.expressions.MEANING, members)) == 0
                if not broken.any():
                    continue
                for name in check["columns"]:
                    broken = broken & ~unknown[name]
                for row in np.flatnonzero(np.broadcast_to(broken, rows))[:1]:
                    yield self._broken(check, int(row), members)

    def _broken(
        self, check: Mapping[str, Any], row: int, members: Mapping[str, np.ndarray]
    ) -> Violation:
        """Return how a row breaks a check."""
        values = {name: members[name][row] for name in check["columns"]}
        found = ", ".join(
            f"{name} is {self.reading.format_value(value)}" for name, value in values.items()
        )
        field = check["columns"][0]
        one = "category" if self.served["kinds"][field] == "category" else "range"
        reason = one if len(values) == 1 else "rule"
        return self.reading.Violation(
            row, f"{found}; {check['text']}.", reason, field, values[field]
        )


def _module(path: Path) -> ModuleType:
    """Run a Python file of the version, whatever churnlab is installed; leave nothing compiled."""
    module = ModuleType(f"churnlab_version_{path.stem}")
    exec(
        compile(path.read_text(encoding="utf-8"), str(path), "exec", dont_inherit=True),
        module.__dict__,
    )
    return module


mlflow.models.set_model(ServedModel())
