"""The parts of the report about the recommended model: slices, calibration, earnings, growth.

A part is None if the run did not log its table: an earlier run, or a decision without economics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from scipy.stats import false_discovery_control

from churnlab.evaluation.calibration_error import TOO_FEW, CalibrationError
from churnlab.evaluation.decision_value import too_few
from churnlab.evaluation.learning_curve import describe, doubling
from churnlab.evaluation.slices import MAX_FDR, slice_table, weakest
from churnlab.formatting import counted, percent, readable, whole

MOST_SLICES = 8
"""How many slices are shown, the surest differences first."""

ASSUMED = {"success": percent, "accept": percent}
"""How an assumption that is no amount of money is formatted."""


def slices(
    table: pd.DataFrame | None, oof: pd.DataFrame, segment: pd.Series | None
) -> dict[str, Any] | None:
    """Show the slices in which observed and predicted churn differ beyond chance.

    ``table`` is that of the run, by columns; slices by ``segment`` (by row, of ``oof``, which has
    a prediction per member) are added, and the q-values are those of all slices.
    """
    tables = [] if table is None else [table]
    if segment is not None:
        labels = pd.DataFrame({"segment": segment.loc[oof["row"]].to_numpy()})
        y, probability = oof["y"].to_numpy(), oof["probability"].to_numpy()
        tables.append(slice_table(y, probability, 0.5, labels))
    tables = [each for each in tables if not each.empty]
    if not tables:
        return None
    found = pd.concat(tables, ignore_index=True).sort_values("p", kind="stable", ignore_index=True)
    found["q"] = false_discovery_control(found["p"])
    none = f"None of the {counted(len(found), 'slice')} is off beyond chance (q < {MAX_FDR:g})."
    rows = found[found["q"] < MAX_FDR].head(MOST_SLICES).to_dict("records")
    names = [f"{readable(row['slice'])} = {row['value']}" for row in rows]
    return {
        "sentence": weakest(found) or none,
        "n": len(found),
        "rows": [row | {"name": name} for row, name in zip(rows, names, strict=True)],
    }


def more_members(curve: pd.DataFrame | None, *, members: int) -> str | None:
    """Say what twice as many members would gain, by a learning curve of ``members``."""
    return None if curve is None else describe(doubling(curve, members=members))


def calibration(error: CalibrationError) -> str:
    """Say how far the probabilities are off, and how much of that is noise.

    >>> calibration(CalibrationError(0.021, 0.018, 0.3, 0.006, 0.0, 0.019))
    ... # doctest: +ELLIPSIS
    'they differ by 2.1 percentage points on average, ... members: no error is shown'
    """
    points = [f"{100 * value:.1f}" for value in (error.ece, error.floor, error.low, error.high)]
    shown = "no error is shown" if error.low <= 0 else f"the error is {points[2]} to {points[3]}"
    if error.low <= 0 and error.floor > TOO_FEW:
        shown = f"the members are too few to judge, and up to {points[3]} is possible"
    return (
        f"they differ by {points[0]} percentage points on average, where a perfectly calibrated "
        f"model would show {points[1]} on as many members: {shown}"
    )


def decisions(
    metrics: Mapping[str, float],
    capacity: pd.DataFrame | None,
    sensitivity: pd.DataFrame | None,
    *,
    held_out: int,
) -> dict[str, Any] | None:
    """Show what contacting earns on the hold-out, by how many can be contacted, and what it hangs
    on."""
    name = "test_profit_total" if "test_profit_total" in metrics else "test_profit"  # older runs
    if f"{name}_low" not in metrics or capacity is None or sensitivity is None:
        return None
    profit, low, high = (metrics[f"{name}{end}"] for end in ("", "_low", "_high"))
    text = (
        f"Contacting the members above the threshold would have earned {whole(profit)} on the "
        f"{whole(held_out)} held-out members (95% CI {whole(low)} to {whole(high)}"
        f"{too_few(low, high)})"
    )
    return {
        "sentence": f"{text}. {_hangs_on(sensitivity)}",
        "capacity": capacity.to_dict("records"),
    }


def _hangs_on(sensitivity: pd.DataFrame) -> str:
    """Say how the profit at the threshold moves with the assumption that matters most."""
    by_assumption = sensitivity.groupby("assumption")["profit"]
    widest = (by_assumption.max() - by_assumption.min()).idxmax()
    rows = sensitivity[sensitivity["assumption"] == widest].sort_values("value")
    first, last = rows.iloc[0], rows.iloc[-1]
    show = ASSUMED.get(str(widest), whole)
    return (
        "The interval does not cover the assumptions; the profit depends most on "
        f"{readable(str(widest))}: {whole(first['profit'])} at {show(first['value'])}, "
        f"{whole(last['profit'])} at {show(last['value'])}."
    )
