import numpy as np
import pandas as pd

from churnlab.evaluation.learning_curve import doubling
from churnlab.evaluation.slices import slice_table
from churnlab.plots import weak_spots


def test_slices_are_drawn_with_the_surest_difference_on_top():
    rng = np.random.default_rng(0)
    y, labels = rng.integers(0, 2, 900), pd.DataFrame({"home_club": rng.integers(0, 30, 900) // 6})
    table = slice_table(y, np.full(900, 0.4), 0.5, labels)
    (axes,) = weak_spots.slices(table, most=3).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    first = table.iloc[0]
    assert names[-1] == f"home club = {first['value']} ({first['n']})"
    assert len(names) == 3


def test_the_learning_curve_reaches_to_twice_the_members():
    sizes = [100, 200, 400, 800]
    curve = pd.DataFrame(
        [(fold, n, 0.3 + 5 / n + fold / 500) for fold in range(3) for n in sizes],
        columns=["fold", "members", "log_loss"],
    )
    (axes,) = weak_spots.learning_curve(curve, doubling(curve, members=1000)).axes
    assert max(line.get_xdata().max() for line in axes.lines if len(line.get_xdata())) >= 2000
    labels = axes.get_legend_handles_labels()[1]
    assert "all 1,000 members" in labels
