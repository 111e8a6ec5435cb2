"""What explore computes: known answers on small tables, scipy and the bootstrap as judges, the
published figures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from churnlab.data.contract import Column
from churnlab.data.demo import members
from churnlab.errors import InputError
from churnlab.explore import statistics

BINARY = ("gender", "Near_Location", "Partner", "Promo_friends", "Phone", "Group_visits")


def as_dataset(table: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray, dict[str, Column]]:
    X = table.drop(columns="Churn").astype("float64")
    return (
        X,
        table["Churn"].to_numpy(),
        {name: Column("binary" if name in BINARY else "numeric") for name in X},
    )


@pytest.fixture(scope="module")
def gym(gym_csv: Path):
    return as_dataset(pd.read_csv(gym_csv))


@pytest.fixture(scope="module")
def demo():
    return as_dataset(members(3000, seed=1))


@pytest.fixture
def shop():
    """Eight rows: a category and a number with a missing value each, and a constant."""
    X = pd.DataFrame(
        {
            "plan": ["basic", "basic", "gold", "gold", "gold", None, "silver", "basic"],
            "spent": [1.0, 2.0, 3.0, 4.0, np.nan, 6.0, 7.0, 8.0],
            "app": [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0],
            "country": [7.0] * 8,
        }
    )
    y = np.array([1, 1, 0, 0, 0, 0, 0, 1])
    kinds = {"plan": "category", "spent": "numeric", "app": "binary", "country": "numeric"}
    return X, y, {name: Column(kind) for name, kind in kinds.items()}


def row_of(table: pd.DataFrame, feature: str) -> pd.Series:
    return table.set_index("feature").loc[feature]


# Columns one by one


def test_the_summary_counts_distinct_values_and_measures_the_spread(shop):
    X, _, columns = shop
    table = statistics.summary(X, columns).set_index("feature")
    assert list(table.index) == list(X)
    assert table["distinct"].tolist() == [3, 7, 2, 1]
    assert table.loc["spent", ["min", "q25", "median", "q75", "max"]].tolist() == [
        1,
        2.5,
        4,
        6.5,
        8,
    ]
    assert table.loc["spent", "mean"] == pytest.approx(31 / 7)
    assert table.loc["spent", "sd"] == pytest.approx(np.std([1, 2, 3, 4, 6, 7, 8], ddof=1))
    assert table.loc["plan", ["median", "mean"]].isna().all()


def test_completeness_compares_members_with_and_without_a_value():
    y = np.repeat([1, 0, 1, 0], [60, 40, 100, 300])
    X = pd.DataFrame(
        {"age": [*[np.nan] * 100, *[30.0] * 400], "city": ["a", "b"] * 250, "note": [None] * 500}
    )
    table = statistics.completeness(X.astype({"city": "str", "note": "str"}), y)
    assert table["feature"].tolist() == ["note", "age", "city"]
    assert table[["missing", "share"]].to_numpy().tolist() == [[500, 1], [100, 0.2], [0, 0]]
    age = row_of(table, "age")
    assert age[["churn_missing", "churn_known", "risk_ratio"]].tolist() == pytest.approx(
        [0.6, 0.25, 2.4]
    )
    assert 1 < age["low"] < 2.4 < age["high"]
    assert age["q_value"] == age["p_value"] < 1e-9  # the other two have nobody to compare with
    assert row_of(table, "note")[["risk_ratio", "p_value", "q_value"]].isna().all()


def test_class_means_are_standardized_by_the_spread_within_the_classes():
    X = pd.DataFrame({"a": [0.0, 2.0, 10.0, 14.0], "flat": [1.0] * 4})
    table = statistics.class_means(X, np.array([0, 0, 1, 1]))
    a = row_of(table, "a")
    assert [a["mean_stayed"], a["mean_churned"], a["difference"]] == [1, 12, 11]
    assert a["standardised_difference"] == pytest.approx(11 / np.sqrt((2 + 8) / 2))
    assert row_of(table, "flat")[["low", "high", "standardised_difference"]].isna().all()
    assert table["feature"].tolist() == ["a", "flat"]


def test_the_difference_of_means_has_welchs_interval(demo):
    X, y, _ = demo
    X = X[["Age", "Lifetime", "Near_Location"]].mask(
        np.random.default_rng(0).random((len(X), 3)) < 0.1
    )
    table = statistics.class_means(X, y)
    for name in X:
        left, stayed = (X[name][y == outcome].dropna() for outcome in (1, 0))
        expected = stats.ttest_ind(left, stayed, equal_var=False).confidence_interval(0.95)
        assert row_of(table, name)[["low", "high"]].tolist() == pytest.approx([*expected])


def test_levels_become_columns_and_a_missing_level_stays_missing(shop):
    X, *_ = shop
    table = statistics.numeric_columns(X)
    assert list(table) == [
        "plan = basic",
        "plan = gold",
        "plan = silver",
        "spent",
        "app",
        "country",
    ]
    assert table["plan = gold"].tolist()[:5] == [0, 0, 1, 1, 1]
    assert table.loc[5, ["plan = basic", "plan = gold", "plan = silver"]].isna().all()


# Correlations


def test_correlations_agree_with_scipy_and_scikit_learn(demo):
    X, y, _ = demo
    table = statistics.correlations(X, y).set_index("feature")
    for name in X:
        pearson = stats.pearsonr(X[name], y)
        assert table.loc[name, ["pearson_r", "p_value"]].tolist() == pytest.approx([*pearson])
        assert table.loc[name, "spearman_r"] == pytest.approx(stats.spearmanr(X[name], y).statistic)
        assert table.loc[name, "auc"] == pytest.approx(roc_auc_score(y, X[name]))


def test_the_interval_of_a_correlation_is_that_of_the_bootstrap(demo):
    X, y, _ = demo
    table = statistics.correlations(X, y)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(X), (1000, len(X)))
    for name in ("Lifetime", "Avg_class_frequency_current_month", "gender"):
        x = X[name].to_numpy()
        drawn = [np.corrcoef(x[row], y[row])[0, 1] for row in rows]
        ours = row_of(table, name)[["low", "high"]].tolist()
        assert ours == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.005)


def test_a_constant_column_has_no_correlation_and_comes_last(shop):
    X, y, _ = shop
    table = statistics.correlations(X, y)
    assert table["feature"].iloc[-1] == "country"
    assert table.drop(columns="feature").iloc[-1].isna().all()


def test_a_column_that_is_the_target_has_a_correlation_of_one_without_width():
    y = np.array([0, 1, 1, 0, 1])
    table = statistics.correlations(pd.DataFrame({"leak": y.astype(float)}), y)
    assert table.loc[0, ["pearson_r", "low", "high", "auc"]].tolist() == pytest.approx([1, 1, 1, 1])


def test_a_missing_value_leaves_the_other_rows_in(shop):
    X, y, _ = shop
    known = X["spent"].notna()
    expected = stats.pearsonr(X["spent"][known], y[known]).statistic
    assert row_of(statistics.correlations(X, y), "spent")["pearson_r"] == pytest.approx(expected)


def test_correlations_are_sorted_by_size(demo):
    sizes = statistics.correlations(*demo[:2])["pearson_r"].abs()
    assert sizes.is_monotonic_decreasing


# Drivers


def test_a_risk_ratio_is_that_of_the_textbook():
    """Aspirin and myocardial infarction: Agresti, Categorical Data Analysis, 2.2.2: 1.82, 1.43 to
    2.31 for placebo."""
    exposed = np.repeat([True, False], [11034, 11037])
    y = np.concatenate([np.repeat([1, 0], [189, 10845]), np.repeat([1, 0], [104, 10933])])
    ratio = statistics.risk_ratio(exposed, y)
    assert [ratio["n_with"], ratio["n_without"]] == [11034, 11037]
    assert [ratio["risk_ratio"], ratio["low"], ratio["high"]] == pytest.approx(
        [1.82, 1.43, 2.31], abs=0.005
    )
    assert ratio["p_value"] == pytest.approx(stats.chi2.sf(25.01, 1), rel=0.01)


def test_a_side_where_nobody_left_has_a_ratio_of_zero_and_an_interval():
    exposed = np.repeat([True, False], [50, 50])
    y = np.concatenate([np.zeros(50, int), np.repeat([1, 0], [20, 30])])
    none = statistics.risk_ratio(exposed, y)
    assert none["risk_ratio"] == none["low"] == 0
    assert 0 < none["high"] < 0.5
    all_of_them = statistics.risk_ratio(~exposed, y)
    assert all_of_them["risk_ratio"] == all_of_them["high"] == np.inf
    assert all_of_them["low"] == pytest.approx(1 / none["high"])


def test_few_members_get_an_exact_test():
    exposed = np.array([True] * 4 + [False] * 6)
    y = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 1])
    expected = stats.fisher_exact([[3, 1], [1, 5]]).pvalue
    assert statistics.risk_ratio(exposed, y)["p_value"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("exposed", "y"),
    [([True] * 4, [0, 1, 0, 1]), ([True, True, False, False], [0] * 4)],
    ids=["nobody is without", "nobody left"],
)
def test_there_is_no_ratio_without_a_comparison(exposed, y):
    ratio = statistics.risk_ratio(np.array(exposed), np.array(y))
    assert np.isnan([ratio[name] for name in ("risk_ratio", "low", "high", "p_value")]).all()


def test_every_kind_of_column_has_its_splits_and_a_constant_has_none(shop):
    table = statistics.risk_ratios(*shop)
    splits = {(row.feature, row.split) for row in table.itertuples()}
    assert splits == {
        ("plan", "= basic"),
        ("plan", "= gold"),
        ("plan", "= silver"),
        ("spent", "> 4"),
        ("app", "= 1"),
    }
    spent = row_of(table, "spent")
    assert [spent["n_with"], spent["n_without"]] == [3, 4]
    assert [spent["churn_with"], spent["churn_without"]] == pytest.approx([1 / 3, 2 / 4])


def test_a_cut_can_be_declared(shop):
    X, y, columns = shop
    table = statistics.risk_ratios(X, y, columns | {"spent": Column("numeric", cut=1)})
    assert row_of(table, "spent")["split"] == "> 1"
    assert row_of(table, "spent")["n_with"] == 6


@pytest.mark.parametrize(("name", "cut"), [("spent", 8), ("spent", 0.5), ("plan", 1), ("app", 0.5)])
def test_a_cut_with_nobody_on_one_side_is_refused(shop, name, cut):
    X, y, columns = shop
    with pytest.raises(InputError, match=name):
        statistics.risk_ratios(X, y, columns | {name: Column(columns[name].kind, cut=cut)})


def test_the_surest_driver_leads_and_a_tiny_group_does_not(demo):
    X, y, columns = demo
    first_two_who_stayed = (np.cumsum(1 - y) <= 2) & (y == 0)
    X = X.assign(vip=first_two_who_stayed.astype("float64"))
    table = statistics.risk_ratios(X, y, columns | {"vip": Column("binary")})
    assert table["feature"].iloc[0] == "Lifetime"
    vip = row_of(table, "vip")
    assert vip["risk_ratio"] == 0
    assert vip["high"] > 1


def test_a_table_of_constants_has_no_drivers_and_no_gradients():
    X, columns = pd.DataFrame({"a": [1.0] * 4}), {"a": Column("numeric")}
    y = np.array([0, 1, 0, 1])
    assert list(statistics.risk_ratios(X, y, columns))[:4] == [
        "feature",
        "split",
        "n_with",
        "n_without",
    ]
    assert statistics.risk_ratios(X, y, columns).empty
    assert statistics.gradients(X, y, columns).empty


def test_a_column_without_values_is_skipped():
    X = pd.DataFrame(
        {
            "plan": ["a", "b", "a", "b"],
            "note": pd.Series([None] * 4, dtype="str"),
            "age": [np.nan] * 4,
        }
    )
    y, columns = (
        np.array([0, 1, 0, 1]),
        {"plan": Column("category"), "note": Column("category"), "age": Column("numeric")},
    )
    assert statistics.summary(X, columns)["distinct"].tolist() == [2, 0, 0]
    assert statistics.class_means(X, y)["feature"].tolist() == ["plan = a", "plan = b", "age"]
    assert statistics.correlations(X, y)["feature"].tolist() == ["plan = a", "plan = b", "age"]
    for compute in (statistics.risk_ratios, statistics.gradients, statistics.histograms):
        assert set(compute(X, y, columns)["feature"]) == {"plan"}


# Gradients and histograms


def test_gradients_count_every_member_once(demo, shop):
    for X, y, columns in (demo, shop):
        table = statistics.gradients(X, y, columns).groupby("feature", sort=False)
        for name, rows in table:
            assert rows["n"].sum() == X[name].notna().sum()
            assert rows["churned"].sum() == y[X[name].notna()].sum()


def test_gradients_have_wilson_intervals(demo):
    table = statistics.gradients(*demo)
    z, p, n = stats.norm.ppf(0.975), table["churn_rate"], table["n"]
    middle, half = (
        (p + z**2 / (2 * n)) / (1 + z**2 / n),
        np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)),
    )
    half = half * z / (1 + z**2 / n)
    assert table["low"].to_numpy() == pytest.approx((middle - half).to_numpy(), abs=1e-12)
    assert table["high"].to_numpy() == pytest.approx((middle + half).to_numpy(), abs=1e-12)


def test_the_column_along_which_churn_varies_most_comes_first(demo):
    order = statistics.gradients(*demo)["feature"].drop_duplicates().tolist()
    assert order[0] == "Lifetime"
    assert {"gender", "Phone"} <= set(order[-3:])


def test_histograms_are_shares_of_those_who_stayed_and_who_left(demo, shop):
    for X, y, columns in (demo, shop):
        table = statistics.histograms(X, y, columns)
        assert table["feature"].drop_duplicates().tolist() == list(X)
        assert table.groupby("feature")[["stayed", "churned"]].sum().to_numpy() == pytest.approx(1)
    by_value = statistics.histograms(*demo).query("feature == 'Contract_period'")
    assert by_value["value"].tolist() == ["1", "6", "12"]
    assert by_value["stayed"].iloc[2] == pytest.approx(
        (demo[0]["Contract_period"][demo[1] == 0] == 12).mean()
    )


def test_one_far_value_does_not_empty_a_histogram():
    values = np.append(np.random.default_rng(0).normal(size=999), 1e6)
    table = statistics.histograms(
        pd.DataFrame({"a": values}), np.arange(1000) % 2, {"a": Column("numeric")}
    )
    assert table["right"].max() < 5
    assert (table["stayed"] > 0).mean() > 0.9


@pytest.mark.slow
def test_a_million_members_are_explored_without_trouble():
    X, y, columns = as_dataset(members(1_000_000))
    assert len(statistics.correlations(X, y)) == 13
    assert len(statistics.risk_ratios(X, y, columns)) == 13
    assert statistics.gradients(X, y, columns)["n"].sum() == 13_000_000


# The real table


def test_the_published_correlations_are_found(gym):
    X, y, _ = gym
    published = {
        "Lifetime": -0.4382,
        "Avg_class_frequency_current_month": -0.4123,
        "Age": -0.4047,
        "Contract_period": -0.3900,
        "Month_to_end_contract": -0.3814,
        "Avg_class_frequency_total": -0.2497,
        "Avg_additional_charges_total": -0.1987,
        "Group_visits": -0.1753,
        "Promo_friends": -0.1622,
        "Partner": -0.1580,
        "Near_Location": -0.1281,
        "Phone": -0.0012,
        "gender": 0.0007,
    }
    table = statistics.correlations(X, y)
    assert table["feature"].tolist() == list(published)
    assert dict(zip(table["feature"], table["pearson_r"], strict=True)) == pytest.approx(
        published, abs=1e-4
    )
    table = table.set_index("feature")
    assert (table.loc[["Phone", "gender"], "p_value"] > 0.9).all()
    spearman = {"Lifetime": -0.583, "Avg_class_frequency_current_month": -0.420}
    spearman |= {"Contract_period": -0.402, "Age": -0.402}
    assert table.loc[[*spearman], "spearman_r"].to_dict() == pytest.approx(spearman, abs=6e-4)


def test_the_published_intervals_of_correlations_are_found(gym):
    table = statistics.correlations(*gym[:2])
    published = {
        "Lifetime": (-0.452, -0.421),
        "Avg_class_frequency_current_month": (-0.434, -0.389),
        "Age": (-0.430, -0.379),
        "Contract_period": (-0.410, -0.371),
    }
    for name, interval in published.items():
        assert row_of(table, name)[["low", "high"]].tolist() == pytest.approx(interval, abs=0.003)


@pytest.mark.parametrize(
    ("feature", "churn_with", "churn_without", "ratio", "low", "high"),
    [
        ("Near_Location", 0.241, 0.397, 0.61, 0.54, 0.68),
        ("Partner", 0.194, 0.333, 0.58, 0.52, 0.65),
        ("Promo_friends", 0.158, 0.313, 0.50, 0.44, 0.58),
        ("Group_visits", 0.173, 0.330, 0.52, 0.46, 0.59),
        ("gender", 0.266, 0.265, 1.00, 0.90, 1.11),
        ("Phone", 0.265, 0.267, 0.99, 0.83, 1.18),
    ],
)
def test_the_published_risk_ratios_are_found(
    gym, feature, churn_with, churn_without, ratio, low, high
):
    found = row_of(statistics.risk_ratios(*gym), feature)
    assert found[["churn_with", "churn_without"]].tolist() == pytest.approx(
        [churn_with, churn_without], abs=5.1e-4
    )
    assert found[["risk_ratio", "low", "high"]].tolist() == pytest.approx(
        [ratio, low, high], abs=0.0051
    )
    assert (found["p_value"] > 0.05) == (feature in ("gender", "Phone"))


@pytest.mark.parametrize(
    ("feature", "cut", "published"),
    [("Contract_period", 1, (5.97, 5.02, 7.11)), ("Lifetime", 1, (6.72, 5.92, 7.63))],
)
def test_the_published_ratios_of_short_contracts_and_new_members_are_found(
    gym, feature, cut, published
):
    X, y, _ = gym
    ratio = statistics.risk_ratio((X[feature] <= cut).to_numpy(), y)
    assert [ratio["risk_ratio"], ratio["low"], ratio["high"]] == pytest.approx(
        published, abs=0.0051
    )


def test_the_published_gradients_are_found(gym):
    table = statistics.gradients(*gym).set_index(["feature", "value"])["churn_rate"]
    assert table["Contract_period"].tolist() == pytest.approx([0.4232, 0.1248, 0.0240], abs=1e-4)
    assert table["Lifetime"].tolist()[:4] == pytest.approx([0.8275, 0.491, 0.257, 0.102], abs=5e-4)
    assert table["Age", "18–24"] == pytest.approx(0.662, abs=5e-4)
    assert table["Avg_class_frequency_current_month", "0"] == pytest.approx(0.740, abs=5e-4)
