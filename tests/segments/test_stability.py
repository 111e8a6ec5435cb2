import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from churnlab.segments import refits
from churnlab.segments.refits import inertia, refit
from churnlab.segments.stability import (
    adjusted_rand,
    best_jaccard,
    bootstrap_agreement,
    gap_statistic,
    heldout_churn_auc,
    prediction_strength,
    smallest_share_of_pairs,
)


@pytest.fixture(scope="module")
def Z() -> np.ndarray:
    """300 rows in three well separated groups of 100."""
    centers = np.repeat([[0.0, 0.0], [10.0, 0.0], [0.0, 14.0]], 100, axis=0)
    return centers + np.random.default_rng(1).normal(size=centers.shape)


def test_true_groups_come_back_on_other_rows_and_invented_ones_do_not(Z):
    effort = {"n_init": 3, "random_state": 0}
    labels = {k: KMeans(k, n_init=10, random_state=0).fit_predict(Z) for k in (3, 5)}
    agreement = bootstrap_agreement(Z, labels, resamples=5, **effort).ari
    assert agreement.shape == (5, 2)
    assert agreement[3].min() == 1.0
    assert agreement[5].min() < 0.95
    strength = prediction_strength(Z, [3, 5], splits=4, **effort)
    assert strength[3].min() == 1.0
    assert strength[5].mean() < 0.8


def test_the_values_of_one_number_do_not_depend_on_the_others(Z):
    effort = {"n_init": 2, "random_state": 0}
    labels = {k: KMeans(k, n_init=3, random_state=0).fit_predict(Z) for k in (2, 4, 7)}
    alone = bootstrap_agreement(Z, {4: labels[4]}, resamples=3, **effort)
    among = bootstrap_agreement(Z, labels, resamples=3, **effort)
    assert among.ari[[4]].equals(alone.ari)
    assert among.jaccard[4].tolist() == alone.jaccard[4].tolist()
    alone = prediction_strength(Z, [4], splits=2, **effort)
    assert prediction_strength(Z, [2, 4, 7], splits=2, **effort)[[4]].equals(alone)


def test_a_segment_that_comes_back_has_a_jaccard_near_one_and_a_halved_group_has_not(Z):
    """Three groups in four segments: two come back, the two halves of the third do not."""
    labels = KMeans(4, n_init=10, random_state=0).fit_predict(Z)
    found = bootstrap_agreement(Z, {4: labels}, resamples=10, n_init=5, random_state=0).jaccard[4]
    sizes = np.bincount(labels)
    assert (found[sizes == 100] > 0.85).all()
    assert (found[sizes < 100] < 0.75).all()


def test_the_jaccard_of_a_segment_is_that_of_its_best_match():
    rng = np.random.default_rng(0)
    labels, others = rng.integers(3, size=60), rng.integers(3, size=60)
    counts = np.bincount(labels * 3 + others, minlength=9).reshape(3, 3).astype(float)
    for segment in range(3):
        rows = set(np.flatnonzero(labels == segment))
        matches = [set(np.flatnonzero(others == other)) for other in range(3)]
        best = max(len(rows & match) / len(rows | match) for match in matches)
        assert best_jaccard(counts)[segment] == pytest.approx(best)


def test_more_rounds_find_better_starts_above_six_segments(monkeypatch):
    Z = np.random.default_rng(0).normal(size=(1500, 8))
    effort = {"n_init": 10, "rng": np.random.default_rng(1)}
    more = inertia(Z, refit(Z, [8], **effort)[8])
    monkeypatch.setattr("churnlab.segments.refits.MORE_ROUNDS", refits.ROUNDS)
    fewer = inertia(Z, refit(Z, [8], **effort | {"rng": np.random.default_rng(1)})[8])
    assert more < fewer


def test_a_resample_of_weighted_rows_is_the_resample_of_repeated_rows(Z):
    times = np.bincount(np.random.default_rng(0).integers(300, size=300), minlength=300)
    weighted = refit(
        Z[times > 0], [3], 5, np.random.default_rng(1), weights=times[times > 0].astype(float)
    )[3]
    repeated = refit(np.repeat(Z, times, axis=0), [3], 5, np.random.default_rng(1))[3]
    assert np.sort(weighted, axis=0) == pytest.approx(np.sort(repeated, axis=0), abs=1e-5)


def test_a_refit_comes_to_where_scikit_learn_comes(Z):
    centers = refit(Z, [2, 3], 5, np.random.default_rng(1))
    for k in (2, 3):
        assert inertia(Z, centers[k]) == pytest.approx(
            KMeans(k, n_init=10, random_state=0).fit(Z).inertia_, rel=1e-4
        )


@given(st.integers(1, 5), st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_the_adjusted_rand_index_is_that_of_scikit_learn(k, n, seed):
    labels, others = np.random.default_rng(seed).integers(k, size=(2, n))
    assert adjusted_rand(labels, others, k) == pytest.approx(adjusted_rand_score(labels, others))


def test_the_share_of_pairs_counts_pairs_as_the_definition_does():
    rng = np.random.default_rng(0)
    labels, others = rng.integers(3, size=60), rng.integers(3, size=60)
    shares = []
    for segment in range(3):
        rows = np.flatnonzero(labels == segment)
        pairs = [(a, b) for a in rows for b in rows if a != b]
        shares.append(np.mean([others[a] == others[b] for a, b in pairs]))
    assert smallest_share_of_pairs(labels, others, 3) == pytest.approx(min(shares))


def test_a_segment_of_one_row_keeps_nothing_together():
    assert smallest_share_of_pairs(np.array([0, 0, 1]), np.array([0, 0, 1]), 2) == 0.0


def test_more_repetitions_keep_the_earlier_ones(Z):
    few, more = (
        prediction_strength(Z, [4], splits=splits, n_init=1, random_state=0) for splits in (2, 4)
    )
    assert few.equals(more[:2])


def test_the_gap_is_larger_for_groups_than_for_rows_without_structure(Z):
    uniform = np.random.default_rng(2).uniform(size=(300, 2))

    def gap(rows: np.ndarray) -> tuple[float, float]:
        inertia = KMeans(3, n_init=5, random_state=0).fit(rows).inertia_
        return gap_statistic(rows, {3: inertia}, references=5, random_state=0)[3]

    assert gap(Z)[0] > 1
    assert abs(gap(uniform)[0]) < 0.15
    assert 0 < gap(Z)[1] < 0.2


def test_one_segment_has_a_gap_and_it_is_within_an_error_of_two_where_nothing_is():
    uniform = np.random.default_rng(2).uniform(size=(600, 3))
    Z = (uniform - uniform.mean(axis=0)) / uniform.std(axis=0)
    inertias = {1: float((Z**2).sum())}
    inertias |= {2: KMeans(2, n_init=5, random_state=0).fit(Z).inertia_}
    gaps = gap_statistic(Z, inertias, references=10, random_state=0)
    assert gaps[1][0] >= gaps[2][0] - gaps[2][1]


def test_held_out_auc_is_high_when_segments_differ_in_churn_and_half_when_they_do_not(Z):
    rng = np.random.default_rng(0)
    effort = {"n_init": 3, "random_state": 0}
    differing = (rng.uniform(size=300) < np.repeat([0.05, 0.5, 0.95], 100)).astype(int)
    assert heldout_churn_auc(Z, differing, [3], **effort)[3] > 0.85
    anyone = rng.integers(2, size=3000)
    assert heldout_churn_auc(np.tile(Z, (10, 1)), anyone, [3], **effort)[3] == pytest.approx(
        0.5, abs=0.05
    )


def test_held_out_auc_is_unknown_with_fewer_churners_than_folds(Z):
    assert np.isnan(
        heldout_churn_auc(Z, (np.arange(300) < 4).astype(int), [3], n_init=1, random_state=0)[3]
    )


def test_rows_with_few_distinct_values_are_no_warning():
    Z = np.repeat(np.eye(4), [97, 1, 1, 1], axis=0)
    labels = KMeans(4, n_init=1, random_state=0).fit_predict(Z)
    agreement = bootstrap_agreement(Z, {4: labels}, resamples=3, n_init=2, random_state=0)
    assert agreement.ari.shape == (3, 1)
    assert prediction_strength(Z, [4], splits=2, n_init=2, random_state=0)[4].tolist() == [0.0, 0.0]
