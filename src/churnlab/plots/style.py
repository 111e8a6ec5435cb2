"""The look of all figures. Plot functions take values and return a matplotlib Figure.

Figures are made without pyplot: no global state, nothing to close, no window system.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter, LogLocator, NullFormatter

BLUE, ORANGE, GREEN, GREY = "#2f6db3", "#d9722e", "#3f9461", "#8a8f98"
"""Stayed, left, good, neutral: each color means the same in every figure."""

INK, FAINT = "#3a3f47", "#e4e6ea"
"""Text and lines; the grid behind them."""

SERIES = [BLUE, ORANGE, GREEN, "#8a5bb0", "#c2a02c", "#4fa7b5", "#b5486b", GREY]

DASHED: Any = (0, (4, 3))


def new_figure(title: str, *, width: float = 7.0, height: float = 4.5) -> Figure:
    """Return an empty white figure with a title; sizes are in inches at 120 dots per inch."""
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)  # layout and drawing then measure each text only once
    figure.suptitle(title, fontsize=12, fontweight="bold")
    return figure


def clean(axes: Axes, grid: str) -> None:
    """Remove the frame at the top and right, and draw a grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=FAINT, linewidth=0.8)  # type: ignore[arg-type]


def plain_ticks(axis: Axis) -> None:
    """Write the ticks of a logarithmic axis as plain numbers: powers of ten take matplotlib longer
    than all other text of a figure."""
    axis.set_major_formatter("{x:,.9g}")
    axis.set_minor_formatter(LogFormatter())  # labels some of them where no power of ten is seen


def restyle(figure: Figure, title: str) -> None:
    """Give a figure that a library drew the look of the others: white, a faint grid, our title."""
    figure.set_facecolor("white")
    figure.suptitle(title, fontsize=12, fontweight="bold")
    for axes in figure.axes:
        axes.set_title("")
        axes.set_title("", loc="left")
        axes.set_facecolor("white" if axes is figure.axes[0] else "none")
        axes.set_axisbelow(True)
        if axes.has_data():
            axes.grid(color=FAINT)
        else:  # a further scale of the same axes
            axes.grid(visible=False)
        for axis in (axes.xaxis, axes.yaxis):
            axis.label.set(color=INK, fontsize=10)
            if axis.get_scale() == "log":
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter(NullFormatter())
        axes.tick_params(colors=INK, labelsize=8.5)
        if legend := axes.get_legend():
            legend.set_frame_on(False)


def legend_below(figure: Figure, colors: Mapping[str, str], *first: Line2D, **look: Any) -> None:
    """Explain colors by label in a legend below the figure, after the entries given as lines."""
    lines = [Line2D([], [], color=color, label=label, **look) for label, color in colors.items()]
    entries = [*first, *lines]
    figure.legend(
        handles=entries, loc="outside lower center", ncols=len(entries), frameon=False, fontsize=9
    )


def error_bars(values: Any, low: Any, high: Any) -> np.ndarray:
    """Return how far intervals reach below and above the values, shape (2, n), as errorbar wants.

    >>> error_bars(np.array([2.0]), np.array([1.5]), np.array([4.0])).tolist()
    [[0.5], [2.0]]
    """
    return np.clip([values - low, high - values], 0, None)


def interval_colors(
    table: pd.DataFrame, neutral: float, *, low: str = "low", high: str = "high"
) -> list[str]:
    """Return a color per row: orange if its interval is above neutral, blue if below, else grey."""
    above, below = table[low] > neutral, table[high] < neutral
    return np.select([above, below], [ORANGE, BLUE], GREY).tolist()
