"""Profit with its CI, break-even, net benefit, capacity and sensitivity."""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

from churnlab.evaluation.decision_value import (
    ASSUMPTIONS,
    break_even,
    capacity_table,
    net_benefit,
    profit_interval,
    sensitivity,
    value_decision,
)
from churnlab.evaluation.metrics import will_churn
from churnlab.models.decision import ContactEconomics, profit

ECONOMICS = ContactEconomics(100, 2, 10, success=0.3, accept=0.5)
DECISION = {"_target_": "x", **asdict(ECONOMICS)}


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    p = rng.beta(0.6, 1.4, 600)
    return (rng.random(600) < p).astype(int), p


def test_the_profit_interval_is_that_of_a_bootstrap(sample):
    y, p = sample
    contacted = p > 0.3
    found = profit_interval(y, contacted, ECONOMICS)
    assert found.value == profit(y, contacted, ECONOMICS)
    rng = np.random.default_rng(1)
    drawn = [rng.integers(0, 600, 600) for _ in range(2000)]
    expected = np.percentile([profit(y[r], contacted[r], ECONOMICS) for r in drawn], [2.5, 97.5])
    width = expected[1] - expected[0]
    np.testing.assert_allclose([found.low, found.high], expected, atol=0.06 * width)


def test_at_the_break_even_success_nothing_is_earned(sample):
    y, p = sample
    contacted = p > 0.3
    needed = break_even(y, contacted, ECONOMICS)
    assert needed.low < needed.value < needed.high
    at_success = replace(ECONOMICS, success=needed.value)
    assert profit(y, contacted, at_success) == pytest.approx(0, abs=1e-9)


def test_break_even_needs_contacts_and_leavers():
    nobody, everybody = np.zeros(4, bool), np.ones(4, bool)
    assert np.isnan(break_even(np.array([0, 1, 0, 0]), nobody, ECONOMICS)).all()
    assert break_even(np.zeros(4, int), everybody, ECONOMICS).value == np.inf


def test_the_net_benefit_is_that_of_its_definition(sample):
    y, p = sample
    table = net_benefit(y, p, thresholds=[0.1, 0.5])
    for _, row in table.iterrows():
        t, marked = row["threshold"], p > row["threshold"]
        expected = (np.sum(marked & (y == 1)) - np.sum(marked & (y == 0)) * t / (1 - t)) / 600
        assert row["model"] == pytest.approx(expected)
        assert row["all"] == pytest.approx(y.mean() - (1 - y.mean()) * t / (1 - t))
        assert row["gain"] == pytest.approx(row["model"] - max(row["all"], 0))
        assert row["gain_low"] <= row["gain"] <= row["gain_high"]
        assert row["low"] <= row["model"] <= row["high"]


def test_a_capacity_contacts_the_riskiest_and_is_scaled_to_all_members(sample):
    y, p = sample
    found = capacity_table(y, p, ECONOMICS, contacts=[100], members=2000, seed=0).iloc[0]
    riskiest = np.argsort(-p)[:30]  # 5% of 600
    assert will_churn(p, found["threshold"]).sum() == 30
    assert found["precision"] == pytest.approx(y[riskiest].mean())
    assert found["leavers"] == pytest.approx(100 * y[riskiest].mean())
    contacted = np.isin(np.arange(600), riskiest)
    assert found["profit"] == pytest.approx(profit(y, contacted, ECONOMICS) * 2000 / 600)
    for name in ("precision", "leavers", "profit"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


def test_a_capacity_beyond_all_members_contacts_all(sample):
    y, p = sample
    found = capacity_table(y, p, None, contacts=[9000], members=2000, seed=0)
    assert found["contacts"].tolist() == [2000]
    assert found["precision"].iloc[0] == pytest.approx(y.mean())
    assert "profit" not in found


def test_a_precision_of_one_is_not_certain():
    y, p = np.array([1] * 10 + [0] * 30), np.linspace(1, 0, 40)
    found = capacity_table(y, p, None, contacts=[5], members=40, seed=0).iloc[0]
    assert found["precision"] == 1
    assert found["precision_low"] < 0.7


def test_the_sensitivity_varies_one_assumption_at_a_time(sample):
    y, p = sample
    table = sensitivity(y, p, 0.3, ECONOMICS)
    assert set(table["assumption"]) == set(ASSUMPTIONS) == set(asdict(ECONOMICS))
    assert (table.groupby("assumption").size() == 5).all()
    row = table[(table["assumption"] == "success") & (table["factor"] == 1.5)].iloc[0]
    varied = replace(ECONOMICS, success=0.45)
    assert row["profit"] == pytest.approx(profit(y, p > 0.3, varied))
    assert row["best_threshold"] == pytest.approx(varied.threshold)
    assert row["best_profit"] == pytest.approx(profit(y, p > varied.threshold, varied))
    assert (table["low"] < table["profit"]).all()


def test_a_share_is_at_most_one_and_an_offer_that_cannot_pay_contacts_nobody(sample):
    y, p = sample
    sure = sensitivity(y, p, 0.3, replace(ECONOMICS, success=0.9))
    assert sure["value"][sure["assumption"] == "success"].max() == 1
    poor = sensitivity(y, p, 0.3, replace(ECONOMICS, success=0.03))
    half = poor[(poor["assumption"] == "success") & (poor["factor"] == 0.5)].iloc[0]
    assert (half["best_threshold"], half["best_profit"]) == (1, 0)


def test_a_decision_without_economics_has_no_value(sample):
    y, p = sample
    decision = {"_target_": "x", "value": 0.5}
    assert value_decision(y, p, threshold=0.5, decision=decision, members=9, seed=0) is None


def test_a_valuation_has_the_decisions_capacity_and_says_what_the_profit_assumes(sample):
    y, p = sample
    decision = DECISION | {"capacity": 200, "members": None}
    found = value_decision(y, p, threshold=0.3, decision=decision, members=4000, seed=0)
    assert found.capacity["contacts"].tolist() == [200]
    assert found.capacity["share"].tolist() == [0.05]
    assert "if 30.0% of the leavers contacted take the offer and stay" in found.summary
    assert "95% CI" in found.summary
    vague = value_decision(y[:12], p[:12], threshold=0.3, decision=DECISION, members=12, seed=0)
    assert vague.profit.low <= 0 < vague.profit.high
    assert "too few to tell whether it earns anything" in vague.summary
    assert "too few to tell" not in found.summary
    plain = value_decision(y, p, threshold=0.3, decision=DECISION, members=4000, seed=0)
    assert plain.capacity["contacts"].tolist() == [80, 200, 400, 800, 1200]


@pytest.mark.parametrize(
    ("outcome", "threshold", "expected"),
    [(1, 0.99, "None of the 600 held-out members is above"), (0, 0.3, "no success would pay")],
)
def test_a_summary_of_nothing_says_so(sample, outcome, threshold, expected):
    y = np.full(600, outcome)
    y[np.argmin(sample[1])] = 1 - outcome
    p = np.minimum(sample[1], 0.98)
    found = value_decision(y, p, threshold=threshold, decision=DECISION, members=600, seed=0)
    assert expected in found.summary


def test_the_tables_have_no_missing_numbers(sample):
    found = value_decision(*sample, threshold=0.3, decision=DECISION, members=600, seed=0)
    for table in (found.capacity, found.sensitivity):
        assert isinstance(table, pd.DataFrame)
        assert not table.isna().any(axis=None)
