"""Figures of one churn run: how well it ranks, how honest its probabilities are, what it decides,
what it uses.

Samples are frames with the columns y (1 = left) and probability, by the name they carry in the
legend.
"""

from __future__ import annotations

from collections.abc import Mapping
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

from churnlab.models.metrics import will_churn
from churnlab.plots.style import BLUE, FAINT, GREEN, GREY, ORANGE, SERIES, new_figure

LINES = [SERIES[3], SERIES[5], SERIES[4], SERIES[6]]
"""Colours of samples: none of them means stayed or left."""


def roc(samples: Mapping[str, pd.DataFrame]) -> Figure:
    """ROC curve of each sample, with its area."""
    figure, axes = _square(
        "ROC: leavers are ranked above stayers",
        "stayers marked (false positive rate)",
        "leavers found (recall)",
    )
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="by chance (AUC 0.500)")
    for colour, (name, sample) in zip(LINES, samples.items(), strict=False):
        wrong, found, _ = roc_curve(sample["y"], sample["probability"])
        area = roc_auc_score(sample["y"], sample["probability"])
        axes.plot(wrong, found, color=colour, linewidth=2, label=f"{name} (AUC {area:.3f})")
    _legend(axes, loc="lower right")
    return figure


def precision_recall(samples: Mapping[str, pd.DataFrame]) -> Figure:
    """Precision-recall curve of each sample, with its average precision."""
    figure, axes = _square(
        "Precision and recall: of those marked, how many leave",
        "leavers found (recall)",
        "marked who left (precision)",
    )
    base = float(np.mean(np.concatenate([sample["y"] for sample in samples.values()])))
    axes.axhline(base, color=GREY, linewidth=1, linestyle=":", label=f"by chance ({base:.3f})")
    for colour, (name, sample) in zip(LINES, samples.items(), strict=False):
        precision, recall, _ = precision_recall_curve(sample["y"], sample["probability"])
        area = average_precision_score(sample["y"], sample["probability"])
        axes.step(
            recall,
            precision,
            where="post",
            color=colour,
            linewidth=2,
            label=f"{name} (AP {area:.3f})",
        )
    _legend(axes, loc="lower left")
    return figure


def reliability(tables: Mapping[str, pd.DataFrame], samples: Mapping[str, pd.DataFrame]) -> Figure:
    """Said against seen (tables of evaluation.reliability, by sample), with the samples' counts
    below."""
    figure = new_figure(
        "Reliability: of those said to leave at 70%, do 70% leave", width=6.2, height=6.6
    )
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="perfect")
    for colour, (name, table) in zip(LINES, tables.items(), strict=False):
        spread = [table["churn_rate"] - table["low"], table["high"] - table["churn_rate"]]
        axes.errorbar(
            table["probability"],
            table["churn_rate"],
            np.clip(spread, 0, None),
            color=colour,
            marker="o",
            markersize=5,
            linewidth=1.6,
            elinewidth=1,
            capsize=2.5,
            label=f"{name}, 95% interval",
        )
    for colour, sample in zip(LINES, samples.values(), strict=False):
        below.hist(
            sample["probability"],
            bins=list(np.linspace(0, 1, 41)),
            color=colour,
            histtype="step",
            linewidth=1.6,
        )
    below.set(yscale="log", xlabel="said: probability of leaving", ylabel="members")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="seen: share that left")
    _clean(axes, "y")
    _clean(below, "y")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    below.xaxis.set_major_formatter(PercentFormatter(1.0))
    _legend(axes, loc="upper left")
    return figure


def confusion(sample: pd.DataFrame, *, threshold: float) -> Figure:
    """Members by what was said and what happened."""
    said = will_churn(sample["probability"].to_numpy(), threshold)
    left = sample["y"].to_numpy() == 1
    counts = np.array(
        [[np.sum(~left & ~said), np.sum(~left & said)], [np.sum(left & ~said), np.sum(left & said)]]
    )
    figure = new_figure(f"Confusion matrix at threshold {threshold:.2f}", width=5.4, height=4.4)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for row, right_way in enumerate([0, 1]):
        for column in (0, 1):
            colour = GREEN if column == right_way else ORANGE
            alpha = 0.12 + 0.6 * shares[row, column]
            axes.fill_between(
                [column, column + 1], row, row + 1, color=colour, alpha=alpha, linewidth=0
            )
            axes.text(
                column + 0.5,
                row + 0.45,
                f"{counts[row, column]:,}",
                ha="center",
                va="center",
                fontsize=20,
            )
            told = f"{shares[row, column]:.1%} of those who {'left' if row else 'stayed'}"
            axes.text(
                column + 0.5,
                row + 0.72,
                told,
                ha="center",
                va="center",
                fontsize=9,
                color="#30343a",
            )
    axes.set(xlim=(0, 2), ylim=(2, 0), xticks=[0.5, 1.5], yticks=[0.5, 1.5])
    axes.set_xticklabels(["said to stay", "said to leave"])
    axes.set_yticklabels(["stayed", "left"], rotation=90, va="center")
    axes.tick_params(length=0, labelsize=10)
    for line in (axes.axhline, axes.axvline):
        line(1, color="white", linewidth=3)
    axes.spines[:].set_visible(False)
    return figure


def scores(sample: pd.DataFrame, *, threshold: float) -> Figure:
    """Probabilities of those who stayed and those who left, with the threshold."""
    figure = new_figure("Scores: probabilities of those who stayed and who left", height=4.2)
    axes = figure.subplots()
    bins = list(np.linspace(0, 1, 51))
    for name, colour, outcome in [("stayed", BLUE, 0), ("left", ORANGE, 1)]:
        part = sample.loc[sample["y"] == outcome, "probability"]
        axes.hist(part, bins=bins, color=colour, alpha=0.35, label=f"{name} ({len(part):,})")
        axes.hist(part, bins=bins, color=colour, histtype="step", linewidth=1.4)
    axes.axvline(
        threshold,
        color="#30343a",
        linewidth=1.4,
        linestyle="--",
        label=f"threshold {threshold:.2f}",
    )
    axes.set(
        yscale="log", xlim=(0, 1), xlabel="probability of leaving", ylabel="members (logarithmic)"
    )
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    _clean(axes, "y")
    _legend(axes, loc="upper center")
    return figure


def gains(tables: Mapping[str, pd.DataFrame], *, churn_rate: float) -> Figure:
    """Share of leavers among the riskiest members (tables of evaluation.gains, by sample)."""
    figure, axes = _square(
        "Gains: leavers found among the riskiest", "riskiest members contacted", "leavers found"
    )
    axes.plot(
        [0, churn_rate, 1],
        [0, 1, 1],
        color=GREEN,
        linewidth=1,
        linestyle="--",
        label="nobody can do better",
    )
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="by chance")
    for colour, (name, table) in zip(LINES, tables.items(), strict=False):
        share, gain = np.append(0, table["share"]), np.append(0, table["gain"])
        axes.plot(share, gain, color=colour, linewidth=2, label=name)
    _legend(axes, loc="lower right")
    return figure


def importance(table: pd.DataFrame, *, most: int = 25) -> Figure:
    """Bars of drivers.drivers with their intervals, the strongest first, and what raises the risk
    in words."""
    shown = table.head(most)[::-1]
    figure = new_figure(
        "Drivers: what the model goes by", width=8.5, height=1.4 + 0.34 * max(len(shown), 3)
    )
    axes = figure.subplots()
    spread = [shown["importance"] - shown["low"], shown["high"] - shown["importance"]]
    names = shown["driver"].astype(str).str.replace(" + ", " +\n")
    axes.barh(names, shown["importance"], color=LINES[0], height=0.62)
    axes.errorbar(
        shown["importance"],
        names,
        xerr=spread,
        color="#30343a",
        linestyle="",
        elinewidth=1,
        capsize=2.5,
    )
    for place, (high, direction) in enumerate(zip(shown["high"], shown["direction"], strict=True)):
        axes.annotate(
            direction,
            (max(high, 0), place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    reach = max(shown["high"].max(), 1e-9)
    axes.set_xlim(min(shown["low"].min(), 0) - 0.02 * reach, 1.4 * reach)
    axes.margins(y=0.01)
    axes.axvline(0, color="#30343a", linewidth=0.8)
    axes.set_xlabel("rise of the hold-out's log loss when shuffled (95% interval)")
    _clean(axes, "x")
    axes.tick_params(axis="y", length=0, labelsize=8.5)
    return figure


def profit(curve: pd.DataFrame, *, share: float) -> Figure:
    """Profit by share of members contacted (decision.profit_curve), with the share that the
    decision contacts."""
    figure = new_figure("Profit of contacting the riskiest", height=4.2)
    axes = figure.subplots()
    axes.plot(
        curve["share"], curve["profit"], color=GREEN, linewidth=2, label="profit, knowing who left"
    )
    at = float(np.interp(share, curve["share"], curve["profit"]))
    axes.plot(
        [share],
        [at],
        marker="o",
        color="#30343a",
        linestyle="",
        label=f"decision: {share:.0%}, {at:,.0f}",
    )
    axes.axhline(0, color=GREY, linewidth=1)
    axes.set(
        xlim=(0, 1),
        xlabel="riskiest members contacted",
        ylabel="profit (assumed success and acceptance)",
    )
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    _clean(axes, "y")
    _legend(axes, loc="best")
    return figure


def _square(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = new_figure(title, width=5.6, height=5.4)
    axes = figure.subplots()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", xlabel=xlabel, ylabel=ylabel)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _clean(axes, "both")
    return figure, axes


def _clean(axes: Axes, grid: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=FAINT, linewidth=0.8)  # type: ignore[arg-type]


def _legend(axes: Axes, *, loc: Any) -> None:
    axes.legend(loc=loc, frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)
