import numpy as np
import pandas as pd
import pytest

from churnlab.evaluation.calibration_error import CalibrationError
from churnlab.evaluation.slices import slice_table
from churnlab.report.model_parts import calibration, decisions, more_members, slices

ROWS = np.arange(400)
PLAN = np.where(ROWS % 2, "gold", "basic")


def predicted(gold: float, basic: float) -> pd.DataFrame:
    """Of 400 members half have the plan gold and 30% left of each plan."""
    probability = np.where(PLAN == "gold", gold, basic)
    return pd.DataFrame(
        {"row": ROWS, "y": (ROWS // 2) % 10 < 3, "probability": probability}
    ).astype({"y": int})


def by_plan(oof: pd.DataFrame) -> pd.DataFrame:
    labels = pd.DataFrame({"plan": PLAN})
    return slice_table(oof["y"].to_numpy(), oof["probability"].to_numpy(), 0.5, labels)


def test_slices_that_are_off_are_listed_by_column_and_by_segment():
    oof = predicted(gold=0.1, basic=0.3)
    segment = pd.Series((PLAN == "gold").astype(int), index=ROWS)
    found = slices(by_plan(oof), oof, segment)
    assert found is not None
    assert {row["name"] for row in found["rows"]} == {"plan = gold", "segment = 1"}
    assert found["n"] == 4
    assert "3.00 times as many" in found["sentence"]


def test_no_slice_is_listed_where_none_is_off():
    oof = predicted(gold=0.3, basic=0.3)
    found = slices(by_plan(oof), oof, None)
    assert found is not None
    assert found["rows"] == []
    assert found["sentence"] == "None of the 2 slices is off beyond chance (q < 0.05)."


def test_runs_without_the_tables_have_none_of_the_parts():
    assert slices(None, predicted(0.3, 0.3), None) is None
    assert more_members(None, members=100) is None
    assert decisions({"test_profit": 1.0}, None, None, held_out=80) is None


@pytest.mark.parametrize(("low", "end"), [(0.0, "no error is shown"), (0.004, "is 0.4 to 3.0")])
def test_a_calibration_error_is_stated_with_its_noise_floor(low, end):
    text = calibration(CalibrationError(0.021, 0.018, 0.3, 0.006, low, 0.03))
    assert "2.1 percentage points" in text
    assert "would show 1.8" in text
    assert text.endswith(end)
    few = calibration(CalibrationError(0.299, 0.311, 0.5, 0.0, 0.0, 0.4))
    assert few.endswith("members: the members are too few to judge, and up to 40.0 is possible")


def test_what_contacting_earns_has_an_interval_and_names_the_assumption_that_matters_most():
    metrics = {"test_profit": 1200.0, "test_profit_low": 800.0, "test_profit_high": 1600.0}
    varied = pd.DataFrame(
        {
            "assumption": ["success", "success", "accept", "accept"],
            "value": [0.1, 0.5, 0.2, 0.8],
            "profit": [-300.0, 2700.0, 1300.0, 1100.0],
        }
    )
    capacity = pd.DataFrame({"contacts": [100]})
    found = decisions(metrics, capacity, varied, held_out=800)
    assert found is not None
    assert "earned 1,200 on the 800 held-out members (95% CI 800 to 1,600)" in found["sentence"]
    assert "too few to tell" not in found["sentence"]
    vague = decisions(metrics | {"test_profit_low": -10.0}, capacity, varied, held_out=8)
    assert vague is not None
    assert "(95% CI −10 to 1,600, too few to tell whether it earns anything). " in vague["sentence"]
    assert found["sentence"].endswith(
        "the profit depends most on success: −300 at 10.0%, 2,700 at 50.0%."
    )
