"""The figures of a table: they draw what they are given, for a table of any width."""

import io
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from churnlab.data.contract import Column
from churnlab.data.demo import members
from churnlab.explore import redundancy, statistics
from churnlab.explore.association import links
from churnlab.plots import explore
from churnlab.plots.style import BLUE, GREEN, GREY, ORANGE

UNITS = {"Age": "years", "Lifetime": "months"}


def dataset(n_columns: int):
    """The demo's columns, or fewer, or more: long names and levels, a perfect category, a constant,
    noise, gaps."""
    members_ = members(600, seed=2)
    X, y = (
        members_.drop(columns="Churn").astype("float64").iloc[:, -n_columns:],
        members_["Churn"].to_numpy(),
    )
    columns = {name: Column("binary" if X[name].nunique() == 2 else "numeric") for name in X}
    rng = np.random.default_rng(0)
    for i in range(n_columns - X.shape[1]):
        name = f"another_measure_with_a_rather_long_name_{i}"
        X[name], columns[name] = rng.normal(size=600) * 10.0 ** (i % 7 - 2), Column("numeric")
    if n_columns > 13:
        X["city"], columns["city"] = [f"city {i % 40}" for i in range(600)], Column("category")
        X["plan"], columns["plan"] = np.where(y == 1, "basic", "gold"), Column("category")
        X["training"] = rng.choice(
            ["strength and conditioning for beginners", "strength and conditioning"], 600
        )
        X["country"], X["empty"] = 1.0, np.nan
        columns |= {
            "training": Column("category"),
            "country": Column("numeric"),
            "empty": Column("numeric"),
        }
        X = X.mask(rng.random(X.shape) < 0.1)
    return X, y, columns


def figures(X, y, columns) -> dict[str, Figure]:
    gradients = statistics.gradients(X, y, columns)
    missing = X.isna().mean().to_dict()
    return {
        "links": explore.links(links(gradients, columns)),
        "distributions": explore.distributions(
            statistics.histograms(X, y, columns), units=UNITS, missing=missing
        ),
        "correlations": explore.correlations(statistics.correlations(X, y)),
        "correlation_matrix": explore.correlation_matrix(
            redundancy.correlation_matrix(X, y, target="Churn")
        ),
        "risk_ratios": explore.risk_ratios(statistics.risk_ratios(X, y, columns)),
        "churn_by_value": explore.churn_by_value(gradients, base_rate=y.mean(), units=UNITS),
    }


def drawn(figure: Figure) -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


@pytest.mark.parametrize("n_columns", [1, 3, pytest.param(37, marks=pytest.mark.slow)])
def test_every_figure_is_complete_and_readable_for_a_table_of_any_width(n_columns):
    for name, figure in figures(*dataset(n_columns)).items():
        assert drawn(figure).startswith(b"\x89PNG"), name
        width, height = figure.get_size_inches()
        assert max(width, height) < 30, name
        used = figure.get_tightbbox()
        assert min(used.x0, used.y0) > -0.03, name
        assert used.x1 < width + 0.03, name
        assert used.y1 < height + 0.03, name
        if name in ("links", "correlations", "risk_ratios"):
            (axes,) = figure.axes
            for side in (axes, axes.child_axes[0]):
                boxes = sorted(
                    (label.get_window_extent() for label in side.get_yticklabels()),
                    key=lambda box: box.y0,
                )
                assert all(lower.y1 <= upper.y0 + 1 for lower, upper in pairwise(boxes)), name


def test_bars_are_the_correlations_and_their_colors_follow_the_intervals():
    rows = [
        ("up", 0.4, 0.3, 0.5),
        ("down", -0.2, -0.3, -0.1),
        ("neither", 0.01, -0.1, 0.1),
        ("constant", *[np.nan] * 3),
    ]
    (axes,) = explore.correlations(
        pd.DataFrame(rows, columns=["feature", "pearson_r", "low", "high"])
    ).axes
    bars = axes.patches
    assert [bar.get_width() for bar in bars] == [0.4, -0.2, 0.01]
    assert [bar.get_facecolor()[:3] for bar in bars] == [_rgb(ORANGE), _rgb(BLUE), _rgb(GREY)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["up", "down", "neither"]
    assert axes.yaxis_inverted()


def test_a_limit_is_written_in_the_title():
    found = statistics.correlations(*dataset(13)[:2])
    figure = explore.correlations(found, limit=5)
    assert "(5 of 13)" in figure.get_suptitle()
    assert len(figure.axes[0].patches) == 5


def test_features_with_a_signal_stand_out_from_those_without():
    rows = [
        ("a", 0.3, 0.2, 0.4, True),
        ("b", 0.01, 0.0, 0.02, False),
        ("flat", *[np.nan] * 3, False),
    ]
    found = pd.DataFrame(
        rows, columns=["feature", "uncertainty_coefficient", "low", "high", "signal"]
    )
    (axes,) = explore.links(found).axes
    assert [bar.get_width() for bar in axes.patches] == [0.3, 0.01]
    assert [bar.get_facecolor()[:3] for bar in axes.patches] == [_rgb(GREEN), _rgb(GREY)]
    assert axes.get_xlim()[0] == 0


def test_the_share_of_missing_values_is_written_below_the_distribution():
    X, y, columns = dataset(3)
    histograms = statistics.histograms(X, y, columns)
    first, second, _ = explore.distributions(
        histograms, units={X.columns[0]: "months"}, missing={X.columns[0]: 0.25}
    ).axes
    assert (first.get_xlabel(), second.get_xlabel()) == ("months, 25.0% missing", "")


def test_an_infinite_ratio_does_not_squeeze_the_others():
    rows = [("a", "= 1", 0.5, 0.2, 2.5, 2.0, 3.1), ("b", "= 1", 1.0, 0.0, np.inf, 200.0, np.inf)]
    rows.append(("c", "= 1", 0.0, 0.4, 0.0, 0.0, 0.001))
    names = ["feature", "split", "churn_with", "churn_without", "risk_ratio", "low", "high"]
    (axes,) = explore.risk_ratios(pd.DataFrame(rows, columns=names).assign(q_value=0.001)).axes
    assert axes.get_xscale() == "log"
    low, high = axes.get_xlim()
    assert 0.5 < low < 1 < 3.1 < high < 4
    markers = [line.get_marker() for line in axes.lines if line.get_marker() in "o<>"]
    assert markers == ["o", ">", "<"]


def test_the_matrix_shows_each_pair_once():
    X, y, _ = dataset(3)
    matrix = redundancy.correlation_matrix(X, y, target="Churn")
    axes = explore.correlation_matrix(matrix).axes[0]
    shown = axes.images[0].get_array()
    assert np.isfinite(shown.filled(np.nan) if np.ma.isMA(shown) else shown).sum() == 4 * 3 / 2
    assert shown[0, 0] == pytest.approx(matrix.iloc[1, 0])


def test_a_wide_matrix_shows_the_columns_that_correlate_most_with_the_target_by_distinct_names():
    X, y, _ = dataset(37)
    matrix = redundancy.correlation_matrix(X, y, target="Churn")
    figure = explore.correlation_matrix(matrix, limit=20)
    assert (
        f"(20 of {len(matrix) - 2})" in figure.get_suptitle()
    )  # without the constant and the empty column
    axes = figure.axes[0]
    names = [label.get_text() for label in [*axes.get_xticklabels()[:1], *axes.get_yticklabels()]]
    assert len(set(names)) == 20
    assert {"Churn", "Lifetime", "plan = basic"} <= set(names)
    assert max(map(len, names)) <= 40


def test_churn_by_value_shows_the_strongest_columns_on_one_scale_with_the_base_rate():
    X, y, columns = dataset(13)
    gradients = statistics.gradients(X, y, columns)
    panels = explore.churn_by_value(gradients, base_rate=y.mean(), limit=4, units=UNITS).axes
    assert len(panels) == 4
    assert panels[0].get_title() == "Lifetime"
    assert panels[0].get_xlabel() == "months"
    assert len({axes.get_ylim() for axes in panels}) == 1
    assert all(y.mean() in line.get_ydata() for axes in panels for line in axes.lines[-1:])
    rates = gradients.query("feature == 'Lifetime'")["churn_rate"]
    assert [bar.get_height() for bar in panels[0].patches] == pytest.approx(rates.tolist())


@pytest.mark.parametrize("longest", ["34–40", "over 34"])
def test_neighboring_values_of_a_panel_do_not_touch(longest):
    values = ["18–24", "25–26", *map(str, range(27, 34)), longest]
    panel = pd.DataFrame({"value": values, "churn_rate": 0.2, "low": 0.1, "high": 0.3})
    gradients = pd.concat([panel.assign(feature=name) for name in ("Age", "Years", "Seniority")])
    figure = explore.churn_by_value(gradients, base_rate=0.2)
    drawn(figure)
    for axes in figure.axes:
        labels = [label for label in axes.get_xticklabels() if label.get_text()]
        boxes = [label.get_window_extent() for label in labels]
        apart = all(left.x1 < right.x0 for left, right in pairwise(boxes))
        assert apart or all(label.get_rotation() == 40 for label in labels)


def test_nothing_to_draw_is_an_empty_figure():
    X, y = pd.DataFrame({"flat": [1.0] * 4}), np.array([0, 1, 0, 1])
    for figure in figures(X, y, {"flat": Column("numeric")}).values():
        assert drawn(figure)


def _rgb(color: str) -> tuple[float, ...]:
    return tuple(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
