"""Figures of a decision."""

import io

import numpy as np

from churnlab.evaluation.decision_value import THRESHOLDS, net_benefit, sensitivity
from churnlab.models.decision import ContactEconomics
from churnlab.plots import decisions

RNG = np.random.default_rng(0)
P = RNG.beta(0.6, 1.4, 200)
Y = (RNG.random(200) < P).astype(int)


def test_the_decision_curve_marks_the_threshold_and_compares_with_everybody_and_nobody():
    figure = decisions.net_benefit(net_benefit(Y, P, thresholds=THRESHOLDS), threshold=0.22)
    figure.savefig(io.BytesIO())
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["model (95% CI)", "contact everybody", "contact nobody", "threshold 0.22"]


def test_the_sensitivity_has_the_widest_range_on_top():
    table = sensitivity(Y, P, 0.2, ContactEconomics(100, 2, 10, success=0.3, accept=0.5))
    figure = decisions.sensitivity(table)
    figure.savefig(io.BytesIO())
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names[-1] == "retained value"
    assert set(names) == {"success", "accept", "retained value", "contact cost", "incentive"}
