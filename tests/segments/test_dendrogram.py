import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from churnlab.data.demo import members
from churnlab.segments import dendrogram
from churnlab.segments.dendrogram import (
    WardTree,
    cut_tree,
    height_gaps,
    linkage_vector,
    proposed_k,
    ward_agreement,
    ward_tree,
)
from churnlab.segments.kmeans import standardized


@pytest.fixture(scope="module")
def Z() -> np.ndarray:
    """300 rows in three well separated groups of 100."""
    centers = np.repeat([[0.0, 0.0], [10.0, 0.0], [0.0, 14.0]], 100, axis=0)
    return centers + np.random.default_rng(1).normal(size=centers.shape)


def test_the_largest_gap_proposes_the_number_of_groups(Z):
    assert proposed_k(ward_tree(Z, random_state=0), range(2, 9)) == 3


def test_a_gap_is_the_merge_to_fewer_minus_the_merge_before():
    tree = WardTree(np.array([[0, 1, 1.0, 2], [2, 3, 2.5, 2], [4, 5, 7.0, 4]]), np.arange(4), 4)
    assert tree.heights.tolist() == [7.0, 2.5, 1.0]
    assert height_gaps(tree, [2, 3, 4]) == {2: 4.5, 3: 1.5, 4: 1.0}


def test_the_height_of_a_merge_is_the_root_of_twice_the_growth_of_inertia():
    Z = np.array([[0.0], [2.0], [10.0]])
    tree = ward_tree(Z, random_state=0)
    inertia_2, inertia_1 = 2.0, ((Z - Z.mean()) ** 2).sum()
    assert np.allclose(tree.heights, [np.sqrt(2 * (inertia_1 - inertia_2)), np.sqrt(2 * inertia_2)])


def test_the_cut_has_k_groups_and_agrees_with_the_truth(Z):
    tree, truth = ward_tree(Z, random_state=0), np.repeat([2, 0, 1], 100)
    assert np.unique(cut_tree(tree, 5)).tolist() == [0, 1, 2, 3, 4]
    assert ward_agreement(tree, truth, 3) == 1.0
    assert ward_agreement(tree, truth, 2) < 0.7


def test_above_the_limit_the_tree_stands_on_a_seeded_sample(Z):
    whole, part, again = (
        ward_tree(Z, random_state=0, pairwise=rows, most=rows) for rows in (300, 120, 120)
    )
    assert (whole.sampled, part.sampled) == (False, True)
    assert (len(part.rows), part.n_rows, len(part.linkage)) == (120, 300, 119)
    assert np.array_equal(part.rows, again.rows)
    assert len(np.unique(part.rows)) == 120
    assert ward_agreement(part, np.repeat([0, 1, 2], 100), 3) == 1.0


@pytest.mark.skipif(linkage_vector is None, reason="fastcluster has no wheel for this Python")
def test_between_the_limits_the_tree_is_the_one_scipy_makes(Z):
    columns = standardized(
        members(2000, seed=2)[["Age", "Lifetime", "Avg_additional_charges_total"]]
    )
    scipys, fast = (
        ward_tree(columns, random_state=0, pairwise=rows, most=2000) for rows in (2000, 100)
    )
    assert (fast.sampled, len(fast.rows)) == (False, 2000)
    assert fast.heights == pytest.approx(scipys.heights, abs=1e-9)
    for k in (2, 4, 9):
        assert adjusted_rand_score(cut_tree(fast, k), cut_tree(scipys, k)) == 1.0


def test_without_fastcluster_the_tree_stands_on_a_sample_above_the_first_limit(Z, monkeypatch):
    monkeypatch.setattr(dendrogram, "linkage_vector", None)
    tree = ward_tree(Z, random_state=0, pairwise=120, most=300)
    assert (tree.sampled, len(tree.rows)) == (True, 120)
