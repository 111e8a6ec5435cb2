"""What is wrong with a table and how it is told: worst first, few of many, each with its place and
its cure."""

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
    """One way in which a table is broken; ``rows`` are 0-based positions of the rows concerned, if
    it is about rows."""

    text: str
    mend: str
    rows: np.ndarray | None = None


def message(faults: Sequence[Violation], *, head: str, place: Callable[[int], str]) -> str:
    """One paragraph for one fault, a list of at most ten for more: first what concerns the whole
    table, then by rows.

    ``head`` says whose faults they are; ``place`` names a row.
    """
    worst = sorted(faults, key=lambda fault: 0 if fault.rows is None else -len(fault.rows))
    worst.sort(key=lambda fault: fault.rows is not None)
    lines = [_sentence(fault, place) for fault in worst[:MOST_VIOLATIONS]]
    if len(faults) == 1:
        return f"{head}: {lines[0]}"
    room, shown = LONGEST_MESSAGE - len(head) - 40, 0
    while shown < len(lines) and (room := room - len(lines[shown]) - 5) >= 0:
        shown += 1
    more = f" The first {shown}:" if shown < len(faults) else ""
    return "\n  - ".join([f"{head}, {len(faults)} faults.{more}", *lines[:shown]])


def _sentence(fault: Violation, place: Callable[[int], str]) -> str:
    text, mend = clipped(fault.text, LONGEST_VIOLATION), clipped(fault.mend, LONGEST_VIOLATION)
    stop = "" if mend.endswith("?") else "."
    if fault.rows is None:
        return f"{text}; {mend}{stop}"
    count = len(fault.rows)
    more = "" if count == 1 else f" (and in {count - 1} more {'row' if count == 2 else 'rows'})"
    return f"{place(int(fault.rows[0]))}, {text}{more}; {mend}{stop}"
