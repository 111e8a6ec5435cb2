import numpy as np
import pytest
import yaml
from hydra.utils import call
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from churnlab.errors import InputError
from churnlab.models.decision import (
    ContactEconomics,
    choose,
    contact_economics,
    expected_profit,
    expected_value,
    f1,
    fixed,
    profit,
    profit_curve,
)
from churnlab.models.metrics import will_churn

examples = settings(max_examples=60, deadline=None)

NUMBERS = {"retained_value": 100, "contact_cost": 2, "incentive": 10, "success": 0.3, "accept": 0.5}

samples = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(any),
        st.lists(st.integers(0, 20).map(lambda k: k / 20), min_size=n, max_size=n),
    ).map(lambda pair: (np.array(pair[0]), np.array(pair[1])))
)
offers = st.builds(
    ContactEconomics,
    retained_value=st.floats(50, 500),
    contact_cost=st.floats(0, 5),
    incentive=st.floats(0, 20),
    success=st.floats(0.2, 1),
    accept=st.floats(0, 1),
)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [((100, 2, 10, 0.3, 0.5), 0.219), ((100, 5, 20, 0.2, 0.5), 0.577), ((60, 1, 0, 0.15, 0), 0.111)]
    + [((200, 2, 10, 0.3, 0.5), 0.113)],
)
def test_the_threshold_of_an_offer_is_where_a_contact_starts_to_pay(numbers, expected):
    assert ContactEconomics(*numbers).threshold == pytest.approx(expected, abs=0.0005)


@examples
@given(offers, st.floats(0, 1))
def test_a_contact_is_expected_to_earn_something_only_above_the_threshold(offer, p):
    earned = p * offer.success * (offer.retained_value - offer.incentive)
    earned -= (1 - p) * offer.accept * offer.incentive + offer.contact_cost
    if abs(p - offer.threshold) > 1e-9:
        assert (earned > 0) == bool(will_churn(p, offer.threshold))


def test_expected_value_looks_at_its_numbers_and_at_nobody():
    assert (
        expected_value(np.array([0, 1]), np.array([0.1, 0.9]), **NUMBERS)
        == ContactEconomics(**NUMBERS).threshold
    )


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"success": 1.2}, "decision.success"),
        ({"accept": -0.1}, "decision.accept"),
        ({"contact_cost": -1}, "decision.contact_cost"),
        ({"retained_value": "much"}, "decision.retained_value"),
        ({"incentive": float("nan")}, "decision.incentive"),
    ],
)
def test_impossible_numbers_of_an_offer_are_refused_by_name(changed, named):
    with pytest.raises(InputError, match=named):
        ContactEconomics(**NUMBERS | changed)


@pytest.mark.parametrize("changed", [{"contact_cost": 27}, {"incentive": 100}, {"success": 0}])
def test_an_offer_that_cannot_pay_is_refused(changed):
    with pytest.raises(InputError, match="no contact can pay"):
        expected_value(np.array([0, 1]), np.array([0.1, 0.9]), **NUMBERS | changed)


def test_a_fixed_threshold_is_the_one_given():
    assert fixed(np.array([0, 1]), np.array([0.1, 0.9]), value=0.4) == 0.4
    for wrong in [1.5, -0.1, "half", True]:
        with pytest.raises(InputError, match="decision.value"):
            fixed(np.array([0, 1]), np.array([0.1, 0.9]), value=wrong)


def f1_of(y: np.ndarray, marked: np.ndarray) -> float:
    return 2 * np.sum(y[marked]) / (np.sum(marked) + np.sum(y))


@examples
@given(samples)
def test_no_threshold_has_a_better_f1_than_the_one_chosen(sample):
    y, p = sample
    best = f1_of(y, will_churn(p, f1(y, p)))
    for value in np.unique(p[p > 0]):
        assert f1_of(y, p >= value) <= best + 1e-12


def test_the_best_f1_of_neighbouring_floats_lies_between_them():
    low = 0.3
    high = np.nextafter(low, 1)
    assert will_churn(
        np.array([low, high]), f1(np.array([0, 1]), np.array([low, high]))
    ).tolist() == [False, True]
    assert f1(np.array([0, 1]), np.array([0.0, 0.0])) == 0


def test_the_best_f1_lies_halfway_between_two_members():
    assert f1(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])) == pytest.approx(0.4)


def test_equal_probabilities_mark_everybody_for_the_best_f1():
    assert f1(np.array([0, 1, 0]), np.full(3, 0.3)) < 0.3


def test_who_is_said_to_leave_at_one_half_is_whom_scikit_learn_predicts():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 2)), rng.integers(0, 2, 200)
    model = LogisticRegression().fit(X, y)
    np.testing.assert_array_equal(
        will_churn(model.predict_proba(X)[:, 1], 0.5), model.predict(X) == 1
    )
    assert will_churn(np.array([0.5]), 0.5).tolist() == [False]


@examples
@given(samples, offers)
def test_the_profit_curve_is_the_profit_of_contacting_the_riskiest(sample, offer):
    y, p = sample
    curve = profit_curve(y, p, offer)
    assert curve.iloc[0][["members", "share", "profit"]].tolist() == [0, 0, 0]
    assert curve.iloc[-1]["share"] == 1
    for _, row in curve.iloc[1:].iterrows():
        contacted = p >= row["probability"]
        assert row["members"] == contacted.sum()
        assert row["profit"] == pytest.approx(profit(y, contacted, offer), abs=1e-6)


@examples
@given(samples, offers)
def test_the_threshold_of_an_offer_is_expected_to_earn_the_most(sample, offer):
    _, p = sample
    best = expected_profit(p, offer.threshold, offer)
    for value in [0.0, *np.unique(p)]:
        assert expected_profit(p, value, offer) <= best + 1e-6


def test_expected_profit_is_profit_when_the_probabilities_are_certain():
    y = np.array([0, 1, 1, 0])
    assert expected_profit(y.astype(float), 0.5, ContactEconomics(**NUMBERS)) == profit(
        y, y == 1, ContactEconomics(**NUMBERS)
    )


def test_a_decision_has_economics_when_its_keys_are_theirs():
    assert contact_economics({"_target_": "x", **NUMBERS}) == ContactEconomics(**NUMBERS)
    assert contact_economics({"_target_": "x", "value": 0.5}) is None


def test_every_decision_of_the_config_chooses_a_threshold(pytestconfig):
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 100)
    p = np.clip(0.5 * y + rng.random(100) / 2, 0, 1)
    paths = sorted((pytestconfig.rootpath / "conf" / "decision").glob("*.yaml"))
    assert [path.stem for path in paths] == ["expected_value", "f1", "fixed"]
    for path in paths:
        said = yaml.safe_load(path.read_text())
        assert 0 < choose(said, y, p) < 1
        assert call(said, y, p) == choose(said, y, p)


def test_a_number_that_a_decision_does_not_take_is_refused():
    with pytest.raises(InputError, match=r"decision\.valeu: .* Did you mean value\?"):
        choose(
            {"_target_": "churnlab.models.decision.fixed", "valeu": 0.4},
            np.array([0, 1]),
            np.array([0.1, 0.9]),
        )


def test_a_decision_must_choose_a_threshold():
    with pytest.raises(InputError, match="a threshold is from 0 to 1"):
        choose({"_target_": "numpy.hypot"}, 3.0, 4.0)
    with pytest.raises(InputError, match="cannot be imported"):
        choose({"value": 0.4}, np.array([0, 1]), np.array([0.1, 0.9]))
