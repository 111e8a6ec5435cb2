"""Models of the real table, and what their trainings can leave out."""

from pathlib import Path
from typing import NamedTuple

ONLY_VERDICTS = (
    *("evaluation.early=false", "evaluation.learning_curve=false"),
    "evaluation.importance_repeats=2",
)
"""Leaves out of a training what decides no metric, verdict or calibration."""


class Real(NamedTuple):
    """A store with models of the real table, the words that select the table, the sweep's run and
    the ids of the runs by model and features."""

    home: Path
    gym: list[str]
    sweep: str
    ids: dict[str, str]
