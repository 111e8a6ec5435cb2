"""Declare the blocks of keys that commands are made of: names, types, ranges and choices.

Keep this module light to import: a config is checked before pandas is loaded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from churnlab.claims.claim import Claim
from churnlab.data.contract import Column, Contract, Separator
from churnlab.evaluation.metric_names import Metric, Score01
from churnlab.formatting import clipped, typed
from churnlab.segments import playbook

Require = Literal["better", "not_worse"]
Share = Annotated[float, Field(ge=0, le=1)]
Reason = Annotated[str, Field(max_length=2000)] | None
Margin = Annotated[float, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
IDENTIFIER, NAME = r"^[A-Za-z_]\w*$", r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
DOTTED = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$"
Identifier = Annotated[str, Field(pattern=IDENTIFIER)]
Name = Annotated[str, Field(pattern=NAME)]
DottedName = Annotated[str, Field(pattern=DOTTED)]


def _known_encoding(name: str) -> str:
    try:
        "".encode(name)
    except LookupError:
        raise ValueError(f"there is no encoding {name}; give utf-8, cp1252 or cp1251") from None
    return name


Encoding = Annotated[str, AfterValidator(_known_encoding)]


def _readable(expression: str) -> str:
    from churnlab.data.expressions import unreadable  # which loads pandas

    if reason := unreadable(expression):
        raise ValueError(f"{expression} cannot be read: {reason}")
    return expression


Expression = Annotated[str, AfterValidator(_readable)]


def _some(columns: Any) -> Any:
    if not columns:
        raise ValueError("no column is left to learn from; declare one, as age: {kind: numeric}")
    return columns


def _known_score(name: str) -> str:
    part, _, metric = name.partition("_")
    if part not in ("cv", "test") or metric not in get_args(Metric):
        raise ValueError(
            f"there is no score {name}; give cv_ or test_ and one of {', '.join(get_args(Metric))}"
        )
    return name


Ceiling = dict[Annotated[str, AfterValidator(_known_score)], Annotated[float, Field(ge=0)] | None]
"""The best plausible score (cv_roc_auc, test_f1 ...); a better one is suspected of leakage."""


class Keys(BaseModel):
    """A block of keys. An undeclared key is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), defer_build=True
    )


class DatasetKeys(Keys):
    """A table and its contract: ``path`` names a file or URL, ``generator`` makes rows instead.

    ``repeated_ids``: a member may have several rows. ``extra``: what happens to other columns.
    ``missing``: the words that mean a gap. ``rows_where``: which rows to learn from.
    ``presets``: choices of other groups that fit the table (cli.presets), which are read before.
    """

    name: Name
    path: str | None
    target: str
    positive: bool | int | float | str
    id: str | None
    repeated_ids: bool = False
    columns: Annotated[dict[str, Column], BeforeValidator(_some)]
    rules: dict[str, str]
    late: list[str]
    encoding: Encoding = "utf-8"
    rename: dict[str, str] = Field(default_factory=dict)
    extra: Literal["ignore", "refuse"] = "ignore"
    separator: Separator = ","
    decimal: Literal[".", ","] = "."
    missing: list[str] | None = None
    rows_where: Expression | None = None
    presets: dict[str, str] = Field(default_factory=dict, exclude=True)
    rows: int | None = Field(default=None, ge=1)
    generator: dict[str, Any] | None = None

    @property
    def contract(self) -> Contract:
        """Return the contract that every table of the dataset must meet."""
        values = {field.name: getattr(self, field.name) for field in fields(Contract)}
        missing = None if self.missing is None else tuple(self.missing)
        return Contract(**values | {"late": tuple(self.late), "missing": missing})

    @model_validator(mode="after")
    def _consistent(self) -> DatasetKeys:
        unknown = [name for name in self.late if name not in self.columns]
        if unknown:
            raise ValueError(f"late names {', '.join(unknown)}, which is not among the columns")
        if unquotable := [name for name in self.columns if re.search(r"[`\r\n]", name)]:
            plain = " ".join(re.sub(r"[`\r\n]", " ", unquotable[0]).split()) or "column"
            raise ValueError(
                f"columns has {unquotable[0]!r}: no expression can quote a backtick or a line end; "
                f"call it {plain} here and write rename: {{{json.dumps(unquotable[0])}: {plain}}}"
            )
        reserved = [name for name in (self.target, self.id) if name in self.columns]
        if reserved:
            raise ValueError(
                f"{reserved[0]} is the target or the id and cannot be a feature, too: take it out "
                "of columns, or draft the YAML again with churnlab init FILE target=COLUMN "
                "force=true"
            )
        known = (*self.columns, self.target, self.id)
        if self.repeated_ids and self.id is None:
            raise ValueError("repeated_ids=true needs an id by which rows of one member are known")
        strange = [name for name in self.rename.values() if name not in known]
        if strange:
            raise ValueError(f"rename leads to {strange[0]}, which is no column, target or id")
        return self


NamedDataset = Annotated[
    DatasetKeys | None, BeforeValidator(lambda given: None if given == {"path": None} else given)
]
"""A dataset of which only the name matters, or none: the YAML sets the path to null."""


class FeaturesKeys(Keys):
    """The columns that a model sees and those that it derives.

    ``found_on`` names the dataset on whose members the derived columns were found: a hold-out among
    them is not new to these features.
    """

    name: Name
    late: bool
    derive: dict[Identifier, str]
    found_on: str | None = None


RANGE = ("low", "high", "step", "log")
"""The keys of a range of numbers."""


def _distribution(given: Any) -> Any:
    """Return the block of an Optuna distribution for a list of choices or a range of numbers.

    A range whose numbers are all whole holds only whole ones.

    >>> _distribution({"low": 1, "high": 9})
    {'_target_': 'optuna.distributions.IntDistribution', 'low': 1, 'high': 9}
    """
    if isinstance(given, list) and given:
        return {"_target_": "optuna.distributions.CategoricalDistribution", "choices": given}
    target = str(given.get("_target_", "")) if isinstance(given, dict) else ""
    if target and not target.endswith((".IntDistribution", ".FloatDistribution")):
        return given
    if not isinstance(given, dict) or not {"low", "high"} <= {*given}:
        raise ValueError("give a list of choices, [A,B], or a range, {low: A, high: B, log: true}")
    if strange := [str(key) for key in given if key not in ("_target_", *RANGE)]:
        raise ValueError(f"a range has {', '.join(RANGE)}, and not {strange[0]}")
    numbers = {key: given[key] for key in RANGE[:3] if key != "step" or given.get(key) is not None}
    for key, number in numbers.items():
        if type(number) not in (int, float) or not math.isfinite(number):
            raise ValueError(f"{key} must be a number, and is {clipped(typed(number), 60)}")
    whole = all(isinstance(number, int) for number in numbers.values())
    if target.endswith(".IntDistribution") and not whole:
        raise ValueError(f"{', '.join(numbers)} must be whole numbers, as this parameter is")
    kind = "Int" if whole else "Float"
    return {"_target_": f"optuna.distributions.{kind}Distribution"} | given


class ModelKeys(Keys):
    """An estimator of scikit-learn's interface and where Optuna may look for better parameters.

    ``light``: it fits in milliseconds, so that verdicts can afford further draws of the folds.
    ``trusted`` names the types that its saved form may hold besides those of skops_types.py.
    """

    name: Name
    scale: bool
    light: bool = False
    estimator: dict[str, Any]
    trusted: list[DottedName] = Field(default_factory=list)
    space: dict[str, Annotated[dict[str, Any], BeforeValidator(_distribution)]]


class CalibrationLimits(Keys):
    """The limits within which out-of-fold probabilities count as calibrated."""

    slope: tuple[float, float]
    ece: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> CalibrationLimits:
        low, high = self.slope
        if not 0 <= low <= 1 <= high:
            raise ValueError(f"slope=[{low:g},{high:g}] must have 0 <= LOW <= 1 <= HIGH")
        return self


class EvaluationKeys(Keys):
    """The hold-out, the folds, and the use of the out-of-fold predictions."""

    test_size: float = Field(gt=0, lt=1)
    stratify: bool
    folds: int = Field(ge=2, le=100)
    repeats: int = Field(ge=1, le=1000)
    further_draws: int = Field(default=0, ge=0, le=100)
    calibration: Literal["none", "auto", "isotonic", "sigmoid"]
    calibrated: CalibrationLimits
    calibration_folds: int = Field(ge=2, le=100)
    importance_repeats: int = Field(ge=2, le=100)
    early: bool = False
    learning_curve: bool | Literal["auto"] = False

    @property
    def split(self) -> dict[str, Any]:
        """Return the keys that decide who is held out and who is in which fold."""
        return {key: getattr(self, key) for key in ("test_size", "stratify", "folds", "repeats")}


class TrackingKeys(Keys):
    """Where runs are kept."""

    uri: str | None


StorageKeys = Annotated[dict[str, Any], Field(exclude=True)]
"""Where studies are kept decides no result, and an address may have a password: no run has it."""


class StudyKeys(Keys):
    """The size and the name of a study, and the outer folds that it is also run inside of."""

    n_trials: int = Field(ge=1)
    study: Name | None
    outer: Annotated[int, Field(ge=2, le=100)] | None = None


def _clusterer(block: dict[str, Any]) -> dict[str, Any]:
    """Return the block of a clusterer unchanged; ValueError if it names no class."""
    if not isinstance(block.get("_target_"), str) or not isinstance(block.get("name"), str):
        raise ValueError("a clusterer has a name and the _target_ of a class, as in conf/clusterer")
    return block


KMEANS: Mapping[str, Any] = {
    "name": "kmeans",
    "_target_": "churnlab.segments.clusterers.NearestCenter",
}
"""The clusterer of runs from before there was a choice."""

ClustererKeys = Annotated[dict[str, Any], AfterValidator(_clusterer)]
"""What divides the members: a class that does what segments.clusterers.Clusterer says, and its
arguments."""


class SegmentsKeys(Keys):
    """The columns to cluster by, the numbers of segments to examine, and how thoroughly.

    ``words``: what divides all columns of a table that has columns of words.
    """

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
    null_tables: int = Field(default=49, ge=20)
    sample_rows: int = Field(default=10_000, ge=1000)
    words: ClustererKeys | None = None
    early: dict[str, str] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> SegmentsKeys:
        first, last = self.range
        if not 2 <= first <= last <= 50:
            raise ValueError(f"range=[{first},{last}] must have 2 <= FIRST <= LAST <= 50")
        return self

    @property
    def examined(self) -> list[int]:
        """Return every number of segments of the range, and the one set by hand."""
        first, last = self.range
        return sorted({*range(first, last + 1)} | ({self.k} if isinstance(self.k, int) else set()))

    @property
    def effort(self) -> dict[str, int]:
        """Return the keys that decide how thoroughly each number of segments is examined."""
        names = ("random_state", "bootstraps", "refit_n_init", "splits")
        return {name: getattr(self, name) for name in names} | {"max_rows": self.sample_rows}

    @property
    def starts(self) -> dict[str, int]:
        """Return the keys that decide how the best fit of each number of segments is found."""
        names = ("n_init", "random_state")
        return {name: getattr(self, name) for name in names} | {"max_rows": self.sample_rows}


class PlaybookKeys(Keys):
    """What to do about each kind of segment; its columns are checked when the table is known."""

    name: Name
    language: str
    risk: playbook.RiskLimits
    salient: float
    traits: dict[str, playbook.Trait]
    naming: playbook.Naming
    columns: dict[str, playbook.Text]
    values: playbook.Values
    levers: dict[str, playbook.Text]
    sentences: playbook.Sentences
    actions: dict[str, playbook.Action]
    rules: list[playbook.Rule]
    fallback: list[str]
    everyone: list[str]
    reasons: list[dict[str, Any]]

    @model_validator(mode="after")
    def _consistent(self) -> PlaybookKeys:
        playbook.check_names(vars(self))
        return self


class GateKeys(Keys):
    """The limits that a candidate must meet to replace the champion."""

    margin: Margin | dict[Metric, Margin] | None
    ancestor: int = Field(ge=0)
    slices: list[str]
    members: int = Field(ge=2)
    minimum: dict[Score01, Share]
    slope: tuple[float, float]
    ece: Share
    same: float = Field(ge=0)
    megabytes: float = Field(gt=0)
    batch_ms: float = Field(gt=0)
    one_ms: float = Field(gt=0)
    looks: int = Field(ge=1)


class StatementsKeys(Keys):
    """Claims, and by name the models and segmentations that they refer to."""

    name: Name
    statements: dict[Identifier, Claim] = Field(min_length=1)
    models: dict[str, ModelKeys] = Field(default_factory=dict)
    segmentations: dict[str, SegmentsKeys] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> StatementsKeys:
        for name, claim in self.statements.items():
            names: dict[str, Mapping[str, Any]] = {"segments": self.segmentations}
            if claim.quantity == "model_difference":
                names = {"of": self.models, "against": self.models}
            for key, known in names.items():
                called = getattr(claim, key)
                if called is not None and called not in known:
                    there = ", ".join(known) or "none"
                    raise ValueError(
                        f"statements.{name}.{key}={called} is nothing that the file has: {there}"
                    )
        for name, segments in self.segmentations.items():
            if segments.k == "auto":
                raise ValueError(f"segmentations.{name}.k=auto; claims need a number of segments")
        return self


class DatasetPlace(Keys):
    """The new place of a table that has moved."""

    path: str | None
    encoding: Encoding | None
