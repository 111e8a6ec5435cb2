"""Build what a checked config describes: datasets, estimators and pipelines."""

from __future__ import annotations

from typing import Any

from sklearn.base import clone
from sklearn.pipeline import Pipeline

from churnlab.config.groups import DatasetKeys, FeaturesKeys, ModelKeys
from churnlab.config.objects import build_object
from churnlab.data.dataset import Dataset, make_dataset
from churnlab.data.reading import read_table
from churnlab.data.table import in_memory
from churnlab.errors import InputError
from churnlab.formatting import listed
from churnlab.models import pipelines
from churnlab.models.features import Features


def load_dataset(dataset: DatasetKeys) -> Dataset:
    """Read or generate the table that a dataset's config names, and check it."""
    contract = dataset.contract
    if dataset.path is not None:
        return make_dataset(read_table(dataset.path, contract), contract)
    if dataset.generator is None:
        raise InputError(f"The dataset {dataset.name} has no path; give dataset.path=FILE.")
    frame = build_object(dict(dataset.generator), key="dataset.generator")
    source = dataset.generator["_target_"]
    return make_dataset(in_memory(frame, source=source, rename=contract.rename), contract)


def build_pipeline(
    model: ModelKeys,
    dataset: Dataset,
    *,
    features: FeaturesKeys | None = None,
    where: str = "model",
) -> Pipeline:
    """Build the unfitted pipeline of a model; without ``features`` it sees all columns unchanged.

    ``where`` is the key of the model in the config. InputError: an estimator, parameter or column
    that does not exist.
    """
    made, contract = build_estimator(model, where=where), dataset.contract
    _warn_of_dropped(model, made, dataset, where=where)
    late, derive = (features.late, features.derive) if features else (True, {})
    keep = [name for name in contract.columns if late or name not in contract.late]
    return pipelines.pipeline(
        made,
        features=Features(keep, derive).fit(dataset.X),
        columns=contract.columns,
        scale=model.scale,
    )


def _warn_of_dropped(model: ModelKeys, made: Any, dataset: Dataset, *, where: str) -> None:
    """Warn of parameters that a class takes, as any keyword, and does not keep."""
    target, kept = model.estimator["_target_"], made.get_params(deep=True)
    given = dict.fromkeys(model.space) | model.estimator
    dropped = pipelines.without_effect(target, given, kept, where=f"{where}.estimator")
    for name, keys in dropped.items():
        dataset.warn(
            f"{name} takes any parameter, and {listed(keys)} {'is' if len(keys) == 1 else 'are'} "
            "not among those that it declares: check the spelling, a wrong name has no effect"
        )


def build_estimator(model: ModelKeys, *, where: str) -> Any:
    """Build the unfitted estimator of a model; ``where`` is the key of the model in the config."""
    if not isinstance(target := model.estimator.get("_target_"), str):
        raise InputError(
            f"{where}.estimator has no _target_; give the dotted name of a class, such as "
            "sklearn.linear_model.LogisticRegression."
        )
    inner = {key: value for key, value in model.estimator.items() if "__" in key}
    spec = {key: value for key, value in model.estimator.items() if key not in inner}
    pipelines.check_parameters(target, spec, where=f"{where}.estimator")
    made = build_object(spec, key=f"{where}.estimator")
    pipelines.check_values(made, f"{where}.estimator")
    pipelines.check_settable(made, target, inner, where=f"{where}.estimator")
    pipelines.check_settable(made, target, model.space, where=f"{where}.space")
    if inner:
        pipelines.check_values(made.set_params(**inner), f"{where}.estimator")
    for key, block in model.space.items():
        for value in [block[end] for end in ("low", "high") if end in block]:
            pipelines.check_values(clone(made).set_params(**{key: value}), f"{where}.space.{key}")
    return made
