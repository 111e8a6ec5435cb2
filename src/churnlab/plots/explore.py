"""Figures of a table before any model: what `churnlab.exploration` computes, for people to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from math import ceil
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from churnlab.formatting import spoken
from churnlab.plots.style import BLUE, FAINT, GREEN, GREY, INK, ORANGE, new_figure

FIGURE_SPACE = "\u2007"  # as wide as a digit: numbers stay below each other
STAYING_TO_LEAVING = LinearSegmentedColormap.from_list(
    "staying_to_leaving", [BLUE, "white", ORANGE]
)
MORE_LEAVE, FEWER_LEAVE, NOT_SURE = (
    "more of them leave",
    "fewer of them leave",
    "no clear difference",
)


def distributions(
    histograms: pd.DataFrame,
    *,
    units: Mapping[str, str] | None = None,
    missing: Mapping[str, float] | None = None,
) -> Figure:
    """Draw every feature among those who stayed and those who left (the frame of
    `exploration.histograms`).

    ``missing`` holds the shares of members who have no value of a feature, told below it.
    """
    tables = _by_feature(histograms)
    figure, panels = _panels(
        "Members who stayed and members who left", len(tables), most_across=5, width=2.7
    )
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        if table["value"].notna().all():
            _draw_values(axes, table)
        else:
            _draw_bins(axes, table)
        _name_panel(axes, name, units)
        if share := (missing or {}).get(name):
            axes.set_xlabel(", ".join(filter(None, [axes.get_xlabel(), f"{share:.1%} unknown"])))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    figure.supylabel("share of each group", fontsize=9, color=INK)
    looks = [Line2D([], [], color=color, lw=6, alpha=0.8) for color in (BLUE, ORANGE)]
    figure.legend(
        looks, ["stayed", "left"], loc="outside lower center", ncols=2, frameon=False, fontsize=9
    )
    return figure


def _draw_values(axes: Axes, table: pd.DataFrame) -> None:
    at = np.arange(len(table))
    axes.bar(at - 0.2, table["stayed"], width=0.38, color=BLUE, alpha=0.85)
    axes.bar(at + 0.2, table["churned"], width=0.38, color=ORANGE, alpha=0.85)
    _name_values(axes, table["value"].astype(str).tolist(), room=26)


def _draw_bins(axes: Axes, table: pd.DataFrame) -> None:
    edges = [*table["left"], table["right"].iloc[-1]]
    for share, color in ((table["stayed"], BLUE), (table["churned"], ORANGE)):
        axes.stairs(share, edges, fill=True, alpha=0.25, color=color)
        axes.stairs(share, edges, lw=1.3, color=color)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(axis="x", labelsize=7.5)
    axes.set_xlim(edges[0], edges[-1])


def churn_by_value(
    gradients: pd.DataFrame,
    *,
    base_rate: float,
    limit: int = 6,
    units: Mapping[str, str] | None = None,
) -> Figure:
    """Draw the churn rate along the strongest features with intervals and the base rate
    (`exploration.gradients`)."""
    tables = dict(islice(_by_feature(gradients).items(), limit))
    figure, panels = _panels("Churn rate by value", len(tables), most_across=3, width=3.9)
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        rate, at = table["churn_rate"].to_numpy(), np.arange(len(table))
        colors = [
            _verdict_color(low, high, base_rate)
            for low, high in zip(table["low"], table["high"], strict=True)
        ]
        spread = np.clip([rate - table["low"], table["high"] - rate], 0, None)
        axes.bar(at, rate, width=0.72, color=colors, alpha=0.85)
        axes.errorbar(at, rate, yerr=spread, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
        axes.axhline(base_rate, color=INK, lw=1, ls=(0, (4, 3)))
        _name_values(axes, table["value"].astype(str).tolist(), room=40)
        _name_panel(axes, name, units)
    top = max((axes.get_ylim()[1] for axes in panels), default=1.0)
    for axes in panels:
        axes.set_ylim(0, min(top, 1.02))
    figure.supylabel("churn rate, with 95% interval", fontsize=9, color=INK)
    looks = [
        Line2D([], [], color=INK, lw=1, ls=(0, (4, 3)), label=f"all members, {base_rate:.1%}"),
        *(Line2D([], [], color=color, lw=6, alpha=0.85, label=label) for color, label in _VERDICTS),
    ]
    figure.legend(handles=looks, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def links(table: pd.DataFrame, *, limit: int = 40) -> Figure:
    """Draw how much of who leaves each feature tells, with intervals, the most on top
    (`churnlab.links.links`)."""
    known = table.dropna(subset="uncertainty_coefficient")
    table = known.head(limit)
    figure, axes = _rows(
        "How much each feature tells of who leaves", len(table), of=len(known), width=8.5
    )
    told, at = table["uncertainty_coefficient"].to_numpy(), np.arange(len(table))
    colors = [GREEN if signal else GREY for signal in table["signal"]]
    axes.barh(at, told, height=0.68, color=colors, alpha=0.85)
    _draw_intervals(axes, told, table)
    _name_rows(
        axes,
        table["feature"].tolist(),
        [f"{share:>6.1%}".replace(" ", FIGURE_SPACE) for share in told],
    )
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.set_xlabel(
        "share of the uncertainty about who leaves that the feature takes away, with 95% interval",
        fontsize=9,
        color=INK,
    )
    looks = [Line2D([], [], color=color, lw=6, alpha=0.85) for color in (GREEN, GREY)]
    figure.legend(
        looks,
        ["signal", "no signal"],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    return figure


def correlations(table: pd.DataFrame, *, limit: int = 40) -> Figure:
    """Draw the correlations with leaving as bars with intervals, strongest on top
    (`exploration.correlations`)."""
    known = table.dropna(subset="pearson_r")
    table = known.head(limit)
    figure, axes = _rows("Correlation with leaving", len(table), of=len(known), width=7.5)
    r, at = table["pearson_r"].to_numpy(), np.arange(len(table))
    colors = [
        _verdict_color(low, high, 0) for low, high in zip(table["low"], table["high"], strict=True)
    ]
    axes.barh(at, r, height=0.68, color=colors, alpha=0.85)
    _draw_intervals(axes, r, table)
    _name_rows(axes, table["feature"].tolist(), [f"{value:+.2f}".replace("-", "−") for value in r])
    axes.axvline(0, color=INK, lw=0.8)
    axes.margins(x=0.08)
    axes.set_xlabel("Pearson's r with leaving, with 95% interval", fontsize=9, color=INK)
    return figure


def _draw_intervals(axes: Axes, values: np.ndarray, table: pd.DataFrame) -> None:
    spread = np.clip([values - table["low"], table["high"] - values], 0, None)
    axes.errorbar(
        values,
        np.arange(len(values)),
        xerr=spread,
        fmt="none",
        ecolor=INK,
        elinewidth=1,
        capsize=2.5,
    )


def correlation_matrix(matrix: pd.DataFrame, *, limit: int = 40) -> Figure:
    """Draw a correlation matrix below its diagonal; the numbers are written where they can be read.

    Columns without any correlation are left out, and of more than the limit those that go least
    with the first.
    """
    shown = known = matrix.index[matrix.notna().any()]
    if len(known) > limit:
        shown = known[known.isin(matrix[known[0]].abs().nlargest(limit).index)]
    if len(known) < 2:
        shown = matrix.index[:2]
    matrix = matrix.loc[shown, shown]
    n = len(matrix)
    names = [_ends(spoken(name), 36) for name in matrix.index]
    side = float(np.clip(0.42 * n, 2.0, max(8.0, 0.26 * n)))
    title = "Correlations between columns" + (f" ({n} of {len(known)})" if n < len(known) else "")
    figure = new_figure(title, width=side + 3.6, height=side + 2.2)
    axes = figure.add_subplot()
    below = matrix.where(np.tri(n, k=-1, dtype=bool)).to_numpy()[1:, :-1]
    image = axes.imshow(below, cmap=STAYING_TO_LEAVING, vmin=-1, vmax=1)
    size = 7.5
    axes.set_xticks(
        range(n - 1), names[:-1], rotation=45, ha="right", rotation_mode="anchor", fontsize=size
    )
    axes.set_yticks(range(n - 1), names[1:], fontsize=size)
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    for i, j in zip(*np.nonzero(np.isfinite(below)), strict=True):
        if side / n > 0.35:
            color = "white" if abs(below[i, j]) > 0.6 else INK
            axes.text(j, i, _short(below[i, j]), ha="center", va="center", fontsize=7, color=color)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=24, pad=0.02)
    bar.set_label("Pearson's r", fontsize=9, color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=INK)
    return figure


def risk_ratios(drivers: pd.DataFrame, *, limit: int = 40) -> Figure:
    """Draw a forest of risk ratios on a log axis: each split's ratio and interval
    (`exploration.drivers`).

    A ratio of 0 or without end (nobody left on one side) is an arrow at the edge of the axis.
    """
    known = drivers.dropna(subset="risk_ratio")
    table = known.head(limit)
    figure, axes = _rows(
        "Risk ratio of leaving, with against without", len(table), of=len(known), width=10.0
    )
    intervals = table[["risk_ratio", "low", "high"]].to_numpy(dtype=float)
    # A ratio of 0 or infinity has an arrow, and its interval must not squeeze the others together.
    finite = intervals[(np.isfinite(intervals) & (intervals > 0)).all(axis=1)].ravel()
    lowest, highest = min([*finite, 0.7]) / 1.15, max([*finite, 1.4]) * 1.15
    axes.set_xscale("log")
    axes.set_xlim(lowest, highest)
    for at, (ratio, low, high) in enumerate(intervals):
        color = _verdict_color(low, high, 1)
        axes.hlines(at, max(low, lowest), min(high, highest), color=color, lw=2)
        if lowest < ratio < highest:
            axes.plot(ratio, at, "o", color=color, ms=6.5)
        else:
            axes.plot(
                lowest * 1.07 if ratio < 1 else highest / 1.07,
                at,
                "<" if ratio < 1 else ">",
                color=color,
                ms=7,
            )
    splits = [
        f"{_spoken(name, 60)} {split}"
        for name, split in zip(table["feature"], table["split"], strict=True)
    ]
    churn = table[["churn_with", "churn_without"]].to_numpy(dtype=float)
    _name_rows(
        axes, splits, [_ratio(*row) for row in np.hstack([churn, intervals])], header=_RATIO_HEADER
    )
    axes.axvline(1, color=INK, lw=1)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("risk ratio with 95% interval, logarithmic", fontsize=9, color=INK)
    looks = [
        Line2D([], [], color=color, marker="o", ms=6, lw=2, label=label)
        for color, label in _VERDICTS
    ]
    figure.legend(handles=looks, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


_VERDICTS = ((ORANGE, MORE_LEAVE), (BLUE, FEWER_LEAVE), (GREY, NOT_SURE))


def _verdict_color(low: float, high: float, neutral: float) -> str:
    return ORANGE if low > neutral else BLUE if high < neutral else GREY


_RATIO_HEADER = "churn with / without      ratio [95% interval]"


def _ratio(churn_with: float, churn_without: float, ratio: float, low: float, high: float) -> str:
    r, a, b = ("∞" if np.isinf(value) else f"{value:.2f}" for value in (ratio, low, high))
    return f"{churn_with:>6.1%} / {churn_without:>5.1%}    {r:>5}  [{a}, {b}]".replace(
        " ", FIGURE_SPACE
    )


def _panels(title: str, n: int, *, most_across: int, width: float) -> tuple[Figure, list[Axes]]:
    """A figure with n panels of about the same number across as is good to read."""
    across = min(most_across, max(n, 1))
    down = ceil(n / across) or 1
    figure = new_figure(
        title, width=max(width * across + 0.5, 7.4), height=0.78 * width * down + 1.1
    )
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes in grid[n:]:
        axes.remove()
    return figure, list(grid[:n])


def _rows(title: str, n: int, *, of: int, width: float) -> tuple[Figure, Axes]:
    """A figure with one axes for n rows, the first on top; the title says when there were more."""
    figure = new_figure(
        title if n == of else f"{title} ({n} of {of})", width=width, height=0.3 * n + 1.7
    )
    axes = figure.add_subplot()
    axes.set_ylim(n - 0.4, -0.6)
    axes.grid(axis="x", color=FAINT, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    return figure, axes


def _name_rows(
    axes: Axes, names: Sequence[str], numbers: Sequence[str], *, header: str = ""
) -> None:
    """Write the names of the rows on the left and their numbers on the right, under a header."""
    axes.set_yticks(range(len(names)), [_spoken(name, 60) for name in names], fontsize=8.5)
    axes.tick_params(axis="y", length=0)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(numbers)), numbers, fontsize=8.5)
    if header:
        axes.set_ylim(top=-1.4)
        right.set_yticks([-1, *range(len(numbers))], [header, *numbers])
    right.tick_params(length=0, colors=INK)
    right.spines[:].set_visible(False)


def _name_panel(axes: Axes, name: str, units: Mapping[str, str] | None) -> None:
    axes.set_title(_spoken(name, 36), fontsize=9, color=INK)
    axes.set_xlabel((units or {}).get(name, ""), fontsize=8, color=INK)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=FAINT, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", labelsize=7.5)
    axes.tick_params(colors=INK)


def _name_values(axes: Axes, values: Sequence[str], *, room: int) -> None:
    """Name the values on the x axis, slanted where they do not fit beside each other."""
    look: dict[str, Any] = {"fontsize": 7.5}
    names = [_ends(spoken(value), 22) for value in values]
    if sum(len(name) + 1 for name in names) > room:
        look |= {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(values)), names, **look)
    axes.tick_params(axis="x", length=0)


def _by_feature(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {str(name): rows for name, rows in table.groupby("feature", sort=False)}


def _spoken(name: str, width: int) -> str:
    return fill(spoken(name), width)


def _ends(name: str, width: int) -> str:
    """A name that is not longer than that: of a long one both ends, for the ends tell levels and
    numbers apart."""
    return (
        name
        if len(name) <= width
        else f"{name[: width // 2].rstrip()} … {name[-(width // 2 - 3) :].lstrip()}"
    )


def _short(r: float) -> str:
    return f"{r:.2f}".replace("0.", ".").replace("-.00", ".00").replace("-", "−")
