"""The names under which runs are found: experiments, tags and artifacts."""

from __future__ import annotations

EXPERIMENTS = {
    "explore": "explore",
    "train": "churn",
    "tune": "churn",
    "trial": "churn",
    "claims": "explore",
    "compare": "churn",
    "segment": "segments",
    "promote": "promotions",
    "rollback": "promotions",
    "score": "promotions",
    "report": "promotions",
    "pipeline": "churn",
}
"""The experiment of a command's runs is <dataset.name>-<this>; a sweep's parent is beside its jobs.
"""


SAME_QUESTION = ("churnlab.data_sha256", "churnlab.split_sha256")
"""Tags that two train runs must share to be compared."""
