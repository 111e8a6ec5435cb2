"""``metric=profit`` and ``metric=empc``: money tunes, ranks and gates, by the same costs."""

import pandas as pd
import pytest

from churnlab.models.decision import COSTS
from support.running import THREE_SEGMENTS, churnlab_at

pytestmark = pytest.mark.slow

ROWS = "dataset.rows=400"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("money") / "home"


@pytest.fixture(scope="module")
def churnlab(home):
    return churnlab_at(home)


@pytest.fixture(scope="module")
def runs(churnlab) -> dict[str, str]:
    """Train without costs, with them, with others, and tune by profit; ids by name."""
    commands = {
        "plain": ["train"],
        "dear": ["train", *COSTS.split(), "decision.retained_value=500"],
        "costs": ["train", *COSTS.split(), "model.estimator.C=0.1"],
        "tuned": ["tune", *COSTS.split(), "metric=profit", "tune.n_trials=3"],
    }
    ids = {}
    for name, words in commands.items():
        ended = churnlab(*words, ROWS)
        assert ended.code == 0, ended.err
        ids[name] = ended.line.get("best_run_id", ended.line["run_id"])
        if name == "tuned":
            ids["best_value"] = ended.line["best_value"]
    return ids


@pytest.mark.parametrize("metric", ["profit", "empc"])
@pytest.mark.parametrize("command", ["train", "tune", "pipeline"])
def test_money_needs_costs_and_the_words_advised_give_them(churnlab, command, metric):
    refused = churnlab(command, f"metric={metric}", ROWS)
    assert refused.code == 2
    assert refused.err.rstrip().removesuffix(".").endswith(COSTS)
    assert churnlab(command, f"metric={metric}", ROWS, *COSTS.split(), "dry_run=true").code == 0


def test_the_study_and_the_run_that_it_trains_have_the_same_profit(churnlab, runs, home):
    ended = churnlab("compare", "metric=profit", ROWS)
    assert ended.code == 0, ended.err
    (table,) = home.glob(f"mlartifacts/**/{ended.line['run_id']}/artifacts/leaderboard.csv")
    ranked = pd.read_csv(table).set_index("run_id")
    assert set(ranked.index) == {runs["costs"], runs["tuned"]}, "the others have other costs"
    assert "Not ranked by profit: 1 run whose decision has other costs" in ended.err
    assert ranked.loc[runs["tuned"], "cv_profit"] == pytest.approx(runs["best_value"])
    assert ranked["cv_profit"].is_monotonic_decreasing
    assert (ranked["cv_empc"] >= ranked["cv_profit"]).all()


def test_two_runs_are_compared_by_money_only_with_the_same_costs(churnlab, runs):
    def compare(*names):
        ids = ",".join(runs[name] for name in names)
        return churnlab("compare", f"runs=[{ids}]", "metric=empc", ROWS)

    equal = compare("costs", "tuned")
    assert equal.code == 0, equal.err
    assert equal.line["ci_low"] <= equal.line["delta"] <= equal.line["ci_high"]
    other = compare("costs", "dear")
    assert (other.code, other.line["comparable"]) == (3, False)
    assert "other costs of a contact" in other.err
    without = compare("costs", "plain")
    assert without.code == 2
    assert COSTS in without.err


def test_the_gate_judges_by_profit(churnlab, runs):
    segmented = churnlab("segment", *THREE_SEGMENTS, ROWS)
    assert segmented.code == 0, segmented.err
    first = churnlab("promote", f"churn_run={runs['costs']}", "force=true", "reason=first", ROWS)
    assert first.code == 0, first.err
    words = ["metric=profit", "require=not_worse", ROWS]
    second = churnlab("promote", f"churn_run={runs['tuned']}", *words)
    assert second.code in (0, 3), second.err
    checks = {check["name"]: check for check in second.line["checks"]}
    assert checks["profit_against_champion"]["limit"] == pytest.approx(
        -0.2
    )  # of 100, a five-hundredth
    refused = churnlab("promote", f"churn_run={runs['plain']}", "metric=profit", ROWS)
    assert refused.code == 2
    assert COSTS in refused.err
