"""What a dataset's YAML declares: the columns of its tables, their limits, and rules for rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from churnlab.formatting import listed

Kind = Literal["binary", "numeric", "category"]

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
    where explore compares churn above and below.
    """

    kind: Kind
    min: float | None = None
    max: float | None = None
    whole: bool = False
    values: tuple[bool | int | float | str | None, ...] | None = None
    unknown: Literal["refuse", "accept"] = "refuse"
    unit: str | None = None
    cut: float | None = None

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        kinds = {str} if self.values is None else {type(value) for value in self.values}
        if not kinds or kinds & {bool, type(None)}:
            raise ValueError(
                "values lists one or more numbers or texts; yes, no, on, off and null need quotes"
            )
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

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """The smallest and the largest number allowed, None where any is."""
        free = self.kind == "numeric" and self.values is None
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
                    allowed=f"one of {listed(values, len(values))}",
                    broken=f"is not one of {listed(values)}",
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
    row. ``repeated_ids``: several rows may be of one member. ``encoding`` is that of its CSV files;
    ``rename`` maps names in a file to names here. Columns that are not declared are ignored with a
    warning, or (``extra="refuse"``) refused.
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

    @property
    def text(self) -> list[str]:
        """The columns to read as text even if they look like numbers: categories and the id."""
        categories = [name for name, column in self.columns.items() if column.kind == "category"]
        return categories if self.id is None else [*categories, self.id]
