"""Draft a dataset from a table alone, for a person to correct."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import pandas as pd

from churnlab.data.quality import leaking_columns
from churnlab.data.table import UNNAMED, Table
from churnlab.data.validation import is_nested
from churnlab.drafting.columns import ColumnDraft, draft_column
from churnlab.drafting.marks import settled
from churnlab.drafting.names import names_counter, names_id, names_identifier, names_somebody
from churnlab.drafting.target import (
    Target,
    agreed,
    likely_targets,
    make_target,
    names_outcome,
    names_status,
    names_target,
    same,
    two_of,
)
from churnlab.drafting.written import Look, look_at
from churnlab.errors import InputError
from churnlab.formatting import counted, listed

UNSURE = "not sure: "

FEW_GAPS = 0.02
"""An identifier may be missing in so large a share of the rows."""


@dataclass(frozen=True)
class Draft:
    """The draft of a dataset YAML; ``candidates`` for the target have two values.

    ``rename`` maps names in the file to names here. ``notes`` are what a person should know or
    decide about the table as a whole.
    """

    rows: int
    target: Target | None
    id: str | None
    repeated_ids: bool
    columns: list[ColumnDraft]
    candidates: list[str]
    decimal: str
    rename: dict[str, str]
    notes: list[str]


def cells_of(table: Table) -> pd.DataFrame:
    """Return the named columns of a whole table: of a CSV file every cell as text."""
    frame = table.frame
    if table.written is not None and table.lines is not None:
        frame = table.written.set_axis(table.frame.columns, axis="columns")
    named = [name for name in map(str, frame) if not name.startswith(UNNAMED)]
    return frame[named].reset_index(drop=True)


def draft(table: Table, *, target: str | None = None) -> Draft:
    """Draft every column of a whole table; ``target`` names the target column, None to guess it."""
    frame, typed = cells_of(table), table.frame.reset_index(drop=True)
    rename = {name: free for name in map(str, frame) if (free := _sayable(name, frame)) != name}
    frame, typed = frame.rename(columns=rename), typed.rename(columns=rename)
    renamed = [f"{name} is called {free} here" for name, free in rename.items()]
    nested = [str(name) for name in frame if is_nested(frame[name]).any()]
    looks = settled(_look(frame.drop(columns=nested), typed), separator=table.separator)
    two = [name for name, look in looks.items() if look.distinct == 2]
    chosen, notes = _choose_target(looks, target and rename.get(target, target), two, nested)
    found = [
        ColumnDraft(name, None, "lists or the like: turn their contents into columns")
        for name in nested
    ]
    others = {name: look for name, look in looks.items() if chosen is None or name != chosen.name}
    counters = [name for name, look in others.items() if _counts(look)]
    found += [ColumnDraft(name, None, "counts the rows: an index") for name in counters]
    rest = {name: look for name, look in others.items() if name not in counters}
    id_, repeated = _choose_id(rest)
    rest.pop(id_ or "", None)
    found += _further_identifiers(rest)
    found += _about_leaving(rest) if chosen is None else _after_the_event(rest, chosen)
    decimal = _decimal(looks)
    before = _day_after(looks)
    known = {one.name for one in found}
    found += [
        draft_column(look, before=before, decimal=decimal)
        for name, look in rest.items()
        if name not in known
    ]
    found = list({one.name: one for one in reversed(found)}.values())
    place = {name: number for number, name in enumerate(map(str, frame))}
    return Draft(
        rows=len(frame),
        target=chosen,
        id=id_,
        repeated_ids=repeated,
        columns=sorted(found, key=lambda one: place[one.name]),
        candidates=two,
        decimal=decimal,
        rename=rename,
        notes=[*notes, *renamed],
    )


def _sayable(name: str, taken: pd.DataFrame) -> str:
    """Return a name that expressions can quote: without backticks and line ends."""
    free = " ".join(re.sub(r"[`\r\n]", " ", name).split())
    return free if re.search(r"[`\r\n]", name) and free and free not in taken else name


def _look(frame: pd.DataFrame, typed: pd.DataFrame) -> dict[str, Look]:
    """Look at every column; ``typed`` are the columns as every command reads them."""
    return {str(name): replace(look_at(frame[name]), read=typed[name]) for name in frame}


def _decimal(looks: dict[str, Look]) -> str:
    """Return the decimal mark of the file: the comma, if numbers show it for certain."""
    sure = [look.format for look in looks.values() if look.format and not look.formats]
    return "," if any(format.endswith("1234,5") for format in sure) else "."


def _day_after(looks: dict[str, Look]) -> date | None:
    """Return the day after the latest of all dates: the day of the table, as far as it shows."""
    latest = [look.dates.max() for look in looks.values() if look.dates is not None]
    known = [day for day in latest if not pd.isna(day)]
    return max(known).date() + timedelta(days=1) if known else None


def _choose_target(
    looks: dict[str, Look], named: str | None, two: Sequence[str], nested: Sequence[str]
) -> tuple[Target | None, list[str]]:
    """Return the target that is named, or the likeliest, and what to say about the choice."""
    if named is not None:
        made = make_target(looks[named]) if named in looks else None
        if made is None:
            raise InputError(_no_target(named, looks.get(named), two, nested))
        return made, _about(made, looks[named])
    likely = likely_targets(looks.values())
    chosen = agreed(likely)
    if chosen is None:
        names = [one.name for one in likely]
        if names:
            return None, [f"{UNSURE}{listed(names)} may each say who left"]
        return None, [
            f"{UNSURE}{name} may say who left, but its values are {listed(found, 5)}: add a column "
            "that is yes for who left and no for who stayed, or name another with target="
            f"{two_of(look)}"
            for name, look in looks.items()
            if len(found := _values(look)) > 1
            and (names_target(name) or (names_status(name) and two_of(look)))
        ]
    return chosen, _about(chosen, looks[chosen.name])


def _values(look: Look) -> list[str]:
    """Return the values of a column, and gaps beside a single one, which may mean the other."""
    found = look.known.unique().tolist()
    return [*found, *["empty cells"] * bool(len(found) == 1 and look.missing.any())]


def _no_target(name: str, look: Look | None, two: Sequence[str], nested: Sequence[str]) -> str:
    counts = look.known.value_counts().items() if look else []
    plain = ((str(value).removesuffix(".0"), n) for value, n in counts)
    values = [f"{value} ({counted(n, 'row')})" for value, n in plain]
    if look is not None and values and look.missing.any():
        values.append(f"empty cells ({counted(int(look.missing.sum()), 'row')})")
    found = "lists or the like" if name in nested else listed(values, 5) or "nothing"
    return (
        f"The column {name} holds {found} and cannot be the target, which has two values: who left "
        f"and who stayed. Name another column with target= ({candidates(two)}), or add one that "
        f"says who left{'' if look is None else two_of(look)}."
    )


def candidates(two: Sequence[str]) -> str:
    """Say which columns may be the target."""
    return f"one of {', '.join(two)}" if two else "no column has two values"


def _about(target: Target, look: Look) -> list[str]:
    """Say which members the target counts as left, and what happens to other values."""
    notes = []
    if target.coded:
        others = f", {listed(target.others)} as neither" if target.others else ""
        notes.append(
            f"{UNSURE}{target.name} holds codes: {target.positive} is read as left, "
            f"{target.stayed} as stayed{others}; if not, correct positive"
            f"{' and rows_where' if target.others else ''}"
        )
    elif not target.sure:
        notes.append(
            f"{UNSURE}{target.name} is {target.positive} in {int(target.left.sum()):,} rows, which "
            f"counts as left for being the rarer; the other value is {target.stayed}"
        )
    if target.others:
        notes.append(
            f"{target.name} has {2 + len(target.others)} values; rows with {listed(target.others)} "
            f"take no part: {target.rows_where}"
        )
    if gaps := int(look.missing.sum()):
        notes.append(f"{target.name} is missing in {counted(gaps, 'row')}, which take no part")
    return notes


def _about_leaving(looks: dict[str, Look]) -> list[ColumnDraft]:
    """Leave out what may be the target by its name, as long as none is chosen."""
    remark = "by its name about who left: the target, or recorded after the event?"
    return [
        ColumnDraft(name, None, remark)
        for name in looks
        if names_outcome(name) or names_target(name)
    ]


def _after_the_event(looks: dict[str, Look], target: Target) -> list[ColumnDraft]:
    """Leave out what says the same as the target, or was known only after a member had left."""
    rows = np.flatnonzero(target.taking_part)
    compared = {
        name: look.compared.iloc[rows].reset_index(drop=True) for name, look in looks.items()
    }
    leaking = leaking_columns(pd.DataFrame(compared), target.left[rows].astype("int64"))
    found = []
    for name, look in looks.items():
        about = names_outcome(name) or names_target(name)
        if look.distinct < 2 or not (about or name in leaking):
            continue
        other = make_target(look)
        if other is not None and same(target, other):
            remark = f"says the same as {target.name}"
        elif name in leaking:
            remark = f"alone predicts who left (AUC {leaking[name]:.3f}): recorded after the event?"
        else:
            remark = "by its name about who left: recorded after the event?"
        found.append(ColumnDraft(name, None, remark))
    return found


def _all_different(look: Look) -> bool:
    whole = look.values is None or bool((look.values[~look.missing] % 1 == 0).all())
    return whole and look.dates is None and look.distinct > 0.95 * max(len(look.known), 1)


def _counts(look: Look) -> bool:
    """Return whether a column counts the rows: each number is one more than the one above, or it is
    called so and has each of the numbers once."""
    if look.values is None or look.missing.any() or len(look.values) < 3:
        return False
    if names_counter(look.name):
        return bool((np.diff(np.sort(look.values)) == 1).all())
    return _in_steps(look) and not names_identifier(look.name)


def _choose_id(looks: dict[str, Look]) -> tuple[str | None, bool]:
    """Return the column that identifies members, and whether a member has several rows.

    It has no gaps and is different in every row; its name says so, or its cells are codes of one
    shape. A wage is different in every row, too, but says so neither way.
    """
    unique = {
        name: look
        for name, look in looks.items()
        if look.dates is None
        and look.missing.mean() <= FEW_GAPS
        and look.distinct == len(look.known)
    }
    named = [name for name, look in unique.items() if names_identifier(name) and _is_code(look)]
    named.sort(key=lambda name: not names_somebody(name))  # a client before an order
    coded = [name for name, look in unique.items() if look.values is None and _one_shape(look)]
    sure = [name for name in named if names_id(name)]
    sure.sort(key=lambda name: _in_steps(unique[name]))
    for names in (
        sure,
        [name for name in named if not _in_steps(unique[name])],
        coded,
        named,
    ):
        if names:
            return names[0], False
    repeated = [
        name
        for name, look in looks.items()
        if names_identifier(name)
        and re.search("id$", name, re.IGNORECASE)
        and _is_code(look)
        and not look.missing.any()
        and look.distinct > len(look.texts) / 10
    ]
    return (repeated[0], True) if repeated else (None, False)


def _is_code(look: Look) -> bool:
    whole = look.values is not None and bool((look.values[~look.missing] % 1 == 0).all())
    return look.values is None or (whole and not re.search(r"[^\d.,\s]", look.format or ""))


def _in_steps(look: Look) -> bool:
    return look.values is not None and bool((np.diff(look.values) == 1).all())


def _one_shape(look: Look) -> bool:
    """Return whether all cells have letters and digits in the same places, as M-017 and M-018."""
    shapes = look.known.str.replace(r"\d", "9", regex=True)
    shapes = shapes.str.replace(r"[^\W\d_]", "a", regex=True)
    usual = Counter(shapes).most_common(1)[0]
    return "9" in usual[0] and " " not in usual[0] and usual[1] > 0.9 * len(shapes)


def _further_identifiers(looks: dict[str, Look]) -> list[ColumnDraft]:
    """Leave out further identifiers: whole numbers or codes, named so, different in every row."""
    remark = "distinct in nearly every row: a further identifier?"
    return [
        ColumnDraft(name, None, remark)
        for name, look in looks.items()
        if names_identifier(name) and _is_code(look) and _all_different(look)
    ]
