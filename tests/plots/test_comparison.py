import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from churnlab.evaluation.comparison import Difference, FoldTest
from churnlab.plots import comparison
from churnlab.plots.style import GREEN, ORANGE

LONG = (
    "random_forest behaviour tuned with features of the last three months and trees of any "
    "depth_and_more"
)


def board(n: int, **marks: int) -> pd.DataFrame:
    """A leaderboard of n runs; ``recommended=3`` marks the run of that position."""
    table = pd.DataFrame(
        {"name": [f"model {place}" for place in range(n)], "recommended": False, "suspect": ""}
    )
    table["run_id"] = [f"{place:032x}" for place in range(n)]
    table["cv_log_loss"] = np.linspace(0.1, 0.2, n)
    table["cv_log_loss_std"] = 0.01
    if "recommended" in marks:
        table.loc[marks["recommended"], "recommended"] = True
    if "suspect" in marks:
        table.loc[marks["suspect"], "suspect"] = "cv_roc_auc 0.9991 is above 0.995"
    return table


def colors(figure) -> set[str]:
    return {to_hex(line.get_color()) for line in figure.axes[0].lines}


def assert_nothing_is_cut_off(figure) -> None:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for axes in figure.axes:
        whole = axes.get_tightbbox(canvas.get_renderer())
        assert whole.x0 >= 0
        assert whole.x1 <= figure.bbox.width
        assert whole.y0 >= 0
    title = figure._suptitle.get_window_extent()
    assert title.x0 >= 0
    assert title.x1 <= figure.bbox.width


def test_recommended_and_suspect_runs_have_colors_of_their_own_and_a_legend():
    figure = comparison.leaderboard(board(5, recommended=2, suspect=0), metric="log_loss")
    assert {GREEN, ORANGE} <= colors(figure)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(labels) == 2
    assert "one standard error" in labels[0]
    assert labels[1] == "suspected leakage"
    plain = comparison.leaderboard(board(5), metric="log_loss")
    assert not {GREEN, ORANGE} & {
        to_hex(line.get_color()) for line in plain.axes[0].lines if len(line.get_xdata())
    }
    assert not plain.legends


def test_of_many_runs_the_best_and_the_recommended_are_drawn():
    figure = comparison.leaderboard(board(50, recommended=40), metric="log_loss")
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names[::-1] == [f"model {place}" for place in [*range(20), 40]]


@pytest.mark.parametrize("test", [None, FoldTest(0.012, -0.01, 0.034, 0.2, 5)])
def test_differences_are_drawn_with_their_intervals_and_the_folds_if_there_are_any(test):
    steps = None if test is None else np.array([0.01, 0.02, -0.01, 0.03, 0.01])
    found = {"members": Difference(0.01, 0.002, 0.02), "hold-out": Difference(0.01, -0.03, 0.05)}
    figure = comparison.paired_difference(
        found, test, steps, metric="log_loss", names=("linear", "forest"), rope=0.01
    )
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels[:2] == ["members", "hold-out"]
    assert len(labels) == (2 if test is None else 3)
    assert ("5 folds" in labels[-1]) == (test is not None)
    assert figure.get_suptitle() == "linear\nminus forest"
    label = "difference in log loss (95% CI; below 0, the first is better; shaded: within 0.01)"
    assert figure.axes[0].get_xlabel() == label
    assert_nothing_is_cut_off(figure)


def test_long_names_are_not_cut_off():
    table = board(3, recommended=1).assign(name=LONG)
    assert_nothing_is_cut_off(comparison.leaderboard(table, metric="log_loss"))
    found, names = {"hold-out": Difference(0.01, 0.002, 0.02)}, (LONG, f"{LONG} 2")
    assert_nothing_is_cut_off(
        comparison.paired_difference(
            found, None, None, metric="average_precision", names=names, rope=0.02
        )
    )


def test_runs_that_share_a_name_are_distinguished_by_their_ids():
    table = board(3)
    table["name"] = ["forest", "linear", "forest"]
    table["run_id"] = ["a" * 32, "b" * 32, "c" * 32]
    figure = comparison.leaderboard(table, metric="log_loss")
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names[::-1] == ["forest (aaaaaaaa)", "linear", "forest (cccccccc)"]
