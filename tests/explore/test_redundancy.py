"""Redundant columns and groups: checked against pandas and known groups; coincidences are not
reported."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from churnlab.data.contract import Column
from churnlab.data.demo import members
from churnlab.explore.redundancy import (
    collinear,
    correlated_groups,
    correlation_matrix,
    same_groups,
)


@pytest.fixture
def shop():
    """24 rows of all kinds: a category and a number with gaps, a constant."""
    X = pd.DataFrame(
        {
            "plan": ["basic", "basic", "gold", "gold", "gold", None, "silver", "basic"] * 3,
            "spent": [1.0, 2.0, 3.0, 4.0, np.nan, 6.0, 7.0, 8.0] * 3,
            "app": [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0] * 3,
            "country": [0.1] * 24,
        }
    )
    return X, np.array([1, 1, 0, 0, 0, 0, 0, 1] * 3)


@pytest.fixture(scope="module")
def gym(gym_csv: Path) -> pd.DataFrame:
    return pd.read_csv(gym_csv).drop(columns="Churn").astype("float64")


def test_the_correlation_matrix_starts_with_the_target(shop):
    X, y = shop
    matrix = correlation_matrix(X, y, target="left")
    assert matrix.index[0] == matrix.columns[0] == "left"
    assert matrix.loc["left", "app"] == pytest.approx(np.corrcoef(y, X["app"])[0, 1])
    assert matrix["country"].isna().all()


def test_pairs_are_of_two_columns_and_above_the_limit(shop):
    X, _ = shop
    pairs = collinear(X, limit=0.3)
    assert not (
        pairs["feature_a"].str.startswith("plan") & pairs["feature_b"].str.startswith("plan")
    ).any()
    assert (pairs["pearson_r"].abs() > 0.3).all()
    assert pairs["pearson_r"].abs().is_monotonic_decreasing
    assert set(pairs.loc[0, ["feature_a", "feature_b"]]) == {"plan = gold", "app"}
    assert collinear(X[["country", "spent"]], limit=0.3).empty


def test_columns_that_few_members_have_in_common_are_no_pair():
    X = pd.DataFrame(
        {"a": [*range(9), *[np.nan] * 9], "b": [*range(9), *range(9)]}, dtype="float64"
    )
    assert collinear(X, limit=0.5).empty
    assert len(collinear(pd.concat([X, X]), limit=0.5)) == 1


def test_columns_correlated_through_others_form_one_group():
    rng = np.random.default_rng(0)
    a, level = rng.normal(size=400), rng.choice(["x", "y"], 400)
    b = a + rng.normal(0, 0.4, 400)
    X = pd.DataFrame(
        {
            "c": b + rng.normal(0, 0.42, 400),
            "alone": rng.normal(size=400),
            "a": a,
            "plan": level,
            "b": b,
            "k": 1.0,
        }
    ).assign(is_x=(level == "x").astype(float))
    assert abs(np.corrcoef(X["a"], X["c"])[0, 1]) < 0.9
    assert correlated_groups(X) == [["c", "a", "b"], ["alone"], ["plan", "is_x"], ["k"]]
    assert correlated_groups(X[["alone"]]) == [["alone"]]


def test_the_real_table_has_two_pairs(gym):
    assert [group for group in correlated_groups(gym) if len(group) > 1] == [
        ["Contract_period", "Month_to_end_contract"],
        ["Avg_class_frequency_total", "Avg_class_frequency_current_month"],
    ]


def test_a_cut_that_is_a_group_of_another_column_is_found_through_gaps():
    rng = np.random.default_rng(1)
    age, months = rng.integers(18, 80, 900).astype(float), rng.choice([1.0, 6.0, 12.0], 900)
    X = pd.DataFrame(
        {
            "age": age,
            "senior": (age > 60).astype(float),
            "months": months,
            "visits": rng.random(900),
        }
    )
    X["plan"] = np.where(months == 6, "half a year", np.where(months == 1, "month", "year"))
    X["left_over"] = np.where(months == 1, 1, rng.integers(2, 6, 900)).astype(float)
    X = X.mask(rng.random(X.shape) < 0.05)
    kinds = {"senior": "binary", "plan": "category"}
    found = same_groups(X, {name: Column(kinds.get(name, "numeric")) for name in X})
    rows = {(row.feature_a, row.group_a, row.feature_b, row.group_b) for row in found.itertuples()}
    assert ("age", "> 60", "senior", "= 1") in rows
    assert ("left_over", "<= 1", "months", "<= 1") in rows or (
        "months",
        "<= 1",
        "left_over",
        "<= 1",
    ) in rows
    assert ("left_over", "<= 1", "plan", "= month") in rows
    assert {frozenset((a, b)) for a, _, b, _ in rows} == {
        frozenset(pair)
        for pair in [
            ("age", "senior"),
            ("left_over", "months"),
            ("left_over", "plan"),
            ("months", "plan"),
        ]
    }
    both = X[["age", "senior"]].dropna()
    assert found.set_index("feature_a").loc["age", "n"] == (both["age"] > 60).sum()


def test_a_group_of_a_few_members_is_no_finding():
    X = pd.DataFrame({"rich": [0.0] * 480 + [1.0] * 20, "spent": np.arange(500.0)})
    X["app"] = X["rich"]
    columns = {"rich": Column("binary"), "spent": Column("numeric"), "app": Column("binary")}
    assert same_groups(X, columns).empty
    X["rich"], X["app"] = (X["spent"] >= 450).astype(float), (X["spent"] < 450).astype(float)
    found = same_groups(X, columns).set_index(["feature_a", "feature_b"])
    assert found["group_a"].to_dict() == {
        ("spent", "rich"): "> 449",
        ("spent", "app"): "<= 449",
        ("app", "rich"): "= 0",
    }
    assert set(found["group_b"]) == {"= 1"}


def test_a_coincidence_in_the_sample_is_not_reported():
    x = np.arange(50_000.0)
    tier = (x >= 25_000).astype(float)
    columns = {"x": Column("numeric"), "tier": Column("binary")}
    assert same_groups(pd.DataFrame({"x": x, "tier": tier}), columns)["n"].tolist() == [25_000]
    tier[1] = 1
    assert same_groups(pd.DataFrame({"x": x, "tier": tier}), columns).empty


def test_generated_members_encode_short_contracts_twice():
    X = members(2000).drop(columns="Churn").astype("float64")
    found = same_groups(X, {name: Column("numeric") for name in X})
    assert found[["group_a", "group_b"]].to_numpy().tolist() == [["<= 1", "<= 1"]]
    assert set(found.loc[0, ["feature_a", "feature_b"]]) == {
        "Contract_period",
        "Month_to_end_contract",
    }


def test_the_published_pairs_are_found(gym):
    pairs = collinear(gym, limit=0.3)
    assert pairs["pearson_r"].tolist() == pytest.approx([0.9731, 0.9527, 0.4520, 0.3062], abs=1e-4)
    assert pairs["feature_a"].tolist() == [
        "Contract_period",
        "Avg_class_frequency_total",
        "Partner",
        "Partner",
    ]


def test_one_month_left_is_exactly_a_contract_of_one_month_in_the_real_table(gym):
    found = same_groups(gym, {name: Column("numeric") for name in gym})
    short = int((gym["Contract_period"] == 1).sum())
    assert found.to_numpy().tolist() == [
        ["Month_to_end_contract", "<= 1", "Contract_period", "<= 1", short]
    ]


def test_redundant_columns_are_listed_with_their_correlation():
    x = np.random.default_rng(0).normal(size=300)
    frame = pd.DataFrame(
        {"a": x, "b": -x, "constant": 1.0, "c": np.random.default_rng(1).normal(size=300)}
    )
    assert [
        (one, two, round(r, 6))
        for one, two, r in collinear(frame, limit=0.9).itertuples(index=False)
    ] == [("a", "b", -1.0)]
