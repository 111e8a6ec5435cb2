"""Count how often runs have compared models on a held-out member, in whatever split."""

from __future__ import annotations

import logging

import mlflow
import numpy as np
import pandas as pd

from churnlab.data.dataset import Dataset, member_hashes
from churnlab.formatting import counted, number
from churnlab.tracking import artifacts
from churnlab.tracking.names import EXPERIMENTS, Artifact, Tag
from churnlab.tracking.search import find_runs

log = logging.getLogger(__name__)

LOOKING = ("train", "promote")
"""The commands in whose experiments runs look at held-out members: compare and tune share that of
train."""


def log_look(dataset: Dataset, rows: np.ndarray, *, data_sha256: str | None = None) -> None:
    """Record in the open run that it compares models on these rows of the table.

    ``data_sha256`` is the table that the rows are of, if it may be another than the dataset's: its
    members are then known by row only.
    """
    looked = pd.DataFrame({"row": np.sort(rows)})
    if data_sha256 in (None, dataset.sha256):
        looked["member"] = member_hashes(dataset)[looked["row"]]
    artifacts.log_table(looked, Artifact.LOOKED_AT)
    mlflow.set_tag(Tag.HOLD_OUT_LOOK, "true")


def earlier_looks(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """Count for each of these rows the finished runs that compared models on its member.

    Members are known again by id, without one by content: also those of another split, and of
    another table of the dataset.
    """
    members, looks = member_hashes(dataset)[rows], np.zeros(len(rows), int)
    for command in LOOKING:
        experiment = f"{dataset.contract.name}-{EXPERIMENTS[command]}"
        for run in find_runs(experiment, {Tag.HOLD_OUT_LOOK: "true"}, status="FINISHED"):
            try:
                looked = artifacts.find_table(run.info.run_id, Artifact.LOOKED_AT)
            except artifacts.LostFile as lost:
                log.warning("warning: its look at held-out members is not counted: %s", lost)
                continue
            if looked is not None and "member" in looked:
                looks += np.isin(members, looked["member"])
            elif looked is not None and run.data.tags[Tag.DATA] == dataset.sha256:
                looks += np.isin(rows, looked["row"])
    return looks


def looks_sentence(looks: np.ndarray, *, enough: int) -> str:
    """Say how often earlier runs have compared models on the members who judge now; a warning from
    ``enough`` uses on."""
    if not looks.any():
        return "No model has been compared on these held-out members before."
    times = counted(looks.max(), "time")
    if looks.min() < looks.max():
        times = f"at most {times}, {number(looks.mean(), 1)} on average"
    before = (
        "Earlier runs of promote, compare, tune or report have compared models on these held-out "
        f"members {times}"
    )
    if looks.mean() + 1 < enough:
        return f"{before}."
    return (
        f"warning: {before}. Members that decide again and again are no longer new to the models, "
        "in whatever split: promote on members who were not in the table before."
    )
