"""Match a new segmentation to the one in use: similar segments keep their numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import contingency_matrix

DISSOLVED = 0.5
"""Two segments are different ones if their shared members are a smaller share of their union than
this (Hennig, 2007, Computational Statistics and Data Analysis 52:258)."""


@dataclass(frozen=True)
class Matching:
    """The number of each new segment (the key); the numbers that are new and gone; and how many
    members change their number."""

    numbers: dict[int, int]
    new: list[int]
    gone: list[int]
    moved: int
    members: int

    def __str__(self) -> str:
        changes = [f"{self.moved:,} of {self.members:,} members change their segment"]
        for name, numbers in (("new", self.new), ("gone", self.gone)):
            if numbers:
                changes.append(f"{name}: {', '.join(map(str, numbers))}")
        return "; ".join(changes)


def match(before: np.ndarray, after: np.ndarray, *, segments: int, free: int) -> Matching:
    """Number the segments of ``after`` as those of ``before`` with which they share most members.

    Both label the same members in the same order: ``before`` with the numbers in use, ``after``
    with 0 .. ``segments`` - 1. A segment that continues none gets the next number from ``free`` on,
    so that no number ever means two kinds of members.

    >>> match(np.array([1, 1, 0]), np.array([0, 0, 1]), segments=2, free=2).numbers
    {0: 1, 1: 0}
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
