"""What a config may say: the keys of every command, made of blocks.

Hydra composes, these models check, commands read plain attributes. Light to import: it runs before
pandas is worth its start-up time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from pydantic import Field, model_validator

from churnlab.config.groups import (
    Ceiling,
    DatasetKeys,
    DatasetPlace,
    Encoding,
    EvaluationKeys,
    FeaturesKeys,
    GateKeys,
    Keys,
    ModelKeys,
    Name,
    NamedDataset,
    PlaybookKeys,
    Reason,
    Require,
    ScoringKeys,
    Seed,
    SegmentsKeys,
    StatementsKeys,
    StudyKeys,
    TrackingKeys,
)
from churnlab.models.metric_names import Metric

Part = TypeVar("Part", bound="Command")


class Command(Keys):
    """What every command shares."""

    reads_table: ClassVar[bool] = True
    """Whether the command works on the table of its dataset."""

    reads_store: ClassVar[bool] = False
    """Whether earlier runs or versions decide the result, too: then a sweep never takes a job as
    done already."""

    keeps_runs: ClassVar[bool] = True
    """Whether the command is recorded as a run: then the store is opened for it."""

    opens_store: ClassVar[bool] = False
    """Whether the store is opened for a command that is not recorded as a run of its own."""

    positional: ClassVar[str | None] = None
    """The key that a word without a key is the value of."""

    seed: Seed
    tracking: TrackingKeys
    run_name: str | None
    force: bool
    dry_run: bool


class Init(Command):
    """``churnlab init``."""

    reads_table: ClassVar[bool] = False
    keeps_runs: ClassVar[bool] = False
    positional: ClassVar[str | None] = "path"

    path: str
    encoding: Encoding
    target: str | None
    name: Name | None
    output: str | None


class Explore(Command):
    """``churnlab explore``."""

    dataset: DatasetKeys


class Train(Command):
    """``churnlab train``."""

    dataset: DatasetKeys
    features: FeaturesKeys
    model: ModelKeys
    evaluation: EvaluationKeys
    decision: dict[str, Any]
    metric: Metric


class Tune(Train):
    """``churnlab tune``."""

    tune: StudyKeys
    engine: dict[str, Any]
    storage: dict[str, Any]

    def train(self, params: Mapping[str, Any], *, run_name: str) -> Train:
        """The keys of ``train`` with these parameters of the estimator."""
        keys = {name: getattr(self, name) for name in Train.model_fields}
        model = self.model.model_copy(update={"estimator": self.model.estimator | dict(params)})
        return Train(**keys | {"model": model, "run_name": run_name})


class Compare(Command):
    """``churnlab compare``."""

    reads_store: ClassVar[bool] = True

    dataset: DatasetKeys
    evaluation: EvaluationKeys
    metric: Metric
    runs: tuple[str, str] | None
    ceiling: Ceiling


class Segment(Command):
    """``churnlab segment``."""

    dataset: DatasetKeys
    segments: SegmentsKeys
    playbook: PlaybookKeys


class Promote(Command):
    """``churnlab promote``."""

    reads_store: ClassVar[bool] = True

    dataset: DatasetKeys
    evaluation: EvaluationKeys
    metric: Metric
    require: Require
    ceiling: Ceiling
    gate: GateKeys
    churn_run: str
    segment_run: str
    reason: Reason

    @model_validator(mode="after")
    def _forced_for_a_reason(self) -> Promote:
        if self.force and not (self.reason or "").strip():
            raise ValueError(
                'force=true promotes in spite of failed checks and needs a reason: reason="..."'
            )
        return self


class Rollback(Command):
    """``churnlab rollback``."""

    reads_store: ClassVar[bool] = True
    reads_table: ClassVar[bool] = False

    dataset: NamedDataset
    reason: Reason


class History(Command):
    """``churnlab history``: it only reads."""

    reads_table: ClassVar[bool] = False
    keeps_runs: ClassVar[bool] = False
    opens_store: ClassVar[bool] = True

    dataset: NamedDataset


class Score(Command):
    """``churnlab score``."""

    reads_store: ClassVar[bool] = True
    reads_table: ClassVar[bool] = False

    dataset: DatasetKeys
    input: str
    output: str
    model_uri: str | None
    score: ScoringKeys


class Report(Command):
    """``churnlab report``."""

    reads_store: ClassVar[bool] = True

    dataset: DatasetKeys
    evaluation: EvaluationKeys
    metric: Metric
    output: str | None


class Claims(Command):
    """``churnlab claims``."""

    dataset: DatasetKeys
    claims: StatementsKeys
    folds: int = Field(ge=2, le=100)
    resamples: int = Field(ge=100, le=100_000)


class Reproduce(Command):
    """``churnlab reproduce``: its runs are those of the commands that it runs again."""

    reads_table: ClassVar[bool] = False
    keeps_runs: ClassVar[bool] = False
    opens_store: ClassVar[bool] = True
    positional: ClassVar[str | None] = "run"

    run: str
    dataset: DatasetPlace
    storage: dict[str, Any]


class Doctor(Command):
    """``churnlab doctor``: it looks before anything is opened, and keeps no run that would have to
    be looked at."""

    reads_table: ClassVar[bool] = False
    keeps_runs: ClassVar[bool] = False

    storage: dict[str, Any]
    fix: bool
    elsewhere: bool


class Pipeline(Command):
    """``churnlab pipeline``: the keys of all the commands it runs, with every model and feature set
    by name."""

    dataset: DatasetKeys
    feature_sets: dict[str, FeaturesKeys] = Field(min_length=1)
    models: dict[str, ModelKeys] = Field(min_length=1)
    evaluation: EvaluationKeys
    decision: dict[str, Any]
    engine: dict[str, Any]
    storage: dict[str, Any]
    segments: SegmentsKeys
    playbook: PlaybookKeys
    metric: Metric
    tune: StudyKeys
    require: Require
    ceiling: Ceiling
    gate: GateKeys
    reason: Reason

    def part(self, command: type[Part], **more: Any) -> Part:
        """The keys of one of the commands: those it shares with the pipeline, and ``more``."""
        shared = {
            name: getattr(self, name)
            for name in command.model_fields
            if name in type(self).model_fields
        }
        return command(**shared | {"run_name": None} | more)


COMMANDS: Mapping[str, type[Command]] = {
    "init": Init,
    "explore": Explore,
    "train": Train,
    "tune": Tune,
    "compare": Compare,
    "segment": Segment,
    "promote": Promote,
    "rollback": Rollback,
    "history": History,
    "score": Score,
    "claims": Claims,
    "report": Report,
    "reproduce": Reproduce,
    "doctor": Doctor,
    "pipeline": Pipeline,
}
"""Every command that reads a config, in the order of a working day."""


@dataclass(frozen=True)
class Result:
    """What a command answers: the keys of its result line, and whether the answer is yes (exit 0)
    or no (exit 3)."""

    values: dict[str, Any]
    yes: bool = True
