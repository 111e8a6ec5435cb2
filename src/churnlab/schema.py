"""What a config may say: names, types, ranges and choices of every command's keys.

Hydra composes, these models check, commands read plain attributes. Light to import: it runs before pandas is worth
its start-up time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from churnlab.contract import Column, Contract
from churnlab.errors import InputError, unknown_key

Metric = Literal["roc_auc", "average_precision", "log_loss", "brier", "ece", "accuracy", "precision", "recall", "f1"]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class Keys(BaseModel):
    """A block of keys; a key that is not declared is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Dataset(Keys):
    """A table and its contract: ``path`` names a file or URL, ``generator`` makes rows instead."""

    name: Name
    path: str | None
    target: str
    positive: float | str
    id: str | None
    columns: dict[str, Column] = Field(min_length=1)
    rules: dict[str, str]
    late: list[str]
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
        )

    @model_validator(mode="after")
    def _consistent(self) -> Dataset:
        unknown = [name for name in self.late if name not in self.columns]
        if unknown:
            raise ValueError(f"late names {', '.join(unknown)}, which is not among the columns")
        reserved = [name for name in (self.target, self.id) if name in self.columns]
        if reserved:
            raise ValueError(f"{reserved[0]} is the target or the id and cannot be a feature, too")
        return self


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


class Evaluation(Keys):
    """The hold-out and the folds."""

    test_size: float = Field(gt=0, lt=1)
    stratify: bool
    folds: int = Field(ge=2, le=100)
    repeats: int = Field(ge=1, le=1000)


class Tracking(Keys):
    """Where runs are kept."""

    uri: str


class Command(Keys):
    """What every command shares."""

    reads_table: ClassVar[bool] = True
    """Whether the command works on the table of its dataset."""

    seed: Seed
    tracking: Tracking
    run_name: str | None
    force: bool
    dry_run: bool


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


class Storage(Keys):
    """Where the studies live."""

    folder: str


class Tune(Train):
    """``churnlab tune``."""

    tune: Study
    storage: Storage

    def train(self, params: Mapping[str, Any]) -> Train:
        """The keys of ``train`` with these parameters of the estimator."""
        keys = {name: getattr(self, name) for name in Train.model_fields}
        estimator = self.model.estimator | dict(params)
        return Train(**keys | {"model": self.model.model_copy(update={"estimator": estimator})})


class Compare(Command):
    """``churnlab compare``."""

    dataset: Dataset
    evaluation: Evaluation
    metric: Metric
    runs: tuple[str, str] | None


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
        names = ("random_state", "n_init", "bootstraps", "refit_n_init", "splits", "references")
        return {name: getattr(self, name) for name in names}


class Playbook(Keys):
    """What to do about which kind of segment; its inside is checked against the table's columns when it is used."""

    name: Name
    language: str
    risk: dict[str, Any]
    salient: float
    traits: dict[str, Any]
    naming: dict[str, Any]
    columns: dict[str, Any]
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


class Promote(Command):
    """``churnlab promote``."""

    dataset: Dataset
    evaluation: Evaluation
    metric: Metric
    churn_run: str
    segment_run: str
    reason: str | None


class Scoring(Keys):
    """What a scored file holds besides the answers."""

    reasons: bool


class Score(Command):
    """``churnlab score``."""

    reads_table: ClassVar[bool] = False

    dataset: Dataset
    input: str
    output: str
    model_uri: str | None
    score: Scoring


COMMANDS: Mapping[str, type[Command]] = {
    "explore": Explore,
    "train": Train,
    "tune": Tune,
    "compare": Compare,
    "segment": Segment,
    "promote": Promote,
    "score": Score,
}
"""Every command that reads a config, in the order of a working day."""


def read(command: str, config: Mapping[str, Any]) -> Any:
    """Check a composed config; returns the command's keys as an object, raises InputError naming each fault."""
    missing = list(_not_given(config))
    if missing:
        raise InputError(f"{missing[0]} has no value yet; give one: {missing[0]}=VALUE.")
    try:
        return COMMANDS[command].model_validate(config)
    except ValidationError as invalid:
        faults = [_sentence(COMMANDS[command], fault) for fault in invalid.errors(include_url=False)]
        raise InputError("\n".join(faults)) from None


def _not_given(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys that a YAML leaves to the user."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _not_given(value, f"{prefix}{key}.")
        elif value == "???":
            yield f"{prefix}{key}"


def _sentence(model: type[BaseModel], fault: Any) -> str:
    """One line for one fault: the key, what was found, what is allowed."""
    path = [str(part) for part in fault["loc"]]
    key = ".".join(path)
    if fault["type"] == "extra_forbidden":
        return unknown_key(path[:-1], path[-1], known_keys(model, path[:-1]))
    if fault["type"] == "missing":
        return f"The key {key} is missing; give it as {key}=VALUE."
    found = fault["input"]
    if fault["type"] == "value_error":
        return f"{key or 'The config'}: {fault['ctx']['error']}."
    return f"{key}={found!r} is not possible: {fault['msg'][0].lower()}{fault['msg'][1:]}."


def known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys that a block may have; ``path`` leads to the block from the command's own keys."""
    current: Any = model
    for part in path:
        fields = getattr(current, "model_fields", None)
        if fields is None or part not in fields:
            return [name for name in getattr(Column, "__dataclass_fields__", {}) if "columns" in path]
        annotation = fields[part].annotation
        blocks = [kind for kind in (annotation, *get_args(annotation)) if hasattr(kind, "model_fields")]
        current = blocks[0] if blocks else annotation
    return list(getattr(current, "model_fields", {}))
