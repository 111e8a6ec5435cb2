"""What a run keeps besides numbers: tables, documents and models, written and read back."""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from sklearn.pipeline import Pipeline

from churnlab.contract import Contract
from churnlab.errors import InputError
from churnlab.models import TRUSTED

if TYPE_CHECKING:  # commands that draw nothing do without matplotlib
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


def log_table(frame: pd.DataFrame, path: str) -> None:
    """Log a table as the artifact ``path``; CSV or Parquet by its ending."""
    folder, _, name = path.rpartition("/")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / name
        if name.endswith(".parquet"):
            frame.to_parquet(file, index=False)
        else:
            frame.to_csv(file, index=False)
        mlflow.log_artifact(str(file), folder or None)


def log_figure(figure: Figure, name: str, **saved: Any) -> None:
    """Log a figure as figures/NAME.png; ``saved`` goes to its savefig."""
    if layout := figure.get_layout_engine():  # matplotlib would draw the whole figure once more to lay it out
        layout.execute(figure)
        figure.set_layout_engine(None)
    mlflow.log_figure(figure, f"figures/{name}.png", save_kwargs=saved)


def read_table(run_id: str, path: str) -> pd.DataFrame:
    """Read a table that a run has logged as the artifact ``path``."""
    with tempfile.TemporaryDirectory() as scratch:
        file = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, dst_path=scratch)
        return pd.read_parquet(file) if path.endswith(".parquet") else pd.read_csv(file)


def read_json(run_id: str, path: str) -> Any:
    """A JSON artifact of a run."""
    return mlflow.artifacts.load_dict(f"runs:/{run_id}/{path}")


def read_config(run_id: str) -> dict[str, Any]:
    """The resolved config of a run."""
    return yaml.safe_load(mlflow.artifacts.load_text(f"runs:/{run_id}/config.yaml"))


def read_bytes(run_id: str, path: str) -> bytes | None:
    """The file that a run has logged as the artifact ``path``; None when it has none."""
    logged = mlflow.MlflowClient().list_artifacts(run_id, path.rpartition("/")[0] or None)
    if path not in {file.path for file in logged}:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        file = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, dst_path=scratch)
        return Path(file).read_bytes()


def download(run_id: str, path: str, folder: Path) -> None:
    """Put one artifact of a run into a folder, under its bare name."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        file = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, dst_path=scratch)
        shutil.copy(file, folder / Path(path).name)


def log_pipeline(pipeline: Pipeline, contract: Contract, *, gaps: Collection[str]) -> int | None:
    """Log a fitted churn pipeline without pickle; it answers with the probabilities of staying and leaving.

    ``gaps`` are the columns in which a value may be missing. Returns the bytes that it takes, None if it was not kept.
    A pipeline with types outside models.TRUSTED is not logged, and the run says so: it cannot be promoted.
    """
    outputs = Schema([TensorSpec(np.dtype("float64"), (-1, 2))])
    try:
        model_id = _log_model(
            pipeline, ModelSignature(Schema(_inputs(contract, gaps)), outputs), predict="predict_proba"
        )
    except MlflowException as error:
        if "untrusted types" not in str(error):
            raise
        log.warning("warning: the model was not kept: %s", str(error).splitlines()[0])
        mlflow.set_tag("churnlab.model", "not kept: it holds types that models.TRUSTED does not list")
        return None
    kept = mlflow.artifacts.list_artifacts(artifact_uri=f"models:/{model_id}")
    return next(file.file_size for file in kept if file.path.endswith(".skops"))


def _inputs(contract: Contract, gaps: Collection[str]) -> list[ColSpec]:
    return [
        ColSpec("string" if column.kind == "category" else "double", name, required=name not in gaps)
        for name, column in contract.columns.items()
    ]


def log_segmentation(segmentation: Pipeline) -> None:
    """Log a fitted segmentation without pickle; it answers with the number of each row's segment."""
    fields = [ColSpec("double", str(name)) for name in segmentation[0].get_feature_names_out()]
    outputs = Schema([TensorSpec(np.dtype("int32"), (-1,))])
    _log_model(segmentation, ModelSignature(Schema(fields), outputs), predict="predict")


def log_bundle(artifacts: Mapping[str, str], contract: Contract, *, threshold: float, gaps: Collection[str]) -> str:
    """Log a served model (bundle.py with its files), pickle-free and without a path of the checkout; returns its id.

    ``gaps`` are the columns in which a value may be missing.
    """
    inputs = [*_inputs(contract, gaps), ColSpec("string", "member_id", required=False)]
    outputs = {"churn_probability": "double", "will_churn": "boolean", "segment": "long"}
    outputs |= {"segment_name": "string", "recommended_action": "string"}
    params = ParamSchema([ParamSpec("threshold", "double", threshold), ParamSpec("reasons", "boolean", True)])
    answers = Schema([ColSpec(kind, name) for name, kind in outputs.items()])
    with tempfile.TemporaryDirectory() as neutral:  # MLmodel tells from where the code was logged
        info = mlflow.pyfunc.log_model(
            name="bundle",
            python_model=str(shutil.copy(Path(__file__).with_name("bundle.py"), neutral)),
            artifacts=dict(artifacts),
            signature=ModelSignature(Schema(inputs), answers, params),
            pip_requirements=requirements(),
        )
    return info.model_id


def read_version(model_uri: str, path: str) -> Any:
    """A JSON file of a served model, read without loading the model; None when it is not there."""
    try:
        return mlflow.artifacts.load_dict(f"{model_uri}/artifacts/{path}")
    except (MlflowException, OSError):
        return None


def _log_model(pipeline: Pipeline, signature: ModelSignature, *, predict: str) -> str:
    """Log a pipeline as the run's model; returns its id."""
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
    """What a logged model needs, at the versions it was made with."""
    needed = ("mlflow", "numpy", "pandas", "scikit-learn", "scipy", "skops")
    return [f"{name}=={version(name)}" for name in needed]


def load_pipeline(run_id: str) -> Pipeline:
    """The fitted pipeline that a train or segment run has logged; InputError when it was not kept."""
    run = mlflow.get_run(run_id)
    not_kept = run.data.tags.get("churnlab.model")  # MLflow lists the attempt to log it among the outputs
    if not_kept or run.outputs is None or not run.outputs.model_outputs:
        raise InputError(f"Run {run_id} has kept no model ({not_kept or 'none was logged'}); name another run.")
    return mlflow.sklearn.load_model(f"models:/{run.outputs.model_outputs[0].model_id}")


def load_bundle(model_uri: str) -> mlflow.pyfunc.PyFuncModel:
    """A version as MLflow serves it; Python leaves none of its compiled files among the version's own."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        return mlflow.pyfunc.load_model(model_uri)
    finally:
        sys.dont_write_bytecode = before
