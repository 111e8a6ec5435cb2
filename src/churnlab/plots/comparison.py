"""Figures that set models side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from churnlab.plots import BLUE, GREY, new_figure


def leaderboard(table: pd.DataFrame, *, metric: str) -> Figure:
    """Each run's cross-validated metric with one standard deviation over the folds, the best on top.

    ``table``: columns ``name``, ``cv_<metric>``, ``cv_<metric>_std``; the first row is the best.
    """
    shown = table.head(20)[::-1]
    places = np.arange(len(shown))
    figure = new_figure(f"Models by cross-validated {metric}", height=1.6 + 0.32 * len(shown))
    axes = figure.subplots()
    axes.errorbar(
        shown[f"cv_{metric}"], places, xerr=shown[f"cv_{metric}_std"], fmt="o", color=BLUE, ecolor=GREY, capsize=3
    )
    axes.set_yticks(places, shown["name"])
    axes.set_xlabel(f"{metric}: mean and standard deviation over the folds")
    axes.grid(axis="x", color=GREY, alpha=0.25)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    return figure


def paired_difference(delta: float, ci_low: float, ci_high: float, *, metric: str, names: tuple[str, str]) -> Figure:
    """The difference of two runs in one metric with its 95% interval, against no difference."""
    figure = new_figure(f"{names[0]} minus {names[1]}", height=2.2)
    axes = figure.subplots()
    axes.axvline(0, color=GREY, lw=1)
    axes.errorbar([delta], [0], xerr=[[delta - ci_low], [ci_high - delta]], fmt="o", color=BLUE, ecolor=BLUE, capsize=4)
    axes.set_yticks([])
    axes.set_xlabel(f"difference in {metric}, 95% paired bootstrap interval")
    return figure
