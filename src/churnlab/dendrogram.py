"""Ward's tree of the members, and what its heights say about the number of segments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score

PAIRWISE_ROWS = 10_000
"""Above this many rows the tree is of a seeded sample: its time and memory grow with the square (0.8 GB here)."""


@dataclass(frozen=True)
class WardTree:
    """A tree as SciPy's linkage matrix, the 0-based rows it was built on, and the number of rows of the table."""

    linkage: np.ndarray
    rows: np.ndarray
    n_rows: int

    @property
    def sampled(self) -> bool:
        """Whether the tree stands on a sample of the rows."""
        return len(self.rows) < self.n_rows

    @property
    def heights(self) -> np.ndarray:
        """Heights of the merges, the last (two groups become one) first, in units of the standardised columns."""
        return self.linkage[::-1, 2]


def ward_tree(Z: np.ndarray, *, random_state: int, max_rows: int = PAIRWISE_ROWS) -> WardTree:
    """Build Ward's tree on standardised columns, above ``max_rows`` rows on a seeded sample of that size."""
    rows = np.arange(len(Z))
    if len(Z) > max_rows:
        rows = np.sort(np.random.default_rng(random_state).choice(len(Z), size=max_rows, replace=False))
    return WardTree(linkage(Z[rows], method="ward"), rows, len(Z))


def height_gaps(tree: WardTree, ks: Iterable[int]) -> dict[int, float]:
    """Per k the height of the merge from k to k - 1 groups minus that of the merge from k + 1 to k."""
    heights = np.append(tree.heights, 0.0)
    return {k: float(heights[k - 2] - heights[k - 1]) for k in ks}


def proposed_k(tree: WardTree, ks: Iterable[int]) -> int:
    """The number of groups at the largest height gap: what a person sees in the dendrogram."""
    gaps = height_gaps(tree, ks)
    return max(gaps, key=lambda k: gaps[k])


def cut_tree(tree: WardTree, k: int) -> np.ndarray:
    """Labels 0 .. k-1 of the tree's rows when it is cut into k groups."""
    return fcluster(tree.linkage, k, criterion="maxclust") - 1


def ward_agreement(tree: WardTree, labels: np.ndarray, k: int) -> float:
    """Adjusted Rand index of the tree's k groups with other labels of the whole table."""
    return float(adjusted_rand_score(cut_tree(tree, k), labels[tree.rows]))
