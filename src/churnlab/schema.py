"""What a config may say: names, types, ranges and choices of every command's keys.

Hydra composes, these models check, commands read plain attributes. Light to import: it runs before pandas is worth
its start-up time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from churnlab.claims import Claim, Metric
from churnlab.contract import Column, Contract

Score01 = Literal["roc_auc", "average_precision", "accuracy", "precision", "recall", "f1"]
Share = Annotated[float, Field(ge=0, le=1)]
Reason = Annotated[str, Field(max_length=2000)] | None
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


def _known_encoding(name: str) -> str:
    try:
        "".encode(name)
    except LookupError:
        raise ValueError(f"there is no encoding {name}; give utf-8, utf-16, cp1252, cp1251 ...") from None
    return name


Encoding = Annotated[str, AfterValidator(_known_encoding)]


def _known_score(name: str) -> str:
    part, _, metric = name.partition("_")
    if part not in ("cv", "test") or metric not in get_args(Metric):
        raise ValueError(f"there is no score {name}; give cv_ or test_ and one of {', '.join(get_args(Metric))}")
    return name


Ceiling = dict[Annotated[str, AfterValidator(_known_score)], Annotated[float, Field(ge=0)] | None]
"""The best that is plausible, by score (cv_roc_auc, test_f1 ...); what is better is suspected of leakage."""


Part = TypeVar("Part", bound="Command")


class Keys(BaseModel):
    """A block of keys; a key that is not declared is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), defer_build=True)


class Dataset(Keys):
    """A table and its contract: ``path`` names a file or URL, ``generator`` makes rows instead."""

    name: Name
    path: str | None
    target: str
    positive: int | float | str
    id: str | None
    columns: dict[str, Column] = Field(min_length=1)
    rules: dict[str, str]
    late: list[str]
    encoding: Encoding = "utf-8"
    rename: dict[str, str] = Field(default_factory=dict)
    rows: int | None = Field(default=None, ge=1)
    generator: dict[str, Any] | None = None

    @property
    def contract(self) -> Contract:
        """The part of the dataset that every table of it must keep."""
        return Contract(
            name=self.name,
            target=self.target,
            positive=self.positive,
            id=self.id,
            columns=self.columns,
            rules=self.rules,
            late=tuple(self.late),
            encoding=self.encoding,
            rename=self.rename,
        )

    @model_validator(mode="after")
    def _consistent(self) -> Dataset:
        unknown = [name for name in self.late if name not in self.columns]
        if unknown:
            raise ValueError(f"late names {', '.join(unknown)}, which is not among the columns")
        reserved = [name for name in (self.target, self.id) if name in self.columns]
        if reserved:
            raise ValueError(f"{reserved[0]} is the target or the id and cannot be a feature, too")
        strange = [name for name in self.rename.values() if name not in (*self.columns, self.target, self.id)]
        if strange:
            raise ValueError(f"rename leads to {strange[0]}, which is not among the columns, the target or the id")
        return self


NamedDataset = Annotated[Dataset | None, BeforeValidator(lambda given: None if given == {"path": None} else given)]
"""A dataset that only its name is needed of, or none: the YAML sets the path, so that nobody has to give one."""


class Features(Keys):
    """Which columns a model sees and which it derives."""

    name: Name
    late: bool
    derive: dict[Identifier, str]


class Model(Keys):
    """An estimator of scikit-learn's interface and where Optuna may look for better parameters."""

    name: Name
    scale: bool
    estimator: dict[str, Any]
    space: dict[str, dict[str, Any]]


class Calibrated(Keys):
    """Within which limits out-of-fold probabilities are calibrated well enough."""

    slope: tuple[float, float]
    ece: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Calibrated:
        low, high = self.slope
        if not 0 <= low <= 1 <= high:
            raise ValueError(f"slope=[{low:g},{high:g}] is not possible: give [LOW,HIGH] with 0 <= LOW <= 1 <= HIGH")
        return self


class Evaluation(Keys):
    """The hold-out and the folds, and what is made of the out-of-fold predictions."""

    test_size: float = Field(gt=0, lt=1)
    stratify: bool
    folds: int = Field(ge=2, le=100)
    repeats: int = Field(ge=1, le=1000)
    calibration: Literal["none", "auto", "isotonic", "sigmoid"]
    calibrated: Calibrated
    calibration_folds: int = Field(ge=2, le=100)
    driver_repeats: int = Field(ge=2, le=100)


class Tracking(Keys):
    """Where runs are kept."""

    uri: str


class Command(Keys):
    """What every command shares."""

    reads_table: ClassVar[bool] = True
    """Whether the command works on the table of its dataset."""

    reads_store: ClassVar[bool] = False
    """Whether earlier runs or versions decide the result, too: then a sweep never takes a job as done already."""

    keeps_runs: ClassVar[bool] = True
    """Whether the store is opened for the command, which is recorded as a run unless it only reads."""

    opens_store: ClassVar[bool] = False
    """Whether the store is opened for a command that is not recorded as a run of its own."""

    positional: ClassVar[str | None] = None
    """The key that a word without a key is the value of."""

    seed: Seed
    tracking: Tracking
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

    dataset: Dataset


class Train(Command):
    """``churnlab train``."""

    dataset: Dataset
    features: Features
    model: Model
    evaluation: Evaluation
    decision: dict[str, Any]
    metric: Metric


class Study(Keys):
    """How much is tuned, and under which name."""

    n_trials: int = Field(ge=1)
    study: Name | None


class Tune(Train):
    """``churnlab tune``."""

    tune: Study
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

    dataset: Dataset
    evaluation: Evaluation
    metric: Metric
    runs: tuple[str, str] | None
    ceiling: Ceiling


class Segments(Keys):
    """What members are clustered by, how many segments there may be, and how hard each number is examined."""

    name: Name
    columns: dict[str, str] | Literal["all"]
    k: Annotated[int, Field(ge=2, le=50)] | Literal["auto"]
    range: tuple[int, int]
    random_state: Seed
    n_init: int = Field(ge=1)
    bootstraps: int = Field(ge=2)
    refit_n_init: int = Field(ge=1)
    splits: int = Field(ge=2)
    references: int = Field(ge=2)
    sample_rows: int = Field(default=10_000, ge=1000)
    early: dict[str, str] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Segments:
        first, last = self.range
        if not 2 <= first <= last <= 50:
            raise ValueError(f"range=[{first},{last}] is not possible: give [FIRST,LAST] with 2 <= FIRST <= LAST <= 50")
        return self

    @property
    def examined(self) -> list[int]:
        """Every number of segments of the range, and the one set by hand."""
        first, last = self.range
        return sorted({*range(first, last + 1)} | ({self.k} if isinstance(self.k, int) else set()))

    @property
    def effort(self) -> dict[str, int]:
        """How hard each number of segments is examined."""
        names = ("random_state", "bootstraps", "refit_n_init", "splits", "references")
        return {name: getattr(self, name) for name in names} | {"max_rows": self.sample_rows}

    @property
    def starts(self) -> dict[str, int]:
        """How hard the best fit of each number of segments is looked for."""
        return {"n_init": self.n_init, "random_state": self.random_state, "max_rows": self.sample_rows}


class Playbook(Keys):
    """What to do about which kind of segment; its inside is checked against the table's columns when it is used."""

    name: Name
    language: str
    risk: dict[str, Any]
    salient: float
    traits: dict[str, Any]
    naming: dict[str, Any]
    columns: dict[str, Any]
    values: dict[str, Any]
    levers: dict[str, Any]
    sentences: dict[str, Any]
    actions: dict[str, Any]
    rules: list[dict[str, Any]]
    fallback: list[str]
    everyone: list[str]
    reasons: list[dict[str, Any]]


class Segment(Command):
    """``churnlab segment``."""

    dataset: Dataset
    segments: Segments
    playbook: Playbook


class Gate(Keys):
    """What a candidate must keep to replace the champion."""

    margin: float = Field(ge=0)
    members: int = Field(ge=2)
    minimum: dict[Score01, Share]
    slope: tuple[float, float]
    ece: Share
    same: float = Field(ge=0)
    megabytes: float = Field(gt=0)
    batch_ms: float = Field(gt=0)
    one_ms: float = Field(gt=0)
    looks: int = Field(ge=1)


class Promote(Command):
    """``churnlab promote``."""

    reads_store: ClassVar[bool] = True

    dataset: Dataset
    evaluation: Evaluation
    metric: Metric
    require: Literal["better", "not_worse"]
    ceiling: Ceiling
    gate: Gate
    churn_run: str
    segment_run: str
    reason: Reason

    @model_validator(mode="after")
    def _forced_for_a_reason(self) -> Promote:
        if self.force and not (self.reason or "").strip():
            raise ValueError('force=true promotes in spite of failed checks and needs a reason: reason="..."')
        return self


class Rollback(Command):
    """``churnlab rollback``."""

    reads_store: ClassVar[bool] = True
    reads_table: ClassVar[bool] = False

    dataset: NamedDataset
    reason: Reason


class History(Command):
    """``churnlab history``."""

    reads_store: ClassVar[bool] = True
    reads_table: ClassVar[bool] = False

    dataset: NamedDataset


class Scoring(Keys):
    """What a scored file holds besides the answers."""

    reasons: bool


class Score(Command):
    """``churnlab score``."""

    reads_store: ClassVar[bool] = True
    reads_table: ClassVar[bool] = False

    dataset: Dataset
    input: str
    output: str
    model_uri: str | None
    score: Scoring


class Report(Command):
    """``churnlab report``."""

    reads_store: ClassVar[bool] = True

    dataset: Dataset
    evaluation: Evaluation
    metric: Metric
    output: str | None


class Statements(Keys):
    """Claims, and the models and segmentations that they speak of, each under the name by which a claim calls it."""

    name: Name
    statements: dict[Identifier, Claim] = Field(min_length=1)
    models: dict[str, Model] = Field(default_factory=dict)
    segmentations: dict[str, Segments] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Statements:
        for name, claim in self.statements.items():
            names: dict[str, Mapping[str, Any]] = {"segments": self.segmentations}
            if claim.quantity == "model_difference":
                names = {"of": self.models, "against": self.models}
            for key, known in names.items():
                called = getattr(claim, key)
                if called is not None and called not in known:
                    there = ", ".join(known) or "none"
                    raise ValueError(f"statements.{name}.{key}={called} is nothing that the file has: {there}")
        for name, segments in self.segmentations.items():
            if segments.k == "auto":
                raise ValueError(f"segmentations.{name}.k=auto; claims are about a number of segments: give it")
        return self


class Claims(Command):
    """``churnlab claims``."""

    dataset: Dataset
    claims: Statements
    folds: int = Field(ge=2, le=100)
    resamples: int = Field(ge=100, le=100_000)


class Place(Keys):
    """Where a table is now, when it is not where it was."""

    path: str | None
    encoding: Encoding | None


class Reproduce(Command):
    """``churnlab reproduce``: its runs are those of the commands that it runs again."""

    reads_table: ClassVar[bool] = False
    keeps_runs: ClassVar[bool] = False
    opens_store: ClassVar[bool] = True
    positional: ClassVar[str | None] = "run"

    run: str
    dataset: Place
    storage: dict[str, Any]


class Doctor(Command):
    """``churnlab doctor``: it looks before anything is opened, and keeps no run that would have to be looked at."""

    reads_table: ClassVar[bool] = False
    keeps_runs: ClassVar[bool] = False

    storage: dict[str, Any]
    fix: bool
    elsewhere: bool


class Pipeline(Command):
    """``churnlab pipeline``: the keys of all the commands it runs, with every model and feature set by name."""

    dataset: Dataset
    feature_sets: dict[str, Features] = Field(min_length=1)
    models: dict[str, Model] = Field(min_length=1)
    evaluation: Evaluation
    decision: dict[str, Any]
    engine: dict[str, Any]
    storage: dict[str, Any]
    segments: Segments
    playbook: Playbook
    metric: Metric
    tune: Study
    require: Literal["better", "not_worse"]
    ceiling: Ceiling
    gate: Gate
    reason: Reason

    def part(self, command: type[Part], **more: Any) -> Part:
        """The keys of one of the commands: those it shares with the pipeline, and ``more``."""
        shared = {name: getattr(self, name) for name in command.model_fields if name in type(self).model_fields}
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
