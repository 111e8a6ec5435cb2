"""Metrics, their intervals, calibration and gains of one model's predictions."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as sk

from churnlab.evaluation import performance
from churnlab.evaluation.calibration_error import calibration_error
from churnlab.evaluation.metric_names import METRICS, WITHOUT_COSTS
from churnlab.evaluation.performance import (
    bootstrap_intervals,
    calibration_line,
    classification_metrics,
    gains,
    reliability,
    repeated_calibration_line,
    repeated_gains,
)
from churnlab.models.decision import ContactEconomics

COSTS = ContactEconomics(100, 2, 10, success=0.3, accept=0.5)
examples = settings(max_examples=60, deadline=None)

grid = st.integers(0, 12).map(lambda k: k / 12)
samples = st.integers(4, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda y: 0 < sum(y) < n),
        st.one_of(
            st.lists(grid, min_size=n, max_size=n),
            st.lists(st.floats(0, 1), min_size=n, max_size=n),
        ),
    ).map(lambda pair: (np.array(pair[0]), np.array(pair[1])))
)


def sample(n: int, *, seed: int = 0, noise: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes drawn from logistic probabilities, which are therefore calibrated."""
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-(rng.normal(-1.5, 2 + noise, n))))
    return (rng.random(n) < p).astype(int), p


# Metrics


@examples
@given(samples, grid)
def test_the_metrics_equal_scikit_learns(drawn, threshold):
    y, p = drawn
    metrics = classification_metrics(y, p, threshold=threshold, costs=COSTS)
    marked = p > threshold
    assert list(metrics) == list(METRICS)
    assert list(classification_metrics(y, p, threshold=threshold)) == WITHOUT_COSTS
    expected = {
        "roc_auc": sk.roc_auc_score(y, p),
        "average_precision": sk.average_precision_score(y, p),
        "log_loss": sk.log_loss(y, np.clip(p, 0.001, 0.999)),
        "brier": sk.brier_score_loss(y, p),
        "accuracy": sk.accuracy_score(y, marked),
        "precision": sk.precision_score(y, marked, zero_division=0),
        "recall": sk.recall_score(y, marked, zero_division=0),
        "f1": sk.f1_score(y, marked, zero_division=0),
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_the_calibration_error_is_the_mean_gap_of_ten_equal_bins():
    y, p = sample(200)
    order = np.argsort(p)
    gaps = [abs(p[part].mean() - y[part].mean()) for part in np.array_split(order, 10)]
    assert classification_metrics(y, p, threshold=0.5)["ece"] == pytest.approx(np.mean(gaps))


@examples
@given(samples, st.randoms())
def test_the_metrics_do_not_depend_on_the_order_of_the_rows(drawn, random):
    y, p = drawn
    order = list(range(len(y)))
    random.shuffle(order)
    metrics = classification_metrics(y, p, threshold=0.5, costs=COSTS)
    assert classification_metrics(y[order], p[order], threshold=0.5, costs=COSTS) == pytest.approx(
        metrics, abs=1e-9
    )


def test_one_probability_for_everybody_is_calibrated_when_it_is_the_churn_rate():
    y = np.array([0, 0, 0, 1] * 25)
    metrics = classification_metrics(y, np.full(100, 0.25), threshold=0.5)
    assert metrics["ece"] == pytest.approx(0)
    assert metrics["roc_auc"] == 0.5
    assert metrics["average_precision"] == 0.25
    assert metrics["precision"] == metrics["recall"] == metrics["f1"] == 0


def test_members_of_a_single_outcome_have_no_ranking_metrics():
    for y in [np.zeros(5, int), np.ones(5, int)]:
        metrics = classification_metrics(y, np.linspace(0, 1, 5), threshold=0.5)
        assert np.isnan(metrics["roc_auc"])
        assert np.isnan(metrics["average_precision"]) == (y.sum() == 0)
        assert 0 < metrics["log_loss"] < 5


# Bootstrap


def test_the_intervals_cover_the_value_and_are_close_to_those_of_a_plain_bootstrap():
    y, p = sample(400)
    how = {"threshold": 0.4, "costs": COSTS}
    metrics = classification_metrics(y, p, **how)
    intervals = bootstrap_intervals(y, p, **how, resamples=600, seed=1)
    rng = np.random.default_rng(2)
    drawn = [rng.integers(0, 400, 400) for _ in range(600)]
    slow = pd.DataFrame([classification_metrics(y[rows], p[rows], **how) for rows in drawn])
    for name, (low, high) in intervals.items():
        assert low <= metrics[name] <= high
        if not METRICS[name].resampling_bias:
            expected = np.percentile(slow[name], [2.5, 97.5])
            np.testing.assert_allclose(
                [low, high], expected, atol=0.25 * (expected[1] - expected[0])
            )


@examples
@given(samples)
def test_intervals_are_ordered_and_possible(drawn):
    y, p = drawn
    found = bootstrap_intervals(y, p, threshold=0.5, resamples=50, seed=0, costs=COSTS)
    for name, (low, high) in found.items():
        assert low <= high
        if METRICS[name].unit_interval:
            assert low >= 0
            assert high <= 1 + 1e-9
        if name == "log_loss":
            assert low >= 0
            assert high <= -np.log(0.001) + 1e-9


def test_the_same_seed_gives_the_same_intervals():
    y, p = sample(300)
    intervals = bootstrap_intervals(y, p, threshold=0.5, resamples=100, seed=4)
    assert bootstrap_intervals(y, p, threshold=0.5, resamples=100, seed=4) == intervals
    assert bootstrap_intervals(y, p, threshold=0.5, resamples=100, seed=5) != intervals


def test_ranking_metrics_skip_resamples_of_a_single_outcome():
    y, p = np.array([1] + [0] * 9), np.linspace(0.9, 0.1, 10)
    low, high = bootstrap_intervals(y, p, threshold=0.5, seed=0)["roc_auc"]
    assert low < 0.3, "a perfect ranking of one churner is no certainty"
    assert high == 1
    all_stay = bootstrap_intervals(np.zeros(10, int), p, threshold=0.5, seed=0)
    assert np.isnan(all_stay["roc_auc"]).all()
    assert np.isfinite(all_stay["brier"]).all()


def test_shares_of_members_have_wilsons_interval():
    y, p = sample(300)
    found = bootstrap_intervals(y, p, threshold=0.6, seed=0)
    marked, left = p > 0.6, y == 1
    for name, part, whole in [
        ("accuracy", np.sum(marked == left), 300),
        ("precision", np.sum(marked & left), np.sum(marked)),
        ("recall", np.sum(marked & left), np.sum(left)),
    ]:
        expected = binomtest(int(part), int(whole)).proportion_ci(method="wilson")
        assert found[name] == pytest.approx((expected.low, expected.high))
    hits = binomtest(int(np.sum(marked & left)), int(np.sum(marked | left)))
    expected = hits.proportion_ci(method="wilson")
    assert found["f1"] == pytest.approx(
        [2 * end / (1 + end) for end in (expected.low, expected.high)]
    )


def test_a_constant_model_ranks_at_chance_for_certain():
    y, _ = sample(100)
    assert bootstrap_intervals(y, np.full(100, 0.3), threshold=0.5, seed=0)["roc_auc"] == (0.5, 0.5)


def test_a_share_of_nobody_may_be_anything():
    y, p = sample(50)
    assert bootstrap_intervals(y, p, threshold=1.0, seed=0)["precision"] == (0, 1)


def test_the_interval_of_a_calibration_error_is_the_honest_one():
    y, p = sample(500)
    found = calibration_error(y, p, seed=7)
    assert bootstrap_intervals(y, p, threshold=0.5, seed=7)["ece"] == (found.low, found.high)


def test_pooling_many_probabilities_changes_next_to_nothing(monkeypatch):
    y, p = sample(3000)
    exact = bootstrap_intervals(y, p, threshold=0.37, resamples=2000, seed=0)
    monkeypatch.setattr(performance, "GROUPS", 700)
    pooled = bootstrap_intervals(y, p, threshold=0.37, resamples=2000, seed=0)
    for name, limits in exact.items():
        np.testing.assert_allclose(pooled[name], limits, atol=0.1 * (limits[1] - limits[0]))


def test_the_bootstrap_of_a_large_hold_out_is_bounded_in_time_and_memory():
    y, p = sample(200_000)
    low, high = bootstrap_intervals(y, p, threshold=0.5, resamples=20, seed=0)["roc_auc"]
    assert low < sk.roc_auc_score(y, p) < high


# Calibration, reliability, gains


def test_calibrated_probabilities_have_slope_one_and_timid_ones_more():
    y, p = sample(20_000)
    calibrated = calibration_line(y, p)
    assert calibrated["slope"] == pytest.approx(1, abs=0.06)
    assert calibrated["intercept"] == pytest.approx(0, abs=0.08)
    logit = np.log(p / (1 - p)).clip(-6, 6)
    assert calibration_line(y, 1 / (1 + np.exp(-logit / 2)))["slope"] == pytest.approx(2, abs=0.2)


def test_a_constant_probability_has_no_calibration_slope():
    line = calibration_line(np.array([0, 1, 0, 0]), np.full(4, 0.25))
    assert np.isnan(line["slope"])
    assert np.isnan(line["intercept"])
    assert np.isnan(line["p"])
    assert line["ece"] == pytest.approx(0)


@pytest.mark.parametrize("members", [40, 400])
def test_outcomes_that_are_separated_perfectly_have_a_steep_line_and_no_warning(members):
    rng = np.random.default_rng(members)
    for _ in range(20):
        probability = rng.uniform(0.02, 0.98, members)
        y = (probability > np.median(probability)).astype(int)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            line = calibration_line(y, probability)
        assert line["slope"] > 5


def test_probabilities_that_hardly_differ_have_no_calibration_slope():
    """A dummy's folds predict a churn rate each: the differences say nothing but give a slope."""
    y = np.random.default_rng(0).permutation(np.repeat([0, 1], [300, 100]))
    by_fold = np.repeat([0.2492, 0.25, 0.2508, 0.25], 100)
    assert np.isnan(calibration_line(y, by_fold)["slope"])
    assert np.isfinite(calibration_line(y, np.linspace(0.1, 0.4, 400))["slope"])


def test_perfect_calibration_is_rejected_only_where_it_is_not_perfect():
    y, p = sample(4000)
    assert calibration_line(y, p)["p"] > 0.05
    logit = np.log(p / (1 - p))
    assert calibration_line(y, 1 / (1 + np.exp(-logit / 1.3)))["p"] < 0.001
    wavy = np.clip(p + 0.1 * np.sign(np.sin(40 * p)), 0.01, 0.99)
    assert calibration_line(y, wavy)["p"] < 0.001, "no line shows this, the bins do"


def test_repeats_count_every_member_once():
    rng = np.random.default_rng(0)
    y, p = sample(500)
    once = pd.DataFrame({"y": y, "probability": p, "repeat": 0})
    assert repeated_calibration_line(once) == pytest.approx(calibration_line(y, p))
    twice = pd.concat([once, once.assign(repeat=1)])
    assert repeated_calibration_line(twice) == pytest.approx(calibration_line(y, p))
    other = once.assign(repeat=1, probability=np.clip(p + rng.normal(0, 0.1, 500), 0.01, 0.99))
    shares = [0.1, 0.3]
    both = repeated_gains(pd.concat([once, other]), shares=shares)
    alone = [gains(y, part["probability"].to_numpy(), shares=shares) for part in (once, other)]
    pd.testing.assert_frame_equal(both, (alone[0] + alone[1]) / 2)


@examples
@given(samples)
def test_reliability_counts_every_member_once(drawn):
    y, p = drawn
    table = reliability(y, p)
    assert table["members"].sum() == len(y)
    assert (table["members"] * table["churn_rate"]).sum() == pytest.approx(y.sum())
    assert (table["members"] * table["probability"]).sum() == pytest.approx(p.sum())
    assert (table["low"] <= table["churn_rate"] + 1e-9).all()
    assert (table["churn_rate"] <= table["high"] + 1e-9).all()
    assert len(table) <= 10


def test_gains_count_the_churners_among_the_riskiest_members():
    y = np.array([1, 1, 0, 1, 0, 0, 0, 0, 0, 0])
    p = np.linspace(1, 0.1, 10)
    table = gains(y, p, shares=[0.1, 0.2, 0.4, 1.0])
    assert table["gain"].tolist() == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert table["precision"].tolist() == pytest.approx([1, 1, 0.75, 0.3])
    assert table["lift"].tolist() == pytest.approx([10 / 3, 10 / 3, 2.5, 1])
    assert table["perfect"].tolist() == pytest.approx([1 / 3, 2 / 3, 1, 1])


@examples
@given(samples)
def test_no_ranking_finds_more_than_a_perfect_one_of_the_same_members(drawn):
    y, p = drawn
    table = gains(y, p, shares=[0.01, 0.1, 0.2, 0.5, 1.0])
    assert (table["gain"] <= table["perfect"]).all()
    assert (table["perfect"] <= 1).all()
    assert (
        gains(y, y.astype(float), shares=[0.1])["gain"][0]
        == gains(y, p, shares=[0.1])["perfect"][0]
    )


def test_gains_of_equal_probabilities_equal_chance():
    table = gains(np.array([1, 0, 0, 1]), np.full(4, 0.5), shares=[0.25, 0.5])
    assert table["gain"].tolist() == pytest.approx([0.25, 0.5])
