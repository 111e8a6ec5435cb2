"""Build what a checked config describes: objects, datasets, estimators and pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from sklearn.pipeline import Pipeline

from churnlab.config.groups import DatasetKeys, FeaturesKeys, ModelKeys
from churnlab.data.dataset import Dataset, make_dataset
from churnlab.data.reading import read_table
from churnlab.data.table import in_memory
from churnlab.errors import InputError
from churnlab.models import pipelines
from churnlab.models.features import Features


def build_object(spec: Mapping[str, Any], *, key: str) -> Any:
    """Build the object that a block with ``_target_`` describes; InputError: it cannot be built."""
    try:  # without Hydra 1.4's whitelist: one of all that users may name would lift its blocklist
        return instantiate(dict(spec))
    except Exception as error:  # Hydra 1.3 wraps what the target raises, Hydra 1.4 does not
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, InputError):
            raise cause from None
        reason = " ".join(str(cause or error).split())
        raise InputError(f"{key} cannot be made of {dict(spec)}: {reason}") from error


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
    late, derive = (features.late, features.derive) if features else (True, {})
    keep = [name for name in contract.columns if late or name not in contract.late]
    return pipelines.pipeline(
        made,
        features=Features(keep, derive).fit(dataset.X),
        columns=contract.columns,
        scale=model.scale,
    )


def build_estimator(model: ModelKeys, *, where: str) -> Any:
    """Build the unfitted estimator of a model; ``where`` is the key of the model in the config."""
    spec = dict(model.estimator)
    pipelines.check_parameters(spec["_target_"], spec, where=f"{where}.estimator")
    pipelines.check_parameters(spec["_target_"], model.space, where=f"{where}.space")
    made = build_object(spec, key=f"{where}.estimator")
    pipelines.check_values(made)
    return made
