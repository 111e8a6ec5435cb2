"""Figures of a decision: net benefit over thresholds, sensitivity to the assumptions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from churnlab.formatting import readable
from churnlab.plots import style

LOW, HIGH = style.SERIES[5], style.SERIES[3]
"""Colors of the smallest and the largest value of an assumption."""


def net_benefit(table: pd.DataFrame, *, threshold: float) -> Figure:
    """Draw the net benefit of the model, of contacting everybody and nobody, over thresholds.

    The table is that of decision_value.net_benefit; the decision's threshold is marked.
    """
    figure = style.new_figure("Net benefit by threshold (decision curve)", height=4.4)
    axes = figure.subplots()
    at, color = table["threshold"], style.SERIES[3]
    axes.fill_between(at, table["low"], table["high"], color=color, alpha=0.18, linewidth=0)
    axes.plot(at, table["model"], color=color, linewidth=2, label="model (95% CI)")
    axes.plot(at, table["all"], color=style.SERIES[4], linewidth=1.4, label="contact everybody")
    axes.axhline(0, color=style.GREY, linewidth=1.4, label="contact nobody")
    axes.axvline(
        threshold,
        color=style.INK,
        linewidth=1,
        linestyle=style.DASHED,
        label=f"threshold {threshold:.2f}",
    )
    top = max(float(table["high"].max()), 1e-3)
    axes.set(
        xlim=(0, 1),
        ylim=(-0.2 * top, 1.08 * top),
        xlabel="threshold: contact members with a higher predicted churn probability",
        ylabel="net benefit (leavers per member)",
    )
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    style.clean(axes, "y")
    axes.legend(loc="best", frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)
    return figure


def sensitivity(table: pd.DataFrame) -> Figure:
    """Draw how the profit at the decision's threshold moves with each assumption.

    The table is that of decision_value.sensitivity; the assumption with the widest range is on top.
    """
    ends = table.groupby("assumption")["profit"].agg(["min", "max"])
    order = (ends["max"] - ends["min"]).sort_values().index
    base = float(table.loc[table["factor"] == 1, "profit"].iloc[0])
    figure = style.new_figure("Profit if one assumption changes", height=1.6 + 0.5 * len(order))
    axes = figure.subplots()
    text: dict[str, Any] = {"fontsize": 8, "va": "center"}
    for place, name in enumerate(order):
        rows = table[table["assumption"] == name]
        lowest, highest = (rows.loc[rows["factor"].agg(end)] for end in ("idxmin", "idxmax"))
        for row, color in ((lowest, LOW), (highest, HIGH)):
            axes.barh(place, row["profit"] - base, left=base, color=color, height=0.6)
            right = row["profit"] >= base
            axes.annotate(
                f"{row['value']:g}",
                (row["profit"], place),
                xytext=(4 if right else -4, 0),
                textcoords="offset points",
                ha="left" if right else "right",
                **text,
            )
    axes.axvline(base, color=style.INK, linewidth=1)
    axes.axvline(0, color=style.GREY, linewidth=1, linestyle=":")
    axes.set_yticks(np.arange(len(order)), [readable(str(name)) for name in order])
    axes.set_xlabel("profit at the decision's threshold, on the hold-out")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.margins(x=0.12)
    style.clean(axes, "x")
    low, high = table["factor"].min(), table["factor"].max()
    colors = {f"{low:g} times the assumption": LOW, f"{high:g} times": HIGH}
    style.legend_below(figure, colors, marker="s", linestyle="")
    return figure
