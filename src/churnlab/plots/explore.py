"""Figures of a table before any model: the tables of the room explore, for people to look at."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import islice, pairwise
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

from churnlab.explore.association import MAX_FDR
from churnlab.formatting import elided, number, readable, signed
from churnlab.plots import style

FIGURE_SPACE = "\u2007"  # as wide as a digit: numbers stay below each other
NEGATIVE_TO_POSITIVE = LinearSegmentedColormap.from_list(
    "negative_to_positive", [style.BLUE, "white", style.ORANGE]
)
VERDICTS = {
    "higher churn": style.ORANGE,
    "lower churn": style.BLUE,
    "no clear difference": style.GREY,
}


def distributions(
    histograms: pd.DataFrame,
    *,
    units: Mapping[str, str] | None = None,
    missing: Mapping[str, float] | None = None,
) -> Figure:
    """Draw the distribution of each feature among members who stayed and who left.

    ``histograms`` is the frame of statistics.histograms, ``missing`` the share of members without a
    value by feature; it is written below the panel.
    """
    tables = _by_feature(histograms)
    figure, panels = _panels(
        "Features of members who stayed and who left", len(tables), most_across=5, width=2.7
    )
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        if table["value"].notna().all():
            _draw_values(axes, table)
        else:
            _draw_bins(axes, table)
        _name_panel(axes, name, units)
        if share := (missing or {}).get(name):
            axes.set_xlabel(", ".join(filter(None, [axes.get_xlabel(), f"{share:.1%} missing"])))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    figure.supylabel("share of each group", fontsize=9, color=style.INK)
    style.legend_below(figure, {"stayed": style.BLUE, "left": style.ORANGE}, lw=6, alpha=0.8)
    return figure


def _draw_values(axes: Axes, table: pd.DataFrame) -> None:
    at = np.arange(len(table))
    axes.bar(at - 0.2, table["stayed"], width=0.38, color=style.BLUE, alpha=0.85)
    axes.bar(at + 0.2, table["churned"], width=0.38, color=style.ORANGE, alpha=0.85)
    _name_values(axes, table["value"].astype(str).tolist(), room=34)


def _draw_bins(axes: Axes, table: pd.DataFrame) -> None:
    edges = [*table["left"], table["right"].iloc[-1]]
    for share, color in ((table["stayed"], style.BLUE), (table["churned"], style.ORANGE)):
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
    signals: Collection[str] | None = None,
) -> Figure:
    """Draw the churn rate by value of the strongest features with 95% CIs (statistics.gradients).

    The dashed line is the churn rate of all members. Features without a signal (``signals``: those
    that have one; None: all) show no clear difference: of so many values some differ by chance.
    """
    tables = dict(islice(_by_feature(gradients).items(), limit))
    figure, panels = _panels("Churn rate by value", len(tables), most_across=3, width=3.9)
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        rate, at = table["churn_rate"].to_numpy(), np.arange(len(table))
        spread = style.error_bars(rate, table["low"], table["high"])
        clear = signals is None or name in signals
        colors = style.interval_colors(table, base_rate) if clear else style.GREY
        axes.bar(at, rate, width=0.72, color=colors, alpha=0.85)
        axes.errorbar(at, rate, yerr=spread, fmt="none", ecolor=style.INK, elinewidth=1, capsize=2)
        axes.axhline(base_rate, color=style.INK, lw=1, ls=style.DASHED)
        _name_values(axes, table["value"].astype(str).tolist(), room=52)
        _name_panel(axes, name, units)
    top = max((axes.get_ylim()[1] for axes in panels), default=1.0)
    for axes in panels:
        axes.set_ylim(0, min(top, 1.02))
    figure.supylabel("churn rate (95% CI)", fontsize=9, color=style.INK)
    everyone = Line2D(
        [], [], color=style.INK, lw=1, ls=style.DASHED, label=f"all members, {base_rate:.1%}"
    )
    style.legend_below(figure, VERDICTS, everyone, lw=6, alpha=0.85)
    return figure


def links(table: pd.DataFrame, *, limit: int = 40) -> Figure:
    """Draw each feature's uncertainty coefficient with 95% CI, the highest on top.

    The table is that of association.links.
    """
    known = table.dropna(subset="uncertainty_coefficient")
    table = known.head(limit)
    figure, axes = _rows(
        "How much each feature explains churn", len(table), of=len(known), width=8.5
    )
    explained = table["uncertainty_coefficient"].to_numpy()
    colors = [style.GREEN if signal else style.GREY for signal in table["signal"]]
    _draw_bars(axes, explained, table, colors)
    shares = [f"{share:>6.1%}".replace(" ", FIGURE_SPACE) for share in explained]
    _name_rows(axes, table["feature"].tolist(), shares)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    label = "uncertainty coefficient: share of the uncertainty about churn removed (95% CI)"
    axes.set_xlabel(label, fontsize=9, color=style.INK)
    style.legend_below(figure, {"signal": style.GREEN, "no signal": style.GREY}, lw=6, alpha=0.85)
    return figure


def correlations(table: pd.DataFrame, *, limit: int = 40) -> Figure:
    """Draw the correlations with churn as bars with 95% CIs, the strongest on top.

    The table is that of statistics.correlations.
    """
    known = table.dropna(subset="pearson_r")
    table = known.head(limit)
    figure, axes = _rows("Correlation with churn", len(table), of=len(known), width=7.5)
    r = table["pearson_r"].to_numpy()
    _draw_bars(axes, r, table, style.interval_colors(table, 0))
    _name_rows(axes, table["feature"].tolist(), [signed(value, 2) for value in r])
    axes.axvline(0, color=style.INK, lw=0.8)
    axes.margins(x=0.08)
    axes.set_xlabel("Pearson's r with churn (95% CI)", fontsize=9, color=style.INK)
    return figure


def _draw_bars(axes: Axes, values: np.ndarray, table: pd.DataFrame, colors: Sequence[str]) -> None:
    at = np.arange(len(values))
    spread = style.error_bars(values, table["low"], table["high"])
    axes.barh(at, values, height=0.68, color=colors, alpha=0.85)
    axes.errorbar(values, at, xerr=spread, fmt="none", ecolor=style.INK, elinewidth=1, capsize=2.5)


def correlation_matrix(matrix: pd.DataFrame, *, limit: int = 40) -> Figure:
    """Draw a correlation matrix below its diagonal, with numbers where they are legible.

    Columns without any correlation are left out. Of more columns than the limit, those that
    correlate least with the first (the target) are left out.
    """
    shown = known = matrix.index[matrix.notna().any()]
    if len(known) > limit:
        shown = known[known.isin(matrix[known[0]].abs().nlargest(limit).index)]
    if len(known) < 2:
        shown = matrix.index[:2]
    matrix = matrix.loc[shown, shown]
    n = len(matrix)
    names = [elided(readable(name), 36) for name in matrix.index]
    side = float(np.clip(0.42 * n, 2.0, max(8.0, 0.26 * n)))
    title = "Correlations between columns" + (f" ({n} of {len(known)})" if n < len(known) else "")
    figure = style.new_figure(title, width=side + 3.6, height=side + 2.2)
    axes = figure.add_subplot()
    below = matrix.where(np.tri(n, k=-1, dtype=bool)).to_numpy()[1:, :-1]
    image = axes.imshow(below, cmap=NEGATIVE_TO_POSITIVE, vmin=-1, vmax=1)
    size = 7.5
    axes.set_xticks(
        range(n - 1), names[:-1], rotation=45, ha="right", rotation_mode="anchor", fontsize=size
    )
    axes.set_yticks(range(n - 1), names[1:], fontsize=size)
    axes.tick_params(length=0, colors=style.INK)
    axes.spines[:].set_visible(False)
    for i, j in zip(*np.nonzero(np.isfinite(below)), strict=True):
        if side / n > 0.35:
            color = "white" if abs(below[i, j]) > 0.6 else style.INK
            text = number(below[i, j], 2).replace("0.", ".")
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color=color)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=24, pad=0.02)
    bar.set_label("Pearson's r", fontsize=9, color=style.INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=style.INK)
    return figure


def risk_ratios(drivers: pd.DataFrame, *, limit: int = 40) -> Figure:
    """Draw a forest of risk ratios of churn with 95% CIs on a log axis (statistics.risk_ratios).

    A ratio of 0 or infinity (nobody left on one side) is an arrow at the edge of the axis. A
    difference is clear if its q-value, corrected for the number of ratios, is small.
    """
    known = drivers.dropna(subset="risk_ratio")
    table = known.head(limit)
    figure, axes = _rows("Risk ratio of churn", len(table), of=len(known), width=10.0)
    intervals = table[["risk_ratio", "low", "high"]].to_numpy(dtype=float)
    # The interval of a ratio of 0 or infinity must not squeeze the others together.
    finite = intervals[(np.isfinite(intervals) & (intervals > 0)).all(axis=1)].ravel()
    lowest, highest = min([*finite, 0.7]) / 1.15, max([*finite, 1.4]) * 1.15
    axes.set_xscale("log")
    axes.set_xlim(lowest, highest)
    clear = (table["q_value"] < MAX_FDR).to_numpy()
    colors = np.where(clear, style.interval_colors(table, 1), style.GREY).tolist()
    for at, ((ratio, low, high), color) in enumerate(zip(intervals, colors, strict=True)):
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
        f"{fill(readable(name), 60)} {split}"
        for name, split in zip(table["feature"], table["split"], strict=True)
    ]
    churn = table[["churn_with", "churn_without"]].to_numpy(dtype=float)
    rows = [_risk_ratio_row(*row) for row in np.hstack([churn, intervals])]
    _name_rows(axes, splits, rows, header="churn with / without       ratio [95% CI]")
    axes.axvline(1, color=style.INK, lw=1)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(
        "risk ratio: churn with / churn without (95% CI, log scale)", fontsize=9, color=style.INK
    )
    style.legend_below(figure, VERDICTS, marker="o", ms=6, lw=2)
    return figure


def _risk_ratio_row(
    churn_with: float, churn_without: float, ratio: float, low: float, high: float
) -> str:
    r, a, b = (number(value, 2) for value in (ratio, low, high))
    return f"{churn_with:>6.1%} / {churn_without:>5.1%}    {r:>5}  [{a}, {b}]".replace(
        " ", FIGURE_SPACE
    )


def _panels(title: str, n: int, *, most_across: int, width: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with n panels, at most that many across."""
    across = min(most_across, max(n, 1))
    down = ceil(n / across) or 1
    figure = style.new_figure(
        title, width=max(width * across + 0.5, 7.4), height=0.78 * width * down + 1.1
    )
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes in grid[n:]:
        axes.remove()
    return figure, list(grid[:n])


def _rows(title: str, n: int, *, of: int, width: float) -> tuple[Figure, Axes]:
    """Return a figure with n rows, the first on top; the title says if there were more."""
    figure = style.new_figure(
        title if n == of else f"{title} ({n} of {of})", width=width, height=0.3 * n + 1.7
    )
    axes = figure.add_subplot()
    axes.set_ylim(n - 0.4, -0.6)
    style.clean(axes, "x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(labelsize=8, colors=style.INK)
    return figure, axes


def _name_rows(
    axes: Axes, names: Sequence[str], numbers: Sequence[str], *, header: str = ""
) -> None:
    """Write the rows' names on the left and their numbers on the right, under a header."""
    axes.set_yticks(range(len(names)), [fill(readable(name), 60) for name in names], fontsize=8.5)
    axes.tick_params(axis="y", length=0)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(numbers)), numbers, fontsize=8.5)
    if header:
        axes.set_ylim(top=-1.4)
        right.set_yticks([-1, *range(len(numbers))], [header, *numbers])
    right.tick_params(length=0, colors=style.INK)
    right.spines[:].set_visible(False)


def _name_panel(axes: Axes, name: str, units: Mapping[str, str] | None) -> None:
    axes.set_title(fill(readable(name), 36), fontsize=9, color=style.INK)
    axes.set_xlabel((units or {}).get(name, ""), fontsize=8, color=style.INK)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylim(bottom=0)
    style.clean(axes, "y")
    axes.tick_params(axis="y", labelsize=7.5)
    axes.tick_params(colors=style.INK)


def _name_values(axes: Axes, values: Sequence[str], *, room: int) -> None:
    """Name the values on the x axis, slanted if they do not fit side by side."""
    look: dict[str, Any] = {"fontsize": 7.5}
    names = [elided(readable(value), 22) for value in values]
    pairs = pairwise(map(len, names))
    if any(one + other + 2 > 2 * room / len(names) for one, other in pairs):
        look |= {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(values)), names, **look)
    axes.tick_params(axis="x", length=0)


def _by_feature(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {str(name): rows for name, rows in table.groupby("feature", sort=False)}
