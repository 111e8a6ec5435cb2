"""Figure of measured claims: a forest of CIs, one panel per quantity, colored by verdict."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from churnlab.claims.claim import Claim, format_interval
from churnlab.formatting import readable
from churnlab.plots import style

COLORS = {
    "holds": style.GREEN,
    "compatible": "#4fa7b5",
    "partly": style.BLUE,
    "not shown": style.GREY,
    "false": style.ORANGE,
}

RATIO_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


def claims(table: pd.DataFrame, stated: Mapping[str, Claim], *, limit: int = 80) -> Figure:
    """Draw each claim's measured value and 95% CI (columns claim, quantity, measured, low, high,
    verdict).

    A dashed line is no effect. A pale band is the claimed size with its tolerance, or for a claim
    of no difference the tolerance around no effect. Claims beyond the limit are left out.
    """
    shown = table.head(limit)
    panels = [(str(name), rows) for name, rows in shown.groupby("quantity", sort=False)]
    heights = [len(rows) + 1.6 for _, rows in panels]
    some = f" ({len(shown)} of {len(table)})" if len(shown) < len(table) else ""
    figure = style.new_figure(
        f"Claims: measured values with 95% CI{some}", width=10.5, height=0.27 * sum(heights) + 1.1
    )
    grid = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, (quantity, rows) in zip(grid[:, 0], panels, strict=True):
        _scale(axes, quantity, rows[["measured", "low", "high"]].to_numpy(dtype=float))
        _draw(axes, rows, stated)
        _name_rows(axes, rows)
        axes.set_title(readable(quantity), fontsize=9, loc="left", color=style.INK)
    style.legend_below(figure, COLORS, marker="o", ms=6, lw=2)
    return figure


def _scale(axes: Axes, quantity: str, values: np.ndarray) -> None:
    """Use a log scale for risk ratios and a linear one for all other quantities."""
    if quantity != "risk_ratio":
        axes.margins(x=0.06)
        return
    axes.set_xscale("log")
    finite = values[np.isfinite(values) & (values > 0)]
    lowest, highest = min([*finite, 0.5]) / 1.2, max([*finite, 2.0]) * 1.2
    axes.set_xlim(lowest, highest)
    axes.minorticks_off()
    ticks = [tick for tick in RATIO_TICKS if lowest < tick < highest]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])


def _draw(axes: Axes, rows: pd.DataFrame, stated: Mapping[str, Claim]) -> None:
    """Draw the claimed band, no effect, and the measured value with its CI, a row per claim."""
    for at, row in enumerate(rows.to_dict("records")):
        claim, color = stated[row["claim"]], COLORS[row["verdict"]]
        middle = claim.no_effect if claim.direction == "same" else claim.size
        if middle is not None:
            half, height = max(claim.tolerance, 1e-9), [at - 0.38, at + 0.38]
            axes.fill_betweenx(
                height, middle - half, middle + half, color=style.FAINT, lw=2, zorder=0
            )
        axes.plot(
            [claim.no_effect] * 2, [at - 0.5, at + 0.5], color=style.INK, lw=0.8, ls=style.DASHED
        )
        if np.isfinite(row["measured"]):
            axes.plot(row["measured"], at, "o", color=color, ms=5.5)
        if np.isfinite([row["low"], row["high"]]).all():
            axes.hlines(at, row["low"], row["high"], color=color, lw=2)


def _name_rows(axes: Axes, rows: pd.DataFrame) -> None:
    """Write the claims' names on the left, and their measured values and verdicts on the right."""
    axes.set_ylim(len(rows) - 0.4, -0.6)
    places = range(len(rows))
    axes.set_yticks(places, [fill(readable(name), 44) for name in rows["claim"]], fontsize=8)
    right = axes.secondary_yaxis("right")
    results = [
        f"{format_interval(row['measured'], row['low'], row['high'])}  {row['verdict']}"
        for row in rows.to_dict("records")
    ]
    right.set_yticks(places, results, fontsize=8)
    right.tick_params(length=0, colors=style.INK)
    right.spines[:].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(labelsize=8, colors=style.INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
