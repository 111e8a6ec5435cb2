"""Choose the train run and the segment run that a version is made of."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from mlflow.entities import Run

from churnlab.data.dataset import Dataset
from churnlab.errors import InputError
from churnlab.registry.judges import SEGMENT
from churnlab.registry.versions import NO_SEGMENTS
from churnlab.tracking.leaderboard import plausible, suspects
from churnlab.tracking.names import Tag
from churnlab.tracking.search import check_costs, latest_run, ranked_train_runs, run_on_table

log = logging.getLogger(__name__)


def choose_churn_run(
    wanted: str,
    dataset: Dataset,
    tags: dict[str, str],
    *,
    metric: str,
    ceiling: Mapping[str, float | None],
) -> Run:
    """Return the train run with this id, or the ``best`` by its cross-validated metric.

    ``best`` leaves out runs above the ``ceiling``, which are too good to be true, where others are.
    """
    if wanted != "best":
        named = run_on_table(wanted, "train", dataset)
        check_costs(metric, named)
        return named
    ranked = ranked_train_runs(dataset.contract.name, tags, metric=metric)
    kept = [run for run in ranked if Tag.MODEL not in run.data.tags]  # older runs may have none
    if not kept:
        raise InputError(
            "There is no finished train run on this table and split to promote; run churnlab train "
            "(or tune) with the same dataset=, seed= and evaluation keys first."
        )
    best = next(iter(plausible(kept, ceiling)), kept[0])
    if best is not kept[0]:
        log.info(
            "Left out the best run, %s, because it is too good to be true: %s. To let the gate "
            "judge it: churn_run=%s",
            kept[0].info.run_name,
            " and ".join(*suspects(kept[:1], ceiling).values()),
            kept[0].info.run_id,
        )
    return best


def choose_segment_run(wanted: str, dataset: Dataset, *, slices: Collection[str]) -> Run | None:
    """Return the segment run with this id, the latest (``best``), or None for ``none``.

    ``slices`` are those that the gate compares; without segments none is by segment.
    """
    if wanted == NO_SEGMENTS:
        if SEGMENT in slices:
            raise InputError(
                f"gate.slices names {SEGMENT}, and segment_run=none has none; leave it out."
            )
        return None
    if wanted != "best":
        return run_on_table(wanted, "segment", dataset)
    latest = latest_run("segment", dataset)
    if latest is None:
        raise InputError(
            "There is no finished segment run on this table; run churnlab segment first, or "
            "promote without segments (segment_run=none)."
        )
    return latest
