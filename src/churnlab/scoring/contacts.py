"""Write the list that a marketing team works from: the members whom a contact pays for.

Members come in batches. What ranks them stays in memory, two numbers each; all that is only shown
waits in a file without a name, so that a kill leaves nothing.
"""

from __future__ import annotations

import json
import math
import mmap
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from churnlab.data.cells import MISSING
from churnlab.data.expressions import columns_in, derive, unreadable
from churnlab.errors import InputError
from churnlab.formatting import clipped, counted, typed, whole
from churnlab.models.decision import COSTS, ContactEconomics, contact_economics
from churnlab.scoring.ranking import FORMULAS, WHY, Ranking, rank
from churnlab.scoring.sheets import appearing_together, sheet

AT_ONCE = 50_000
"""Rows that are put together and written at a time."""

SHOWN = {
    "segment": pa.int64(),
    "segment_name": pa.string(),
    "recommended_action": pa.string(),
    "reasons": pa.string(),
}
"""What the list shows of a version's answer besides the probability."""

WAITING = pa.schema({"id": pa.string(), **SHOWN})

MONEY = dict.fromkeys(("value", "cost", "expected_value"), pa.float64())


NAME = "\0value"
"""The name under which the value of a member is computed: no column has it."""


def decision_of(version: Mapping[str, Any] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the decision whose costs rank the members: that of the version's churn run with the
    numbers that the command gives, or a whole one of the command.

    >>> decision_of({"contact_cost": 2, "value_column": "fee"}, {"retained_value": 90.0})
    {'contact_cost': 2, 'retained_value': 90.0}
    """
    given = {name: number for name, number in given.items() if number is not None}
    kept = {} if "_target_" in given else dict(version or {})
    if {"retained_value", "value_column"} & given.keys():
        kept = {name: number for name, number in kept.items() if name != "value_column"}
    return kept | given


def member_values(decision: Mapping[str, Any]) -> tuple[ContactEconomics, str | None]:
    """Return the economics of a decision, and the expression for the value of each member (None:
    the one number ``retained_value``).

    InputError: a decision without economics, an expression that cannot be read.
    """
    column, value = decision.get("value_column"), decision.get("retained_value")
    each = f"`{column}`" if column else value if isinstance(value, str) else None
    one = 0.0 if isinstance(value, str) or (value is None and column) else value
    economics = contact_economics({**decision, "retained_value": one})
    if economics is None or one is None:
        raise InputError(
            "contacts=true ranks members by what a contact is expected to earn, and the decision "
            f"has no costs. Add to the command, with your own numbers: {COSTS}"
        )
    if column and isinstance(value, str):
        raise InputError(
            f"decision.value_column={column} and decision.retained_value={typed(value)} both say "
            "what each member is worth: give one of them."
        )
    if each is not None and (reason := unreadable(each)):
        raise InputError(f"decision.retained_value={typed(value)} cannot be read: {reason}.")
    return economics, each


class ContactList:
    """Collect scored members batch by batch, then write those whom a contact pays for.

    In a ``with`` block any number of ``add`` and ``reject`` is followed by one ``write``.

    ``decision``: see ``member_values``. ``output`` is the list (.csv, .csv.gz or .parquet).
    ``identifier`` is the id column of the table; None: a row is known by its ``place``, line or
    row. ``words`` are the columns that hold words and no numbers, ``form`` the separator and the
    decimal mark of a CSV (sep, decimal). ``top`` and ``budget`` limit the list. ``strict``: a value
    that is no number is an InputError; otherwise that member is left out. ``about`` is copied into
    the summary.
    """

    def __init__(
        self,
        decision: Mapping[str, Any],
        output: Path,
        *,
        identifier: str | None = None,
        place: str = "row",
        words: Collection[str] = (),
        form: Mapping[str, Any] | None = None,
        top: int | None = None,
        budget: float | None = None,
        strict: bool = True,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.economics, self.value = member_values(decision)
        self.output, self.identifier, self.place = output, identifier, place
        self.words, self.form, self.strict = words, dict(form or {}), strict
        self.limits: dict[str, Any] = {"top": top, "budget": budget}
        self.about = dict(about or {})
        self.assumed = asdict(self.economics) | (
            {} if self.value is None else {"retained_value": self.value}
        )
        self._numbers: list[np.ndarray] = []
        self._rejected: list[tuple[str, str]] = []
        if self.key in (taken := ["rank", "churn_probability", *SHOWN, *MONEY, "reason"]):
            raise InputError(
                f"The id column {self.key} has the name of a column of the contact list "
                f"({', '.join(taken)}): rename it in the table and in the dataset's YAML."
            )

    def __enter__(self) -> ContactList:
        """Open the file where rows wait, in the output's folder."""
        self._waiting = tempfile.TemporaryFile(dir=self.output.absolute().parent)
        self._writer = pa.ipc.new_file(self._waiting, WAITING)
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()
        self._waiting.close()

    @property
    def key(self) -> str:
        """Return the name of the list's column by which a member is known."""
        return self.identifier or self.place

    @property
    def needs(self) -> list[str]:
        """Return the columns that ``add`` must be given: the id and those of the value."""
        columns = [] if self.value is None else columns_in(self.value)
        return list(dict.fromkeys([*([self.identifier] if self.identifier else []), *columns]))

    def add(
        self, members: pd.DataFrame, answers: pd.DataFrame, places: Sequence[int | str]
    ) -> None:
        """Add the accepted rows of a batch, in the order of the table.

        ``members`` has at least the columns ``needs``, as numbers or as they are written;
        ``answers`` has churn_probability and what the version gives of SHOWN (reasons as one text),
        ``places`` the line or row of each.
        """
        probability = answers["churn_probability"].to_numpy(np.float64)
        self._numbers.append(np.array([probability, self._values(members, places)]))
        shown = {"id": pa.array(self._ids(members, places), pa.string())}
        for name, kind in SHOWN.items():
            known = answers[name] if name in answers else [None] * len(answers)
            shown[name] = pa.array(known, kind, from_pandas=True)
        self._writer.write_batch(pa.record_batch(shown, schema=WAITING))

    def reject(
        self,
        places: Sequence[int | str],
        reasons: Sequence[str],
        members: pd.DataFrame | None = None,
    ) -> None:
        """Add rows that cannot be scored, with the reason of each; ``members`` has their ids."""
        ids = self._ids(pd.DataFrame() if members is None else members, places)
        self._rejected += zip(ids, (f"rejected: {reason}" for reason in reasons), strict=True)

    def _ids(self, members: pd.DataFrame, places: Sequence[int | str]) -> list[str]:
        """Return the id of each row as a text, its place where there is none."""
        if self.identifier is None:
            return [str(place) for place in places]
        known = members[self.identifier] if self.identifier in members else [None] * len(places)
        texts = [
            f"{cell:.0f}" if isinstance(cell, float) and cell.is_integer() else str(cell)
            for cell in known
        ]
        return [
            f"{self.place} {place}" if pd.isna(cell) or not text.strip() else text
            for cell, text, place in zip(known, texts, places, strict=True)
        ]

    def _values(self, members: pd.DataFrame, places: Sequence[int | str]) -> np.ndarray:
        """Return what each member is worth if kept, nan where it is unknown."""
        if self.value is None:
            return np.full(len(places), self.economics.retained_value)
        columns = columns_in(self.value)
        if missing := [name for name in columns if name not in members]:
            raise InputError(
                f"The value of a member needs the column {missing[0]}, which the table does not "
                "have. Correct decision.value_column or decision.retained_value."
            )
        given = members[columns].reset_index(drop=True)
        given = given.mask(given.isin(MISSING))
        numbers = given.apply(
            lambda cells: cells if cells.name in self.words else self._as_numbers(cells)
        )
        value = derive(numbers, {NAME: self.value}, finite=False)[NAME].to_numpy()
        possible = (value >= 0) & (value < np.inf)
        wrong = given.notna().all(axis=1).to_numpy() & ~possible
        if self.strict and wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            cells = ", ".join(f"{name} = {clipped(given[name].iloc[first])}" for name in given)
            raise InputError(
                f"{self.place} {places[first]}: what this member is worth must be a number that is "
                f"at least 0, and is not ({cells}). Correct it, or leave such members out with "
                "score.on_bad_row=reject."
            )
        return np.where(possible, value, np.nan)

    def _as_numbers(self, cells: pd.Series) -> pd.Series:
        """Return written cells as numbers, nan where they are none."""
        if cells.dtype.kind in "biuf":
            return cells.astype(np.float64)
        text = cells.astype("str").str.strip().str.replace(self.form.get("decimal", "."), ".")
        return pd.to_numeric(text, errors="coerce").astype(np.float64)

    def write(self) -> dict[str, Any]:
        """Write the list, <output>.summary.json and <output>.left_out.csv; return the totals, and
        keep them as the sentence ``summary``.

        All three appear, the list last, or none. Totals: listed, left_out, cost, expected_value.
        InputError: nobody has a value.
        """
        self._writer.close()
        probability, value = np.hstack([np.empty((2, 0)), *self._numbers])
        if len(value) and np.isnan(value).all():
            raise InputError(
                f"No member has a value: {self.value} is missing in every row. Correct "
                "decision.value_column or decision.retained_value."
            )
        ranking = rank(probability, value, self.economics, **self.limits)
        numbers = {"churn_probability": probability, "value": value}
        numbers |= {"cost": ranking.cost, "expected_value": ranking.expected}
        summary = self._summary(probability, ranking)
        names = [f"{self.output.name}.{end}" for end in ("summary.json", "left_out.csv")]
        files = [*map(self.output.with_name, names), self.output]
        with appearing_together(files) as (summed, left_out, output):
            summed.write_text(json.dumps(summary, ensure_ascii=False, indent=2) + "\n", "utf-8")
            waiting = self._read()
            self._write_left_out(left_out, waiting, ranking, numbers)
            self._write_list(output, waiting, ranking, numbers)
        self.summary = (
            f"{counted(len(ranking.listed), 'member')} to contact, of {whole(summary['members'])}: "
            f"expected to cost {whole(summary['totals']['cost'])} and to earn "
            f"{whole(summary['totals']['expected_value'])} after that; the others with the reason "
            f"of each: {files[1]}"
        )
        return {
            "listed": len(ranking.listed),
            "left_out": summary["members"] - len(ranking.listed),
            **{name: summary["totals"][name] for name in ("cost", "expected_value")},
        }

    def _read(self) -> pa.RecordBatchFileReader:
        """Return a reader of what waits: the system pages it in and out."""
        self._waiting.flush()
        mapped = mmap.mmap(self._waiting.fileno(), 0, access=mmap.ACCESS_READ)
        return pa.ipc.open_file(pa.py_buffer(mapped))

    def _write_list(
        self,
        path: Path,
        waiting: pa.RecordBatchFileReader,
        ranking: Ranking,
        numbers: Mapping[str, np.ndarray],
    ) -> None:
        """Write the listed members by rank."""
        starts = np.cumsum([0, *(part.shape[1] for part in self._numbers)])
        columns = {"rank": pa.int64(), self.key: pa.string(), "churn_probability": pa.float64()}
        with sheet(path, {**columns, **SHOWN, **MONEY}, self.form) as append:
            for first in range(0, len(ranking.listed), AT_ONCE):
                chosen = ranking.listed[first : first + AT_ONCE]
                rows = self._take(waiting, starts, chosen)
                shown = {name: values[chosen] for name, values in numbers.items()}
                ranks = np.arange(first + 1, first + len(chosen) + 1)
                append(_table(columns | SHOWN | MONEY, self.key, rows, shown | {"rank": ranks}))

    @staticmethod
    def _take(
        waiting: pa.RecordBatchFileReader, starts: np.ndarray, chosen: np.ndarray
    ) -> pa.Table:
        """Return the waiting rows at these positions of the table, in this order."""
        order = np.argsort(chosen)
        batch = np.searchsorted(starts, chosen[order], side="right") - 1
        parts = [
            waiting.get_batch(int(one)).take(pa.array(chosen[order[batch == one]] - starts[one]))
            for one in np.unique(batch)
        ]
        return pa.Table.from_batches(parts).take(pa.array(np.argsort(order)))

    def _write_left_out(
        self,
        path: Path,
        waiting: pa.RecordBatchFileReader,
        ranking: Ranking,
        numbers: Mapping[str, np.ndarray],
    ) -> None:
        """Write who is left out and why, in the order of the table; rejected rows come last."""
        columns = {self.key: pa.string(), "churn_probability": pa.float64()}
        columns |= MONEY | {"reason": pa.string()}
        first = 0
        with sheet(path, columns, self.form) as append:
            for number in range(waiting.num_record_batches):
                rows = pa.Table.from_batches([waiting.get_batch(number)])
                out = np.flatnonzero(ranking.why[first : first + len(rows)])
                shown = {name: values[first + out] for name, values in numbers.items()}
                why = [WHY[reason] for reason in ranking.why[first + out]]
                append(_table(columns, self.key, rows.take(pa.array(out)), shown | {"reason": why}))
                first += len(rows)
            if self._rejected:
                ids, reasons = zip(*self._rejected, strict=True)
                rejected = pa.table({"id": pa.array(ids, pa.string())})
                append(_table(columns, self.key, rejected, {"reason": reasons}))

    def _summary(self, probability: np.ndarray, ranking: Ranking) -> dict[str, Any]:
        """Return the totals of the list, what they assume, and how many are left out by reason."""
        left_out = Counter({WHY[why]: int(n) for why, n in enumerate(np.bincount(ranking.why))})
        left_out["rejected"] = len(self._rejected)
        listed = ranking.listed
        cost, expected = (math.fsum(of[listed]) for of in (ranking.cost, ranking.expected))
        leavers, budget = math.fsum(probability[listed]), self.limits["budget"]
        return {
            **self.about,
            "members": len(probability) + len(self._rejected),
            "listed": len(listed),
            "left_out": {why: number for why, number in left_out.items() if why and number},
            "limits": self.limits,
            "totals": {
                "leavers": leavers,
                "kept": leavers * self.economics.success,
                "cost": cost,
                "expected_value": expected,
                "budget_left": None if budget is None else budget - cost,
            },
            "assumptions": self.assumed | {"formulas": FORMULAS},
        }


def _table(
    columns: Mapping[str, pa.DataType],
    key: str,
    rows: pa.Table,
    more: Mapping[str, Any],
) -> pa.Table:
    """Put rows under their columns: what waited (its id under the name ``key``), ``more``, and gaps
    in what neither has."""
    known = {name: rows[name] for name in rows.column_names if name != "id"}
    known |= {key: rows["id"], **more}
    return pa.table(
        {
            name: pa.nulls(len(rows), kind)
            if name not in known
            else known[name]
            if isinstance(known[name], pa.ChunkedArray)
            else pa.array(known[name], kind, from_pandas=True)
            for name, kind in columns.items()
        }
    )
