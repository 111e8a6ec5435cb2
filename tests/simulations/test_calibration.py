"""What churnlab says of a model's calibration, on planted models: true at the stated rate."""

import numpy as np
import pytest
from scipy.special import expit

from churnlab.evaluation.calibration import miscalibration
from churnlab.evaluation.calibration_error import calibration_error
from churnlab.evaluation.comparison import paired_difference
from churnlab.evaluation.performance import bootstrap_intervals, calibration_line
from churnlab.registry.gate import check_calibration
from support.planted import assert_at_least, assert_at_most, count, tables
from support.planted_models import MODELS, STRONG, WEAK, World, draw, true_calibration_error

LIMITS = {"slope": (0.9, 1.1), "ece": 0.02}
WORLDS = pytest.mark.parametrize("world", [WEAK, STRONG], ids=["weak", "strong"])
N, MANY = tables(20, 4000), tables(40, 4000)


@WORLDS
@pytest.mark.parametrize("members", [200, 800, 4000])
@pytest.mark.parametrize(
    "model", ["perfect", "slightly timid", "timid", "bold", "shifted", "far off", "off at the top"]
)
def test_the_ci_of_a_calibration_error_covers_the_true_error(
    world: World, members: int, model: str
):
    true = true_calibration_error(world, model)

    def missed(rng: np.random.Generator) -> bool:
        found = calibration_error(*draw(rng, members, world, model), seed=0)
        return not found.low <= true <= found.high

    promised = 0.08 if model == "off at the top" and members == 200 else 0.06
    assert_at_most(promised, count(missed, of=N, seed=members), of=N)


@WORLDS
def test_the_printed_ci_of_a_perfect_model_covers_an_error_of_nothing(world: World):
    def missed(rng: np.random.Generator) -> bool:
        y, probability = draw(rng, 200, world)
        low, high = bootstrap_intervals(y, probability, threshold=0.5, seed=0)["ece"]
        return not low <= true_calibration_error(world, "perfect") <= high

    of = tables(20, 1000)
    assert_at_most(0.06, count(missed, of=of, seed=1), of=of)


@WORLDS
@pytest.mark.parametrize("members", [400, 1600, 4000])
def test_a_perfect_model_calls_for_calibration_in_at_most_5_percent(world: World, members: int):
    def called_for(rng: np.random.Generator) -> bool:
        return bool(miscalibration(calibration_line(*draw(rng, members, world)), **LIMITS))

    assert_at_most(0.05, count(called_for, of=MANY, seed=members), of=MANY)


@pytest.mark.parametrize("members", [400, 4000])
def test_a_constant_model_never_calls_for_calibration(members: int):
    def called_for(rng: np.random.Generator) -> bool:
        y = (rng.random(members) < 0.27).astype(int)
        by_fold = np.repeat(rng.normal(0.27, 0.3 / members, 5), members // 5)
        return any(
            miscalibration(calibration_line(y, probability), **LIMITS)
            for probability in (np.full(members, 0.27), by_fold)
        )

    assert count(called_for, of=N, seed=members) == 0


@WORLDS
@pytest.mark.parametrize(("members", "power"), [(1600, 0.97), (4000, 0.99)])
def test_a_model_as_timid_as_a_forest_calls_for_calibration(
    world: World, members: int, power: float
):
    def called_for(rng: np.random.Generator) -> bool:
        return bool(miscalibration(calibration_line(*draw(rng, members, world, "timid")), **LIMITS))

    assert_at_least(power, count(called_for, of=N, seed=members), of=N)


@WORLDS
@pytest.mark.parametrize("members", [40, 100, 300])
def test_the_gate_seldom_refuses_a_calibrated_model_for_its_calibration(world: World, members: int):
    def refused(rng: np.random.Generator) -> bool:
        checks = check_calibration(
            *draw(rng, members, world), slope=(0.5, 2.0), ece=0.1, threshold=0.5, seed=0
        )
        return not all(check.passed for check in checks)

    of = tables(20, 2000)
    assert_at_most(0.05, count(refused, of=of, seed=members), of=of)


def test_the_gate_refuses_a_model_that_is_far_off():
    def refused(rng: np.random.Generator) -> bool:
        checks = check_calibration(
            *draw(rng, 800, WEAK, "far off"), slope=(0.5, 2.0), ece=0.1, threshold=0.5, seed=0
        )
        return not checks[1].passed

    of = tables(20, 1000)
    assert_at_least(0.95, count(refused, of=of, seed=1), of=of)


@pytest.mark.parametrize("model", ["slightly timid", "shifted"])
def test_the_ci_of_a_difference_in_calibration_error_covers_the_true_difference(model: str):
    """The smaller error has the larger share of noise, which must not hide the difference."""
    true = true_calibration_error(WEAK, model)

    def missed(rng: np.random.Generator) -> bool:
        log_odds = rng.normal(*WEAK, 800)
        y = (rng.random(800) < expit(log_odds)).astype(int)
        sides = [MODELS[name](log_odds) for name in (model, "perfect")]
        found = paired_difference(y, *sides, metric="ece", thresholds=(0.5, 0.5), seed=0)
        return not found.ci_low <= true <= found.ci_high

    of = tables(15, 4000)
    assert_at_most(0.05, count(missed, of=of, seed=3), of=of)
