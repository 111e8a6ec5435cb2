"""Figures of where a model is weak: slices of the members, and too few members."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from churnlab.evaluation.learning_curve import Doubling
from churnlab.evaluation.slices import MAX_FDR
from churnlab.formatting import readable
from churnlab.plots import style


def slices(table: pd.DataFrame, *, most: int = 12) -> Figure:
    """Draw observed over predicted churn of the slices with the surest difference (slice_table)."""
    shown = table.head(most)[::-1]
    height = 1.6 + 0.3 * max(len(shown), 3)
    figure = style.new_figure("Observed over predicted churn by slice", width=8.5, height=height)
    axes = figure.subplots()
    names = [
        f"{readable(row['slice'])} = {row['value']} ({row['n']:,})"
        for row in shown.to_dict("records")
    ]
    spread = style.error_bars(shown["ratio"], shown["low"], shown["high"])
    named = (shown["q"] < MAX_FDR).to_numpy()
    for color, part in ((style.ORANGE, named), (style.GREY, ~named)):
        axes.errorbar(
            shown["ratio"][part],
            np.flatnonzero(part),
            xerr=spread[:, part],
            fmt="o",
            color=color,
            markersize=5,
            elinewidth=1.4,
        )
    axes.axvline(1, color=style.INK, linewidth=0.8)
    axes.set_yticks(range(len(shown)), names)
    axes.set_xlabel(f"observed / predicted churn (95% CI; orange: q < {MAX_FDR:g})")
    style.clean(axes, "x")
    axes.tick_params(axis="y", length=0, labelsize=8.5)
    return figure


def learning_curve(curve: pd.DataFrame, found: Doubling) -> Figure:
    """Draw the log loss by training members (learning_curve.learning_curve), the power law and its
    value for twice as many members."""
    figure = style.new_figure("Learning curve: log loss by training members", height=4.2)
    axes = figure.subplots()
    for number, (_, fold) in enumerate(curve.groupby("fold")):
        label = "a fold" if number == 0 else None
        axes.plot(fold["members"], fold["log_loss"], color=style.GREY, alpha=0.5, label=label)
    n = np.geomspace(curve["members"].min(), 2 * found.members, 100)
    law = found.a + found.b * (n / found.members) ** -found.c
    axes.plot(n, law, color=style.SERIES[3], linewidth=2, label="power law")
    ends = [found.members, 2 * found.members]
    now, twice = (found.a + found.b * (end / found.members) ** -found.c for end in ends)
    axes.plot(ends[:1], [now], "o", color=style.INK, label=f"all {found.members:,} members")
    axes.errorbar(
        ends[1:],
        [twice],
        style.error_bars(np.array([twice]), now - found.high, now - found.low),
        fmt="o",
        color=style.SERIES[5],
        capsize=3,
        label="twice as many (95% CI of the change)",
    )
    axes.set(xscale="log", xlabel="training members (log scale)", ylabel="log loss")
    ticks = [*curve.groupby(curve.groupby("fold")["members"].rank())["members"].mean(), *ends]
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks], rotation=30)
    axes.set_xticks([], minor=True)
    style.clean(axes, "y")
    axes.legend(frameon=False, fontsize=9)
    return figure
