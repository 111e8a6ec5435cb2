"""Figures of one churn model: ranking, calibration, decisions and feature importance.

Samples are frames with the columns y (1 = left) and probability, by their name in the legend.
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from churnlab.evaluation.metrics import will_churn
from churnlab.formatting import readable
from churnlab.plots import style

LINES = [style.SERIES[3], style.SERIES[5], style.SERIES[4], style.SERIES[6]]
"""Colors of samples: none of them means stayed or left."""

REFERENCE: dict[str, Any] = {"color": style.GREY, "linewidth": 1, "linestyle": ":"}

WIDEST = 45
"""Characters of a column's name in one line of a figure."""


def roc(samples: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the ROC curve of each sample, with its area."""
    figure, axes = _square(
        "ROC curve", "false positive rate (stayers flagged)", "recall (leavers found)"
    )
    axes.plot([0, 1], [0, 1], **REFERENCE, label="chance (AUC 0.500)")
    for color, (name, sample) in zip(LINES, samples.items(), strict=False):
        false_positives, recall, _ = roc_curve(sample["y"], sample["probability"])
        area = roc_auc_score(sample["y"], sample["probability"])
        label = f"{name} (AUC {area:.3f})"
        axes.plot(false_positives, recall, color=color, linewidth=2, label=label)
    _legend(axes, loc="lower right")
    return figure


def precision_recall(samples: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the precision-recall curve of each sample, with its average precision."""
    figure, axes = _square(
        "Precision-recall curve", "recall (leavers found)", "precision (flagged members who left)"
    )
    base = float(np.mean(np.concatenate([sample["y"] for sample in samples.values()])))
    axes.axhline(base, **REFERENCE, label=f"chance (churn rate {base:.3f})")
    for color, (name, sample) in zip(LINES, samples.items(), strict=False):
        precision, recall, _ = precision_recall_curve(sample["y"], sample["probability"])
        area = average_precision_score(sample["y"], sample["probability"])
        label = f"{name} (AP {area:.3f})"
        axes.step(recall, precision, where="post", color=color, linewidth=2, label=label)
    _legend(axes, loc="lower left")
    return figure


def reliability(tables: Mapping[str, pd.DataFrame], samples: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw observed against predicted churn (tables of performance.reliability, by sample).

    Below it a histogram of each sample's predicted probabilities.
    """
    figure = style.new_figure("Reliability: predicted and observed churn", width=6.2, height=6.6)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    axes.plot([0, 1], [0, 1], **REFERENCE, label="perfectly calibrated")
    for color, (name, table) in zip(LINES, tables.items(), strict=False):
        axes.errorbar(
            table["probability"],
            table["churn_rate"],
            style.error_bars(table["churn_rate"], table["low"], table["high"]),
            color=color,
            marker="o",
            markersize=5,
            linewidth=1.6,
            elinewidth=1,
            capsize=2.5,
            label=f"{name} (95% CI)",
        )
    bins = list(np.linspace(0, 1, 41))
    for color, sample in zip(LINES, samples.values(), strict=False):
        below.hist(sample["probability"], bins=bins, color=color, histtype="step", linewidth=1.6)
    below.set(yscale="log", xlabel="predicted churn probability", ylabel="members")
    style.plain_ticks(below.yaxis)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="observed churn rate")
    style.clean(axes, "y")
    style.clean(below, "y")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    below.xaxis.set_major_formatter(PercentFormatter(1.0))
    _legend(axes, loc="upper left")
    return figure


def confusion(sample: pd.DataFrame, *, threshold: float) -> Figure:
    """Draw the confusion matrix at a threshold: counts and shares of the observed class."""
    predicted = will_churn(sample["probability"].to_numpy(), threshold)
    observed = sample["y"].to_numpy() == 1
    counts = np.array(
        [[np.sum((observed == row) & (predicted == column)) for column in (0, 1)] for row in (0, 1)]
    )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = style.new_figure(
        f"Confusion matrix at threshold {threshold:.2f}", width=5.4, height=4.4
    )
    axes = figure.subplots()
    text: dict[str, Any] = {"ha": "center", "va": "center"}
    for (row, column), count in np.ndenumerate(counts):
        color, share = style.GREEN if column == row else style.ORANGE, shares[row, column]
        axes.fill_between(
            [column, column + 1], row, row + 1, color=color, alpha=0.12 + 0.6 * share, linewidth=0
        )
        axes.text(column + 0.5, row + 0.45, f"{count:,}", fontsize=20, **text)
        under = f"{share:.1%} of those who {'left' if row else 'stayed'}"
        axes.text(column + 0.5, row + 0.72, under, fontsize=9, color=style.INK, **text)
    axes.set(xlim=(0, 2), ylim=(2, 0), xlabel="predicted", ylabel="observed")
    axes.set_xticks([0.5, 1.5], ["no churn", "churn"])
    axes.set_yticks([0.5, 1.5], ["no churn", "churn"], rotation=90, va="center")
    axes.tick_params(length=0, labelsize=10)
    axes.axhline(1, color="white", linewidth=3)
    axes.axvline(1, color="white", linewidth=3)
    axes.spines[:].set_visible(False)
    return figure


def scores(sample: pd.DataFrame, *, threshold: float) -> Figure:
    """Draw the predicted probabilities of members who stayed and who left, with the threshold."""
    figure = style.new_figure("Predicted churn probability by observed outcome", height=4.2)
    axes = figure.subplots()
    bins = list(np.linspace(0, 1, 51))
    for name, color, outcome in [("stayed", style.BLUE, 0), ("left", style.ORANGE, 1)]:
        part = sample.loc[sample["y"] == outcome, "probability"]
        axes.hist(part, bins=bins, color=color, alpha=0.35, label=f"{name} ({len(part):,})")
        axes.hist(part, bins=bins, color=color, histtype="step", linewidth=1.4)
    label = f"threshold {threshold:.2f}"
    axes.axvline(threshold, color=style.INK, linewidth=1.4, linestyle=style.DASHED, label=label)
    axes.set(xlabel="predicted churn probability", ylabel="members (log scale)")
    axes.set(yscale="log", xlim=(0, 1))
    style.plain_ticks(axes.yaxis)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    style.clean(axes, "y")
    _legend(axes, loc="upper center")
    return figure


def gains(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the share of leavers found by share contacted (tables of performance.gains, by sample).

    Members are contacted in the order of their predicted probability, the highest first. Each
    sample has the ideal ranking of its own members.
    """
    figure, axes = _square(
        "Gains: leavers found among the riskiest members",
        "members contacted, riskiest first",
        "leavers found",
    )
    axes.plot([0, 1], [0, 1], **REFERENCE, label="random order")
    for color, (name, table) in zip(LINES, tables.items(), strict=False):
        share, gain, ideal = (np.append(0, table[key]) for key in ("share", "gain", "perfect"))
        axes.plot(share, gain, color=color, linewidth=2, label=name)
        words = {"linestyle": style.DASHED, "label": f"ideal ranking, {name}"}
        axes.plot(share, ideal, color=color, linewidth=1, **words)
    _legend(axes, loc="lower right")
    return figure


def _in_lines(group: str) -> str:
    """Write the columns of a group one below the other, long names in several lines."""
    return " +\n".join("\n".join(wrap(name, WIDEST)) for name in group.split(" + "))


def importance(table: pd.DataFrame, *, most: int = 25) -> Figure:
    """Draw permutation importances with intervals, the highest on top, each with its direction.

    The table is that of importance.permutation_importance.
    """
    shown = table.head(most)[::-1]
    names = [_in_lines(readable(name)) for name in shown["driver"]]
    rows = np.array([max(0.34, 0.04 + 0.15 * (name.count("\n") + 1)) for name in names])  # inches
    places, height = rows.cumsum() - rows / 2, max(rows.sum(), 3 * 0.34)
    figure = style.new_figure("Permutation feature importance", width=8.5, height=1.4 + height)
    axes = figure.subplots()
    spread = style.error_bars(shown["importance"], shown["low"], shown["high"])
    axes.barh(places, shown["importance"], color=LINES[0], height=0.21)
    axes.set_yticks(places, names)
    look: dict[str, Any] = {"fmt": "none", "ecolor": style.INK, "elinewidth": 1, "capsize": 2.5}
    axes.errorbar(shown["importance"], places, xerr=spread, **look)
    for place, high, direction in zip(places, shown["high"], shown["direction"], strict=True):
        axes.annotate(
            direction,
            (max(high, 0), place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    reach = max(shown["high"].max(), 1e-3)
    axes.set_xlim(min(shown["low"].min(), 0) - 0.02 * reach, 1.4 * reach)
    axes.set_ylim(0, rows.sum())
    axes.axvline(0, color=style.INK, linewidth=0.8)
    axes.set_xlabel("increase in hold-out log loss when permuted (95% CI)")
    style.clean(axes, "x")
    axes.tick_params(axis="y", length=0, labelsize=8.5)
    return figure


def profit(curve: pd.DataFrame, *, share: float) -> Figure:
    """Draw profit by share of members contacted (decision.profit_curve) and mark the decision's."""
    figure = style.new_figure("Profit by share of members contacted", height=4.2)
    axes = figure.subplots()
    look: dict[str, Any] = {"color": style.GREEN, "linewidth": 2, "label": "given observed churn"}
    axes.plot(curve["share"], curve["profit"], **look)
    at = float(np.interp(share, curve["share"], curve["profit"]))
    label = f"decision: {share:.0%}, profit {at:,.0f}"
    axes.plot([share], [at], marker="o", color=style.INK, linestyle="", label=label)
    axes.axhline(0, color=style.GREY, linewidth=1)
    axes.set(
        xlim=(0, 1),
        xlabel="members contacted, riskiest first",
        ylabel="profit (assumed success and acceptance)",
    )
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    style.clean(axes, "y")
    _legend(axes, loc="best")
    return figure


def _square(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """Return a figure with one square axes from 0% to 100% on both sides."""
    figure = style.new_figure(title, width=5.6, height=5.4)
    axes = figure.subplots()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", xlabel=xlabel, ylabel=ylabel)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    style.clean(axes, "both")
    return figure, axes


def _legend(axes: Axes, *, loc: Any) -> None:
    axes.legend(loc=loc, frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)
