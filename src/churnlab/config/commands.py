"""Declare every command: the keys that it takes, where its runs are kept, and what it returns.

Hydra composes a config, these models check it, commands read plain attributes. Keep this module
light to import: a misspelt key is reported before pandas is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from churnlab.config import answers, groups
from churnlab.config.groups import Keys
from churnlab.evaluation.metric_names import METRICS, Metric

Part = TypeVar("Part", bound="Command")

RunId = Annotated[str, BeforeValidator(lambda given: str(given) if type(given) is int else given)]
"""The id of a run or the start of one, which may read as a number."""


@dataclass(frozen=True)
class Result:
    """The keys of a command's result line; ``yes`` is exit code 0, else 3.

    ``then`` is the command that a person needs next, with keys of its own; None is the usual one,
    and "" that no command helps.
    """

    values: dict[str, Any]
    yes: bool = True
    then: str | None = None


INLINE: Mapping[str, Any] = {"_target_": "churnlab.tuning.workers.Inline", "workers": 1}
"""The engine that runs everything in this process."""

COMMANDS: dict[str, type[Command]] = {}
"""Every command by its name, in the order of a working day: the order in which they stand here."""


class Command(Keys):
    """Declare a command: a subclass has its name, its keys as fields, and its properties.

    ``experiment``: its runs are kept in <dataset.name>-<this>; None for a command without runs.
    ``reads_table``: it works on the table of its dataset. ``reads_store``: earlier runs or versions
    decide the result, so that a sweep runs every job again. ``opens_store``: it has no runs of its
    own, but reads those of others. ``runs_engine``: also without -m it has work for the engine's
    workers: trials, parts, folds or refits. ``fits_models``: it fits models and keeps them.
    ``previews``: its ``run`` takes ``dry_run=true``, too, and says what it would change.
    ``whole_store``: it works on the runs and versions of all datasets. ``stays``: it runs until a
    signal ends it. ``positional``: the key that a word without a key belongs to.
    """

    experiment: ClassVar[str | None] = None
    reads_table: ClassVar[bool] = True
    reads_store: ClassVar[bool] = False
    opens_store: ClassVar[bool] = False
    runs_engine: ClassVar[bool] = False
    fits_models: ClassVar[bool] = False
    previews: ClassVar[bool] = False
    whole_store: ClassVar[bool] = False
    stays: ClassVar[bool] = False
    positional: ClassVar[str | None] = None

    seed: groups.Seed
    tracking: groups.TrackingKeys
    run_name: str | None
    force: bool
    dry_run: bool
    engine: dict[str, Any] = Field(default_factory=lambda: dict(INLINE), exclude=True)

    def __init_subclass__(cls, **properties: str | bool) -> None:
        super().__init_subclass__()
        for name, value in properties.items():
            assert name in Command.__class_vars__, f"a command has no property {name}"
            setattr(cls, name, value)
        COMMANDS[cls.__name__.lower()] = cls


class Init(Command, reads_table=False, positional="path"):
    """``churnlab init``."""

    path: str
    encoding: groups.Encoding
    target: str | None
    name: groups.Name | None
    output: str | None


class Explore(Command, experiment="explore"):
    """``churnlab explore``."""

    dataset: groups.DatasetKeys


def _metric_has_its_costs(keys: Train | Pipeline) -> Train | Pipeline:
    """Refuse a metric of money with a decision that has no costs."""
    if METRICS[keys.metric].needs_costs:
        from churnlab.models.decision import COSTS, contact_economics  # which loads pandas

        if contact_economics(keys.decision) is None:
            raise ValueError(
                f"metric={keys.metric} needs a decision with the costs of a contact. Add to the "
                f"command, with your own numbers: {COSTS}"
            )
    return keys


class Train(Command, experiment="churn", runs_engine=True, fits_models=True):
    """``churnlab train``."""

    dataset: groups.DatasetKeys
    features: groups.FeaturesKeys
    model: groups.ModelKeys
    evaluation: groups.EvaluationKeys
    decision: dict[str, Any]
    metric: Metric
    _costs = model_validator(mode="after")(_metric_has_its_costs)


class Tune(Train, experiment="churn"):
    """``churnlab tune``."""

    tune: groups.StudyKeys
    engine: dict[str, Any]
    storage: groups.StorageKeys

    def train(self, params: Mapping[str, Any], *, run_name: str) -> Train:
        """Return the keys of ``train`` with these parameters of the estimator."""
        keys = {name: getattr(self, name) for name in Train.model_fields}
        model = self.model.model_copy(update={"estimator": self.model.estimator | dict(params)})
        return Train(**keys | {"model": model, "run_name": run_name})


class Compare(Command, experiment="churn", reads_store=True):
    """``churnlab compare``."""

    dataset: groups.DatasetKeys
    evaluation: groups.EvaluationKeys
    metric: Metric
    runs: tuple[RunId, RunId] | None
    rope: Annotated[float, Field(ge=0)] | None = None
    ceiling: groups.Ceiling


class Segment(Command, experiment="segments", runs_engine=True, fits_models=True):
    """``churnlab segment``."""

    dataset: groups.DatasetKeys
    segments: groups.SegmentsKeys
    clusterer: groups.ClustererKeys = Field(default_factory=lambda: dict(groups.KMEANS))
    playbook: groups.PlaybookKeys


class Promote(Command, experiment="promotions", reads_store=True, fits_models=True):
    """``churnlab promote``."""

    dataset: groups.DatasetKeys
    evaluation: groups.EvaluationKeys
    metric: Metric
    require: groups.Require
    ceiling: groups.Ceiling
    gate: groups.GateKeys
    churn_run: str
    segment_run: str
    storage: groups.StorageKeys
    reason: groups.Reason

    @model_validator(mode="after")
    def _forced_for_a_reason(self) -> Promote:
        if self.force and not (self.reason or "").strip():
            raise ValueError(
                'force=true promotes in spite of failed checks and needs a reason: reason="..."'
            )
        return self


class Rollback(
    Command, experiment="promotions", reads_store=True, reads_table=False, previews=True
):
    """``churnlab rollback``."""

    dataset: groups.NamedDataset
    storage: groups.StorageKeys
    reason: groups.Reason


class History(Command, reads_table=False, opens_store=True):
    """``churnlab history``."""

    dataset: groups.NamedDataset


class Score(
    Command, experiment="promotions", reads_store=True, reads_table=False, runs_engine=True
):
    """``churnlab score``."""

    dataset: groups.DatasetKeys
    input: str
    output: str
    model_uri: str | None
    model: answers.ServedModelKeys
    score: answers.ScoringKeys
    contacts: bool = False
    decision: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_limit_of_a_list(self) -> Score:
        limits = {"top": self.score.top, "budget": self.score.budget}
        given = [f"score.{key}={limit:g}" for key, limit in limits.items() if limit is not None]
        if given and not self.contacts:
            raise ValueError(f"{given[0]} limits a contact list: add contacts=true")
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both limit the list: give one of them")
        return self


class Serve(Command, reads_table=False, opens_store=True, stays=True):
    """``churnlab serve``."""

    dataset: groups.NamedDataset
    model_uri: str | None
    model: answers.ServedModelKeys
    host: str
    port: Annotated[int, Field(ge=0, le=65535)]
    serve: answers.ServingKeys


class Report(Command, experiment="promotions", reads_store=True):
    """``churnlab report``."""

    dataset: groups.DatasetKeys
    evaluation: groups.EvaluationKeys
    metric: Metric
    ceiling: groups.Ceiling
    output: str | None


class Claims(Command, experiment="explore", runs_engine=True):
    """``churnlab claims``."""

    dataset: groups.DatasetKeys
    claims: groups.StatementsKeys
    folds: int = Field(ge=2, le=100)
    further_draws: int = Field(ge=0, le=100)
    resamples: int = Field(ge=100, le=100_000)


class Reproduce(Command, reads_table=False, opens_store=True, positional="run"):
    """``churnlab reproduce``: its runs are those of the commands that it repeats."""

    run: str
    dataset: groups.DatasetPlace
    storage: groups.StorageKeys


class Doctor(Command, reads_table=False, whole_store=True):
    """``churnlab doctor``: it reads the store before anything opens it, and keeps no run."""

    storage: groups.StorageKeys
    fix: bool
    elsewhere: bool


class Pipeline(Command, experiment="churn", runs_engine=True, fits_models=True):
    """``churnlab pipeline``: the keys of its steps, with models and feature sets by name."""

    dataset: groups.DatasetKeys
    feature_sets: dict[str, groups.FeaturesKeys] = Field(min_length=1)
    models: dict[str, groups.ModelKeys] = Field(min_length=1)
    evaluation: groups.EvaluationKeys
    decision: dict[str, Any]
    engine: dict[str, Any]
    storage: groups.StorageKeys
    segments: groups.SegmentsKeys
    clusterer: groups.ClustererKeys = Field(default_factory=lambda: dict(groups.KMEANS))
    playbook: groups.PlaybookKeys
    metric: Metric
    tune: groups.StudyKeys
    require: groups.Require
    ceiling: groups.Ceiling
    gate: groups.GateKeys
    reason: groups.Reason
    _costs = model_validator(mode="after")(_metric_has_its_costs)

    def part(self, command: type[Part], **more: Any) -> Part:
        """Return the keys of one step: those that it shares with the pipeline, and ``more``."""
        shared = {
            name: getattr(self, name)
            for name in command.model_fields
            if name in type(self).model_fields
        }
        return command(**shared | {"run_name": None} | more)
