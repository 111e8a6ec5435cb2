"""Log fitted pipelines as MLflow models without pickle, and load them again."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from sklearn.pipeline import Pipeline

from churnlab.data.contract import Contract
from churnlab.errors import InputError
from churnlab.registry.skops_types import TRUSTED
from churnlab.tracking.names import Tag

log = logging.getLogger(__name__)


def log_pipeline(pipeline: Pipeline, contract: Contract, *, gaps: Collection[str]) -> int | None:
    """Log a fitted churn pipeline without pickle, and return its size in bytes, None if not kept.

    The logged model predicts the probabilities of staying and leaving, shape (members, 2). ``gaps``
    are the columns in which a value may be missing. A pipeline with types that TRUSTED does not
    list is not kept: the run has a tag that says so and cannot be promoted.
    """
    outputs = Schema([TensorSpec(np.dtype("float64"), (-1, 2))])
    signature = ModelSignature(Schema(input_columns(contract, gaps)), outputs)
    try:
        model_id = _log_model(pipeline, signature, predict="predict_proba")
    except MlflowException as error:
        if "untrusted types" not in str(error):
            raise
        reason = "not kept: it holds types that registry/skops_types.py does not list"
        log.warning("warning: the model was %s (%s)", reason, str(error).rpartition(": ")[2])
        mlflow.set_tag(Tag.MODEL, reason)
        return None
    kept = mlflow.artifacts.list_artifacts(artifact_uri=f"models:/{model_id}")
    return next(file.file_size for file in kept if file.path.endswith(".skops"))


def input_columns(contract: Contract, gaps: Collection[str]) -> list[ColSpec]:
    """Return the features of a contract as MLflow's columns; those with ``gaps`` are optional."""
    types = {"category": "string"}
    return [
        ColSpec(types.get(column.kind, "double"), name, required=name not in gaps)
        for name, column in contract.columns.items()
    ]


def log_segmentation(segmentation: Pipeline) -> None:
    """Log a fitted segmentation without pickle; the logged model predicts segment numbers."""
    fields = [ColSpec("double", str(name)) for name in segmentation[0].get_feature_names_out()]
    outputs = Schema([TensorSpec(np.dtype("int32"), (-1,))])
    _log_model(segmentation, ModelSignature(Schema(fields), outputs), predict="predict")


def _log_model(pipeline: Pipeline, signature: ModelSignature, *, predict: str) -> str:
    """Log a pipeline as the run's model, and return its id."""
    info = mlflow.sklearn.log_model(
        pipeline,
        name="model",
        signature=signature,
        pip_requirements=requirements(),
        pyfunc_predict_fn=predict,
        serialization_format="skops",
        skops_trusted_types=TRUSTED,
    )
    return info.model_id


def requirements() -> list[str]:
    """Return the packages that a logged model needs, pinned to the installed versions."""
    needed = ("mlflow", "numpy", "pandas", "scikit-learn", "scipy", "skops")
    return [f"{name}=={version(name)}" for name in needed]


def load_pipeline(run_id: str) -> Pipeline:
    """Load the pipeline that a train or segment run logged. InputError: it was not kept."""
    run = mlflow.get_run(run_id)
    not_kept = run.data.tags.get(Tag.MODEL)  # MLflow lists the attempt to log it among the outputs
    if not_kept or run.outputs is None or not run.outputs.model_outputs:
        raise InputError(
            f"Run {run_id} has no model ({not_kept or 'none was logged'}); choose another run."
        )
    try:
        return mlflow.sklearn.load_model(f"models:/{run.outputs.model_outputs[0].model_id}")
    except (ImportError, AttributeError, TypeError) as error:  # TypeError: skops does not trust it
        if "churnlab." not in str(error):
            raise
        raise InputError(
            f"The model of run {run_id} was saved by an earlier layout of churnlab and cannot be "
            f"loaded ({error}). Train it again; `churnlab doctor` lists all such models."
        ) from error


def outdated_modules(file: Path) -> list[str]:
    """Return the churnlab modules that a skops file names and that no longer have its types."""
    with ZipFile(file) as archive:
        schema = archive.read("schema.json").decode()
    named = set(re.findall(r'"__module__": "(churnlab\.[\w.]+)"', schema))
    return sorted(named - {name.rpartition(".")[0] for name in TRUSTED})
