"""Figures: each function takes values and returns a matplotlib Figure, and nothing else happens.

Figures are made without pyplot: no global state, nothing to close, no window system.
"""

from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#2f6db3", "#d9722e", "#3f9461", "#8a8f98"
"""Stayed, left, good, neutral: one meaning, one colour, in every figure."""

INK, FAINT = "#3a3f47", "#e4e6ea"
"""Text and lines; the grid behind them."""

SERIES = [BLUE, ORANGE, GREEN, "#8a5bb0", "#c2a02c", "#4fa7b5", "#b5486b", GREY]


def new_figure(title: str, *, width: float = 7.0, height: float = 4.5) -> Figure:
    """An empty figure with the house's size, white ground and title (inches at 120 dots per inch)."""
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=12, fontweight="bold")
    return figure
