import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import binomtest, poisson_binom

from churnlab.evaluation.slices import SMALL, ratio_interval, slice_table, weakest


@pytest.fixture
def predicted() -> np.ndarray:
    return expit(np.random.default_rng(0).normal(-1.2, 1.2, 600))


@pytest.fixture
def y(predicted) -> np.ndarray:
    return (np.random.default_rng(1).random(600) < predicted).astype(int)


@pytest.mark.parametrize("left", [2, 6, 12, 20])
def test_p_is_nearly_the_mid_p_value_of_the_exact_distribution(predicted, left):
    few = predicted[:40]
    exact = poisson_binom(few)
    tails = exact.sf(left) + exact.pmf(left) / 2, exact.cdf(left - 1) + exact.pmf(left) / 2
    y = np.repeat([1, 0], [left, 40 - left])
    assert ratio_interval(y, few)[3] == pytest.approx(2 * min(tails), rel=0.25, abs=0.01)


def test_the_interval_excludes_1_where_p_is_below_5_percent(predicted):
    for left in range(70, 240, 10):
        y = np.repeat([1, 0], [left, 600 - left])
        ratio, low, high, p = ratio_interval(y, predicted)
        assert low < ratio < high
        assert (low > 1 or high < 1) == (p < 0.05)


def test_equal_probabilities_give_the_interval_of_a_share():
    y = np.repeat([1, 0], [60, 140])
    ratio, low, high, _ = ratio_interval(y, np.full(200, 0.25))
    share = binomtest(60, 200).proportion_ci(method="wilson")
    assert ratio == pytest.approx(1.2)
    assert (low, high) == pytest.approx((share.low / 0.25, share.high / 0.25), abs=0.01)


@pytest.mark.parametrize("probability", [0.0, 0.001, 0.3, 1.0])
@pytest.mark.parametrize("outcome", [0, 1])
def test_nobody_or_everybody_leaves(outcome, probability):
    ratio, low, high, p = ratio_interval(np.full(50, outcome), np.full(50, probability))
    assert 0 <= low <= ratio <= high
    assert 0 <= p <= 1


def test_a_row_has_the_metrics_of_its_members(y, predicted):
    plan = np.where(np.arange(600) % 3 == 0, "gold", "basic")
    table = slice_table(y, predicted, 0.4, pd.DataFrame({"plan": plan})).set_index("value")
    gold, flagged = plan == "gold", predicted > 0.4
    row = table.loc["gold"]
    assert row["n"] == 200
    assert row["observed"] == y[gold].mean()
    assert row["predicted"] == pytest.approx(predicted[gold].mean())
    assert row["recall"] == flagged[gold & (y == 1)].mean()
    assert row["precision"] == y[gold & flagged].mean()
    assert (table["q"] >= table["p"]).all()


def test_each_member_has_a_threshold(y, predicted):
    threshold = np.where(np.arange(600) < 300, 2.0, -1.0)
    half = pd.DataFrame({"half": np.arange(600) < 300})
    table = slice_table(y, predicted, threshold, half).set_index("value")
    assert table.loc["True", "recall"] == 0
    assert np.isnan(table.loc["True", "precision"])
    assert table.loc["False", "recall"] == 1


def test_rare_values_are_pooled_or_left_out_and_gaps_are_a_value(y, predicted):
    club = np.array(["A"] * 300 + ["B"] * 220 + ["C"] * 20 + ["D"] * 25 + [None] * 35, dtype=object)
    alone = np.array(["A"] * (601 - SMALL) + ["B"] * (SMALL - 1), dtype=object)
    labels = pd.DataFrame({"club": club, "alone": alone, "constant": 1})
    table = slice_table(y, predicted, 0.5, labels)
    assert set(table["slice"]) == {"club"}
    assert dict(zip(table["value"], table["n"], strict=True)) == {
        **{"A": 300, "B": 220, "missing": 35},
        "one of 2 rare values": 45,
    }


def test_without_slices_the_table_is_empty(y, predicted):
    table = slice_table(y, predicted, 0.5, pd.DataFrame({"constant": np.ones(600)}))
    assert table.empty
    assert {"slice", "value", "n", "p", "q"} <= set(table)
    assert weakest(table) == ""


def test_the_weakest_slice_is_named_with_its_numbers(predicted):
    weak = np.arange(600) < 200
    truth = expit(logit(predicted) + 1.2 * weak)
    y = (np.random.default_rng(2).random(600) < truth).astype(int)
    table = slice_table(y, predicted, 0.5, pd.DataFrame({"home_club": np.where(weak, "N", "S")}))
    row = table.iloc[0]
    assert row["value"] == "N"
    sentence = weakest(table)
    assert sentence.startswith(
        f"Weakest where home club is N (200 members): predicted {row['predicted']:.1%}, observed "
        f"{row['observed']:.1%}, "
    )
    assert f"{row['ratio']:.2f} times as many (95% CI " in sentence
