"""Describe problems, and read the part of the store in which doctor looks for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mlflow.entities import LoggedModel, Run, ViewType

from churnlab.tracking.names import Tag
from churnlab.tracking.search import logged_models, search

REPAIRS = "churnlab doctor fix=true"
"""The command that repairs every problem that has a ``repair``."""


@dataclass(frozen=True)
class Problem:
    """Describe a problem: its kind, what was found and where, and the fix in words.

    ``repair`` fixes it; None if only the user can.
    """

    kind: str
    what: str
    where: str
    fix: str
    repair: Callable[[], None] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class StoreSnapshot:
    """Hold our runs except trials by id (deleted ones too), RUNNING trials, and logged models."""

    runs: dict[str, Run]
    open_trials: list[Run]
    models: list[LoggedModel]
    experiments: list[str]

    @property
    def active(self) -> dict[str, Run]:
        """Return the runs that are not deleted."""
        return {
            run_id: run for run_id, run in self.runs.items() if run.info.lifecycle_stage == "active"
        }

    @property
    def open(self) -> dict[str, Run]:
        """Return all RUNNING runs, trials included."""
        everything = [*self.active.values(), *self.open_trials]
        return {run.info.run_id: run for run in everything if run.info.status == "RUNNING"}


def read_store() -> StoreSnapshot:
    """Read the store in a few searches, however many runs it has."""
    runs = search(f"tags.`{Tag.COMMAND}` != 'trial'", view=ViewType.ALL)
    open_trials = search(f"tags.`{Tag.COMMAND}` = 'trial' and attributes.status = 'RUNNING'")
    experiments = sorted({run.info.experiment_id for run in runs})
    by_id = {run.info.run_id: run for run in runs}
    return StoreSnapshot(by_id, open_trials, logged_models(experiments), experiments)
