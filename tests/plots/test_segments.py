from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from churnlab.plots import segments
from churnlab.plots.style import GREY
from churnlab.segments.dendrogram import ward_tree
from churnlab.segments.portraits import deviations, profile


@pytest.fixture(scope="module")
def table() -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """300 rows in three groups of 100: columns, labels, who left."""
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], 100)
    values = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 14.0]])[labels] + rng.normal(size=(300, 2))
    return pd.DataFrame(values, columns=["Visits", "Age_now"]), labels, (labels == 1).astype(int)


@pytest.fixture(scope="module")
def evidence() -> pd.DataFrame:
    """Made-up evidence for k = 2 .. 4."""
    columns = {
        "inertia": [9.0, 5.0, 4.0],
        "bootstrap_ari": [0.9, 1.0, 0.5],
        "bootstrap_ari_min": [0.7, 1.0, 0.2],
        "prediction_strength": [0.8, 0.95, 0.4],
        "prediction_strength_sd": [0.1, 0.02, 0.2],
        "min_share": [0.3, 0.2, 0.04],
        "heldout_churn_auc": [np.nan] * 3,
    }
    return pd.DataFrame(columns, index=pd.Index([2, 3, 4], name="k"))


def drawn(figure: Figure) -> str:
    """Every text in the figure; drawing it as PNG must raise no warning."""
    out = BytesIO()
    figure.savefig(out, format="png")
    assert out.getvalue().startswith(b"\x89PNG")
    return "\n".join(
        text.get_text() for text in figure.findobj(lambda part: hasattr(part, "get_text"))
    )


@pytest.mark.parametrize("k", [2, 3, 7])
def test_the_dendrogram_is_cut_where_k_branches_cross(table, k):
    tree = ward_tree(table[0].to_numpy(), random_state=0)
    figure = segments.dendrogram(tree, k, proposed=3, agreement=0.91)
    text = drawn(figure)
    assert "k-means assigns the members (adjusted Rand index with this cut: 0.91)" in text
    assert f"k = {k}" in text
    assert "k = 3" in text
    assert "300 in all" in text
    axes = figure.axes[0]
    cut = axes.lines[0].get_ydata()[0]
    assert (tree.heights > cut).sum() == k - 1
    (branches,) = (part for part in axes.collections if isinstance(part, LineCollection))
    colors = [to_hex(color) for color in branches.get_colors()]
    assert colors.count(GREY) == k - 1


def test_the_dendrogram_of_a_sample_says_so(table):
    tree = ward_tree(table[0].to_numpy(), random_state=0, pairwise=100, most=100)
    assert "a sample of 100 out of 300" in drawn(segments.dendrogram(tree, 3))


def test_the_stability_figure_marks_k_the_limits_and_small_segments(evidence):
    figure = segments.stability(evidence, 3)
    text = drawn(figure)
    assert "chosen: 3" in text
    assert "0.85" in text
    assert "0.8" in text
    assert text.count("< 5%") == 1


def test_the_criteria_figure_has_a_panel_for_each_known_criterion(evidence):
    figure = segments.criteria(evidence, 3)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [segments.CRITERIA["inertia"], segments.CRITERIA["min_share"]]
    drawn(figure)


def test_the_profile_map_shows_segments_by_columns(table):
    X, labels, _ = table
    figure = segments.profile_map(deviations(X, labels)[0], ["quiet", "lively", "old"])
    text = drawn(figure)
    assert "Age now" in text
    assert "1  lively" in text
    assert figure.axes[0].images[0].get_array().shape == (3, 2)


def test_the_churn_figure_shows_rates_sizes_and_the_base_rate(table):
    X, labels, y = table
    figure = segments.churn_rates(
        profile(X, labels, y), ["quiet", "lively", "old"], base_rate=float(y.mean())
    )
    text = drawn(figure)
    assert "100.0% of 100" in text
    assert "all members, 33.3%" in text
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.0, 1.0, 0.0]


def test_a_deviation_whose_interval_includes_0_is_in_parentheses(table):
    X, labels, _ = table
    estimate, half = deviations(X, labels)
    chance = pd.DataFrame(False, index=estimate.index, columns=estimate.columns)
    chance.loc[1, "Visits"] = True
    text = drawn(segments.profile_map(estimate, ["quiet", "lively", "old"], chance=chance))
    assert f"(+{estimate.loc[1, 'Visits']:.1f})" in text
    assert text.count("(+") == 1


def test_the_map_shows_every_member_in_its_segment_and_the_variance_of_the_components(table):
    X, labels, _ = table
    points = X.to_numpy()
    figure = segments.member_map(
        points, labels, ["quiet", "lively", "old"], shares=np.array([0.6, 0.4])
    )
    text = drawn(figure)
    assert "first component, 60% of the variance" in text
    assert "2  old" in text
    clouds = [np.asarray(cloud.get_offsets()) for cloud in figure.axes[0].collections]
    assert [len(cloud) for cloud in clouds] == [100, 100, 100]
    assert np.sort(clouds[1], axis=0) == pytest.approx(np.sort(points[labels == 1], axis=0))


def test_segments_beyond_the_number_of_colors_have_other_markers(table):
    X, _, _ = table
    figure = segments.member_map(
        X.to_numpy(), np.arange(300) % 10, list("abcdefghij"), shares=np.array([0.6, 0.4])
    )
    drawn(figure)
    assert len({len(cloud.get_paths()[0].vertices) for cloud in figure.axes[0].collections}) == 2


def test_a_footnote_holds_the_given_notes_and_nothing_else(evidence):
    assert "not stable" in drawn(
        segments.footnote(segments.stability(evidence, 3), "3 segments are not stable.", None)
    )
    assert segments.footnote(segments.stability(evidence, 3), None)._supxlabel is None
