"""A version computes from arrays what its saved pipeline predicts, to the last digits."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import SplineTransformer

from churnlab.bundle import arrays
from churnlab.data import expressions
from churnlab.data.contract import Column
from churnlab.models import pipelines
from churnlab.models.features import Features, typical
from churnlab.registry.array_check import CODE, parts_by_arrays, with_gaps
from churnlab.segments.clusterers import Gaussians, MixedClasses, NearestCenter

NUMBERS = ["age", "spent", "visits"]
BANDS = ["1-3", "4-9", "10"]
COLUMNS = {
    **{name: Column(kind="numeric") for name in NUMBERS},
    "plan": Column(kind="category"),
    "city": Column(kind="category", encoding="target"),
    "band": Column(kind="category", values=BANDS, ordered=True),
}
DERIVE = {
    "a visit": "spent / (visits + 1)",
    "seldom": "`a visit` > 50 and not visits in [3, 4]",
    "log_age": "log1p(age)",
}
SEGMENTS = {"log_spent": "log1p(spent)", "age": "age", "seldom": "visits < 2"}
SPLINES = Pipeline(
    [
        ("spline", SplineTransformer(n_knots=4, extrapolation="linear")),
        ("logistic", LogisticRegression(C=10, max_iter=1000)),
    ]
)
BY_ARRAYS = {
    "logistic regression": (LogisticRegression(max_iter=1000), True),
    "without scaling": (LogisticRegression(max_iter=10_000), False),
    "splines": (SPLINES, True),
    "forest": (RandomForestClassifier(20, random_state=0), False),
    "extra trees": (ExtraTreesClassifier(20, random_state=0), False),
    "boosting": (HistGradientBoostingClassifier(max_iter=30, random_state=0), False),
    "dummy": (DummyClassifier(), False),
    "calibrated logistic regression": (
        CalibratedClassifierCV(LogisticRegression(max_iter=1000), method="isotonic"),
        True,
    ),
    "calibrated forest": (
        CalibratedClassifierCV(RandomForestClassifier(10, random_state=0)),
        False,
    ),
}
BY_PIPELINE = {"neural network": (MLPClassifier((20,), max_iter=30, random_state=0), True)}
MODELS = BY_ARRAYS | BY_PIPELINE
SETS = {"numbers": NUMBERS, "numbers and words": [*COLUMNS]}
REASONS = [["age"], ["spent", "visits"], ["plan"], ["city", "band"]]


def table(seed=0, n=600):
    rng = np.random.default_rng(seed)
    words = {
        "plan": rng.choice(["basic", "gold", "don't know"], n),
        "city": rng.choice([f"city {number}" for number in range(30)], n),
        "band": rng.choice(BANDS, n),
    }
    numbers = {
        "age": rng.normal(40, 12, n).clip(14).round(),
        "spent": rng.gamma(2, 100, n),
        "visits": rng.poisson(3, n).astype(float),
    }
    X = pd.DataFrame(numbers | words).astype(dict.fromkeys(words, "str"))
    odds = (X["age"] - 40) / 10 - (X["plan"] == "gold") + (X["visits"] < 2)
    return X, (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(int).to_numpy()


def version(name, keep, seed=0):
    """A fitted model, its spec and members as a version would have them."""
    X, y = table(seed)
    (estimator, scale), kept = MODELS[name], [column for column in X if column in keep]
    features = Features(keep=kept, derive=DERIVE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what does not converge in so few steps
        model = pipelines.pipeline(estimator, features=features, columns=COLUMNS, scale=scale)
        pipelines.fit(model, X, y)
    spec = {
        "inputs": [*X],
        "may_be_missing": ["age", "plan"],
        "checks": [],
        "features": {"keep": kept, "derive": DERIVE, "fill": model[0].fill_},
        "typical": typical(X[y == 0]),
        "reasons": [{"columns": columns, "texts": []} for columns in REASONS],
        "segment_columns": SEGMENTS,
        "segment_fill": typical(X),
    }
    return spec, model[1:], X


def churn_models(spec, model):
    """The model by arrays if it can be, and by its pipeline."""
    by = parts_by_arrays(spec, model, None, table()[0])
    return arrays.churn_model(spec | {"arrays": by}, model, CODE), arrays.PipelineModel(
        spec, model, CODE
    )


@pytest.mark.parametrize("keep", SETS.values(), ids=SETS)
@pytest.mark.parametrize("name", BY_ARRAYS)
def test_probabilities_and_reasons_are_those_of_the_pipeline(name, keep):
    spec, model, _ = version(name, keep)
    for seed in range(1, 4):
        members = with_gaps(table(seed)[0], spec)
        rows = len(members["age"])
        fast, slow = churn_models(spec, model)
        assert not isinstance(fast, arrays.PipelineModel)
        probability, worth = fast.with_worth(members, rows)
        expected, expected_worth = slow.with_worth(members, rows)
        np.testing.assert_allclose(probability, expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(worth, expected_worth, rtol=0, atol=1e-9)
        texts = arrays.Reasons(spec["reasons"], CODE)
        assert texts.texts(members, rows, worth) == texts.texts(members, rows, expected_worth)
        np.testing.assert_array_equal(fast.probability(members, rows), probability)


@pytest.mark.parametrize("name", MODELS)
def test_a_member_has_the_same_bits_in_a_batch_of_any_size(name):
    spec, model, _ = version(name, SETS["numbers and words"])
    members = with_gaps(table(7)[0], spec)
    computed, _ = churn_models(spec, model)
    whole, worth = computed.with_worth(members, 1200)
    for size in (1, 7, 50, 51, 500):
        for start in range(0, min(1200, 6 * size), size):
            part = {column: cells[start : start + size] for column, cells in members.items()}
            alone, its_worth = computed.with_worth(part, len(part["age"]))
            np.testing.assert_array_equal(alone, whole[start : start + size])
            np.testing.assert_array_equal(its_worth, worth[:, start : start + size])


def test_an_estimator_whose_bits_depend_on_the_batch_is_left_to_its_pipeline():
    spec, model, X = version("neural network", SETS["numbers"])
    assert parts_by_arrays(spec, model, None, X)["churn"] is False


class Cautious(LogisticRegression):
    """A user's own class, which halves what its base class predicts."""

    def predict_proba(self, X):
        churn = super().predict_proba(X)[:, 1] / 2
        return np.column_stack([1 - churn, churn])


def test_an_estimator_that_predicts_otherwise_than_its_base_class_is_left_to_its_pipeline():
    spec, model, X = version("logistic regression", SETS["numbers"])
    own = Cautious(max_iter=1000)
    vars(own).update(vars(model[-1]))
    pipeline = Pipeline([("prepare", model[0]), ("estimator", own)])
    assert parts_by_arrays(spec, pipeline, None, X)["churn"] is False


@pytest.mark.parametrize("clusterer", [NearestCenter(), Gaussians(), MixedClasses()])
def test_segments_are_those_of_the_pipeline_alone_and_together(clusterer):
    spec, model, X = version("dummy", SETS["numbers"])
    frame = expressions.select(X, SEGMENTS)
    fit = clusterer.fit(clusterer.space(frame), [4], n_init=3, random_state=0, max_rows=10_000)[4]
    pipeline = clusterer.pipeline(frame, fit)
    by = parts_by_arrays(spec, model, pipeline, X)
    assert by["segments"]
    segments = arrays.Segments(spec | {"arrays": by}, pipeline, CODE)
    members = with_gaps(table(5)[0], spec | {"may_be_missing": []})
    whole = segments.labels(members, 1200)
    expected = pipeline.predict(expressions.select(pd.DataFrame(members), SEGMENTS))
    np.testing.assert_array_equal(whole, expected)
    one = {name: column[:1] for name, column in members.items()}
    assert segments.labels(one, 1)[0] == whole[0]


def test_members_without_a_value_have_no_probability_and_no_segment():
    spec, model, _ = version("logistic regression", SETS["numbers"])
    members = {name: column[:3].copy() for name, column in with_gaps(table()[0], spec).items()}
    members["visits"][1] = -1.0  # spent / (visits + 1)
    by = {"churn": True, "segments": True}
    for computed in (
        arrays.churn_model(spec | {"arrays": by}, model, CODE),
        arrays.CoordinateModel(spec, model, CODE),
        arrays.PipelineModel(spec, model, CODE),
    ):
        assert np.isnan(computed.probability(members, 3)).tolist() == [False, True, False]


def test_reasons_are_the_texts_of_what_adds_most_in_order():
    X, _ = table(seed=3)
    X["city"] = X["city"].where(X["visits"] != 2)
    members = {
        name: X[name].to_numpy(dtype=object if name == "city" else None, na_value=np.nan)
        for name in ("age", "spent", "visits", "city")
    }
    texts = {
        "age": {"age < 30": "{age:.0f} of {{all}} years", "age < 45": "young"},
        "spent": {"spent > 1e9": "never", None: "{visits:.1f} visits for {spent:.2f}"},
        "city": {},
    }
    holds = {None: X["age"] > 0, "age < 30": X["age"] < 30, "age < 45": X["age"] < 45}
    groups = [
        {"columns": [name], "texts": [{"when": when, "text": text} for when, text in some.items()]}
        for name, some in texts.items()
    ]
    worth = np.random.default_rng(0).normal(0.2, 0.3, (len(groups), len(X)))
    expected = []
    for row, cells in enumerate(X.to_dict("records")):
        found = []
        for name, value in sorted(zip(texts, worth[:, row], strict=True), key=lambda one: -one[1]):
            suiting = [
                text for when, text in texts[name].items() if when in holds and holds[when][row]
            ]
            plain = f"{name} is {arrays.format_value(cells[name], 6)}"
            if value >= arrays.MIN_LOG_ODDS:
                found.append(suiting[0].format(**cells) if suiting else plain)
        expected.append(found)
    assert arrays.Reasons(groups, CODE).texts(members, len(X), worth) == expected
    written = {text for found in expected for text in found}
    assert {"city is not known", "young"} < written
    assert any("{all}" in text for text in written)
