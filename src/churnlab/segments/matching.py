"""The same kinds of members under the same numbers: a new segmentation is matched to the one in
use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import contingency_matrix

DISSOLVED = 0.5
"""Two segments whose shared members are a smaller part of their union are not the same one (Hennig,
2007, Computational Statistics and Data Analysis 52:258)."""


@dataclass(frozen=True)
class Matching:
    """Which number each new segment (the key) goes by; ``new`` and ``gone`` are numbers, ``moved``
    counts members."""

    numbers: dict[int, int]
    new: list[int]
    gone: list[int]
    moved: int
    members: int

    def __str__(self) -> str:
        changed = [
            f"{what}: {', '.join(map(str, found))}"
            for what, found in (("new", self.new), ("gone", self.gone))
        ]
        told = [text for text, found in zip(changed, (self.new, self.gone), strict=True) if found]
        return "; ".join(
            [f"{self.moved:,} of {self.members:,} members change their segment", *told]
        )


def match(before: np.ndarray, after: np.ndarray, *, segments: int, free: int) -> Matching:
    """Number the segments of ``after`` as those of ``before`` that they share most members with.

    Both are the segments of the same members in order, ``before`` by the numbers in use, ``after``
    as 0 to ``segments`` - 1. One that continues none gets the next number from ``free`` on, so that
    no number ever means two kinds of members.
    """
    used, kinds = np.unique(before), np.unique(after)
    shared = contingency_matrix(before, after) if len(before) else np.zeros((0, 0))
    union = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0, keepdims=True) - shared
    rows, columns = linear_sum_assignment(shared, maximize=True)
    same = shared[rows, columns] >= DISSOLVED * union[rows, columns]
    numbers = {
        int(kinds[new]): int(used[old]) for old, new in zip(rows[same], columns[same], strict=True)
    }
    others = [segment for segment in range(segments) if segment not in numbers]
    numbers |= {segment: free + place for place, segment in enumerate(others)}
    now = np.array([numbers[segment] for segment in range(segments)])[after]
    return Matching(
        numbers=dict(sorted(numbers.items())),
        new=[numbers[segment] for segment in others],
        gone=sorted(set(map(int, used)) - set(numbers.values())),
        moved=int((now != before).sum()),
        members=len(before),
    )
