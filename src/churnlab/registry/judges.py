"""Select the held-out members who judge a candidate, and let them compare it with a champion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from churnlab.data.dataset import Dataset, same_members
from churnlab.data.quality import row_groups
from churnlab.errors import InputError
from churnlab.explore.binning import label_columns
from churnlab.formatting import counted, listed
from churnlab.models.decision import ContactEconomics
from churnlab.registry import versions
from churnlab.registry.against_champion import ancestor_not_judged, check_against
from churnlab.registry.gate import Check
from churnlab.registry.versions import Champion, Served

SEGMENT = "segment"
"""The name in gate.slices of the candidate's own segments."""


class HeldOut(NamedTuple):
    """The held-out ``rows`` to judge by; ``left_out`` counts the others by reason.

    ``twins`` counts those of the rows that are alike in every feature with a member in training,
    and not that member. ``champion`` is what the candidate can be compared with, ``unknown`` the
    reason why the present champion cannot be, ``caveat`` what is uncertain about its training
    members ("" for nothing).
    """

    rows: np.ndarray
    left_out: dict[str, int]
    twins: int
    champion: Served | None = None
    unknown: str | None = None
    caveat: str = ""


def select(
    dataset: Dataset,
    test: np.ndarray,
    trained: np.ndarray,
    champion: Champion | None,
    *,
    called: str = "the champion",
) -> HeldOut:
    """Select the hold-out rows whose members neither model was trained on and both accept.

    ``trained`` are the rows that the candidate was trained on; messages call the champion
    ``called``.
    """
    in_training = same_members(dataset, trained)
    seen = in_training[test]
    left_out = {
        "in the candidate's training part (name its own seed= and evaluation keys)": int(seen.sum())
    }
    if champion is None:
        return HeldOut(test[~seen], left_out, _twins(dataset, test[~seen], in_training))
    served, unknown = champion.served, champion.unknown
    if served is not None:
        try:
            seen_before, caveat = versions.trained_on(champion.version, dataset)
        except LookupError as error:
            served, unknown = None, str(error)
    if served is None:
        unknown = f"no comparison with {called}, version {champion.number}: {unknown}"
        twins = _twins(dataset, test[~seen], in_training)
        return HeldOut(test[~seen], left_out, twins, unknown=unknown)
    twins_of, seen_before = in_training | seen_before, seen_before[test]
    able = versions.answerable(served, versions.features_of(served, dataset).iloc[test])
    left_out |= {
        "more in the champion's training part": int((~seen & seen_before).sum()),
        "more that the champion's contract refuses": int((~seen & ~seen_before & ~able).sum()),
    }
    rows = test[~seen & ~seen_before & able]
    return HeldOut(rows, left_out, _twins(dataset, rows, twins_of), served, caveat=caveat)


def _twins(dataset: Dataset, rows: np.ndarray, in_training: np.ndarray) -> int:
    """Count the rows that are alike in every feature with a row in training."""
    groups = row_groups(dataset.X)
    return int(np.isin(groups[rows], groups[in_training]).sum())


def twins_sentence(held_out: HeldOut, *, named: bool) -> list[str]:
    """Say how many judges are alike with a member in training, and what that means; nothing if none
    is. ``named``: members have an id."""
    if not held_out.twins:
        return []
    alike = (
        f"{held_out.twins:,} of the {counted(len(held_out.rows), 'judge')} are alike in every "
        "feature with a member in training"
    )
    if not named:
        return [f"{alike}; without an id nobody knows whether they are the same members."]
    return [f"{alike}, though of different ids: they are other members, and judge like all others."]


class Judgment(NamedTuple):
    """A candidate to be compared: the table, its probability for each row (nan where it predicts
    none) and its threshold; the metric with its margin, the costs of a contact in its decision, and
    the seed of the bootstrap."""

    dataset: Dataset
    predicted: np.ndarray
    threshold: float
    metric: str
    margin: float
    seed: int
    costs: ContactEconomics | None = None


def compare(
    judgment: Judgment,
    held_out: HeldOut,
    *,
    require: str,
    name: str = "champion",
    called: str = "the champion",
) -> Check:
    """Compare the candidate with the champion of these held-out members."""
    rows, rival = held_out.rows, held_out.champion
    assert rival is not None
    return check_against(
        judgment.dataset.y[rows],
        judgment.predicted[rows],
        versions.probabilities(rival, versions.features_of(rival, judgment.dataset).iloc[rows]),
        metric=judgment.metric,
        thresholds=(judgment.threshold, rival.spec["threshold"]),
        require=require,
        margin=judgment.margin,
        seed=judgment.seed,
        groups=judgment.dataset.groups_of(rows),
        name=name,
        called=called,
        costs=judgment.costs,
    )


def compare_ancestor(
    judgment: Judgment, held_out: HeldOut, ancestor: Champion, *, members: int
) -> Check:
    """Check that the candidate is not worse than an earlier champion: losses within the margin
    would add up otherwise. At least so many members must be able to judge."""
    if held_out.champion is None or len(held_out.rows) < members:
        reason = held_out.unknown or (
            f"only {counted(len(held_out.rows), 'held-out member')} can judge the former champion, "
            f"version {ancestor.number}, too, and at least {members} are needed"
        )
        return ancestor_not_judged(judgment.metric, judgment.margin, reason)
    return compare(
        judgment,
        held_out,
        require="not_worse",
        name="ancestor",
        called=f"the former champion version {ancestor.number}",
    )


def check_slices_known(dataset: Dataset, names: Sequence[str]) -> None:
    """Refuse a name in gate.slices that is no feature of the dataset."""
    unknown = [name for name in names if name != SEGMENT and name not in dataset.X]
    if unknown:
        raise InputError(
            f"gate.slices names {listed(unknown)}; give columns of the dataset "
            f"({listed(list(dataset.X), 20)}), or {SEGMENT}."
        )


def slice_labels(
    dataset: Dataset, rows: np.ndarray, names: Sequence[str], segments: np.ndarray
) -> pd.DataFrame:
    """Return the slices of these rows, a column for each name: a segment, or the value or bin of a
    feature.

    ``segments`` holds the candidate's segment of each row.
    """
    columns = [name for name in names if name != SEGMENT]
    X, words = dataset.X[columns], dataset.words
    labels = label_columns(X, dataset.contract.columns, words=words).iloc[rows]
    if SEGMENT in names:
        labels[SEGMENT] = segments
    return labels[list(names)]
