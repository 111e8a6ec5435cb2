"""Build what a checked config describes: objects, datasets, estimators and pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from sklearn.pipeline import Pipeline

from churnlab.config.commands import Train
from churnlab.config.groups import DatasetKeys, ModelKeys
from churnlab.data.dataset import Dataset
from churnlab.errors import InputError
from churnlab.models import pipelines
from churnlab.models.features import Features


def build_object(spec: Mapping[str, Any], *, key: str) -> Any:
    """The object that a block with ``_target_`` describes; InputError when it cannot be made of
    these values."""
    from hydra.utils import instantiate

    try:
        return instantiate(dict(spec))
    except InstantiationException as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        reason = " ".join(str(error.__cause__ or error).split())
        raise InputError(f"{key} cannot be made of {dict(spec)}: {reason}") from error


def load_dataset(dataset: DatasetKeys) -> Dataset:
    """Read or generate the table that a dataset's config names, and check it."""
    from churnlab.data.dataset import make_dataset
    from churnlab.data.reading import in_memory, read_table

    contract = dataset.contract
    if dataset.path is not None:
        return make_dataset(read_table(dataset.path, contract), contract)
    if dataset.generator is None:
        raise InputError(
            f"The dataset {dataset.name} has neither a path nor a generator; give "
            "dataset.path=FILE."
        )
    frame = build_object(dict(dataset.generator), key="dataset.generator")
    return make_dataset(
        in_memory(frame, source=dataset.generator["_target_"], rename=contract.rename), contract
    )


def build_pipeline(settings: Train, dataset: Dataset) -> Pipeline:
    """The unfitted pipeline that model= and features= describe; InputError for what does not exist
    or fit."""
    contract, made = dataset.contract, build_estimator(settings.model, where="model")
    keep = [
        name for name in contract.columns if settings.features.late or name not in contract.late
    ]
    features = Features(keep, settings.features.derive).fit(dataset.X)
    return pipelines.pipeline(
        made, features=features, columns=contract.columns, scale=settings.model.scale
    )


def build_estimator(model: ModelKeys, *, where: str) -> Any:
    """The unfitted estimator of a model; ``where`` is the key under which the model stands."""
    spec = dict(model.estimator)
    pipelines.check_parameters(spec["_target_"], spec, where=f"{where}.estimator")
    pipelines.check_parameters(spec["_target_"], model.space, where=f"{where}.space")
    made = build_object(spec, key=f"{where}.estimator")
    pipelines.check_values(made)
    return made
