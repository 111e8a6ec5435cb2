"""Select the groups of members that a claim compares, and say how freely they were chosen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from churnlab.claims.claim import Claim, Group
from churnlab.data.expressions import columns_in, evaluate
from churnlab.errors import InputError

SEGMENT = "segment"
"""The extra column that a claim with a segmentation may use."""

EXTREMES: Mapping[str, Callable[[pd.Series], object]] = {
    "highest": lambda means: means == means.max(),
    "lowest": lambda means: means == means.min(),
}
"""How each word chooses among the segments' means."""


class Selected(NamedTuple):
    """The rows of one group or two, a mask of the first, and among how many possible groups these
    were chosen on the same members (1: by a condition)."""

    frame: pd.DataFrame
    first: np.ndarray
    choices: int = 1


def condition(expression: str, frame: pd.DataFrame) -> np.ndarray:
    """Return a mask of the rows that meet a condition."""
    values = evaluate(expression, frame)
    if not np.isin(values, (0, 1)).all():
        raise InputError(
            f"{expression} is not a condition: it has values other than 0 and 1. Compare it, as in "
            "x > 0."
        )
    return values == 1


def _members(group: Group, frame: pd.DataFrame) -> tuple[np.ndarray, int]:
    """Return a mask of the members of a group, and among how many it was chosen.

    Segments are compared within this frame. Of k segments one may be the highest, and 2^k - 2 sets
    of them may be those above the mean. A CI at the level 5% over this number (Bonferroni) covers
    whichever was chosen, by whatever value of the members. Choosing on other folds does not: what
    each fold chooses depends on those that judge, and of four equal segments the one with the
    highest mean, chosen so, is called different in 17% of tables.
    """
    if isinstance(group, str):
        return condition(group, frame), 1
    ((which, expression),) = group.items()
    values = pd.Series(evaluate(expression, frame), index=frame.index)
    means = values.groupby(frame[SEGMENT]).mean()
    if which in EXTREMES:
        chosen, choices = means.index[np.asarray(EXTREMES[which](means))], len(means)
    else:
        chosen = means.index[means > values.mean() if which == "above" else means < values.mean()]
        choices = 2 ** len(means) - 2
    return frame[SEGMENT].isin(chosen).to_numpy(), max(choices, 1)


def among(claim: Claim, frame: pd.DataFrame) -> Selected:
    """Return the rows of the claim's group; all rows if it names none."""
    if claim.among is None:
        return Selected(frame, np.ones(len(frame), bool))
    mask, choices = _members(claim.among, frame)
    return Selected(frame[mask], np.ones(int(mask.sum()), bool), choices)


def two_groups(claim: Claim, frame: pd.DataFrame) -> Selected:
    """Return the rows of both groups and a mask of the first; the second is outside the first."""
    assert isinstance(claim.among, str | dict)
    first, choices = _members(claim.among, frame)
    if claim.against is None:
        return Selected(frame, first, choices)
    assert isinstance(claim.against, str | dict)
    others = frame[~first]
    rest = np.zeros(0, bool), 1
    second, more = _members(claim.against, others) if len(others) else rest
    rows = pd.concat([frame[first], others[second]])
    return Selected(rows, np.arange(len(rows)) < first.sum(), choices * more)


def outside(claim: Claim, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows outside the claim's first group."""
    assert isinstance(claim.among, str | dict)
    return frame[~_members(claim.among, frame)[0]]


def faces_every_rival(claim: Claim, target: str) -> bool:
    """Return whether a claim is about the strongest rival: above the highest of the other segments,
    or below the lowest, in what is measured."""
    if not isinstance(claim.against, dict) or not isinstance(claim.among, str | dict):
        return False
    strongest = {"above": "highest", "below": "lowest"}.get(claim.direction)
    measured = target if claim.of is None else str(claim.of)
    return [(word, text.strip("`")) for word, text in claim.against.items()] == [
        (strongest, measured.strip("`"))
    ]


def descriptive(claim: Claim, made_of: Collection[str]) -> str:
    """Say why a claim about segments describes them and is no test; "" if it is one.

    ``made_of`` are the columns that the segmentation was made of: that its segments differ in them
    is how they were made.
    """
    if claim.segments is None:
        return ""
    used = [(key, columns_in(text)) for key, text in claim.expressions]
    if any(SEGMENT in columns for _, columns in used):
        return "descriptive: it names a segment by its number"
    measured = {"of", "against"} if claim.quantity.startswith("correlation") else {"of"}
    shared = sorted({c for key, columns in used if key in measured for c in columns} & {*made_of})
    return f"descriptive: the segments were made of {', '.join(shared)}" if shared else ""
