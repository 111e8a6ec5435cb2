"""What a dataset's YAML declares: the columns of its tables, their limits, and rules for rows."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, ClassVar, Literal, NamedTuple

from churnlab.data.cells import MISSING, date_codes, folded, number_pattern
from churnlab.formatting import apart, listed

Kind = Literal["binary", "numeric", "category", "date"]

Separator = Literal[",", ";", "|", "tab"]

ABSURD = 1e15
"""Bound of a number that the YAML does not bound: no count, sum or duration is as large."""


class Limit(NamedTuple):
    """One limit of a column, which reading a table and serving a model both evaluate.

    ``holds`` is an expression (data.expressions), true for allowed values. ``allowed`` and
    ``broken`` are its wording for allowed values ("at least 14") and for others ("is below 14");
    ``key`` is the key of the YAML that sets it.
    """

    holds: str
    allowed: str
    broken: str
    key: str


@dataclass(frozen=True)
class Column:
    """One feature column as a dataset's YAML declares it; ``min`` and ``max`` are inclusive.

    A category that ``values`` does not list is refused, or (``unknown="accept"``) accepted and
    encoded as none of them. ``unit`` is the unit of the numbers; ``cut`` splits a numeric column
    where explore compares churn above and below. ``format`` says how text writes the numbers (as
    1.234,5 €) or the dates (as DD.MM.YYYY); ``missing`` lists the words that mean a gap. A date is
    its age in days at the start of the day ``before``. A category is encoded by its place among the
    values if it is ``ordered``, or (``encoding="target"``) by the cross-fitted churn rate of its
    members, which suits many values; ``fold``: capitals and blanks make no other value.
    """

    kind: Kind
    min: float | None = None
    max: float | None = None
    whole: bool = False
    values: tuple[bool | int | float | str | None, ...] | None = None
    unknown: Literal["refuse", "accept"] = "refuse"
    unit: str | None = None
    cut: float | None = None
    format: str | None = None
    missing: tuple[str, ...] | None = None
    before: str | date | None = None
    ordered: bool = False
    encoding: Literal["one_hot", "target"] = "one_hot"
    fold: bool = False

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        kinds = {str} if self.values is None else {type(value) for value in self.values}
        if not kinds or kinds & {bool, type(None)}:
            raise ValueError(
                "values lists one or more numbers or texts; yes, no, on, off and null need quotes"
            )
        self._check_written()
        if self.kind == "category":
            if self.whole or self.min is not None or self.max is not None:
                raise ValueError(
                    "a category has no min, max or whole; give values=[...], or kind=numeric"
                )
            if self.values is not None:  # 1 in a YAML is the text 1 in a table
                object.__setattr__(self, "values", tuple(map(str, self.values)))
        elif self.unknown == "accept":
            raise ValueError(
                f"unknown=accept is for categories; a {self.kind} column has values, min and max"
            )
        elif any(isinstance(value, str) for value in self.values or ()):
            raise ValueError(
                f"a {self.kind} column has numbers for values; give them, or kind=category"
            )

    def _check_written(self) -> None:
        """Refuse keys that do not belong to the kind, and formats that cannot be read."""
        if (self.kind == "date") != (self.before is not None):
            raise ValueError(
                "a date is read as its age before a day; give both, as kind: date, before: "
                "2026-05-01"
            )
        if self.before is not None:  # as text, which every configuration holds
            object.__setattr__(self, "before", date.fromisoformat(str(self.before)).isoformat())
        if self.format is not None and self.kind in ("binary", "category"):
            raise ValueError(f"format is for numbers and dates; a {self.kind} column has none")
        if self.format is not None:
            date_codes(self.format) if self.kind == "date" else number_pattern(self.format)
        if self.kind != "category" and (self.ordered or self.fold or self.encoding != "one_hot"):
            raise ValueError(
                f"fold, ordered and encoding are for categories, not for a {self.kind}"
            )
        names = [folded(str(value)) for value in self.values or ()]
        if self.fold and len({*names}) < len(names):
            raise ValueError("fold makes one of values that differ in capitals or blanks alone")
        if self.ordered and (self.values is None or self.encoding != "one_hot"):
            raise ValueError(
                "an ordered category lists its values in their order, and has no encoding"
            )

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """The smallest and the largest number allowed, None where any is."""
        free = self.kind in ("numeric", "date") and self.values is None
        low = -ABSURD if self.min is None and free else self.min
        high = ABSURD if self.max is None and free else self.max
        return low, high

    def limits(self, name: str) -> list[Limit]:
        """Return the limits on the values of this column, which expressions call ``name``.

        >>> Column("numeric", min=14, max=100).limits("Age")[0]
        Limit(holds='`Age` >= 14', allowed='at least 14', broken='is below 14', key='min')
        """
        x, limits = f"`{name}`", []
        values = (0, 1) if self.kind == "binary" else self.values
        if values is not None and self.unknown == "refuse":
            limits.append(
                Limit(
                    holds=f"{x} in [{', '.join(map(repr, values))}]",
                    allowed=f"one of {listed(apart(values), len(values))}",
                    broken=f"is not one of {listed(apart(values))}",
                    key="kind" if self.kind == "binary" else "values",
                )
            )
        low, high = self.bounds
        if low is not None and low > -math.inf:
            limits.append(Limit(f"{x} >= {low!r}", f"at least {low:g}", f"is below {low:g}", "min"))
        if high is not None and high < math.inf:
            limits.append(
                Limit(f"{x} <= {high!r}", f"at most {high:g}", f"is above {high:g}", "max")
            )
        if self.whole:
            limits.append(
                Limit(f"floor({x}) == {x}", "a whole number", "is not a whole number", "whole")
            )
        return limits


@dataclass(frozen=True)
class Contract:
    """What every table of one dataset holds: features in order, target, id and row rules.

    ``positive`` is the value of ``target`` that means "left"; ``late`` lists the columns that are
    known only close to the event; ``rules`` are expressions (data.expressions) that hold in every
    row. ``repeated_ids``: several rows may be of one member. ``encoding``, ``separator`` and
    ``decimal`` are those of its CSV files; ``missing`` lists the words that mean a gap (None: those
    of pandas) in columns that list none; ``rename`` maps names in a file to names here.
    ``rows_where`` is an expression over the raw columns that holds in the rows to learn from.
    Columns that are not declared are ignored with a warning, or (``extra="refuse"``) refused.
    """

    name: str
    target: str
    positive: int | float | str
    columns: Mapping[str, Column]
    id: str | None = None
    rules: Mapping[str, str] = field(default_factory=dict)
    late: tuple[str, ...] = ()
    repeated_ids: bool = False
    encoding: str = "utf-8"
    rename: Mapping[str, str] = field(default_factory=dict)
    extra: Literal["ignore", "refuse"] = "ignore"
    separator: Separator = ","
    decimal: Literal[".", ","] = "."
    missing: tuple[str, ...] | None = None
    rows_where: str | None = None

    @property
    def text(self) -> list[str]:
        """The columns to read as text even if they look like numbers: categories, the id, and
        those whose cells are written in their own way."""
        written = [name for name in self.columns if len(self.reading(name)) > 1]
        categories = [name for name, column in self.columns.items() if column.kind == "category"]
        names = list(dict.fromkeys([*categories, *written]))
        return names if self.id is None else [*names, self.id]

    def reading(self, name: str) -> dict[str, Any]:
        """Return how the cells of a column are read, in the words of data.cells: its kind, and what
        is not the rule.

        >>> club = Contract("club", "left", 1, {"paid": Column("numeric")}, decimal=",")
        >>> club.reading("paid")
        {'kind': 'numeric', 'format': '1234,5'}
        """
        column = self.columns[name]
        words = self.missing if column.missing is None else column.missing
        same = folded if column.fold else str
        values = {same(str(value)) for value in column.values or ()}
        if words is None and (known := {word for word in MISSING if same(word) in values}):
            words = tuple(sorted(MISSING - known))
        format = column.format
        if format is None and column.kind == "numeric" and self.decimal == ",":
            format = "1234,5"
        keys = {
            "format": format,
            "before": column.before,
            "missing": words if words is None else list(words),
            "values": list(column.values or ()) or None if column.kind == "category" else None,
            "fold": column.fold or None,
        }
        given = {key: value for key, value in keys.items() if value is not None}
        return {"kind": column.kind} | given

    def words(self, name: str | None) -> Collection[str]:
        """Return the words that mean a gap in a column, or in the target and the id."""
        if name is not None and name in self.columns:
            return self.reading(name).get("missing", MISSING)
        return MISSING if self.missing is None else self.missing
