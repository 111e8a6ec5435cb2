"""Ward's tree of the members, and what its heights say about the number of segments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score

from churnlab.segments.kmeans import sample_rows

try:
    from fastcluster import linkage_vector
except ImportError:  # it has no wheel for the newest Python: the tree stands on a sample earlier
    linkage_vector = None

PAIRWISE_ROWS = 10_000
"""Up to here SciPy keeps the distances of all pairs (0.8 GB at most); a sample of a larger table is
as large."""

VECTOR_ROWS = 50_000
"""Up to here fastcluster works on the rows: the same tree in little memory, but time grows with the
square."""


@dataclass(frozen=True)
class WardTree:
    """A tree as SciPy's linkage matrix, the 0-based rows it was built on, and the number of rows of
    the table."""

    linkage: np.ndarray
    rows: np.ndarray
    n_rows: int

    @property
    def sampled(self) -> bool:
        """Whether the tree stands on a sample of the rows."""
        return len(self.rows) < self.n_rows

    @property
    def heights(self) -> np.ndarray:
        """Heights of the merges, the last (two groups become one) first, in units of the
        standardised columns."""
        return self.linkage[::-1, 2]


def ward_tree(
    Z: np.ndarray, *, random_state: int, pairwise: int = PAIRWISE_ROWS, most: int = VECTOR_ROWS
) -> WardTree:
    """Build Ward's tree on standardised columns; above ``most`` rows on a seeded sample of
    ``pairwise`` rows.

    Up to ``pairwise`` rows by SciPy, between the two by fastcluster, which gives the same tree.
    Ward (1963); Müllner (2013).
    """
    exact = most if linkage_vector is not None else pairwise
    rows = (
        np.arange(len(Z))
        if len(Z) <= exact
        else sample_rows(len(Z), pairwise, random_state=random_state)
    )
    if len(rows) <= pairwise:
        return WardTree(linkage(Z[rows], method="ward"), rows, len(Z))
    return WardTree(linkage_vector(Z, method="ward"), rows, len(Z))


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
