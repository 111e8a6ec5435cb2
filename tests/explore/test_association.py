"""Associations of features with churn: known answers, checked against scikit-learn and scipy."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import mutual_info_score

from churnlab.data.contract import Column
from churnlab.explore import statistics
from churnlab.explore.association import links, q_values, smallest_difference

BINARY, NUMERIC, CATEGORY = Column("binary"), Column("numeric"), Column("category")


def counted(**features: tuple[list[int], list[float]]) -> pd.DataFrame:
    """Gradients of features whose groups have these members and churn rates."""
    return pd.concat(
        pd.DataFrame(
            {"feature": name, "n": n, "churned": np.round(np.multiply(n, rate)).astype(int)}
        )
        for name, (n, rate) in features.items()
    )


def link_of(n: list[int], rate: list[float], column: Column = NUMERIC) -> pd.Series:
    return links(counted(a=(n, rate)), {"a": column}).iloc[0]


def test_mutual_information_is_scikit_learns_less_its_bias():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, 800)
    y = (rng.random(800) < 0.1 + 0.1 * x).astype(int)
    X, columns = pd.DataFrame({"a": x.astype(float)}), {"a": NUMERIC}
    link = links(statistics.gradients(X, y, columns), columns).iloc[0]
    nats = mutual_info_score(x, y) - 4 / (2 * 800)
    assert link["mutual_information"] == pytest.approx(nats / np.log(2))
    assert link["uncertainty_coefficient"] == pytest.approx(
        nats / stats.entropy([y.mean(), 1 - y.mean()])
    )
    assert (link["n"], link["groups"]) == (800, 5)


def test_a_feature_that_determines_churn_removes_all_uncertainty():
    link = link_of([500, 500], [0, 1], BINARY)
    assert link[
        ["mutual_information", "uncertainty_coefficient", "high"]
    ].tolist() == pytest.approx([1] * 3, abs=1e-3)
    assert link["low"] > 0.8
    assert (link["signal"], link["verdict"]) == (True, "more churn with it")


def test_noise_has_no_signal_at_the_promised_rate():
    rng = np.random.default_rng(1)
    n = [40] * 8
    frames = {f"noise_{i}": (n, rng.binomial(n, 0.25) / n) for i in range(600)}
    table = links(counted(**frames), dict.fromkeys(frames, NUMERIC))
    assert not table["signal"].any()
    assert (table["p_value"] < 0.05).mean() < 0.075
    assert table["mutual_information"].median() == pytest.approx(0, abs=1e-3)
    assert (table["low"] == 0).mean() > 0.95


@pytest.mark.parametrize(
    "rates", [[0.2, 0.25, 0.3, 0.35], [0.8, 0.4, 0.1, 0.02]], ids=["weak", "strong"]
)
def test_the_interval_of_the_uncertainty_coefficient_covers_the_truth(rates):
    n, rng = [200] * 4, np.random.default_rng(2)
    drawn = {f"draw_{i}": (n, rng.binomial(n, rates) / n) for i in range(400)}
    table = links(counted(**drawn), dict.fromkeys(drawn, NUMERIC))
    whole = stats.entropy([np.mean(rates), 1 - np.mean(rates)])
    truth = 1 - np.mean([stats.entropy([rate, 1 - rate]) for rate in rates]) / whole
    assert 0.93 < ((table["low"] <= truth) & (truth <= table["high"])).mean() <= 1
    assert table["uncertainty_coefficient"].mean() == pytest.approx(truth, rel=0.05)


@pytest.mark.parametrize(
    ("rates", "column", "verdict"),
    [
        ([0.1, 0.2, 0.3, 0.4], NUMERIC, "more churn at higher values"),
        ([0.4, 0.39, 0.4, 0.1], NUMERIC, "less churn at higher values"),
        ([0.4, 0.1, 0.1, 0.4], NUMERIC, "churn differs, not in one direction"),
        ([0.1, 0.2, 0.3, 0.4], CATEGORY, "churn differs between values"),
        ([0.3, 0.1], BINARY, "less churn with it"),
        ([0.25, 0.26, 0.24, 0.25], NUMERIC, "no significant signal in 1,200 members"),
    ],
)
def test_the_verdict_states_the_direction(rates, column, verdict):
    assert link_of([1200 // len(rates)] * len(rates), rates, column)["verdict"] == verdict


def test_a_weak_slope_is_detected_that_pearsons_test_misses():
    n, rates = [500] * 8, 0.2 + 0.01 * np.arange(8)
    assert stats.chi2_contingency([n * rates, n * (1 - rates)]).pvalue > 0.05
    link = link_of(n, rates.tolist())
    assert link["p_value"] < 0.005
    assert link["verdict"] == "more churn at higher values"


def test_a_bend_is_detected_that_correlation_misses():
    x = np.tile(np.arange(5.0), 200)
    y = (
        np.random.default_rng(3).random(1000) < np.array([0.6, 0.3, 0.1, 0.3, 0.6])[x.astype(int)]
    ).astype(int)
    X, columns = pd.DataFrame({"a": x}), {"a": NUMERIC}
    assert abs(statistics.correlations(X, y)["pearson_r"].iloc[0]) < 0.1
    link = links(statistics.gradients(X, y, columns), columns).iloc[0]
    assert link["signal"]
    assert "not in one direction" in link["verdict"]


def test_p_values_of_small_groups_equal_the_exact_tests():
    for churned in ([3, 1], [4, 0], [2, 2]):
        rates = [churned[0] / 4, churned[1] / 6]
        table = [churned, [4 - churned[0], 6 - churned[1]]]
        assert link_of([4, 6], rates, BINARY)["p_value"] == pytest.approx(
            stats.fisher_exact(table).pvalue, abs=0.02
        )


def test_a_feature_with_one_known_value_has_nothing_to_compare():
    table = links(
        counted(a=([10, 10], [0, 1]), flat=([20], [0.5])),
        {"flat": NUMERIC, "empty": CATEGORY, "a": BINARY},
    )
    assert table["feature"].tolist() == ["a", "flat", "empty"]
    assert table["verdict"].tolist()[1:] == ["nothing to compare"] * 2
    assert table.loc[1:, ["mutual_information", "low", "p_value", "q_value"]].isna().all(axis=None)
    assert table.loc[0, "q_value"] == table.loc[0, "p_value"]
    everybody_left = links(counted(a=([10, 10], [1, 1])), {"a": NUMERIC})
    assert everybody_left["verdict"].tolist() == ["nothing to compare"]


def test_q_values_are_those_of_benjamini_and_hochberg():
    assert q_values(pd.Series([0.01, np.nan, 0.04, 0.03, 0.5])).tolist() == pytest.approx(
        [0.04, np.nan, 4 * 0.04 / 3, 4 * 0.04 / 3, 0.5], nan_ok=True
    )
    assert q_values(pd.Series([np.nan])).isna().all()


@pytest.mark.parametrize(("n_with", "n_without", "rate"), [(1000, 1000, 0.3), (300, 2700, 0.2)])
def test_the_smallest_difference_is_detected_in_four_of_five_tables(n_with, n_without, rate):
    rng, difference = np.random.default_rng(4), smallest_difference(n_with, n_without, rate)
    left = [
        rng.binomial(n, rate + share, 4000)
        for n, share in (
            (n_with, difference * n_without / (n_with + n_without)),
            (n_without, -difference * n_with / (n_with + n_without)),
        )
    ]
    p = (left[0] + left[1]) / (n_with + n_without)
    z = (left[0] / n_with - left[1] / n_without) / np.sqrt(
        p * (1 - p) * (1 / n_with + 1 / n_without)
    )
    assert (np.abs(z) > 1.96).mean() == pytest.approx(0.8, abs=0.03)


def test_the_seeds_are_right_about_the_real_table_but_for_age(gym_csv: Path):
    """What seed 001 says of each feature; seed 000 finds sex and age to tell little, which is half
    true."""
    table = pd.read_csv(gym_csv)
    X, y = table.drop(columns="Churn").astype("float64"), table["Churn"].to_numpy()
    columns = {name: Column("binary" if set(X[name]) == {0, 1} else "numeric") for name in X}
    found = links(statistics.gradients(X, y, columns), columns).set_index("feature")
    assert found.index[found["signal"]].tolist()[:2] == [
        "Lifetime",
        "Avg_class_frequency_current_month",
    ]
    with_it = ["Near_Location", "Partner", "Promo_friends", "Group_visits"]
    larger = [
        "Contract_period",
        "Age",
        "Month_to_end_contract",
        "Avg_class_frequency_total",
        "Lifetime",
    ]
    assert set(found.loc[with_it, "verdict"]) == {"less churn with it"}
    assert set(found.loc[[*larger, "Avg_class_frequency_current_month"], "verdict"]) == {
        "less churn at higher values"
    }
    assert found.index[~found["signal"]].tolist() == ["Phone", "gender"]
    assert (found.loc[["Phone", "gender"], "high"] < 0.001).all()
    assert found.loc["Age", "low"] > 0.1
