"""Log fitted pipelines as MLflow models without pickle, and load them again."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.utils import requirements_utils
from sklearn.pipeline import Pipeline

from churnlab.bundle.import_folder import imported_from
from churnlab.bundle.skops_types import TRUSTED
from churnlab.data.contract import Contract
from churnlab.data.dataset import Dataset
from churnlab.errors import InputError
from churnlab.models.own_code import OwnCode
from churnlab.registry import saved_form
from churnlab.registry.input_example import invent_members
from churnlab.tracking.moved import local_path
from churnlab.tracking.names import Tag

NO_CODE = OwnCode({}, frozenset())
"""What a pipeline without classes of one's own needs."""

NOT_IN_NAMES = re.compile(r"""[/:.%"']""")
"""What MLflow allows in the name of a run, and not in that of a model."""

NEEDED = ("mlflow", "numpy", "pandas", "scikit-learn", "scipy", "skops")
"""The packages that every logged model needs."""


class Logged(NamedTuple):
    """A model of the open run: its id, and its size in bytes."""

    model_id: str
    size: int


def log_pipeline(pipeline: Pipeline, dataset: Dataset, *, trusted: Sequence[str] = ()) -> Logged:
    """Log a churn pipeline that was fitted on ``dataset`` without pickle, named after the open run.

    The logged model predicts the probabilities of staying and leaving, shape (members, 2).
    ``trusted`` are the types that it may hold besides TRUSTED. InputError: it holds others, which
    it did not when it was checked.
    """
    outputs = Schema([TensorSpec(np.dtype("float64"), (-1, 2))])
    signature = ModelSignature(Schema(input_columns(dataset.contract, dataset.gaps)), outputs)
    code = saved_form.code_of(pipeline, trusted)
    try:
        model_id = _log_model(
            pipeline,
            signature,
            invent_members(dataset, pipeline[0].derive),
            predict="predict_proba",
            trusted=trusted,
            code=code,
        )
    except MlflowException as error:
        if "untrusted types" not in str(error):
            raise
        unknown = re.findall(r"'([\w.]+)'", str(error).rpartition("found in the file")[2])
        name = type(pipeline[-1]).__name__
        raise InputError(saved_form.untrusted(name, unknown, trusted=trusted)) from None
    kept = mlflow.artifacts.list_artifacts(artifact_uri=f"models:/{model_id}")
    return Logged(model_id, next(one.file_size for one in kept if one.path.endswith(".skops")))


def input_columns(contract: Contract, gaps: Collection[str]) -> list[ColSpec]:
    """Return the features of a contract as MLflow's columns; those with ``gaps`` are optional."""
    types = {"category": "string"}
    return [
        ColSpec(types.get(column.kind, "double"), name, required=name not in gaps)
        for name, column in contract.columns.items()
    ]


def log_segmentation(segmentation: Pipeline, example: pd.DataFrame) -> str:
    """Log a fitted segmentation without pickle, named after the open run; return the model's id.

    The logged model predicts segment numbers. ``example``: a member, or no row.
    """
    fields = [
        ColSpec("double" if dtype.kind == "f" else "string", str(name))
        for name, dtype in example.dtypes.items()
    ]
    outputs = Schema([TensorSpec(np.dtype("int32"), (-1,))])
    signature = ModelSignature(Schema(fields), outputs)
    return _log_model(segmentation, signature, example, predict="predict")


def _log_model(
    pipeline: Pipeline,
    signature: ModelSignature,
    example: pd.DataFrame,
    *,
    predict: str,
    trusted: Sequence[str] = (),
    code: OwnCode = NO_CODE,
) -> str:
    """Log a pipeline as the run's model, with the files of its own classes; return its id.

    MLflow loads it and tries the example.
    """
    run = mlflow.active_run()
    assert run is not None
    with tempfile.TemporaryDirectory() as scratch, requirements_known(), _same_path():
        for place, file in code.files.items():
            copied = Path(scratch, place)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copied)
        info = mlflow.sklearn.log_model(
            pipeline,
            name=NOT_IN_NAMES.sub("_", run.info.run_name),
            signature=signature,
            input_example=None if example.empty else example,
            pip_requirements=requirements(code.packages),
            pyfunc_predict_fn=predict,
            serialization_format="skops",
            skops_trusted_types=[*TRUSTED, *trusted],
            code_paths=[str(path) for path in sorted(Path(scratch).iterdir())] or None,
        )
    return info.model_id


def requirements(others: Iterable[str] = ()) -> list[str]:
    """Return the packages that a logged model needs, pinned to the installed versions."""
    return [f"{name}=={version(name)}" for name in sorted({*NEEDED, *others})]


@contextmanager
def _same_path() -> Iterator[None]:
    """Load models meanwhile: MLflow leaves their folders of code on the import path."""
    before = [*sys.path]
    try:
        yield
    finally:
        sys.path[:] = before


@contextmanager
def requirements_known() -> Iterator[None]:
    """Log models meanwhile: MLflow lists the modules of no installed package.

    It does so to compare a model's requirements with what is installed, which ``requirements``
    pins, and reads the files of all packages for it.
    """
    modules = getattr(requirements_utils, "_MODULES_TO_PACKAGES", None)
    requirements_utils._MODULES_TO_PACKAGES = modules or {}
    try:
        yield
    finally:
        requirements_utils._MODULES_TO_PACKAGES = modules


def model_folder(run_id: str) -> Path:
    """Return the folder of the model that a train or segment run logged, a copy if the store is
    elsewhere. InputError: it was not kept."""
    run = mlflow.get_run(run_id)
    not_kept = run.data.tags.get(Tag.MODEL)  # MLflow lists the attempt to log it among the outputs
    if not_kept or run.outputs is None or not run.outputs.model_outputs:
        raise InputError(
            f"Run {run_id} has no model ({not_kept or 'none was logged'}); choose another run."
        )
    uri = f"models:/{run.outputs.model_outputs[0].model_id}"
    copy = None if local_path(run.info.artifact_uri) else tempfile.mkdtemp(dir=_copies().name)
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=copy))


@cache
def _copies() -> tempfile.TemporaryDirectory[str]:
    """Return the folder for copies of models of a server; it is deleted when the process ends."""
    return tempfile.TemporaryDirectory(prefix="churnlab-models-")


def code_folder(model: Path) -> Path | None:
    """Return the folder with the code of a model's own classes; None if it has none."""
    return model / "code" if (model / "code").is_dir() else None


def packages(model: Path) -> list[str]:
    """Return the names of the packages that a logged model needs."""
    lines = (model / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line.partition("==")[0] for line in lines if "==" in line]


def load_pipeline(run_id: str) -> Pipeline:
    """Load the pipeline that a train or segment run logged. InputError: it was not kept."""
    folder = model_folder(run_id)
    code = code_folder(folder)
    try:
        with imported_from(code) if code else nullcontext():
            return mlflow.sklearn.load_model(str(folder))
    except (ImportError, AttributeError, TypeError) as error:  # TypeError: skops does not trust it
        if "churnlab." not in str(error):
            raise
        raise InputError(
            f"The model of run {run_id} was saved by an earlier layout of churnlab and cannot be "
            f"loaded ({error}). Train it again; `churnlab doctor` lists all such models."
        ) from error
