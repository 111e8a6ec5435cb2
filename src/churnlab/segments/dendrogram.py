"""Build Ward's tree of the members and read the number of segments from its heights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score

from churnlab.segments.kmeans import sample_rows

try:
    from fastcluster import linkage_vector
except ImportError:  # no wheel for the newest Python: the tree is sampled from fewer rows on
    linkage_vector = None

PAIRWISE_ROWS = 10_000
"""Up to this many rows SciPy stores the distances of all pairs (0.8 GB at most); also the size of a
larger table's sample."""

VECTOR_ROWS = 50_000
"""Up to this many rows fastcluster works on the rows themselves: the same tree in little memory,
but in time that grows with the square of the rows."""


@dataclass(frozen=True)
class WardTree:
    """Ward's tree: SciPy's linkage matrix, the 0-based rows it was built on, and the table's number
    of rows."""

    linkage: np.ndarray
    rows: np.ndarray
    n_rows: int

    @property
    def sampled(self) -> bool:
        """Return whether the tree was built on a sample of the rows."""
        return len(self.rows) < self.n_rows

    @property
    def heights(self) -> np.ndarray:
        """Return the heights of the merges, the last one (from 2 groups to 1) first, in units of
        the standardized columns."""
        return self.linkage[::-1, 2]


def ward_tree(
    Z: np.ndarray, *, random_state: int, pairwise: int = PAIRWISE_ROWS, most: int = VECTOR_ROWS
) -> WardTree:
    """Build Ward's tree of standardized rows; of more than ``most`` rows, of a seeded sample.

    SciPy builds it up to ``pairwise`` rows (the size of the sample, too), fastcluster, with the
    same result, between the two limits. Ward (1963); Müllner (2013).
    """
    exact = most if linkage_vector is not None else pairwise
    size = len(Z) if len(Z) <= exact else pairwise
    rows = sample_rows(len(Z), size, random_state=random_state)
    if len(rows) <= pairwise:
        return WardTree(linkage(Z[rows], method="ward"), rows, len(Z))
    return WardTree(linkage_vector(Z, method="ward"), rows, len(Z))


def height_gaps(tree: WardTree, ks: Iterable[int]) -> dict[int, float]:
    """Return for each k the height of the merge from k to k-1 groups minus that from k+1 to k.

    >>> tree = WardTree(np.array([[0, 1, 1.0, 2], [2, 3, 2.5, 3]]), np.arange(3), 3)
    >>> height_gaps(tree, [2, 3])
    {2: 1.5, 3: 1.0}
    """
    heights = np.append(tree.heights, 0.0)
    return {k: float(heights[k - 2] - heights[k - 1]) for k in ks}


def proposed_k(tree: WardTree, ks: Iterable[int]) -> int:
    """Return the number of groups at the largest height gap, as people read a dendrogram."""
    gaps = height_gaps(tree, ks)
    return max(gaps, key=lambda k: gaps[k])


def cut_tree(tree: WardTree, k: int) -> np.ndarray:
    """Cut the tree into k groups; returns the labels 0 .. k-1 of its rows."""
    return fcluster(tree.linkage, k, criterion="maxclust") - 1


def ward_agreement(tree: WardTree, labels: np.ndarray, k: int) -> float:
    """Return the adjusted Rand index of the tree's k groups with labels of the whole table."""
    return float(adjusted_rand_score(cut_tree(tree, k), labels[tree.rows]))
