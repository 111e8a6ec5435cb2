"""Answer the bodies of POST /invocations with one version, straight from JSON to arrays.

All of MLflow's forms are read here, because its own server converts cells before the model sees
them: true to 1, the id 007 to 7. What is wrong with a member is found, and put into words, by the
version itself; the rest here is about the body.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from churnlab.formatting import clipped, listed
from churnlab.serving.forms import (
    FORMS,
    Cells,
    Malformed,
    Table,
    describe,
    known_places,
    read_csv,
    read_form,
)
from churnlab.serving.strict_json import NotStrict, parse

Answers = list[dict[str, Any]]
"""One object per row, in order."""

NUMBERS, TEXTS = {int, float, type(None)}, {str, type(None)}
"""Types of plain cells, as JSON has them."""

EXACT = 2**53
"""Whole numbers below this are exact in JSON, whatever program reads it."""

MOST_TEXTS, LONGEST_TEXT = 10_000, 100
"""The most texts of a column whose reading is kept, and the characters of the longest of them."""

MOST_COLUMNS = 10_000

AS = 'as {"dataframe_records": [{"NAME": VALUE, ...}, ...]}'
"""The form that most clients send."""

LONG_HEADER = 10_000
"""Characters in the names of a header that is not kept."""


class Refusal(Exception):
    """A request that gets no answer.

    ``status`` is that of HTTP. ``body`` is the answer: ``error_code`` and ``message`` as MLflow has
    them, and ``reason``: json, csv, form, params, rows and columns are about the request; type,
    missing, infinite, range, category, rule and value are about a member, with row, field and value
    where there is one.
    """

    def __init__(
        self,
        message: str,
        reason: str,
        *,
        status: int = 400,
        error_code: str = "BAD_REQUEST",
        **found: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error_code": error_code, "message": message, "reason": reason, **found}


class Invocations:
    """Answer requests with a version: ``model`` is its ServedModel, ``most_rows`` the most members
    of a request."""

    def __init__(self, model: Any, *, most_rows: int) -> None:
        self.model, self.most_rows, self.served = model, most_rows, model.served
        self.id: str = self.served["id"] or "member_id"
        self.places = lru_cache(maxsize=256)(self._places)
        reading = self.served.get("reading", {})
        self.numbers = {name: _plain_types(one) for name, one in reading.items()}
        self.texts: dict[str, dict[str | None, Any]] = {
            name: {None: np.nan} for name, one in reading.items() if one["kind"] == "category"
        }

    def json(self, body: bytes) -> Answers:
        """Return the answers to a JSON body. Refusal: it is no strict JSON, none of the forms, or a
        member breaks the dataset's contract."""
        try:
            request = parse(body)
        except NotStrict as error:
            raise Refusal(f"The body is no strict JSON: {error}.", "json") from None
        form, params = _form_and_params(request)
        try:
            table = read_form(form, request[form])
        except Malformed as error:
            raise Refusal(str(error), "form") from None
        return self._answers(table, params)

    def csv(self, body: bytes) -> Answers:
        """Return the answers to a CSV body in UTF-8, whose cells mean what they mean in a file."""
        try:
            return self._answers(read_csv(body, self.served), {})
        except Malformed as error:
            raise Refusal(str(error), "csv") from None

    def _answers(self, table: Table, params: Mapping[str, Any]) -> Answers:
        if table.rows > self.most_rows:
            text = f"There are {table.rows:,} rows; give at most {self.most_rows:,} in a request."
            raise Refusal(text, "rows", status=413)
        if len(table.names) > MOST_COLUMNS:
            text = f"There are {len(table.names):,} columns; give the inputs."
            raise Refusal(text, "columns")
        by = self._by_arrays if hasattr(self.model, "reader") else self._by_frame
        try:
            return by(table, params)
        except MlflowException as error:
            found = {"reason": "value", **error.json_kwargs}
            raise Refusal(error.message, error_code=error.error_code, **found) from None

    def _by_arrays(self, table: Table, params: Mapping[str, Any]) -> Answers:
        long = sum(map(len, table.names)) > LONG_HEADER
        places = (self._places if long else self.places)(table.names, table.rows > 0)
        members, unreadable = {}, {}
        for name in self.served["inputs"]:
            given = name in places
            cells = table.column(places[name]) if given else [None] * table.rows
            members[name], wrong = self._column(name, cells)
            if wrong is not None:
                unreadable[name] = wrong
        ids = table.column(places[self.id]) if self.id in places else None
        if ids is not None:
            _check_cells(self.id, ids, {*map(type, ids)}, exact=True)
        answers = self.model.answers(members, table.rows, unreadable=unreadable, **params)
        return answers if ids is None else self.model.reader.with_ids(answers, ids)

    def _by_frame(self, table: Table, params: Mapping[str, Any]) -> Answers:
        """Ask a version that an earlier churnlab made, which takes no arrays."""
        places = known_places(table.names, self.served, self.id)
        columns = {}
        for place in places:
            name, cells = table.names[place], table.column(place)
            columns[place] = self._series(name, cells, {*map(type, cells)})
        frame = pd.DataFrame(columns, index=range(table.rows))
        frame.columns = pd.Index([table.names[place] for place in places])
        return self.model.predict(None, frame, {**params})

    def _places(self, names: tuple[str, ...], filled: bool) -> dict[str, int]:
        """Return the places of the inputs and of the id in a header, which the version checks;
        ``filled``: there are rows."""
        wanted = known_places(names, self.served, self.id)
        # The target is known to each version, and makes a row of what has no other column.
        header = [self.served["target"], *(names[place] for place in wanted)]
        frame = pd.DataFrame([[0] * len(header)] * filled, columns=header)
        found = self.model.reader.with_known_names(frame).columns[1:]
        known = {*self.served["inputs"], self.id}
        return {name: place for name, place in zip(found, wanted, strict=True) if name in known}

    def _column(self, name: str, cells: Cells) -> tuple[np.ndarray, Any]:
        """Return a column as the version reads it, and the first cell that it cannot read."""
        types = {*map(type, cells)}
        if types <= self.numbers[name]:
            return np.array(cells, np.float64), None
        if name in self.texts and types <= TEXTS:
            return self._read_texts(name, cells), None
        return self.model.reader.column(name, self._series(name, cells, types))

    def _series(self, name: str, cells: Cells, types: set[type]) -> pd.Series:
        """Return a column as pandas has it: numbers if all are, otherwise what JSON has."""
        if isinstance(cells, pd.Series):
            return cells
        _check_cells(name, cells, types, exact=name in self.texts)
        number = types <= NUMBERS and name not in self.texts
        return pd.Series(
            np.array(cells, np.float64) if number else cells, dtype=None if number else object
        )

    def _read_texts(self, name: str, cells: Cells) -> np.ndarray:
        """Return the categories that texts mean; the version reads a text once."""
        known = self.texts[name]  # other threads add to it
        if new := {cell for cell in cells if cell not in known}:
            column, _ = self.model.reader.column(name, pd.Series([*new], dtype=object))
            read = dict(zip(new, column, strict=True))
            if len(known) + len(new) <= MOST_TEXTS:
                known.update((text, read[text]) for text in new if len(text) <= LONGEST_TEXT)
            known = {cell: known[cell] for cell in cells if cell in known} | read
        return np.array([known[cell] for cell in cells], dtype=object)


def _plain_types(reading: Mapping[str, Any]) -> set[type]:
    """Return the types of cells that are their own value in a column read so; none if a number may
    mean a gap or a date."""
    words = "".join(reading.get("missing", ()))
    if reading["kind"] == "category" or any(map(str.isdigit, words)):
        return set()
    if reading["kind"] == "date" and "format" in reading:
        return set()
    return NUMBERS | {bool} if reading["kind"] == "binary" else NUMBERS


def _check_cells(name: str, cells: Cells, types: set[type], *, exact: bool) -> None:
    """Refuse a list or an object in a cell; ``exact``: also a number that may have lost digits."""
    if not types & ({list, dict, float} if exact else {list, dict}):
        return
    for row, cell in enumerate(cells):
        if type(cell) in (list, dict):
            text, value = f"{describe(cell)}; give one value", None
        elif exact and type(cell) is float and abs(cell) >= EXACT:
            text, value = f"{cell}; give so long a number as text", str(cell)
        else:
            continue
        found: dict[str, Any] = {"row": row, "field": name}
        found |= {} if value is None else {"value": value}
        message = f"Row {row}: {name} is {text}."
        raise Refusal(message, "type", error_code="INVALID_PARAMETER_VALUE", **found)


def _form_and_params(request: Any) -> tuple[str, dict[str, Any]]:
    """Return the form of a JSON body and its params, which are checked."""
    if type(request) is not dict:
        text = f"The body is {describe(request)}; give an object with one of {listed(FORMS)}"
        raise Refusal(f"{text}, {AS}.", "form")
    forms = [form for form in FORMS if form in request]
    if len(forms) != 1:
        text = f"The body has {listed(forms) or 'none'} of {listed(FORMS)}; give exactly one"
        raise Refusal(f"{text}, {AS}.", "form")
    for name in request:
        if name not in (*forms, "params"):
            text = (
                f"The body has the unknown field {clipped(repr(name))}; give {forms[0]}, and "
                "threshold and reasons within params."
            )
            raise Refusal(text, "form")
    return forms[0], _checked_params(request.get("params", {}))


def _checked_params(params: Any) -> dict[str, Any]:
    if type(params) is not dict:
        text = f"params is {describe(params)}; give an object with threshold, reasons or both."
        raise Refusal(text, "params", field="params")
    for name, value in params.items():
        if name == "threshold":
            needed = "" if type(value) in (int, float) else "a probability between 0 and 1"
        elif name == "reasons":
            needed = "" if type(value) is bool else "true or false"
        else:
            text = f"There is no parameter {clipped(repr(name))}; there are threshold and reasons."
            raise Refusal(text, "params", field=clipped(name))
        if needed:
            text = f"{name} is {describe(value)}; give {needed}."
            raise Refusal(text, "params", field=name)
    return params
