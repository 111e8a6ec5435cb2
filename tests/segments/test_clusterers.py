"""Each clusterer numbers by size, refits as it fits, and is served by scikit-learn alone."""

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.cluster import DBSCAN

from churnlab.errors import InputError
from churnlab.segments.choose_k import check_members, check_rows, choose_k, evidence_per_k
from churnlab.segments.clusterers import (
    KMEANS,
    Gaussians,
    MixedClasses,
    MixtureFit,
    as_clusterer,
)
from churnlab.segments.dendrogram import ward_tree
from churnlab.segments.kmeans import all_columns, fit_kmeans, segment_frame, standardized
from churnlab.segments.space import Undivided

CLUSTERERS = [KMEANS, Gaussians(), Gaussians("tied"), Gaussians("diag"), MixedClasses()]
EFFORT = {"bootstraps": 4, "refit_n_init": 3, "splits": 4, "references": 2, "random_state": 0}


@pytest.fixture(scope="module")
def groups() -> pd.DataFrame:
    """400 rows in three well separated groups of 100, 50 and 250, in this order."""
    rng = np.random.default_rng(0)
    centers = np.repeat([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], [100, 50, 250], axis=0)
    return pd.DataFrame(centers + rng.normal(size=centers.shape), columns=["visits", "age"])


def fit(clusterer, frame: pd.DataFrame, ks: list[int], *, max_rows: int = 10_000):
    space = clusterer.space(frame)
    return clusterer.fit(space, ks, n_init=5, random_state=0, max_rows=max_rows)


@pytest.mark.parametrize("clusterer", CLUSTERERS, ids=lambda one: type(one).__name__)
def test_segments_are_numbered_by_size_and_served_from_a_file_as_fitted(clusterer, groups):
    found = fit(clusterer, groups, [2, 3])
    assert np.bincount(found[3].labels_).tolist() == [250, 100, 50]
    for k in (2, 3):
        pipeline = clusterer.pipeline(groups, found[k])
        served = skops.io.loads(skops.io.dumps(pipeline), trusted=[])
        assert np.array_equal(served.predict(groups), found[k].labels_)
        assert served.predict(groups.iloc[[399]]).tolist() == [found[k].labels_[399]]


@pytest.mark.parametrize("clusterer", CLUSTERERS, ids=lambda one: type(one).__name__)
def test_a_quick_refit_labels_rows_that_it_has_not_seen(clusterer, groups):
    space = clusterer.space(groups)
    rng, rows = np.random.default_rng(1), np.arange(0, 400, 2)
    assign = clusterer.quick(space.layout)(space.Z[rows], [3], 3, rng)[3]
    labels = assign(space.Z[1::2])
    assert pd.crosstab(labels, fit(clusterer, groups, [3])[3].labels_[1::2]).max().sum() == 200


@pytest.mark.parametrize("clusterer", CLUSTERERS[1:], ids=lambda one: type(one).__name__)
def test_the_lowest_bic_chooses_among_stable_numbers(clusterer, groups):
    found = fit(clusterer, groups, [2, 3, 4])
    tree = ward_tree(clusterer.space(groups).Z, random_state=0)
    evidence = evidence_per_k(groups, tree, found, clusterer=clusterer, **EFFORT).per_k
    assert evidence["gap"].notna().all()
    choice = choose_k(evidence)
    assert choice.k == 3
    assert "BIC" in choice.reason


def test_a_flag_that_has_nothing_to_do_with_the_groups_makes_none(groups):
    rng = np.random.default_rng(1)
    frame = groups.assign(flag=rng.integers(2, size=400).astype(float))
    found = fit(MixedClasses(), frame, [2, 3, 4, 5])
    assert min(found, key=lambda k: found[k].bic) == 3
    assert np.bincount(found[3].labels_).tolist() == [250, 100, 50]


def test_constant_columns_change_nothing(groups):
    frame = groups.assign(plan=np.repeat(["a", "b", "c"], [100, 50, 250]))
    same = frame.assign(fee=9.0, club="north")
    clusterer = MixedClasses()
    one, two = fit(clusterer, frame, [3])[3], fit(clusterer, same, [3])[3]
    assert np.array_equal(one.labels_, two.labels_)
    pipeline = clusterer.pipeline(same, two)
    assert np.array_equal(pipeline.predict(same.assign(fee=10.0, club="south")), one.labels_)


def test_k_means_is_what_it_was(groups):
    before = fit_kmeans(standardized(groups), [3], n_init=5, random_state=0)[3]
    found = fit(KMEANS, groups, [3])[3]
    assert np.array_equal(found.cluster_centers_, before.cluster_centers_)


def test_a_large_table_is_fitted_on_a_sample_and_labeled_whole(groups):
    found = fit(MixedClasses(), groups, [3], max_rows=200)[3]
    assert np.bincount(found.labels_).tolist() == [250, 100, 50]


def test_a_new_word_says_nothing_about_the_class(groups):
    frame = groups.assign(plan=np.repeat(["a", "b", "c"], [100, 50, 250]))
    clusterer = MixedClasses()
    pipeline = clusterer.pipeline(frame, fit(clusterer, frame, [3])[3])
    assert pipeline.predict(frame.assign(plan="new")).tolist() == pipeline.predict(frame).tolist()


def test_a_segment_without_members_is_refused():
    labels = np.array([0, 0, 1, 1])
    with pytest.raises(InputError, match="Of 3 segments one would have no member"):
        check_members(MixtureFit(labels, 3, 0.0, 0.0, None))


@pytest.mark.parametrize("parameters", [{"covariance_type": "round"}, {"reg_covar": -1}])
def test_parameters_that_no_mixture_has_are_refused(parameters):
    with pytest.raises(InputError, match="covariance_type is one of full, tied, diag, spherical"):
        Gaussians(**parameters)


def test_a_class_that_cannot_divide_members_is_refused():
    with pytest.raises(InputError, match="clusterer._target_ is DBSCAN, which cannot divide"):
        as_clusterer(DBSCAN(), where="clusterer")
    assert as_clusterer(KMEANS, where="clusterer") is KMEANS


@pytest.mark.parametrize("seed", range(12))
def test_a_table_of_words_alone_is_divided_or_refused_with_what_to_do(seed):
    rng = np.random.default_rng(seed)
    n, columns = int(rng.integers(12, 200)), int(rng.integers(1, 6))
    levels = rng.choice([1, 2, 3, 8, 25], columns)
    words = {f"w{i}": rng.integers(0, most, n).astype(str) for i, most in enumerate(levels)}
    X = pd.DataFrame(words).radd("word ")
    taking_part = all_columns(X, words=True)
    assert set(taking_part) == {name for name in X if 2 <= X[name].nunique() <= 20}
    if not taking_part:
        return
    frame, clusterer = segment_frame(X, taking_part), MixedClasses()
    if len(frame) < 30 or len(frame.drop_duplicates()) <= 3:
        with pytest.raises(Undivided, match="are too few for 3 segments"):
            check_rows(frame, 3)
        return
    check_rows(frame, 3)
    found = fit(clusterer, frame, [2, 3])
    for k in (2, 3):
        served = skops.io.loads(skops.io.dumps(clusterer.pipeline(frame, found[k])), trusted=[])
        assert np.array_equal(served.predict(frame), found[k].labels_)
