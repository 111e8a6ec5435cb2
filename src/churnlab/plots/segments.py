"""Figures of a segmentation: Ward's tree, the evidence for each k, and profiles of the segments."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.cluster.hierarchy import dendrogram as layout

from churnlab.formatting import readable, signed
from churnlab.plots import style
from churnlab.segments.choose_k import STABLE, segmented, stable_limits
from churnlab.segments.dendrogram import WardTree

WARNING = "#9c3d10"
GROUPS = [*style.SERIES[3:7], "#6b7f2a", "#8b5e3c", "#2f3e63", "#d48fb0"]
"""Colors of segments: none of them means stayed or left."""

MARKERS = ("o", "^", "s", "D")
"""Markers for segments beyond the number of colors."""

BELOW_TO_ABOVE = LinearSegmentedColormap.from_list(
    "below_to_above", [style.SERIES[3], "white", style.SERIES[4]]
)

CRITERIA = {
    "bic": "BIC (lower is better)",
    "ward_height_gap": "Ward height gap (higher is better)",
    "silhouette": "silhouette (higher is better)",
    "calinski_harabasz": "Calinski-Harabasz (higher is better)",
    "davies_bouldin": "Davies-Bouldin (lower is better)",
    "gap": "gap statistic (best where it levels off; 1: no groups)",
    "inertia": "inertia (best at the elbow)",
    "ward_agreement": "agreement with Ward (higher is better)",
    "min_share": f"smallest segment's share (at least {STABLE['min_share']:.0%})",
    "heldout_churn_auc": "held-out churn AUC (not used to choose)",
}


def footnote(figure: Figure, *notes: str | None) -> Figure:
    """Add notes below a figure in small print, without those that are None; return the figure."""
    text = "\n".join(fill(note, int(14 * figure.get_figwidth())) for note in notes if note)
    if text and figure.legends:  # both would be at the lower edge
        figure.legends[0].set_title(text, prop=FontProperties(size=8))
        figure.legends[0].get_title().set_color(WARNING)
        figure.legends[0].set_alignment("left")
    elif text:
        figure.supxlabel(text, x=0.01, ha="left", fontsize=8, color=WARNING)
    return figure


def dendrogram(
    tree: WardTree,
    k: int,
    *,
    proposed: int | None = None,
    agreement: float | None = None,
    made_by: str = "k-means",
    branches: int = 30,
) -> Figure:
    """Draw the last ``branches`` merges of Ward's tree, cut into k clusters.

    ``proposed`` is the k of the largest gap between merge heights, ``agreement`` the adjusted Rand
    index of the cut with the segments, which ``made_by`` made.
    """
    figure = style.new_figure(f"Ward dendrogram, cut into {k} clusters", width=9.0, height=5.2)
    axes = figure.add_subplot()
    heights = np.append(tree.heights, 0.0)
    cut = float(heights[k - 2] + heights[k - 1]) / 2
    _draw_branches(axes, tree, cut, max(branches, 2 * k))
    axes.set_ylim(0, 1.06 * heights[0])
    axes.axhline(cut, color=style.INK, linewidth=1, linestyle=style.DASHED)
    place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "bottom"}
    axes.text(0.995, cut, f"k = {k}", color=style.INK, **place)
    members = f"{tree.n_rows:,} in all"
    if tree.sampled:
        members = f"a sample of {len(tree.rows):,} out of {tree.n_rows:,}"
    rand = "" if agreement is None else f" (adjusted Rand index with this cut: {agreement:.2f})"
    made = f"Ward suggests k; {made_by} assigns the members{rand}"
    label = f"members in each branch, {members}\n{made}"
    axes.set_xlabel(label, fontsize=8.5, color=style.INK)
    axes.set_ylabel("merge height", fontsize=9, color=style.INK)
    if proposed is not None:
        title = f"largest gap between merge heights at k = {proposed}"
        axes.set_title(title, fontsize=9, color=style.INK)
    _clean(axes, "y")
    axes.tick_params(axis="x", labelsize=7, length=0)
    return figure


def _draw_branches(axes: Axes, tree: WardTree, cut: float, branches: int) -> None:
    """Draw the upper branches, those below the cut in their cluster's color, with their sizes."""
    drawn = layout(
        tree.linkage,
        branches,
        "lastp",
        no_plot=True,
        color_threshold=cut,
        above_threshold_color="above",
    )
    cycle = {f"C{i}": GROUPS[i % len(GROUPS)] for i in range(11)}
    lines = [
        list(zip(x, y, strict=True)) for x, y in zip(drawn["icoord"], drawn["dcoord"], strict=True)
    ]
    colors = [cycle.get(color, style.GREY) for color in drawn["color_list"]]
    axes.add_collection(LineCollection(lines, colors=colors, linewidths=1.4))
    sizes = [leaf.strip("()") for leaf in drawn["ivl"]]
    axes.set_xticks(10 * np.arange(len(sizes)) + 5, sizes, rotation=90)
    axes.set_xlim(0, 10 * len(sizes))


def stability(evidence: pd.DataFrame, k: int) -> Figure:
    """Draw bootstrap ARI (down to its minimum) and prediction strength (±1 SD) over k; of mixtures
    the worst segment's Jaccard index.

    Dashed lines are choose_k.stable_limits.
    """
    evidence = segmented(evidence)
    figure = style.new_figure(f"Stability of the segments (chosen: {k})", width=7.0, height=4.6)
    axes = figure.add_subplot()
    ari, sd = evidence["bootstrap_ari"], evidence["prediction_strength_sd"]
    curves = {
        "bootstrap_ari": (
            "bootstrap ARI (mean and minimum",
            ari - evidence["bootstrap_ari_min"],
            0 * ari,
        ),
        "prediction_strength": ("prediction strength (mean ± SD", sd, sd),
        "jaccard_min": ("worst segment's Jaccard index (mean", 0 * ari, 0 * ari),
    }
    limits = stable_limits(evidence)
    shown = {name: curve for name, curve in curves.items() if name in limits}
    for color, shift, (name, (label, below, above)) in zip(
        GROUPS, (-0.05, 0.05), shown.items(), strict=False
    ):
        limit = limits[name]
        axes.errorbar(
            evidence.index.to_numpy(float) + shift,
            evidence[name],
            np.clip([below, above], 0, None),
            color=color,
            marker="o",
            capsize=3,
            label=f"{label}; limit {limit:g})",
        )
        axes.axhline(limit, color=color, linewidth=1, linestyle=style.DASHED)
    for number in evidence.index[evidence["min_share"] < STABLE["min_share"]]:
        small = f"smallest\n< {STABLE['min_share']:.0%}"
        axes.annotate(small, (number, 0.02), ha="center", fontsize=7.5, color=style.GREY)
    axes.set_ylim(0, 1.05)
    _mark(axes, evidence, k)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
    return figure


def criteria(evidence: pd.DataFrame, k: int) -> Figure:
    """Draw every criterion over k, one panel each, and mark the chosen k."""
    shown = [name for name in CRITERIA if name in evidence and evidence[name].notna().any()]
    down = ceil(len(shown) / 3)
    figure = style.new_figure(
        f"Criteria for the number of segments (chosen: {k})", width=10.0, height=2.5 * down + 0.6
    )
    panels = figure.subplots(down, 3, squeeze=False, sharex=True).ravel()
    for axes in panels[len(shown) :]:
        axes.remove()
    for i, (axes, name) in enumerate(zip(panels, shown, strict=False)):
        axes.plot(evidence.index, evidence[name], color=GROUPS[0], marker="o", markersize=4)
        axes.set_title(CRITERIA[name], fontsize=9, color=style.INK)
        _mark(axes, evidence, k)
        lowest = i + 3 >= len(shown)  # the panels of a column share their labels
        axes.tick_params(axis="x", labelbottom=lowest)
        axes.xaxis.label.set_visible(lowest)
    return figure


def profile_map(
    deviations: pd.DataFrame, names: Sequence[str], *, chance: pd.DataFrame | None = None
) -> Figure:
    """Draw the standardized deviations, segments x columns, with the segments' names in order.

    ``chance`` marks deviations whose 95% CI includes 0: they are drawn pale and in parentheses.
    """
    rows, columns = deviations.shape
    figure = style.new_figure(
        "How segments differ from the average member",
        width=0.62 * columns + 4.2,
        height=0.62 * rows + 2.6,
    )
    axes = figure.add_subplot()
    values = deviations.to_numpy()
    within = np.zeros(values.shape, bool) if chance is None else chance.to_numpy()
    image = axes.imshow(values, cmap=BELOW_TO_ABOVE, vmin=-1.5, vmax=1.5, aspect="auto")
    labels = [readable(name) for name in deviations.columns]
    axes.set_xticks(
        range(columns), labels, rotation=40, ha="right", rotation_mode="anchor", fontsize=8
    )
    axes.set_yticks(range(rows), _numbered(deviations.index, names), fontsize=8)
    axes.tick_params(length=0, colors=style.INK)
    axes.spines[:].set_visible(False)
    for (i, j), value in np.ndenumerate(values):
        color = "white" if abs(value) > 1.2 else style.INK
        text = signed(value, 1) if abs(value) >= 0.05 else "0"
        if within[i, j]:
            text, color = f"({text})", style.GREY
        axes.text(j, i, text, ha="center", va="center", fontsize=8, color=color)
    bar = figure.colorbar(image, ax=axes, extend="both", pad=0.02)
    label = "standard deviations\n(in parentheses: 95% CI includes 0)"
    bar.set_label(label, fontsize=8, color=style.INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=style.INK)
    return figure


def churn_rates(profile: pd.DataFrame, names: Sequence[str], *, base_rate: float) -> Figure:
    """Draw each segment's churn rate with its 95% CI and size, and the rate of all members."""
    figure = style.new_figure("Churn rate by segment", width=8.0, height=0.62 * len(profile) + 1.7)
    axes = figure.add_subplot()
    rate, high, at = profile["churn_rate"], profile["churn_high"], np.arange(len(profile))
    colors = style.interval_colors(profile, base_rate, low="churn_low", high="churn_high")
    spread = style.error_bars(rate, profile["churn_low"], high)
    axes.barh(at, rate, height=0.66, color=colors, alpha=0.85)
    axes.errorbar(rate, at, xerr=spread, fmt="none", ecolor=style.INK, elinewidth=1, capsize=3)
    for place, right, share, size in zip(at, high, rate, profile["size"], strict=True):
        axes.annotate(
            f"{share:.1%} of {int(size):,}",
            (right, place),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=style.INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )
    label = f"all members, {base_rate:.1%}"
    axes.axvline(base_rate, color=style.INK, linewidth=1, linestyle=style.DASHED, label=label)
    axes.set_yticks(at, _numbered(profile.index, names), fontsize=8)
    axes.set_ylim(len(at) - 0.4, -0.6)
    axes.set_xlim(0, 1.22 * high.max())
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= 1])
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("churn rate (95% CI)", fontsize=9, color=style.INK)
    figure.legend(loc="outside lower right", frameon=False, fontsize=8)
    _clean(axes, "x")
    axes.tick_params(axis="y", length=0)
    return figure


def member_map(
    points: np.ndarray, labels: np.ndarray, names: Sequence[str], *, shares: np.ndarray
) -> Figure:
    """Draw members (rows x 2 of kmeans.plane) in their segment's color, with numbered centers.

    ``shares`` are the shares of the variance that the two components explain.
    """
    figure = style.new_figure(
        "Members on the first two principal components", width=8.0, height=6.0
    )
    axes = figure.add_subplot()
    kinds = [
        (GROUPS[i % len(GROUPS)], MARKERS[i // len(GROUPS) % len(MARKERS)])
        for i in range(len(names))
    ]
    shuffled = np.random.default_rng(0).permutation(len(points))  # no segment hides the others
    points, labels = points[shuffled], labels[shuffled]
    for i, ((color, marker), name) in enumerate(zip(kinds, names, strict=True)):
        x, y = points[labels == i].T
        label = fill(f"{i}  {name}", 90)
        axes.scatter(x, y, s=7, color=color, marker=marker, alpha=0.45, linewidths=0, label=label)
    for i, (color, _) in enumerate(kinds):
        if (labels == i).any():
            room = {"facecolor": "white", "edgecolor": color, "boxstyle": "circle,pad=0.25"}
            x, y = points[labels == i].mean(axis=0)
            axes.text(
                x, y, str(i), ha="center", va="center", fontsize=9, color=style.INK, bbox=room
            )
    first, second = (f"component, {share:.0%} of the variance" for share in shares)
    axes.set_xlabel(f"first {first}", fontsize=9, color=style.INK)
    axes.set_ylabel(f"second {second}", fontsize=9, color=style.INK)
    figure.legend(loc="outside lower left", frameon=False, fontsize=8, markerscale=2)
    _clean(axes, "both")
    return figure


def _mark(axes: Axes, evidence: pd.DataFrame, k: int) -> None:
    """Mark the chosen k on an axes over k."""
    axes.axvline(k, color=style.INK, linewidth=1, linestyle=":")
    axes.set_xticks(evidence.index)
    axes.set_xlabel("number of segments", fontsize=8, color=style.INK)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    _clean(axes, "y")


def _numbered(index: pd.Index, names: Sequence[str]) -> list[str]:
    return [fill(f"{number}  {name}", 42) for number, name in zip(index, names, strict=True)]


def _clean(axes: Axes, grid: str) -> None:
    style.clean(axes, grid)
    axes.tick_params(labelsize=8, colors=style.INK)
