"""Costs, break-even and the size of tests: against simulation and by hand."""

import numpy as np
import pytest
from scipy.stats import norm

from churnlab.segments.action_value import members_per_arm, plan_ab_test, smallest_cut, value_action


@pytest.mark.parametrize(("rate", "treated"), [(0.5, 0.4), (0.2, 0.15), (0.05, 0.02), (0.9, 0.8)])
def test_so_many_members_in_each_arm_see_the_effect_four_times_in_five(rate, treated):
    n, rng = members_per_arm(rate, treated), np.random.default_rng(0)
    one, two = rng.binomial(n, rate, 40_000) / n, rng.binomial(n, treated, 40_000) / n
    pooled = (one + two) / 2
    z = (one - two) / np.sqrt(np.maximum(2 * pooled * (1 - pooled) / n, 1e-12))
    assert np.mean(np.abs(z) > norm.ppf(0.975)) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("rate", [0.03, 0.3, 0.7, 1.0])
def test_the_smallest_cut_is_the_one_that_takes_all_members(rate):
    cut = smallest_cut(rate, 700)
    assert 0 < cut < rate
    assert members_per_arm(rate, rate - cut) == pytest.approx(700, abs=1)


def test_too_few_members_show_no_cut_at_all():
    assert smallest_cut(0.03, 40) is None
    assert smallest_cut(0.0, 1000) is None
    assert smallest_cut(0.5, 0) is None


def test_more_members_show_a_smaller_cut():
    cuts = [smallest_cut(0.3, n) for n in (50, 500, 5000)]
    assert cuts == sorted(cuts, reverse=True)


def test_what_an_action_costs_and_is_worth_is_counted_by_hand():
    few = {"cost": 2, "keeps": (0.02, 0.18), "value": 100}
    worth = value_action(200, 0.25, **few)
    assert worth[:2] == (200, 400)
    # Of 50 leavers 5 are kept, 1 to 9; 4 would pay.
    assert worth[2:] == pytest.approx((500, 0.08, 100, 900))
    assert value_action(200, 0.01, **few).break_even == pytest.approx(2)  # it cannot pay
    assert value_action(200, 0.0, **few).break_even is None
    nobody = value_action(None, 0.25, **few)
    assert nobody == (None, None, None, pytest.approx(0.08), None, None)


def test_a_segment_is_too_small_when_its_half_is_no_arm():
    needed = members_per_arm(0.25, 0.225)
    assert not plan_ab_test(2 * needed, 0.25, keeps=0.1).too_small
    assert plan_ab_test(2 * needed - 2, 0.25, keeps=0.1).too_small
    assert plan_ab_test(100, 0.25, keeps=0.0) == (None, pytest.approx(0.20, abs=0.05), False)
    assert plan_ab_test(None, 0.25, keeps=0.1) == (needed, None, False)
