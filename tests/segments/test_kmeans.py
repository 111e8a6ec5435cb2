import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans

from churnlab.data.demo import members
from churnlab.errors import InputError
from churnlab.segments.kmeans import (
    all_columns,
    dependent_columns,
    fit_kmeans,
    fit_segmentation,
    principal_plane,
    sample_rows,
    segment_frame,
    standardized,
)


@pytest.fixture(scope="module")
def groups() -> pd.DataFrame:
    """400 rows in three well separated groups of 100, 50 and 250, in this order."""
    rng = np.random.default_rng(0)
    centers = np.repeat([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], [100, 50, 250], axis=0)
    return pd.DataFrame(centers + rng.normal(size=centers.shape), columns=["visits", "age"])


def test_segments_are_numbered_by_size_largest_first(groups):
    kmeans = fit_kmeans(standardized(groups), [3], n_init=5, random_state=0)[3]
    assert np.bincount(kmeans.labels_).tolist() == [250, 100, 50]
    assert np.unique(kmeans.labels_[:100]).tolist() == [1]


def test_predict_gives_the_numbers_of_the_fit(groups):
    segmentation = fit_segmentation(groups, 3, n_init=5, random_state=3)
    assert np.array_equal(segmentation.predict(groups), segmentation["kmeans"].labels_)
    far_from_all = pd.DataFrame({"visits": [9.0, 1.0], "age": [1.0, 50.0]})
    assert segmentation.predict(far_from_all).tolist() == [2, 0]


def test_another_seed_gives_the_same_numbers(groups):
    one, two = (
        fit_kmeans(standardized(groups), [3], n_init=10, random_state=seed)[3].labels_
        for seed in (0, 7)
    )
    assert np.array_equal(one, two)


def test_segments_of_one_size_are_numbered_by_their_centers():
    Z = np.repeat([[5.0, 0.0], [0.0, 5.0], [0.0, 0.0]], 10, axis=0)
    for seed in range(4):
        kmeans = fit_kmeans(Z, [3], n_init=3, random_state=seed)[3]
        assert np.round(kmeans.cluster_centers_, 6).tolist() == [[0, 0], [0, 5], [5, 0]]
        assert np.array_equal(kmeans.labels_, np.repeat([2, 1, 0], 10))


def test_the_same_seed_gives_the_same_bits(groups):
    one, two = (fit_segmentation(groups, 4, n_init=3, random_state=1)["kmeans"] for _ in range(2))
    assert one.cluster_centers_.tobytes() == two.cluster_centers_.tobytes()
    assert one.inertia_ == two.inertia_


def test_standardized_columns_have_mean_0_and_deviation_1_and_a_constant_becomes_0(groups):
    Z = standardized(groups.assign(constant=3.0))
    assert np.allclose(Z.mean(axis=0), 0)
    assert np.allclose(Z.std(axis=0), [1, 1, 0])


def test_a_column_without_finite_values_is_named(groups):
    broken = groups.assign(ratio=np.inf)
    with pytest.raises(InputError, match="ratio"):
        standardized(broken)


def test_the_segment_frame_takes_columns_and_computes_expressions_in_order():
    X = pd.DataFrame({"Lifetime": [0.0, 3.0], "Near": [1.0, 0.0], "Plan": ["a", "b"]})
    frame = segment_frame(X, {"log": "log1p(Lifetime)", "Near": "Near", "twice": "2 * log"})
    assert list(frame.columns) == ["log", "Near", "twice"]
    assert np.allclose(frame["twice"], [0, 2 * np.log(4)])
    assert (frame.dtypes == np.float64).all()


def test_all_columns_leaves_categories_out():
    X = pd.DataFrame({"a": [0.0, 1.0], "Plan": ["a", "b"], "b": [2.0, 1.0]})
    assert segment_frame(X, all_columns(X)).equals(X[["a", "b"]])


@pytest.mark.parametrize("columns", [{"Near": "Near"}, {"log": "log1p(Lifetime)"}])
def test_a_column_that_the_table_does_not_have_is_named(columns):
    with pytest.raises(InputError, match=r"Near|Lifetime"):
        segment_frame(pd.DataFrame({"Age": [1.0, 2.0]}), columns)


def test_the_fit_of_one_number_does_not_depend_on_the_others(groups):
    alone = fit_kmeans(standardized(groups), [3], n_init=5, random_state=0)[3]
    among = fit_kmeans(standardized(groups), range(2, 8), n_init=5, random_state=0)[3]
    assert alone.cluster_centers_.tobytes() == among.cluster_centers_.tobytes()


@pytest.mark.parametrize("k", [3, 9])
def test_the_fit_is_as_good_as_that_of_scikit_learn_from_as_many_starts(k):
    Z = standardized(members(1500, seed=3).drop(columns="Churn"))
    best = KMeans(k, n_init=40, random_state=1).fit(Z).inertia_
    assert fit_kmeans(Z, [k], n_init=40, random_state=0)[k].inertia_ <= 1.001 * best


def test_above_the_limit_the_starts_see_a_sample_and_the_fit_all_rows(groups):
    Z = standardized(groups)
    whole, part = (
        fit_kmeans(Z, [3], n_init=5, random_state=0, max_rows=rows)[3] for rows in (400, 60)
    )
    assert part.labels_.shape == (400,)
    assert np.array_equal(part.labels_, whole.labels_)
    assert part.inertia_ == pytest.approx(whole.inertia_)


def test_a_sample_is_seeded_and_all_rows_are_no_sample():
    assert sample_rows(5, 5, random_state=0).tolist() == [0, 1, 2, 3, 4]
    one, two, other = (sample_rows(100, 10, random_state=seed).tolist() for seed in (0, 0, 1))
    assert one == two == sorted(set(one))
    assert one != other


def test_columns_that_come_from_late_ones_are_found_through_other_columns():
    columns = {
        "Age": "Age",
        "now": "Visits",
        "fall": "log1p(Total) - now",
        "Total": "Total",
        "Visits": "Visits",
    }
    assert dependent_columns(columns, ["Visits"]) == ["now", "fall", "Visits"]
    assert dependent_columns(columns, []) == []


def test_the_plane_shows_the_directions_in_which_rows_differ_most(groups):
    points, shares = principal_plane(standardized(groups.assign(copy=groups["visits"])))
    assert shares[0] >= shares[1] > 0
    assert points.var(axis=0) / (points.var(axis=0).sum() / shares.sum()) == pytest.approx(shares)
    alone, shares = principal_plane(standardized(groups[["age"]]))
    assert (alone.shape, shares.tolist()) == ((400, 2), [1.0, 0.0])
