"""Permutation importance against scikit-learn, and for models with known importance."""

import numpy as np
import pandas as pd
import pytest
from sklearn import inspection
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from churnlab.data.contract import Column
from churnlab.evaluation import importance as module
from churnlab.evaluation.calibration import with_calibration
from churnlab.evaluation.importance import group_coefficients, permutation_importance
from churnlab.explore.redundancy import correlated_groups
from churnlab.models.features import Features
from churnlab.models.pipelines import fit, pipeline

COLUMNS = {
    **{
        name: Column("numeric")
        for name in ("age", "visits", "visits_before", "noise", "middle", "spent", "budget")
    },
    "near": Column("binary"),
    "plan": Column("category", values=("basic", "gold", "silver")),
}


def drawn(n: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Draw members who leave if they visit little, are young, live far away, have the silver plan
    or lie far from the middle."""
    rng = np.random.default_rng(seed)
    before = rng.normal(3, 1, n)
    budget = rng.uniform(1, 2, n)
    X = pd.DataFrame(
        {
            "age": rng.normal(30, 5, n),
            "visits": before + rng.normal(0, 0.2, n),
            "visits_before": before,
            "noise": rng.normal(size=n),
            "middle": rng.normal(size=n),
            "spent": budget * rng.uniform(0, 0.99, n),
            "budget": budget,
            "near": rng.integers(0, 2, n).astype("float64"),
            "plan": rng.choice(["basic", "gold", "silver"], n),
        }
    )
    risk = (
        -1.5 * (X["visits"] - 3)
        - 0.15 * (X["age"] - 30)
        - X["near"]
        + 1.5 * (X["plan"] == "silver")
        - 0.5
    )
    risk += 1.5 * (X["middle"].abs() - 0.8)
    return X, (rng.random(n) < 1 / (1 + np.exp(-risk))).astype(int).to_numpy()


def fitted(estimator, keep: list[str], derive: dict[str, str] | None = None, *, scale: bool = True):
    X, y = drawn(1500, seed=0)
    return fit(
        pipeline(estimator, features=Features(keep, derive or {}), columns=COLUMNS, scale=scale),
        X,
        y,
    )


def measured(
    model, groups, *, n: int = 800, repeats: int = 5, seed: int = 0, **more
) -> pd.DataFrame:
    X, y = drawn(n, seed=1)
    return permutation_importance(
        model, X, y, groups, COLUMNS, repeats=repeats, seed=seed, **more
    ).set_index("driver")


ALL = ["age", "visits", "visits_before", "noise", "middle", "near", "plan"]
GROUPS = [["age"], ["visits", "visits_before"], ["noise"], ["middle"], ["near"], ["plan"]]


@pytest.fixture(scope="module")
def logistic():
    return fitted(LogisticRegression(), ALL, {"extreme": "abs(middle)"})


@pytest.fixture(scope="module")
def importance(logistic):
    return measured(logistic, GROUPS)


def test_the_importance_equals_scikit_learns(logistic):
    single = [[name] for name in ALL]
    X, y = drawn(800, seed=1)
    judge = inspection.permutation_importance(
        logistic, X[ALL], y, scoring="neg_log_loss", n_repeats=10, random_state=9
    )
    found = measured(logistic, single, repeats=10)["importance"]
    expected = pd.Series(judge.importances_mean, index=ALL)
    np.testing.assert_allclose(found[ALL], expected, atol=0.05 * expected.max())


def test_the_strongest_come_first_with_intervals_around_them(importance):
    assert importance["importance"].is_monotonic_decreasing
    assert (
        (importance["low"] < importance["importance"])
        & (importance["importance"] < importance["high"])
    ).all()
    assert importance.index[0] == "visits + visits_before"
    assert importance.loc["noise", "low"] < 0 < importance.loc["noise", "high"]


def test_the_direction_says_which_values_raise_the_risk(importance):
    assert importance["direction"].to_dict() == {
        "visits + visits_before": "lower raises the risk",
        "middle": "no one direction",
        "plan": "silver raises the risk",
        "near": "0 raises the risk",
        "age": "lower raises the risk",
        "noise": "no effect shown",
    }


def test_correlated_columns_hide_each_other_unless_shuffled_together():
    forest = fitted(
        RandomForestClassifier(30, random_state=0), ["visits", "visits_before"], scale=False
    )
    apart = measured(forest, [["visits"], ["visits_before"]])
    both = measured(forest, [["visits", "visits_before"]])
    assert both["importance"].iloc[0] > 1.2 * apart["importance"].max()


def test_a_group_with_opposite_directions_lists_them_by_column():
    model = fitted(LogisticRegression(), ["age", "near"])
    model[-1].coef_ = np.array([[2.0, -2.0]])
    X, _ = drawn(500, seed=1)
    y = model.predict(X)
    table = permutation_importance(model, X, y, [["age", "near"]], COLUMNS, repeats=5, seed=0)
    assert table["direction"].tolist() == ["age higher, near = 0 raise the risk"]


def test_a_direction_has_the_words_of_the_table():
    model = fitted(LogisticRegression(), ["age", "visits", "near"])
    words = {"near": {"0": "No", "1": "Yes"}}
    table = measured(model, [["near"]], n=3000, words=words)
    assert table["direction"].tolist() == ["No raises the risk"]


def test_a_constant_model_has_no_drivers():
    table = measured(fitted(DummyClassifier(), ["age", "near"], scale=False), [["age"], ["near"]])
    assert (table[["importance", "low", "high"]] == 0).all(axis=None)
    assert set(table["direction"]) == {"no effect shown"}


def test_a_value_that_a_member_cannot_have_changes_nothing_for_that_member():
    model = fitted(
        LogisticRegression(), ["spent", "budget", "age"], {"left_over": "log(budget - spent)"}
    )
    table = measured(model, [["spent"], ["budget"], ["age"]])
    assert table["importance"].notna().all()
    X, _ = drawn(800, seed=1)
    order = np.random.default_rng(0).permutation(800)
    _, known = model[0].possible(X.assign(spent=X["spent"].to_numpy()[order]))
    assert 0 < known.sum() < 800
    assert group_coefficients(model, X, [["spent"], ["age"]]) is not None


def test_the_same_seed_gives_the_same_importance_and_many_members_are_sampled(
    logistic, importance, monkeypatch
):
    pd.testing.assert_frame_equal(measured(logistic, GROUPS), importance, check_exact=True)
    assert not measured(logistic, GROUPS, seed=1)["importance"].equals(importance["importance"])
    alone = measured(logistic, GROUPS[::-1])
    pd.testing.assert_frame_equal(alone.loc[importance.index], importance, check_exact=True)
    monkeypatch.setattr(module, "MOST", 9000)
    monkeypatch.setattr(module, "FEWEST", 50)
    sampled = measured(logistic, GROUPS)
    assert (sampled["high"] - sampled["low"]).mean() > 1.3 * (
        importance["high"] - importance["low"]
    ).mean()


def test_the_coefficient_of_one_standardized_column_is_the_models_own():
    model = fitted(LogisticRegression(), ["age", "visits", "noise"])
    X, _ = drawn(1500, seed=0)
    merged = group_coefficients(model, X, [["age"], ["visits"], ["noise"]])
    np.testing.assert_allclose(merged, model[-1].coef_[0], rtol=1e-9)


def test_the_coefficient_of_a_pair_is_the_spread_of_its_joint_contribution():
    model = fitted(
        LogisticRegression(C=100),
        ["visits", "visits_before", "age"],
        {"fall": "visits_before - visits"},
    )
    X, _ = drawn(1500, seed=0)
    merged = group_coefficients(model, X, [["visits", "visits_before"], ["age"]])
    contributed = (np.asarray(model[:-1].transform(X)) * model[-1].coef_[0])[:, [0, 1, 3]].sum(
        axis=1
    )
    assert merged["visits + visits_before"] == pytest.approx(-contributed.std())
    assert merged["age"] == pytest.approx(model[-1].coef_[0, 2])


def test_a_calibrated_model_has_the_mean_coefficients_and_a_forest_none():
    X, y = drawn(1500, seed=0)
    plain = pipeline(
        LogisticRegression(), features=Features(["age", "noise"], {}), columns=COLUMNS, scale=True
    )
    model = fit(with_calibration(plain, method="sigmoid", splits=3), X, y)
    parts = [pair.estimator.coef_[0] for pair in model[-1].calibrated_classifiers_]
    np.testing.assert_allclose(
        group_coefficients(model, X, [["age"], ["noise"]]), np.mean(parts, axis=0)
    )
    assert (
        group_coefficients(fitted(RandomForestClassifier(3), ["age"], scale=False), X, [["age"]])
        is None
    )


def test_correlated_columns_of_the_table_form_the_groups():
    X, _ = drawn(1500, seed=0)
    assert correlated_groups(X) == [
        *(
            ["age"],
            ["visits", "visits_before"],
            ["noise"],
            ["middle"],
            ["spent"],
            ["budget"],
            ["near"],
            ["plan"],
        )
    ]
