"""Figures that compare models."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from churnlab.evaluation.comparison import Difference, FoldTest
from churnlab.evaluation.metric_names import LABELS, LOWER_IS_BETTER
from churnlab.formatting import elided
from churnlab.plots import style

MOST = 20
"""How many models are drawn at most, the recommended one aside."""


def leaderboard(table: pd.DataFrame, *, metric: str) -> Figure:
    """Draw each run's cross-validated metric with ±1 SD over the folds, the best on top.

    ``table``: columns ``run_id``, ``name``, ``cv_<metric>``, ``cv_<metric>_std``, ``recommended``
    (a bool) and ``suspect`` (why; empty if not); the first row is the best. The recommended run is
    drawn whatever its rank.
    """
    shown = table[(np.arange(len(table)) < MOST) | table["recommended"]][::-1]
    places, label = np.arange(len(shown)), LABELS[metric]
    figure = style.new_figure(f"Models by cross-validated {label}", height=1.6 + 0.34 * len(shown))
    axes = figure.subplots()
    suspect = shown["suspect"].ne("").to_numpy()
    recommended = shown["recommended"].to_numpy(dtype=bool)
    kinds = {
        "": (~suspect & ~recommended, style.BLUE),
        "recommended: simplest within one standard error of the best": (recommended, style.GREEN),
        "suspected leakage": (suspect & ~recommended, style.ORANGE),
    }
    for kind, (rows, color) in kinds.items():
        mean, sd = (shown[f"cv_{metric}{ending}"].to_numpy()[rows] for ending in ("", "_std"))
        drawn = axes.errorbar(
            mean, places[rows], xerr=sd, fmt="o", color=color, ecolor=style.GREY, capsize=3
        )
        if kind and rows.any():
            drawn.set_label(kind)
    axes.set_yticks(
        places, [textwrap.fill(elided(name, 60), 34) for name in _distinct(shown)], fontsize=9
    )
    axes.set_xlabel(f"{label} (mean ± SD over the folds)")
    axes.grid(axis="x", color=style.GREY, alpha=0.25)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    if suspect.any() or recommended.any():
        figure.legend(loc="outside lower center", frameon=False, fontsize=9)
    return figure


def jobs(table: pd.DataFrame, swept: Sequence[str], *, metric: str, comparable: bool) -> Figure:
    """Draw the cross-validated metric of each job of a sweep, the best on top.

    ``table``: columns ``job``, the ``swept`` keys and ``cv_<metric>``; the first row is the best.
    """
    shown = table[table[f"cv_{metric}"].notna()].head(MOST)[::-1]
    names = [
        ", ".join(f"{key.rpartition('.')[2]}={row[key]}" for key in swept) or f"job {row['job']}"
        for _, row in shown.iterrows()
    ]
    title = f"Jobs by cross-validated {LABELS[metric]}"
    figure = style.new_figure(title, height=1.6 + 0.34 * len(shown))
    axes, places = figure.subplots(), np.arange(len(shown))
    colors = [style.BLUE] * (len(shown) - 1) + [style.GREEN if comparable else style.BLUE]
    axes.scatter(shown[f"cv_{metric}"], places, c=colors, zorder=3)
    axes.set_yticks(places, [textwrap.fill(elided(name, 60), 34) for name in names], fontsize=9)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    apart = "" if comparable else "; other members or folds, so no ranking of models"
    axes.set_xlabel(f"{LABELS[metric]} (mean over the folds{apart})")
    style.clean(axes, "x")
    return figure


def paired_difference(
    found: Mapping[str, Difference],
    test: FoldTest | None,
    steps: np.ndarray | None,
    *,
    metric: str,
    names: tuple[str, str],
    rope: float,
) -> Figure:
    """Draw paired differences of two runs in one metric with their 95% CIs, against 0.

    ``found`` maps a label to a difference. If both runs have equal folds, the corrected t test over
    the folds is at the bottom, and ``steps`` (the difference in each fold) are its ticks. Within
    ``rope`` of 0, the shaded part, models are equal for all practical purposes.
    """
    first, second = (elided(name, 60) for name in names)
    rows: dict[str, Difference | FoldTest] = dict(found)
    if test is not None:
        rows[f"{test.folds} folds (ticks)\n(corrected t test)"] = test
    figure = style.new_figure(f"{first}\nminus {second}", height=1.6 + 0.6 * len(rows))
    axes = figure.subplots()
    axes.axvspan(-rope, rope, color=style.GREY, alpha=0.12, lw=0)
    axes.axvline(0, color=style.GREY, lw=1)
    for place, row in enumerate(rows.values()):
        color = style.GREY if row is test else style.BLUE
        reach = [[row.delta - row.ci_low], [row.ci_high - row.delta]]
        axes.errorbar(
            [row.delta], [place], xerr=reach, fmt="o", color=color, ecolor=color, capsize=4
        )
    if steps is not None:
        axes.plot(steps, np.full(len(steps), len(rows) - 0.75), "|", color=style.GREY, ms=8)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    good = f"{'below' if metric in LOWER_IS_BETTER else 'above'} 0, the first is better"
    axes.set_xlabel(f"difference in {LABELS[metric]} (95% CI; {good}; shaded: within {rope:g})")
    axes.grid(axis="x", color=style.GREY, alpha=0.25)
    return figure


def _distinct(table: pd.DataFrame) -> list[str]:
    """Return the runs' names; where several share one, add the first digits of their ids."""
    several = table["name"].duplicated(keep=False)
    ids = " (" + table["run_id"].str[:8] + ")"
    return (table["name"] + ids.where(several, "")).tolist()
