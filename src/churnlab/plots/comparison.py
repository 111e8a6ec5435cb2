"""Figures that set models side by side."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from churnlab.models.comparison import Difference, FoldTest
from churnlab.plots.style import BLUE, GREEN, GREY, ORANGE, new_figure

MOST = 20
"""So many models are drawn."""


def leaderboard(table: pd.DataFrame, *, metric: str) -> Figure:
    """Each run's cross-validated metric with one standard deviation over the folds, the best on
    top.

    ``table``: columns ``run_id``, ``name``, ``cv_<metric>``, ``cv_<metric>_std``, ``recommended``
    (whether) and ``suspect`` (why; empty where not); the first row is the best. The recommended one
    is drawn however far down it is.
    """
    shown = table[(np.arange(len(table)) < MOST) | table["recommended"]][::-1]
    places = np.arange(len(shown))
    figure = new_figure(f"Models by cross-validated {metric}", height=1.6 + 0.34 * len(shown))
    axes = figure.subplots()
    suspect, recommended = (
        shown["suspect"].ne("").to_numpy(),
        shown["recommended"].to_numpy(dtype=bool),
    )
    kinds = {
        "": (~suspect & ~recommended, BLUE),
        "recommended: the simplest within one standard error of the best": (recommended, GREEN),
        "suspected leakage": (suspect & ~recommended, ORANGE),
    }
    for label, (those, colour) in kinds.items():
        mean, spread = (shown[f"cv_{metric}{ending}"].to_numpy()[those] for ending in ("", "_std"))
        drawn = axes.errorbar(
            mean, places[those], xerr=spread, fmt="o", color=colour, ecolor=GREY, capsize=3
        )
        if label and those.any():
            drawn.set_label(label)
    axes.set_yticks(places, [_two_lines(name) for name in _distinct(shown)], fontsize=9)
    axes.set_xlabel(f"{metric}: mean and standard deviation over the folds")
    axes.grid(axis="x", color=GREY, alpha=0.25)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    if suspect.any() or recommended.any():
        figure.legend(loc="outside lower center", frameon=False, fontsize=9)
    return figure


def paired_difference(
    found: Difference,
    test: FoldTest | None,
    steps: np.ndarray | None,
    *,
    metric: str,
    names: tuple[str, str],
) -> Figure:
    """The difference of two runs in one metric with its 95% interval, against no difference.

    Below it what the folds say, each fold a dot (``steps``), where the two have the same folds.
    """
    first, second = (_cut(name, 60) for name in names)
    figure = new_figure(f"{first}\nminus {second}", height=2.8 if test is None else 3.4)
    axes = figure.subplots()
    axes.axvline(0, color=GREY, lw=1)
    rows: dict[str, Difference | FoldTest] = {"members\n(paired bootstrap)": found}
    if test is not None and steps is not None:
        rows[f"{test.folds} folds (strokes)\n(corrected t test)"] = test
        axes.plot(steps, np.full(len(steps), 1.25), "|", color=GREY, ms=8)
    for place, (told, colour) in enumerate(zip(rows.values(), (BLUE, GREY), strict=False)):
        reach = [[told.delta - told.ci_low], [told.ci_high - told.delta]]
        axes.errorbar(
            [told.delta], [place], xerr=reach, fmt="o", color=colour, ecolor=colour, capsize=4
        )
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"difference in {metric} with 95% interval")
    axes.grid(axis="x", color=GREY, alpha=0.25)
    return figure


def _distinct(table: pd.DataFrame) -> list[str]:
    """The runs' names; those that several have with the beginning of their ids."""
    several = table["name"].duplicated(keep=False)
    ids = " (" + table["run_id"].str[:8] + ")"
    return (table["name"] + ids.where(several, "")).tolist()


def _two_lines(name: str) -> str:
    return textwrap.fill(_cut(name, 60), 34)


def _cut(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 13]}…{name[-12:]}"
