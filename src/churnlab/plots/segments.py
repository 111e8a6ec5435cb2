"""Figures of a segmentation: Ward's tree, the evidence for each number of segments, and what the
segments are like."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.cluster.hierarchy import dendrogram as layout

from churnlab.plots.style import BLUE, FAINT, GREY, INK, ORANGE, SERIES, new_figure
from churnlab.segments.choose_k import STABLE
from churnlab.segments.dendrogram import WardTree

WARNING = "#9c3d10"
GROUPS = [*SERIES[3:7], "#6b7f2a", "#8b5e3c", "#2f3e63", "#d48fb0"]
"""Colours of groups: none of them means stayed or left."""

MARKERS = ("o", "^", "s", "D")
"""Where groups are more than colours, the marker tells them apart."""

BELOW_TO_ABOVE = LinearSegmentedColormap.from_list(
    "below_to_above", [SERIES[3], "white", SERIES[4]]
)

CRITERIA = {
    "ward_height_gap": "Ward height gap (higher is better)",
    "silhouette": "silhouette (higher is better)",
    "calinski_harabasz": "Calinski-Harabasz (higher is better)",
    "davies_bouldin": "Davies-Bouldin (lower is better)",
    "gap": "gap statistic (where it levels off)",
    "inertia": "inertia (where it bends)",
    "ward_agreement": "agreement with Ward, ARI",
    "min_share": "smallest segment's share",
    "heldout_churn_auc": "churn AUC, held-out (chooses nothing)",
}


def footnote(figure: Figure, *lines: str | None) -> Figure:
    """The figure with what must be known beside it, in small letters below; lines that are None are
    left out."""
    said = "\n".join(fill(line, int(14 * figure.get_figwidth())) for line in lines if line)
    if said and figure.legends:  # both would be put at the lower edge
        figure.legends[0].set_title(said, prop=FontProperties(size=8))
        figure.legends[0].get_title().set_color(WARNING)
        figure.legends[0].set_alignment("left")
    elif said:
        figure.supxlabel(said, x=0.01, ha="left", fontsize=8, color=WARNING)
    return figure


def dendrogram(
    tree: WardTree,
    k: int,
    *,
    proposed: int | None = None,
    agreement: float | None = None,
    branches: int = 30,
) -> Figure:
    """Draw the last ``branches`` merges of Ward's tree, cut into k groups.

    ``proposed`` is the k of the largest gap, ``agreement`` the adjusted Rand index of the cut with
    k-means.
    """
    figure = new_figure(f"Ward's tree of the members, cut into {k}", width=9.0, height=5.2)
    axes = figure.add_subplot()
    heights = np.append(tree.heights, 0.0)
    cut = float(heights[k - 2] + heights[k - 1]) / 2
    drawn = layout(
        tree.linkage,
        max(branches, 2 * k),
        "lastp",
        no_plot=True,
        color_threshold=cut,
        above_threshold_color="above",
    )
    cycle = {f"C{i}": GROUPS[i % len(GROUPS)] for i in range(11)}
    lines = [
        list(zip(x, y, strict=True)) for x, y in zip(drawn["icoord"], drawn["dcoord"], strict=True)
    ]
    colors = [cycle.get(color, GREY) for color in drawn["color_list"]]
    axes.add_collection(LineCollection(lines, colors=colors, linewidths=1.4))
    axes.set_xticks(
        10 * np.arange(len(drawn["ivl"])) + 5,
        [leaf.strip("()") for leaf in drawn["ivl"]],
        rotation=90,
    )
    axes.set_xlim(0, 10 * len(drawn["ivl"]))
    axes.set_ylim(0, 1.06 * heights[0])
    axes.axhline(cut, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(
        0.995,
        cut,
        f"k = {k}",
        transform=axes.get_yaxis_transform(),
        ha="right",
        va="bottom",
        color=INK,
    )
    drawn_from = (
        f"a sample of {len(tree.rows):,} out of {tree.n_rows:,}"
        if tree.sampled
        else f"{tree.n_rows:,} in all"
    )
    agreeing = "" if agreement is None else f" (adjusted Rand index with this cut {agreement:.2f})"
    counting = (
        f"the tree proposes how many segments; who belongs to which is decided by k-means{agreeing}"
    )
    axes.set_xlabel(f"members in each branch, {drawn_from}\n{counting}", fontsize=8.5, color=INK)
    axes.set_ylabel("height of the merge", fontsize=9, color=INK)
    if proposed is not None:
        axes.set_title(f"largest gap between heights at k = {proposed}", fontsize=9, color=INK)
    _clean(axes, "y")
    axes.tick_params(axis="x", labelsize=7, length=0)
    return figure


def stability(evidence: pd.DataFrame, k: int) -> Figure:
    """Draw bootstrap ARI (down to its minimum) and prediction strength (one sd) over k, with what
    the rule demands."""
    figure = new_figure(
        f"Do the segments come back on other rows? (taken: {k})", width=7.0, height=4.6
    )
    axes = figure.add_subplot()
    ari, sd = evidence["bootstrap_ari"], evidence["prediction_strength_sd"]
    lines: tuple[tuple[str, str, list[pd.Series]], ...] = (
        (
            "bootstrap_ari",
            "bootstrap ARI, mean and minimum",
            [ari - evidence["bootstrap_ari_min"], 0 * ari],
        ),
        ("prediction_strength", "prediction strength, mean and standard deviation", [sd, sd]),
    )
    for colour, shift, (name, label, spread) in zip(GROUPS, (-0.05, 0.05), lines, strict=False):
        at = evidence.index.to_numpy(float) + shift
        axes.errorbar(
            at,
            evidence[name],
            np.clip(spread, 0, None),
            color=colour,
            marker="o",
            capsize=3,
            label=label,
        )
        axes.axhline(STABLE[name], color=colour, linewidth=1, linestyle=(0, (4, 3)))
        transform = axes.get_yaxis_transform()
        axes.text(
            1.01,
            STABLE[name],
            f"{STABLE[name]:g}",
            transform=transform,
            va="center",
            fontsize=8,
            color=colour,
        )
    small = evidence.index[evidence["min_share"] < STABLE["min_share"]]
    for number in small:
        axes.annotate(
            f"smallest\n< {STABLE['min_share']:.0%}",
            (number, 0.02),
            ha="center",
            fontsize=7.5,
            color=GREY,
        )
    axes.set_ylim(0, 1.05)
    _mark(axes, evidence, k)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
    return figure


def criteria(evidence: pd.DataFrame, k: int) -> Figure:
    """Draw every criterion over k, one panel each, the chosen k marked."""
    shown = [name for name in CRITERIA if name in evidence and evidence[name].notna().any()]
    down = ceil(len(shown) / 3)
    figure = new_figure(
        f"What each criterion says of the number of segments (taken: {k})",
        width=10.0,
        height=2.5 * down + 0.6,
    )
    panels = figure.subplots(down, 3, squeeze=False, sharex=True).ravel()
    for axes in panels[len(shown) :]:
        axes.remove()
    for i, (axes, name) in enumerate(zip(panels, shown, strict=False)):
        axes.plot(evidence.index, evidence[name], color=GROUPS[0], marker="o", markersize=4)
        axes.set_title(CRITERIA[name], fontsize=9, color=INK)
        _mark(axes, evidence, k)
        lowest = i + 3 >= len(shown)  # the labels below a column are the whole column's
        axes.tick_params(axis="x", labelbottom=lowest)
        axes.xaxis.label.set_visible(lowest)
    return figure


def profile_map(
    deviations: pd.DataFrame, names: Sequence[str], *, chance: pd.DataFrame | None = None
) -> Figure:
    """Draw the standardised deviations, segments x columns; ``names`` are the segments' names in
    their order.

    ``chance`` marks those whose interval includes 0: they are drawn pale and in brackets.
    """
    rows, columns = deviations.shape
    figure = new_figure(
        "How segments differ from the average member",
        width=0.62 * columns + 4.2,
        height=0.62 * rows + 2.6,
    )
    axes = figure.add_subplot()
    values = deviations.to_numpy()
    within = np.zeros(values.shape, bool) if chance is None else chance.to_numpy()
    image = axes.imshow(values, cmap=BELOW_TO_ABOVE, vmin=-1.5, vmax=1.5, aspect="auto")
    spoken = [str(name).replace("_", " ") for name in deviations.columns]
    axes.set_xticks(
        range(columns), spoken, rotation=40, ha="right", rotation_mode="anchor", fontsize=8
    )
    axes.set_yticks(range(rows), _numbered(deviations.index, names), fontsize=8)
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    for (i, j), value in np.ndenumerate(values):
        color = "white" if abs(value) > 1.2 else INK
        said = f"{value:+.1f}".replace("-", "−") if abs(value) >= 0.05 else "0"
        if within[i, j]:
            said, color = f"({said})", GREY
        axes.text(j, i, said, ha="center", va="center", fontsize=8, color=color)
    bar = figure.colorbar(image, ax=axes, extend="both", pad=0.02)
    bar.set_label("standard deviations (in brackets: may be chance)", fontsize=8, color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=INK)
    return figure


def churn_rates(profile: pd.DataFrame, names: Sequence[str], *, base_rate: float) -> Figure:
    """Draw each segment's churn rate with its 95% interval and size, and the rate of all members."""
    figure = new_figure("Churn rate by segment", width=8.0, height=0.62 * len(profile) + 1.7)
    axes = figure.add_subplot()
    rate, at = profile["churn_rate"].to_numpy(), np.arange(len(profile))
    bounds = list(zip(profile["churn_low"], profile["churn_high"], strict=True))
    colors = [
        ORANGE if low > base_rate else BLUE if high < base_rate else GREY for low, high in bounds
    ]
    spread = np.clip([rate - profile["churn_low"], profile["churn_high"] - rate], 0, None)
    axes.barh(at, rate, height=0.66, color=colors, alpha=0.85)
    axes.errorbar(rate, at, xerr=spread, fmt="none", ecolor=INK, elinewidth=1, capsize=3)
    for i, (_, high) in enumerate(bounds):
        said = f"{rate[i]:.1%} of {int(profile['size'].iloc[i]):,}"
        room = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.annotate(
            said,
            (high, i),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK,
            bbox=room,
        )
    axes.axvline(
        base_rate,
        color=INK,
        linewidth=1,
        linestyle=(0, (4, 3)),
        label=f"all members, {base_rate:.1%}",
    )
    axes.set_yticks(at, _numbered(profile.index, names), fontsize=8)
    axes.set_ylim(len(at) - 0.4, -0.6)
    axes.set_xlim(0, 1.22 * max(high for _, high in bounds))
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= 1])
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("share who left, with 95% interval", fontsize=9, color=INK)
    figure.legend(loc="outside lower right", frameon=False, fontsize=8)
    _clean(axes, "x")
    axes.tick_params(axis="y", length=0)
    return figure


def member_map(
    points: np.ndarray, labels: np.ndarray, names: Sequence[str], *, shares: np.ndarray
) -> Figure:
    """Draw members (rows x 2 of clustering.plane) in their segments' colours, each segment's number
    at its centre.

    ``shares`` of the variance say how much of the members' differences the two axes show.
    """
    figure = new_figure("The members on their first two principal axes", width=8.0, height=6.0)
    axes = figure.add_subplot()
    kinds = [
        (GROUPS[i % len(GROUPS)], MARKERS[i // len(GROUPS) % len(MARKERS)])
        for i in range(len(names))
    ]
    shuffled = np.random.default_rng(0).permutation(len(points))  # no segment hides the others
    points, labels = points[shuffled], labels[shuffled]
    for i, ((color, marker), name) in enumerate(zip(kinds, names, strict=True)):
        x, y = points[labels == i].T
        axes.scatter(
            x,
            y,
            s=7,
            color=color,
            marker=marker,
            alpha=0.45,
            linewidths=0,
            label=fill(f"{i}  {name}", 90),
        )
    for i, (color, _) in enumerate(kinds):
        if (labels == i).any():
            room = {"facecolor": "white", "edgecolor": color, "boxstyle": "circle,pad=0.25"}
            x, y = points[labels == i].mean(axis=0)
            axes.text(x, y, str(i), ha="center", va="center", fontsize=9, color=INK, bbox=room)
    axes.set_xlabel(f"first axis, {shares[0]:.0%} of the variance", fontsize=9, color=INK)
    axes.set_ylabel(f"second axis, {shares[1]:.0%} of the variance", fontsize=9, color=INK)
    figure.legend(loc="outside lower left", frameon=False, fontsize=8, markerscale=2)
    _clean(axes, "both")
    return figure


def _mark(axes: Axes, evidence: pd.DataFrame, k: int) -> None:
    """Mark the chosen k on an axes over k."""
    axes.axvline(k, color=INK, linewidth=1, linestyle=":")
    axes.set_xticks(evidence.index)
    axes.set_xlabel("number of segments", fontsize=8, color=INK)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    _clean(axes, "y")


def _numbered(index: pd.Index, names: Sequence[str]) -> list[str]:
    return [fill(f"{number}  {name}", 42) for number, name in zip(index, names, strict=True)]


def _clean(axes: Axes, grid: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=FAINT, linewidth=0.8)  # type: ignore[arg-type]
    axes.tick_params(labelsize=8, colors=INK)
