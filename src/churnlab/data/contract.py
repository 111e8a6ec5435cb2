"""What a dataset's YAML declares: which columns its tables have, what they may hold, which rules
every row keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Kind = Literal["binary", "numeric", "category"]

ABSURD = 1e15
"""No count, sum or duration of a member is as large, unless the YAML says so."""


@dataclass(frozen=True)
class Column:
    """One feature column as a dataset's YAML declares it; bounds are inclusive.

    ``unknown`` says what becomes of a category that ``values`` does not name: it is refused, or
    accepted and, to a model, none of them. ``unit`` names what the column is counted in; ``cut``
    splits a numeric column where explore compares churn above and below.
    """

    kind: Kind
    min: float | None = None
    max: float | None = None
    whole: bool = False
    values: tuple[int | float | str, ...] | None = None
    unknown: Literal["refuse", "accept"] = "refuse"
    unit: str | None = None
    cut: float | None = None

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    def __post_init__(self) -> None:
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
        """The least and the greatest number allowed; a number that the YAML does not bound must not
        be absurd."""
        free = self.kind == "numeric" and self.values is None
        low = -ABSURD if self.min is None and free else self.min
        high = ABSURD if self.max is None and free else self.max
        return low, high


@dataclass(frozen=True)
class Contract:
    """What every table of one dataset holds: its features in order, its target, its row rules.

    ``positive`` is the value of ``target`` that means "left"; ``late`` names the columns that are
    known only close to the event; ``rules`` are pandas expressions that are true in every row.
    ``encoding`` is how a CSV of it is written; ``rename`` gives columns that are called otherwise
    in a file (the key) their names here.
    """

    name: str
    target: str
    positive: int | float | str
    columns: Mapping[str, Column]
    id: str | None = None
    rules: Mapping[str, str] = field(default_factory=dict)
    late: tuple[str, ...] = ()
    encoding: str = "utf-8"
    rename: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> list[str]:
        """The columns that are text even where they look like numbers: categories and the id."""
        categories = [name for name, column in self.columns.items() if column.kind == "category"]
        return categories if self.id is None else [*categories, self.id]
