"""What a run keeps besides numbers: tables, documents and models, written and read back."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
import yaml

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
    if (
        layout := figure.get_layout_engine()
    ):  # matplotlib would draw the whole figure once more to lay it out
        layout.execute(figure)
        figure.set_layout_engine(None)
    mlflow.log_figure(figure, f"figures/{name}.png", save_kwargs=saved)


def read_table(run_id: str, path: str) -> pd.DataFrame:
    """Read a table that a run has logged as the artifact ``path``."""
    with tempfile.TemporaryDirectory() as scratch:
        file = mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=path, dst_path=scratch
        )
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
        file = mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=path, dst_path=scratch
        )
        return Path(file).read_bytes()


def download(run_id: str, path: str, folder: Path) -> None:
    """Put one artifact of a run into a folder, under its bare name."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        file = mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=path, dst_path=scratch
        )
        shutil.copy(file, folder / Path(path).name)
