"""What is wrong with a table, one violation each, and the message that lists them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from churnlab.formatting import clipped

if TYPE_CHECKING:
    import numpy as np

MOST_VIOLATIONS = 10
LONGEST_VIOLATION = 400
LONGEST_MESSAGE = 1900
"""Characters; a terminal adds the name of the command or of the job."""


@dataclass(frozen=True)
class Violation:
    """One way in which a table is broken, and how to fix it.

    ``rows`` are the 0-based positions of the rows concerned, None for the table as a whole.
    """

    text: str
    fix: str
    rows: np.ndarray | None = None


def message(violations: Sequence[Violation], *, head: str, place: Callable[[int], str]) -> str:
    """Return one sentence for one violation, a list of at most ten for more, the worst first.

    Violations of the whole table come first, then those of the most rows. ``head`` opens the
    message, ``place`` names a row.

    >>> negative = Violation("column Age: -1 is below 0", "correct it", rows=range(3, 5))
    >>> message([negative], head="The table is broken", place="row {}".format)
    'The table is broken: row 3, column Age: -1 is below 0 (and in 1 more row); correct it.'
    """
    worst = sorted(violations, key=lambda one: 0 if one.rows is None else -len(one.rows))
    worst.sort(key=lambda one: one.rows is not None)
    lines = [_sentence(one, place) for one in worst[:MOST_VIOLATIONS]]
    if len(violations) == 1:
        return f"{head}: {lines[0]}"
    room, fitting = LONGEST_MESSAGE - len(head) - 40, 0
    while fitting < len(lines) and (room := room - len(lines[fitting]) - 5) >= 0:
        fitting += 1
    more = f"; the first {fitting}" if fitting < len(violations) else ""
    return "\n  - ".join([f"{head} ({len(violations)} problems{more}):", *lines[:fitting]])


def _sentence(violation: Violation, place: Callable[[int], str]) -> str:
    text = clipped(violation.text, LONGEST_VIOLATION)
    fix = clipped(violation.fix, LONGEST_VIOLATION)
    stop = "" if fix.endswith("?") else "."
    if violation.rows is None:
        return f"{text}; {fix}{stop}"
    others = len(violation.rows) - 1
    more = f" (and in {others} more {'row' if others == 1 else 'rows'})" if others else ""
    return f"{place(int(violation.rows[0]))}, {text}{more}; {fix}{stop}"
