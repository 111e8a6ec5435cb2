"""The calibration error with its noise floor, its corrected value and its CI."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.evaluation import calibration_error as module
from churnlab.evaluation.calibration_error import bin_gaps, calibration_error, noise_floor
from churnlab.evaluation.performance import classification_metrics

examples = settings(max_examples=60, deadline=None)
grid = st.integers(0, 12).map(lambda k: k / 12)
samples = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 1), min_size=n, max_size=n),
        st.one_of(
            st.lists(grid, min_size=n, max_size=n),
            st.lists(st.floats(0, 1), min_size=n, max_size=n),
        ),
    ).map(lambda pair: (np.array(pair[0]), np.array(pair[1])))
)


@examples
@given(samples)
def test_the_error_is_the_metric_and_lies_in_its_ci_as_does_the_corrected_one(drawn):
    y, p = drawn
    found = calibration_error(y, p, seed=0)
    assert found.ece == pytest.approx(classification_metrics(y, p, threshold=0.5)["ece"], abs=1e-9)
    assert 0 <= found.low <= found.corrected <= found.high <= 1 + 1e-6
    assert found.low <= found.ece + 1e-6
    assert found.ece <= found.high
    assert found.low == 0 or found.p < 0.025


@pytest.mark.parametrize(
    "probability",
    [np.linspace(0.02, 0.9, 300), np.repeat([0.1, 0.3, 0.8], 100), np.full(300, 0.3)],
    ids=["all different", "three groups", "all equal"],
)
def test_the_noise_floor_is_the_mean_error_of_outcomes_drawn_from_the_probabilities(probability):
    rng = np.random.default_rng(0)
    drawn = [
        classification_metrics(
            (rng.random(300) < probability).astype(int), probability, threshold=1
        )
        for _ in range(2000)
    ]
    expected = np.mean([metrics["ece"] for metrics in drawn])
    assert noise_floor(probability) == pytest.approx(expected, rel=0.04)


def test_the_noise_falls_with_the_root_of_the_number_of_members():
    p = np.linspace(0.1, 0.9, 500)
    assert noise_floor(p) / noise_floor(np.repeat(p, 4)) == pytest.approx(2, rel=0.01)


def test_bins_that_share_a_group_err_together():
    equal = bin_gaps(np.array([0, 1] * 50), np.full(100, 0.5), np.random.default_rng(0))
    rounded = 1e-5 * equal.error.max()  # the root of a singular covariance has half the digits
    assert np.ptp(equal.noise, axis=1).max() < rounded


def test_a_sample_whose_gaps_cancel_by_luck_does_not_show_a_perfect_model():
    found = calibration_error(np.array([0, 0, 0, 1] * 25), np.full(100, 0.25), seed=0)
    assert found.ece == pytest.approx(0)
    assert found.low == 0
    assert found.high > 0.04  # a churn rate of 25% has a standard error of 0.043 on 100 members


def test_a_certain_and_wrong_model_has_an_error_of_one():
    found = calibration_error(np.ones(20, int), np.zeros(20), seed=0)
    assert (found.ece, found.floor) == (1, 0)
    assert found.low == pytest.approx(1, abs=1e-5)


def test_pooling_many_probabilities_changes_next_to_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 1, 3000)
    y = (rng.random(3000) < p**1.3).astype(int)
    exact = calibration_error(y, p, seed=0)
    monkeypatch.setattr(module, "GROUPS", 500)
    np.testing.assert_allclose(calibration_error(y, p, seed=0), exact, atol=0.002)


def test_the_same_seed_gives_the_same_bits():
    p = np.linspace(0.1, 0.9, 100)
    y = (p > 0.4).astype(int)
    assert calibration_error(y, p, seed=3) == calibration_error(y, p, seed=3)
