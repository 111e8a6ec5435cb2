"""A problem, and the books in which problems are looked for: what the store says of our runs and
their models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mlflow.entities import LoggedModel, Run, ViewType

from churnlab.tracking.names import Tag
from churnlab.tracking.search import logged_models, search

REPAIRS = "churnlab doctor fix=true"
"""How what has a cure is mended."""


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be: its ``kind``, what was found, where, how to mend it,
    and the cure."""

    kind: str
    what: str
    where: str
    mend: str
    cure: Callable[[], None] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class StoreSnapshot:
    """Our runs but for the trials, by id, deleted ones too; trials that are RUNNING; our logged
    models."""

    runs: dict[str, Run]
    open_trials: list[Run]
    models: list[LoggedModel]
    experiments: list[str]

    @property
    def active(self) -> dict[str, Run]:
        """The runs that are not deleted."""
        return {
            run_id: run for run_id, run in self.runs.items() if run.info.lifecycle_stage == "active"
        }

    @property
    def open(self) -> dict[str, Run]:
        """Every run that is RUNNING, trials too."""
        everything = [*self.active.values(), *self.open_trials]
        return {run.info.run_id: run for run in everything if run.info.status == "RUNNING"}


def read_store() -> StoreSnapshot:
    """Look into the store, in a few searches however many runs it has."""
    runs = search(f"tags.`{Tag.COMMAND}` != 'trial'", view=ViewType.ALL)
    open_trials = search(f"tags.`{Tag.COMMAND}` = 'trial' and attributes.status = 'RUNNING'")
    experiments = sorted({run.info.experiment_id for run in runs})
    return StoreSnapshot(
        {run.info.run_id: run for run in runs}, open_trials, logged_models(experiments), experiments
    )
