"""The generated members: the check value, integrity, overrides, and how far they are from the real
table."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import ks_2samp
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, adjusted_rand_score, log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from churnlab.data.demo import COLUMNS, members
from churnlab.data.expressions import derive
from churnlab.errors import InputError

CONF = Path(__file__).parents[2] / "conf"
FEATURES = [name for name in COLUMNS if name != "Churn"]
CURRENT = "Avg_class_frequency_current_month"
FLOATS = ["Avg_additional_charges_total", "Avg_class_frequency_total", CURRENT]


@pytest.fixture(scope="module")
def large() -> pd.DataFrame:
    return members(200_000, seed=0)


@pytest.fixture(scope="module")
def tables() -> list[pd.DataFrame]:
    return [members(4000, seed=seed) for seed in range(20)]


@pytest.fixture(scope="module")
def real(gym_csv: Path) -> pd.DataFrame:
    return pd.read_csv(gym_csv)


def with_behaviour(X: pd.DataFrame) -> pd.DataFrame:
    derived = yaml.safe_load((CONF / "features/behaviour.yaml").read_text())["derive"]
    assert len(derived) == 12
    return derive(X.astype("float64"), derived)


def logistic_regression():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def random_forest(n_estimators=100):
    return RandomForestClassifier(n_estimators, random_state=0)


def auc_and_log_loss(y, proba):
    return roc_auc_score(y, proba), log_loss(y, np.clip(proba, 0.001, 0.999))


def test_the_first_4000_members_are_those_of_the_reference():
    table = members(4000, seed=0)
    assert table["Churn"].sum() == 1057
    assert table["Contract_period"].value_counts().to_dict() == {1: 2250, 6: 775, 12: 975}
    assert (table[CURRENT] == 0).sum() == 163
    assert table[["Age", "Lifetime", FLOATS[0]]].mean().tolist() == pytest.approx(
        [29.138, 3.729, 147.489], abs=5e-4
    )
    assert table[FLOATS[1:]].mean().tolist() == pytest.approx([1.8863, 1.7728], abs=5e-5)


def test_the_columns_are_those_of_the_dataset_in_its_order():
    declared = yaml.safe_load((CONF / "dataset/gym.yaml").read_text())
    assert list(members(1)) == [*declared["columns"], declared["target"]]
    whole = [name for name, dtype in members(50).dtypes.items() if dtype == np.int64]
    assert set(COLUMNS) - set(whole) == {*FLOATS, "Month_to_end_contract"}


@pytest.mark.parametrize("n", [1, 2, 1000])
def test_any_number_of_members_can_be_generated(n):
    assert members(n).shape == (n, 14)


def test_the_same_seed_gives_the_same_members_and_another_seed_others():
    pd.testing.assert_frame_equal(members(500, seed=3), members(500, seed=3))
    assert not members(500, seed=3).equals(members(500, seed=4))


def test_the_frame_equals_what_its_csv_says():
    table = members(3000, seed=5)
    for text in (table.to_csv(index=False), table.to_csv(index=False, float_format="%.6f")):
        pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(text)), table, check_exact=True)


def test_every_generated_member_keeps_the_rules_of_a_contract(large):
    months, contract = large["Month_to_end_contract"], large["Contract_period"]
    assert (months >= 1).all()
    assert (months <= contract).all()
    assert (months[contract == 1] == 1).all()
    assert months[contract > 1].min() == 2
    assert set(contract) == {1, 6, 12}
    assert large["Age"].between(18, 45).all()
    assert (large[[*FLOATS, "Lifetime"]] >= 0).all(axis=None)
    assert not large.isna().any(axis=None)
    assert not large.duplicated().any()


def test_an_override_moves_its_own_column_and_leaves_the_others():
    usual, older = members(2000), members(2000, parameters={"age_stayed_mean": 31})
    assert [name for name in usual if not usual[name].equals(older[name])] == ["Age"]
    assert older["Age"].mean() > usual["Age"].mean() + 0.5


def test_every_kind_of_parameter_can_be_overridden():
    assert members(10_000, parameters={"churn": 0.5})["Churn"].mean() == pytest.approx(
        0.5, abs=0.02
    )
    assert members(100, parameters={"churn": 0})["Churn"].sum() == 0
    far = members(10_000, parameters={"near_intercept": -1.0, "near_churn": 0})
    assert far["Near_Location"].mean() == pytest.approx(0.269, abs=0.02)
    four_left = members(1000, parameters={"months_of_six": [0, 0, 1, 0, 0]})
    assert set(four_left.loc[four_left["Contract_period"] == 6, "Month_to_end_contract"]) == {4.0}
    steady = members(
        10_000, parameters={"visits_change_churned_mean": 0, "visits_change_churned_sd": 0.1}
    )
    assert (steady[CURRENT] == 0).mean() < 0.035


def test_an_unknown_parameter_is_refused_with_those_that_exist():
    with pytest.raises(
        InputError, match=r"no parameter age_mean.*churn, near_intercept.*age_stayed_mean.*phone"
    ):
        members(10, parameters={"age_mean": 31})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("churn", 1.5),
        ("churn", "often"),
        ("age_stayed_sd", -1),
        ("lifetime_stayed_shape", 0),
        ("near_churn", float("nan")),
        ("near_churn", None),
        ("months_of_six", [1, 2]),
        ("months_of_six", [0, 0, 0, 0, 0]),
        ("months_of_six", 3),
        ("age_min", 46),
    ],
)
def test_a_value_that_a_parameter_cannot_have_is_refused(name, value):
    with pytest.raises(InputError, match=name):
        members(10, parameters={name: value})


@pytest.mark.parametrize("n", [0, -5, 2.5, "many"])
def test_a_number_of_members_below_one_or_not_whole_is_refused(n):
    with pytest.raises(InputError, match="whole number of at least 1"):
        members(n)


def test_a_seed_below_zero_is_refused():
    with pytest.raises(InputError, match="seed"):
        members(10, seed=-1)


def test_the_churn_rate_over_eight_seeds_stays_between_the_published_ones(tables):
    rates = [table["Churn"].mean() for table in tables[:8]]
    assert min(rates) == pytest.approx(0.261, abs=5e-4)
    assert max(rates) == pytest.approx(0.280, abs=6e-4)


def test_members_without_a_visit_this_month_are_as_many_and_leave_as_often_as_published(large):
    none = large[CURRENT] == 0
    assert none.mean() == pytest.approx(0.0447, abs=0.001)
    assert large["Churn"][none].mean() == pytest.approx(0.745, abs=0.015)


@pytest.mark.slow
def test_the_course_split_on_ten_tables_scores_as_published(tables):
    def course(table, model):
        X_train, X_test, y_train, y_test = train_test_split(
            table[FEATURES], table["Churn"], test_size=0.2, random_state=0
        )
        proba = model.fit(X_train, y_train).predict_proba(X_test)[:, 1]
        return accuracy_score(y_test, proba > 0.5), roc_auc_score(y_test, proba)

    linear = np.array([course(table, logistic_regression()) for table in tables[:10]])
    assert linear.mean(axis=0) == pytest.approx([0.924, 0.973], abs=0.001)
    assert linear.std(axis=0, ddof=1) == pytest.approx([0.009, 0.004], abs=0.001)
    forest = np.array([course(table, random_forest()) for table in tables[:10]])
    assert forest.mean(axis=0) == pytest.approx([0.915, 0.968], abs=0.002)
    assert forest.std(axis=0, ddof=1) == pytest.approx([0.007, 0.003], abs=0.0015)


def test_no_generated_member_is_a_real_one(real, tables, large):
    ours = pd.concat([*tables, large])[FEATURES]
    theirs = real[FEATURES].round(dict.fromkeys(FLOATS, 6))
    assert ours.merge(theirs, on=FLOATS).empty


def test_every_column_is_distributed_as_in_the_real_table(real, tables, large):
    def distance(table):
        return pd.Series(
            {name: ks_2samp(real[name], table[name], method="asymp").statistic for name in COLUMNS}
        )

    assert distance(large).max() <= 0.0144
    at_4000 = pd.DataFrame([distance(table) for table in tables])
    assert at_4000.mean().max() <= 0.0200
    assert at_4000.max(axis=None) <= 0.0291


def test_every_correlation_is_near_that_of_the_real_table(real, tables, large):
    def difference(table):
        return (table.corr() - real.corr()).abs().max(axis=None)

    assert difference(large) <= 0.042
    assert np.mean([difference(table) for table in tables]) == pytest.approx(0.055, abs=0.001)


@pytest.mark.parametrize(
    ("model", "features", "published", "on_real"),
    [
        (logistic_regression, lambda X: X, (0.9768, 0.1701), (0.9762, 0.1703)),
        (random_forest, lambda X: X, (0.9708, 0.2018), (0.9717, 0.2005)),
        (logistic_regression, with_behaviour, (0.9915, 0.0980), (0.9911, 0.0989)),
    ],
    ids=["logistic_regression", "random_forest", "logistic_regression_behaviour"],
)
def test_a_model_of_generated_members_scores_real_ones_as_well_as_one_of_real_members(
    real, tables, model, features, published, on_real
):
    X, y = features(real[FEATURES]), real["Churn"]
    folds = StratifiedKFold(5, shuffle=True, random_state=100)
    trained_on_real = auc_and_log_loss(
        y, cross_val_predict(model(), X, y, cv=folds, method="predict_proba")[:, 1]
    )
    scores = [
        auc_and_log_loss(
            y, model().fit(features(table[FEATURES]), table["Churn"]).predict_proba(X)[:, 1]
        )
        for table in tables[:3]
    ]
    trained_on_ours = np.mean(scores, axis=0)
    assert trained_on_real == pytest.approx(on_real, abs=0.002)
    assert trained_on_ours[0] == pytest.approx(published[0], abs=0.003)
    assert trained_on_ours[1] == pytest.approx(published[1], abs=0.008)
    assert trained_on_ours[0] == pytest.approx(trained_on_real[0], abs=0.003)
    assert trained_on_ours[1] == pytest.approx(trained_on_real[1], abs=0.006)


@pytest.mark.parametrize(
    "model", [logistic_regression(), random_forest(50)], ids=["linear", "forest"]
)
def test_a_classifier_cannot_tell_generated_members_from_real_ones(real, tables, model):
    together = pd.concat([real, tables[0]], ignore_index=True).round(dict.fromkeys(FLOATS, 6))
    is_real = np.repeat([1, 0], [len(real), len(tables[0])])
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    proba = cross_val_predict(model, together, is_real, cv=folds, method="predict_proba")[:, 1]
    assert 0.45 <= roc_auc_score(is_real, proba) <= 0.52


@pytest.mark.parametrize(("k", "published"), [(4, 0.945), (5, 0.942)])
def test_segments_of_generated_members_are_the_segments_of_real_ones(real, tables, k, published):
    columns = [name for name in FEATURES if name not in ("gender", "Phone")]

    def segments(table):
        return make_pipeline(StandardScaler(), KMeans(k, n_init=5, random_state=0)).fit(
            table[columns]
        )

    theirs, ours = (segments(table).predict(real[columns]) for table in (real, tables[0]))
    assert adjusted_rand_score(theirs, ours) >= published - 0.005
    if k == 4:
        rates = sorted(real["Churn"].groupby(ours).mean())
        assert rates == pytest.approx([0.03, 0.06, 0.39, 0.54], abs=0.06)
