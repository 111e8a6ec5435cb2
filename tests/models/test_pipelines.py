import importlib
import io
import warnings
import zipfile

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from churnlab.bundle.skops_types import TRUSTED
from churnlab.data.contract import Column
from churnlab.errors import InputError
from churnlab.models.features import Features
from churnlab.models.pipelines import (
    check_parameters,
    check_settable,
    check_values,
    estimator_weights,
    fit,
    n_columns,
    pipeline,
    without_effect,
)

COLUMNS = {
    "near": Column(kind="binary"),
    "age": Column(kind="numeric", min=14, max=100),
    "plan": Column(kind="category", values=("gold", "basic", "never seen")),
    "city": Column(kind="category"),
}


@pytest.fixture(scope="module")
def members() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    n = 120
    X = pd.DataFrame(
        {
            "near": rng.integers(0, 2, n).astype(float),
            "age": rng.normal(30, 4, n),
            "plan": rng.choice(["gold", "basic"], n),
            "city": rng.choice(["Omsk", "Perm", "Tver"], n),
        }
    )
    y = (
        ((X["age"] - 30) / 4 + (X["plan"] == "gold") + rng.normal(0, 0.7, n) > 0.6)
        .astype(int)
        .to_numpy()
    )
    return X, y


def numeric(estimator, *, scale: bool = True):
    features = Features(["near", "age"], {"age_squared": "age ** 2"})
    return pipeline(estimator, features=features, columns=COLUMNS, scale=scale)


def test_numbers_are_standardized_inside_the_pipeline_if_the_model_scales(members):
    X, y = members
    scaled = fit(numeric(LogisticRegression()), X, y)
    assert isinstance(scaled["prepare"], StandardScaler)
    np.testing.assert_allclose(scaled[:-1].transform(X).mean(axis=0), 0, atol=1e-12)


def test_numbers_pass_through_unchanged_if_the_model_does_not_scale(members):
    X, y = members
    plain = fit(numeric(LogisticRegression(), scale=False), X, y)
    assert plain["prepare"] == "passthrough"
    assert plain[:-1].transform(X)["age_squared"].tolist() == (X["age"] ** 2).tolist()


@pytest.mark.parametrize("scale", [True, False])
def test_categories_become_one_column_per_declared_value(members, scale):
    X, y = members
    features = Features(["near", "plan", "age", "city"], {"age_log": "log(age)"})
    made = fit(
        pipeline(LogisticRegression(), features=features, columns=COLUMNS, scale=scale), X, y
    )
    names = ["near", "age", "age_log", "plan_gold", "plan_basic", "plan_never seen"]
    assert list(made[:-1].get_feature_names_out()) == [
        *names,
        "city_Omsk",
        "city_Perm",
        "city_Tver",
    ]
    prepared = made[:-1].transform(X)
    assert prepared.dtype == np.float64
    assert prepared[:, 3].tolist() == (X["plan"] == "gold").astype(float).tolist()
    if not scale:
        assert prepared[:, 1].tolist() == X["age"].tolist()


def test_an_unknown_category_is_encoded_as_none(members):
    X, y = members
    features = Features(["city", "age"], {})
    made = fit(pipeline(LogisticRegression(), features=features, columns=COLUMNS, scale=True), X, y)
    assert made[:-1].transform(X.iloc[:1].assign(city="Kazan"))[0, 1:].tolist() == [0, 0, 0]


def test_an_ordered_category_is_its_place_among_its_values(members):
    X, y = members
    columns = {"plan": Column("category", values=("basic", "gold", "never seen"), ordered=True)}
    made = fit(
        pipeline(
            LogisticRegression(), features=Features(["plan"], {}), columns=columns, scale=False
        ),
        X,
        y,
    )
    places = made[:-1].transform(X)[:, 0]
    assert places.tolist() == (X["plan"] == "gold").astype(float).tolist()
    assert made[:-1].transform(X.iloc[:1].assign(plan="other"))[0].tolist() == [-1]


@pytest.mark.parametrize("scale", [True, False])
def test_many_values_are_encoded_by_churn_rates_of_other_members_and_saved_without_pickle(scale):
    rng = np.random.default_rng(0)
    towns = pd.Series([f"town {number}" for number in range(600)], dtype="str")
    X, y = pd.DataFrame({"town": towns}), rng.integers(0, 2, 600)
    columns = {"town": Column("category", encoding="target", unknown="accept")}
    made = fit(
        pipeline(
            LogisticRegression(), features=Features(["town"], {}), columns=columns, scale=scale
        ),
        X,
        y,
    )
    again = skops.io.loads(skops.io.dumps(made), trusted=TRUSTED)
    np.testing.assert_array_equal(again.predict_proba(X), made.predict_proba(X))
    assert abs(made["estimator"].coef_[0, 0]) < 1, (
        "each town is one member: without cross-fitting its rate would be the outcome"
    )
    new = made.predict_proba(X.assign(town="nowhere"))[:, 1]
    assert new == pytest.approx(y.mean(), abs=0.05)


def test_the_pipeline_selects_columns_by_name(members):
    X, y = members
    made = fit(numeric(LogisticRegression()), X, y)
    shuffled = X[["city", "age", "plan", "near"]]
    np.testing.assert_array_equal(made.predict_proba(shuffled), made.predict_proba(X))


def test_coefficients_are_per_standard_deviation_the_largest_first(members):
    X, y = members
    made = fit(numeric(LogisticRegression()), X, y)
    table = estimator_weights(made)
    assert table.columns.tolist() == ["feature", "value", "kind"]
    assert set(table["kind"]) == {"coefficient"}
    assert table["value"].abs().is_monotonic_decreasing
    by_name = dict(zip(table["feature"], table["value"], strict=True))
    assert by_name == dict(
        zip(["near", "age", "age_squared"], made["estimator"].coef_[0], strict=True)
    )


def test_forests_give_importances_that_sum_to_one(members):
    X, y = members
    table = estimator_weights(
        fit(numeric(RandomForestClassifier(10, random_state=0), scale=False), X, y)
    )
    assert set(table["kind"]) == {"importance"}
    assert table["value"].sum() == pytest.approx(1)


def test_a_calibrated_forest_has_the_mean_importances_of_its_forests(members):
    X, y = members
    forest = RandomForestClassifier(5, random_state=0)
    made = fit(numeric(CalibratedClassifierCV(forest, method="sigmoid", cv=3), scale=False), X, y)
    parts = [
        pair.estimator.feature_importances_ for pair in made["estimator"].calibrated_classifiers_
    ]
    by_name = estimator_weights(made).set_index("feature")["value"]
    np.testing.assert_allclose(by_name[["near", "age", "age_squared"]], np.mean(parts, axis=0))


def test_the_columns_that_the_estimator_sees_are_counted_with_derived_ones_and_levels(members):
    X, y = members
    assert n_columns(fit(numeric(LogisticRegression(), scale=False), X, y)) == 3
    features = Features(["near", "plan", "city"], {"twice": "near * 2"})
    made = fit(pipeline(LogisticRegression(), features=features, columns=COLUMNS, scale=True), X, y)
    assert n_columns(made) == made["estimator"].n_features_in_ == 2 + 3 + 3


@pytest.mark.parametrize(
    "estimator", [DummyClassifier(), KNeighborsClassifier(), HistGradientBoostingClassifier()]
)
def test_estimators_without_weights_give_an_empty_table(members, estimator):
    table = estimator_weights(fit(numeric(estimator), *members))
    assert table.columns.tolist() == ["feature", "value", "kind"]
    assert len(table) == 0


SAVED = [
    DummyClassifier(strategy="prior"),
    LogisticRegression(),
    RandomForestClassifier(5, random_state=0),
    ExtraTreesClassifier(5, random_state=0),
    HistGradientBoostingClassifier(max_iter=5),
    HistGradientBoostingClassifier(max_iter=5, early_stopping=True, random_state=0),
    GradientBoostingClassifier(n_estimators=5),
    Pipeline([("spline", SplineTransformer()), ("logistic", LogisticRegression())]),
    DecisionTreeClassifier(max_depth=3),
    KNeighborsClassifier(),
    KNeighborsClassifier(algorithm="ball_tree", p=1),
    GaussianNB(),
    MLPClassifier((3,), max_iter=20, random_state=0),
    MLPClassifier((3,), solver="sgd", max_iter=20, random_state=0),
    CalibratedClassifierCV(RandomForestClassifier(5, random_state=0), method="isotonic", cv=3),
    CalibratedClassifierCV(LogisticRegression(), method="sigmoid", cv=3),
    CalibratedClassifierCV(LogisticRegression(), method="temperature", cv=3),
    CalibratedClassifierCV(SVC(), method="sigmoid", cv=3, ensemble=False),
    VotingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], voting="soft"),
    StackingClassifier(
        [("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=2))], cv=3
    ),
]


@pytest.mark.parametrize("estimator", SAVED, ids=lambda estimator: str(estimator)[:60])
def test_a_saved_pipeline_loads_with_the_reviewed_types_and_predicts_the_same(members, estimator):
    X, y = members
    features = Features(["near", "age", "plan"], {"age_squared": "age ** 2"})
    made = pipeline(estimator, features=features, columns=COLUMNS, scale=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a net of three units does not converge in 20 steps
        fit(made, X, y)
    loaded = skops.io.loads(skops.io.dumps(made), trusted=TRUSTED)
    np.testing.assert_array_equal(loaded.predict_proba(X), made.predict_proba(X))


def test_a_probability_machine_of_svc_survives_saving(members):
    X, y = members
    made = numeric(SVC(probability=True, random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # probability=True is on its way out of scikit-learn
        fit(made, X, y)
    loaded = skops.io.loads(skops.io.dumps(made), trusted=TRUSTED)
    np.testing.assert_array_equal(loaded.predict_proba(X), made.predict_proba(X))


BOOSTING = {
    "lightgbm": ("LGBMClassifier", {"n_estimators": 5, "n_jobs": 1, "verbose": -1}),
    "xgboost": ("XGBClassifier", {"n_estimators": 5, "n_jobs": 1}),
    "catboost": (
        "CatBoostClassifier",
        {"iterations": 5, "thread_count": 1, "verbose": False, "allow_writing_files": False},
    ),
}


@pytest.mark.parametrize("package", BOOSTING)
@pytest.mark.parametrize("calibrated", [False, True])
def test_a_saved_boosting_model_loads_with_the_reviewed_types_and_predicts_the_same(
    members, package, calibrated
):
    name, parameters = BOOSTING[package]
    estimator = getattr(pytest.importorskip(package), name)(**parameters)
    X, y = members
    if calibrated:
        estimator = CalibratedClassifierCV(estimator, method="isotonic", cv=3)
    made = fit(numeric(estimator, scale=False), X, y)
    saved = skops.io.dumps(made)
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        for part in archive.namelist():
            assert not archive.read(part).startswith(b"\x80"), f"{part} is a pickle"
    loaded = skops.io.loads(saved, trusted=TRUSTED)
    np.testing.assert_array_equal(loaded.predict_proba(X), made.predict_proba(X))


@pytest.mark.parametrize("name", TRUSTED)
def test_every_reviewed_type_exists(name):
    module, _, attribute = name.rpartition(".")
    if module.partition(".")[0] in BOOSTING:
        pytest.importorskip(module)
    assert hasattr(importlib.import_module(module), attribute)


LOGISTIC = "sklearn.linear_model.LogisticRegression"


def test_known_parameters_are_accepted():
    check_parameters(LOGISTIC, {"_target_": LOGISTIC, "C": 1.0, "max_iter": 10})
    check_parameters(
        LOGISTIC, {"C": {"_target_": "optuna.distributions.FloatDistribution", "low": 1, "high": 2}}
    )


def test_an_unknown_parameter_is_refused_with_a_suggestion_and_the_full_list():
    with pytest.raises(InputError) as error:
        check_parameters(LOGISTIC, {"max_itre": 5})
    for part in ["model.estimator.max_itre", "Did you mean max_iter?", "C, l1_ratio", LOGISTIC]:
        assert part in str(error.value)


def test_an_unknown_key_of_the_search_space_is_refused_by_its_own_name():
    with pytest.raises(InputError, match=r"model\.space\.depth: .* Did you mean max_depth\?"):
        check_parameters("sklearn.tree.DecisionTreeClassifier", {"depth": {}}, where="model.space")


@pytest.mark.parametrize(
    ("target", "word", "meant"),
    [
        ("lightgbm.LGBMClassifier", "max_depht", "max_depth"),
        ("lightgbm.LGBMClassifier", "num_leafs", "num_leaves"),
        ("xgboost.XGBClassifier", "learning_rte", "learning_rate"),
    ],
)
def test_a_slip_of_the_pen_is_refused_although_the_class_takes_any_keyword(target, word, meant):
    pytest.importorskip(target.partition(".")[0])
    with pytest.raises(InputError, match=rf"Did you mean {meant}\? It has .*n_estimators"):
        check_parameters(target, {word: 3})
    check_parameters(target, {"path_smooth": 1.0, "colsample_bynode": 0.5})


@pytest.mark.parametrize("target", ["lightgbm.LGBMClassifier", "xgboost.XGBClassifier"])
def test_only_a_keyword_that_a_class_takes_and_drops_has_no_effect(target):
    module = pytest.importorskip(target.partition(".")[0])
    given = {"_target_": target, "n_estimators": 3, "path_smooth": 1.0, "verbose": -1}
    made = getattr(module, target.rpartition(".")[2])(n_estimators=3, path_smooth=1.0, verbose=-1)
    assert without_effect(target, given, made.get_params()) == {}
    assert without_effect(target, given | {"lost": 1}, made.get_params()) == {target: ["lost"]}
    outer, nested = "sklearn.calibration.CalibratedClassifierCV", {"estimator": given}
    kept = CalibratedClassifierCV(made).get_params(deep=True)
    assert without_effect(outer, nested, kept) == {}
    nested = {"estimator": given | {"lost": 1}}
    assert without_effect(outer, nested, kept) == {target: ["lost"]}
    assert without_effect(LOGISTIC, {"_target_": LOGISTIC, "C": 1}, ()) == {}


def test_a_parameter_in_another_case_is_suggested():
    with pytest.raises(InputError, match=r"Did you mean C\?"):
        check_parameters(LOGISTIC, {"c": 1.0})


def test_parameters_of_steps_are_checked_by_their_full_names():
    steps = Pipeline([("scaler", StandardScaler()), ("logistic", LogisticRegression())])
    check_settable(steps, "Pipeline", ["logistic__C"], where="model.space")
    with pytest.raises(InputError, match=r"model\.space\.logistic__c: .* Did you mean logistic__C"):
        check_settable(steps, "Pipeline", ["logistic__c"], where="model.space")
    with pytest.raises(InputError, match=r"model\.space\.C: .* It has steps"):
        check_settable(steps, "Pipeline", ["C"], where="model.space")


def test_blocks_in_a_list_are_checked_too():
    steps = [["logistic", {"_target_": LOGISTIC, "max_itre": 5}]]
    with pytest.raises(InputError, match=r"model\.estimator\.steps\.max_itre: "):
        check_parameters("sklearn.pipeline.Pipeline", {"steps": steps})


def test_a_class_without_get_params_is_refused():
    class Rate:
        def predict_proba(self, X):
            return X

    with pytest.raises(InputError, match="derive it from sklearn.base.BaseEstimator"):
        check_values(Rate())


def test_parameters_of_an_estimator_inside_an_estimator_are_checked_too():
    inner = {"_target_": LOGISTIC, "c": 1.0}
    with pytest.raises(InputError, match=r"model\.estimator\.estimator\.c: "):
        check_parameters("sklearn.calibration.CalibratedClassifierCV", {"estimator": inner})


def test_the_data_of_a_decision_function_are_no_parameters():
    check_parameters("churnlab.models.decision.fixed", {"value": 0.4}, where="decision")
    with pytest.raises(
        InputError, match=r"decision\.valeu: .* Did you mean value\? It has value\."
    ):
        check_parameters("churnlab.models.decision.fixed", {"valeu": 0.4}, where="decision")


@pytest.mark.parametrize(
    "target",
    ["sklearn.linear_model.LogistiRegression", "no.such.package.Model", "nothing", "", ".a"],
)
def test_a_class_that_cannot_be_imported_is_an_input_error(target):
    with pytest.raises(InputError, match="cannot be imported"):
        check_parameters(target, {})


@pytest.mark.parametrize(
    "target", ["sklearn.linear_model.Ridge", "sklearn.svm.LinearSVC", "sklearn.cluster.KMeans"]
)
def test_a_class_without_probabilities_is_refused(target):
    with pytest.raises(InputError, match="has no predict_proba"):
        check_parameters(target, {})


def test_a_target_that_is_not_callable_is_refused():
    with pytest.raises(InputError, match="is not a class"):
        check_parameters("sklearn.__version__", {})


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(C=-1),
        RandomForestClassifier(max_depth="deep"),
        CalibratedClassifierCV(LogisticRegression(C=-1)),
    ],
)
def test_values_that_scikit_learn_refuses_are_input_errors(estimator):
    with pytest.raises(InputError, match="parameter of"):
        check_values(estimator)


def test_an_estimator_whose_parameters_disable_probabilities_is_refused():
    with pytest.raises(InputError, match="SVC with these parameters has no predict_proba"):
        check_values(SVC())


def test_good_values_are_accepted():
    check_values(CalibratedClassifierCV(RandomForestClassifier(max_depth=3), method="isotonic"))
