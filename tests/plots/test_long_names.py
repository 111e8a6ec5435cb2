"""Figures whose names are long, many, or written in signs that matplotlib reads in its own way."""

import warnings

import numpy as np
import pandas as pd
import pytest

from churnlab.plots import models

SIGNS = ["fee $", "$in$ and $out^", "a_{b}", r"\frac{1}", "ставка", "100%", "x" * 90]


def names(rng: np.random.Generator) -> list[str]:
    """Names of one to nine words, and some with signs that matplotlib reads in its own way."""
    words = ["Monthly", "charges", "of_the", "services", "per", "household", "Total", "MB"]
    sizes = rng.integers(1, 10, size=rng.integers(1, 30))
    made = [f"{number} {'_'.join(rng.choice(words, size))}" for number, size in enumerate(sizes)]
    return rng.permutation([*made, *rng.choice(SIGNS, 3, replace=False)]).tolist()


@pytest.mark.parametrize("seed", range(8))
def test_groups_of_columns_are_readable_next_to_their_bars(seed):
    rng = np.random.default_rng(seed)
    columns, size = names(rng), int(rng.integers(1, 8))
    groups = [" + ".join(columns[start : start + size]) for start in range(0, len(columns), size)]
    value = np.sort(rng.gamma(0.5, 0.1, len(groups)))[::-1]
    table = pd.DataFrame(
        {
            "driver": groups,
            "importance": value,
            "low": value - 0.01,
            "high": value + 0.02,
            "direction": "lower raises the risk",
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = models.importance(table)
        figure.canvas.draw()
    renderer, page = figure.canvas.get_renderer(), figure.bbox
    labels = [label.get_window_extent(renderer) for label in figure.axes[0].get_yticklabels()]
    for label in labels:
        assert page.x0 <= label.x0 < label.x1 <= page.x1
        assert page.y0 <= label.y0 < label.y1 <= page.y1
    for below, above in zip(labels, labels[1:], strict=False):
        assert below.y1 <= above.y0 + 1
    for text in figure.axes[0].texts:
        assert text.get_window_extent(renderer).x1 <= page.x1
