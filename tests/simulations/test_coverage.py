"""No kind of printed 95% interval is grossly off: the short form of benchmarks/coverage.py."""

import sys
from pathlib import Path

import pytest

from support.planted import assert_at_most, tables
from support.soak import SOAK

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
import model_intervals  # noqa: E402
import table_intervals  # noqa: E402
from tallies import Tally, measure  # noqa: E402

sys.path.remove(BENCHMARKS)
KINDS = model_intervals.KINDS | table_intervals.KINDS

SLOW = {
    **dict.fromkeys(("metric", "ece-perfect", "uncertainty-coefficient"), 0.2),
    **dict.fromkeys(("decision", "reliability", "slice"), 0.3),
    **dict.fromkeys(("paired-difference", "champion-difference", "mean-difference"), 0.5),
    "calibration-slope": 0.5,
}
"""The suite takes this share of the tables."""

OFF = {f"deviation, skewed column, {share} of all" for share in ("8%", "2%")}
"""Too narrow, as docs/explanation/how-sure.md says: the mean of few members of a skewed column."""


@pytest.mark.parametrize("name", KINDS)
def test_no_interval_misses_the_truth_much_more_often_than_5_percent(name: str):
    of = round(tables(50, 1000) * (1 if SOAK else SLOW.get(name, 1)))
    for label, found in measure(name, KINDS[name], 800, tables=of, seed=0).items():
        if label not in OFF:
            assert_at_most(0.06, found.above + found.below, of=found.printed)


def test_a_coverage_is_off_only_beyond_its_own_error():
    assert Tally(covering=940, above=60).verdict == "within"
    assert Tally(covering=900, above=100).verdict == "too narrow"
    assert Tally(covering=1000).verdict == "too wide"
