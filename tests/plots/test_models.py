import io

import numpy as np
import pandas as pd
import pytest
from matplotlib import image

from churnlab.evaluation import performance
from churnlab.models.decision import ContactEconomics, profit_curve
from churnlab.plots import models, style


def sample(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    p = rng.beta(0.4, 1, n)
    return pd.DataFrame({"y": (rng.random(n) < p).astype(int), "probability": p})


@pytest.fixture(scope="module")
def samples() -> dict[str, pd.DataFrame]:
    return {"out-of-fold": sample(300, 0), "hold-out": sample(80, 1)}


def constant() -> dict[str, pd.DataFrame]:
    return {"hold-out": pd.DataFrame({"y": [0, 0, 0, 1], "probability": [0.25] * 4})}


def texts(figure) -> str:
    axes = figure.axes
    legends = [
        text.get_text()
        for each in axes
        if each.get_legend()
        for text in each.get_legend().get_texts()
    ]
    labels = [each.get_xlabel() for each in axes] + [each.get_ylabel() for each in axes]
    return "\n".join(
        [
            figure.get_suptitle(),
            *legends,
            *labels,
            *[text.get_text() for each in axes for text in each.texts],
        ]
    )


def drawn(figure) -> np.ndarray:
    """The pixels of the saved figure."""
    saved = io.BytesIO()
    figure.savefig(saved, format="png")
    saved.seek(0)
    return image.imread(saved)


def tables(samples: dict[str, pd.DataFrame], function, **arguments) -> dict[str, pd.DataFrame]:
    return {
        name: function(part["y"].to_numpy(), part["probability"].to_numpy(), **arguments)
        for name, part in samples.items()
    }


def every_figure(samples: dict[str, pd.DataFrame]) -> dict:
    last = list(samples.values())[-1]
    y, p = last["y"].to_numpy(), last["probability"].to_numpy()
    return {
        "roc": models.roc(samples),
        "precision_recall": models.precision_recall(samples),
        "reliability": models.reliability(tables(samples, performance.reliability), samples),
        "confusion": models.confusion(last, threshold=0.4),
        "scores": models.scores(last, threshold=0.4),
        "gains": models.gains(tables(samples, performance.gains, shares=np.linspace(0.05, 1, 20))),
        "profit": models.profit(
            profit_curve(y, p, ContactEconomics(100, 2, 10, 0.3, 0.5)), share=0.4
        ),
    }


@pytest.mark.parametrize("kind", ["varied", "constant"])
def test_every_figure_can_be_drawn_has_a_title_and_ink(samples, kind):
    for name, figure in every_figure(samples if kind == "varied" else constant()).items():
        pixels = drawn(figure)
        assert figure.get_suptitle(), name
        assert pixels[0, 0, :3].min() == 1, name
        assert (pixels[..., :3] < 0.9).any(axis=2).mean() > 0.005, name


def test_the_curves_are_labeled_with_their_areas(samples):
    metrics = performance.classification_metrics(
        samples["hold-out"]["y"].to_numpy(),
        samples["hold-out"]["probability"].to_numpy(),
        threshold=0.5,
    )
    assert f"hold-out (AUC {metrics['roc_auc']:.3f})" in texts(models.roc(samples))
    assert f"hold-out (AP {metrics['average_precision']:.3f})" in texts(
        models.precision_recall(samples)
    )


def test_the_confusion_matrix_counts_who_is_above_the_threshold():
    part = pd.DataFrame({"y": [0, 0, 0, 1, 1], "probability": [0.1, 0.2, 0.9, 0.5, 0.8]})
    shown = [text.get_text() for text in models.confusion(part, threshold=0.5).axes[0].texts]
    assert shown[::2] == ["2", "1", "1", "1"]
    assert shown[1] == "66.7% of those who stayed"
    assert shown[7] == "50.0% of those who left"


def test_the_score_distribution_shows_counts_and_the_threshold(samples):
    left = int(samples["hold-out"]["y"].sum())
    labels = texts(models.scores(samples["hold-out"], threshold=0.37))
    assert f"left ({left})" in labels
    assert f"stayed ({80 - left})" in labels
    assert "threshold 0.37" in labels


def importances(n: int) -> pd.DataFrame:
    importance = np.linspace(0.3, 0, n)
    return pd.DataFrame(
        {
            "driver": [f"f{k} + g{k}" for k in range(n)],
            "importance": importance,
            "low": importance - 0.01,
            "high": importance + 0.02,
            "direction": ["lower raises the risk"] * (n - 1) + ["no effect shown"],
        }
    )


def test_an_importance_is_drawn_with_its_interval_and_direction():
    axes = models.importance(importances(3)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "f2 +\ng2",
        "f1 +\ng1",
        "f0 +\ng0",
    ]
    assert [text.get_text() for text in axes.texts] == [
        "no effect shown",
        *["lower raises the risk"] * 2,
    ]
    (lines,) = axes.collections
    ends = [segment[:, 0].tolist() for segment in lines.get_segments()]
    assert ends == [pytest.approx([value - 0.01, value + 0.02]) for value in (0, 0.15, 0.3)]


def test_importances_of_zero_can_be_drawn():
    nothing = importances(2).assign(importance=0.0, low=0.0, high=0.0, direction="no effect shown")
    figure = models.importance(nothing)
    assert (drawn(figure)[..., :3] < 0.9).any()
    assert figure.axes[0].xaxis.get_offset_text().get_text() == "", "no axis in billionths"


def test_only_the_highest_of_many_importances_are_shown():
    shown = [
        label.get_text()
        for label in models.importance(importances(60), most=10).axes[0].get_yticklabels()
    ]
    assert shown == [f"f{k} +\ng{k}" for k in range(9, -1, -1)]


def test_the_profit_curve_marks_the_share_that_the_decision_contacts(samples):
    part = samples["hold-out"]
    curve = profit_curve(
        part["y"].to_numpy(), part["probability"].to_numpy(), ContactEconomics(100, 2, 10, 0.3, 0.5)
    )
    axes = models.profit(curve, share=0.25).axes[0]
    assert "decision: 25%" in texts(axes.figure)
    assert axes.lines[1].get_xdata() == [0.25]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((1, 2000), {"1", "10", "100", "1,000"}), ((30, 80), {"30", "40", "60"})],
)
def test_a_logarithmic_axis_has_plain_numbers_also_within_one_power_of_ten(counts, expected):
    figure = style.new_figure("Members")
    axes = figure.subplots()
    axes.set(yscale="log", ylim=counts)
    style.plain_ticks(axes.yaxis)
    figure.draw_without_rendering()
    shown = {label.get_text() for label in axes.yaxis.get_ticklabels(which="both")}
    assert expected <= shown
    assert "$" not in "".join(shown)
