"""The picture of measured claims: a forest of intervals, one panel a quantity, coloured by the
verdict."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from churnlab.claims.claim import Claim, measured_in_words
from churnlab.formatting import spoken
from churnlab.plots.style import BLUE, FAINT, GREEN, GREY, INK, ORANGE, new_figure

COLORS = {"holds": GREEN, "partly": BLUE, "not shown": GREY, "false": ORANGE}


def claims(table: pd.DataFrame, stated: Mapping[str, Claim], *, limit: int = 80) -> Figure:
    """Draw each claim's measured value and interval (columns claim, quantity, measured, low, high,
    verdict).

    A dashed line is no effect, a pale band what was stated: the size give or take its tolerance, or
    how far from no effect still counts as none. Beyond the limit claims are left out.
    """
    shown = table.head(limit)
    panels = [(str(name), rows) for name, rows in shown.groupby("quantity", sort=False)]
    heights = [len(rows) + 1.6 for _, rows in panels]
    title = "Claims, measured" + (
        f" ({len(shown)} of {len(table)})" if len(shown) < len(table) else ""
    )
    figure = new_figure(title, width=10.5, height=0.27 * sum(heights) + 1.1)
    grid = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[
        :, 0
    ]
    for axes, (quantity, rows) in zip(grid, panels, strict=True):
        _draw(axes, rows, stated)
        axes.set_title(spoken(quantity), fontsize=9, loc="left", color=INK)
    looks = [
        Line2D([], [], color=color, marker="o", ms=6, lw=2, label=name)
        for name, color in COLORS.items()
    ]
    figure.legend(handles=looks, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _draw(axes: Axes, rows: pd.DataFrame, stated: Mapping[str, Claim]) -> None:
    values = rows[["measured", "low", "high"]].to_numpy(dtype=float)
    quantity = rows["quantity"].iloc[0]
    if quantity == "risk_ratio":
        axes.set_xscale("log")
        finite = values[np.isfinite(values) & (values > 0)]
        lowest, highest = min([*finite, 0.5]) / 1.2, max([*finite, 2.0]) * 1.2
        axes.set_xlim(lowest, highest)
        axes.minorticks_off()
        ticks = [
            tick
            for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
            if lowest < tick < highest
        ]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    else:
        axes.margins(x=0.06)
    for at, (row, interval) in enumerate(zip(rows.to_dict("records"), values, strict=True)):
        claim, color = stated[row["claim"]], COLORS[row["verdict"]]
        middle = claim.no_effect if claim.direction == "same" else claim.size
        if middle is not None:
            half = max(claim.tolerance, 1e-9)
            axes.fill_betweenx(
                [at - 0.38, at + 0.38], middle - half, middle + half, color=FAINT, lw=2, zorder=0
            )
        axes.plot([claim.no_effect] * 2, [at - 0.5, at + 0.5], color=INK, lw=0.8, ls=(0, (4, 3)))
        value, low, high = interval
        if np.isfinite(value):
            axes.plot(value, at, "o", color=color, ms=5.5)
        if np.isfinite([low, high]).all():
            axes.hlines(at, low, high, color=color, lw=2)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(
        range(len(rows)), [fill(spoken(name), 44) for name in rows["claim"]], fontsize=8
    )
    right = axes.secondary_yaxis("right")
    told = [
        f"{measured_in_words(*interval)}  {name}"
        for interval, name in zip(values, rows["verdict"], strict=True)
    ]
    right.set_yticks(range(len(rows)), told, fontsize=8)
    right.tick_params(length=0, colors=INK)
    right.spines[:].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(labelsize=8, colors=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
