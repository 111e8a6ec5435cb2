import numpy as np
import pandas as pd
import pytest
import yaml
from hydra.utils import call
from hypothesis import given, settings
from hypothesis import strategies as st

from churnlab.errors import InputError
from churnlab.evaluation.metrics import will_churn
from churnlab.models.decision import (
    ContactEconomics,
    as_many,
    capacity_threshold,
    choose,
    contact_economics,
    expected_value,
    extreme,
    f1,
    fixed,
    profit,
    profit_curve,
)

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


def expected_profit(p, threshold, offer):
    marked = p[will_churn(p, threshold)]
    waste = (1 - marked) * offer.accept * offer.incentive + offer.contact_cost
    return float((marked * offer.gain_per_leaver - waste).sum())


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [((100, 2, 10, 0.3, 0.5), 0.219), ((100, 5, 20, 0.2, 0.5), 0.577), ((60, 1, 0, 0.15, 0), 0.111)]
    + [((200, 2, 10, 0.3, 0.5), 0.113)],
)
def test_the_threshold_is_where_a_contact_starts_to_pay(numbers, expected):
    assert ContactEconomics(*numbers).threshold == pytest.approx(expected, abs=0.0005)


@examples
@given(offers, st.floats(0, 1))
def test_a_contact_has_a_positive_expected_profit_only_above_the_threshold(offer, p):
    earned = p * offer.success * (offer.retained_value - offer.incentive)
    earned -= (1 - p) * offer.accept * offer.incentive + offer.contact_cost
    if abs(p - offer.threshold) > 1e-9:
        assert (earned > 0) == bool(will_churn(p, offer.threshold))


def test_expected_value_ignores_the_predictions():
    assert (
        expected_value(np.array([0, 1]), np.array([0.1, 0.9]), **NUMBERS)
        == ContactEconomics(**NUMBERS).threshold
    )


def test_a_capacity_contacts_only_the_riskiest_of_those_who_pay():
    y, p = np.zeros(100, int), np.linspace(0.01, 1, 100)
    threshold = expected_value(y, p, **NUMBERS, capacity=200, members=4000)
    assert will_churn(p, threshold).sum() == 5
    everybody = expected_value(y, p, **NUMBERS, capacity=9000, members=4000)
    assert everybody == ContactEconomics(**NUMBERS).threshold, "contacts that do not pay are none"


@examples
@given(samples, st.floats(0, 1))
def test_a_capacity_is_never_exceeded_and_used_up_as_far_as_ties_allow(sample, share):
    _, p = sample
    threshold = capacity_threshold(p, share=share)
    assert will_churn(p, threshold).sum() <= share * len(p) + 1e-6
    lower = p[p <= threshold]
    if len(lower) and threshold > 0:
        assert np.sum(p >= lower.max()) > share * len(p) - 1e-6


def test_a_capacity_is_that_of_the_table_unless_members_are_given():
    y, p = np.zeros(100, int), np.linspace(0.01, 1, 100)
    target = "churnlab.models.decision.expected_value"
    rule = {"_target_": target, **NUMBERS, "capacity": 10, "members": None}
    assert will_churn(p, choose(rule, y, p, members=200)).sum() == 5
    assert will_churn(p, choose(rule | {"members": 50}, y, p, members=200)).sum() == 20
    with pytest.raises(InputError, match=r"needs decision\.members"):
        choose(rule, y, p)
    for key, wrong in [("capacity", -1), ("capacity", "many"), ("members", 0)]:
        with pytest.raises(InputError, match=f"decision.{key}"):
            choose(rule | {key: wrong}, y, p, members=200)


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
def test_impossible_economics_are_refused_by_name(changed, named):
    with pytest.raises(InputError, match=named):
        ContactEconomics(**NUMBERS | changed)


@pytest.mark.parametrize("changed", [{"contact_cost": 27}, {"incentive": 100}, {"success": 0}])
def test_an_offer_that_cannot_pay_is_refused(changed):
    with pytest.raises(InputError, match="no contact can pay"):
        expected_value(np.array([0, 1]), np.array([0.1, 0.9]), **NUMBERS | changed)


def test_a_fixed_threshold_is_returned_unchanged():
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


def test_the_best_f1_threshold_separates_adjacent_floats():
    low = 0.3
    high = np.nextafter(low, 1)
    assert will_churn(
        np.array([low, high]), f1(np.array([0, 1]), np.array([low, high]))
    ).tolist() == [False, True]
    assert f1(np.array([0, 1]), np.array([0.0, 0.0])) == 0


def test_the_best_f1_threshold_lies_halfway_between_two_members():
    assert f1(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])) == pytest.approx(0.4)


def test_with_equal_probabilities_the_best_f1_marks_everybody():
    assert f1(np.array([0, 1, 0]), np.full(3, 0.3)) < 0.3


@examples
@given(samples, offers)
def test_the_profit_curve_equals_the_profit_of_contacting_the_riskiest(sample, offer):
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
def test_no_threshold_has_a_higher_expected_profit_than_that_of_the_economics(sample, offer):
    _, p = sample
    best = expected_profit(p, offer.threshold, offer)
    for value in [0.0, *np.unique(p)]:
        assert expected_profit(p, value, offer) <= best + 1e-6


def test_expected_profit_equals_profit_for_certain_probabilities():
    y = np.array([0, 1, 1, 0])
    offer = ContactEconomics(**NUMBERS)
    assert expected_profit(y.astype(float), 0.5, offer) == pytest.approx(profit(y, y == 1, offer))


def test_a_decision_has_economics_if_it_has_all_their_keys():
    assert contact_economics({"_target_": "x", **NUMBERS}) == ContactEconomics(**NUMBERS)
    assert contact_economics({"_target_": "x", "value": 0.5}) is None


def test_every_decision_of_the_config_chooses_a_threshold(pytestconfig):
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 100)
    p = np.clip(0.5 * y + rng.random(100) / 2, 0, 1)
    paths = sorted((pytestconfig.rootpath / "conf" / "decision").glob("*.yaml"))
    assert [path.stem for path in paths] == ["as_many", "expected_value", "f1", "fixed"]
    for path in paths:
        rule = yaml.safe_load(path.read_text())
        assert 0 < choose(rule, y, p) < 1
        assert call(rule, y, p) == choose(rule, y, p)


def test_an_unknown_number_of_a_decision_is_refused():
    with pytest.raises(InputError, match=r"decision\.valeu: .* Did you mean value\?"):
        choose(
            {"_target_": "churnlab.models.decision.fixed", "valeu": 0.4},
            np.array([0, 1]),
            np.array([0.1, 0.9]),
        )


def test_a_decision_must_return_a_threshold():
    with pytest.raises(InputError, match="a threshold is from 0 to 1"):
        choose({"_target_": "numpy.hypot"}, 3.0, 4.0)
    with pytest.raises(InputError, match="cannot be imported"):
        choose({"value": 0.4}, np.array([0, 1]), np.array([0.1, 0.9]))


@examples
@given(samples)
def test_no_more_members_are_marked_than_left_and_only_a_tie_makes_it_fewer(sample):
    y, probability = sample
    marked = will_churn(probability, as_many(y, probability)).sum()
    ties = (probability == as_many(y, probability)).sum()
    assert marked <= y.sum() <= marked + ties or as_many(y, probability) == 0.0
    distinct = np.linspace(0.001, 0.02, len(y))
    assert will_churn(distinct, as_many(y, distinct)).sum() == y.sum()


def test_a_threshold_that_marks_almost_nobody_or_everybody_is_named_with_a_better_decision():
    risk = np.linspace(0, 0.4, 1000)
    rare = pd.DataFrame({"y": np.arange(1000) >= 985, "probability": risk})
    common = pd.DataFrame({"y": np.arange(1000) >= 180, "probability": 0.55 + risk})
    assert (
        "marks almost nobody: 0 of 1,000 held-out members, of whom 15 left; decision=as_many"
        in (extreme(rare, 0.5))
    )
    assert "marks almost everybody: 1,000 of 1,000" in extreme(common, 0.5)
    for table in (rare, common):
        assert extreme(table, as_many(table["y"], table["probability"])) is None
    assert extreme(rare.assign(probability=0.015), 0.5) is None
