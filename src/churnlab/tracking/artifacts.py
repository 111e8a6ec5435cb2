"""Log a run's tables, figures and documents, and read them back."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
import yaml

from churnlab.tracking.names import Artifact

if TYPE_CHECKING:  # commands that draw nothing do not load matplotlib
    from matplotlib.figure import Figure


def log_table(frame: pd.DataFrame, path: str) -> None:
    """Log a table as the artifact ``path``; CSV or Parquet by its ending."""
    folder, _, name = path.rpartition("/")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / name
        write = frame.to_parquet if name.endswith(".parquet") else frame.to_csv
        write(file, index=False)
        mlflow.log_artifact(str(file), folder or None)


def log_figure(figure: Figure, name: str, **saved: Any) -> None:
    """Log a figure as figures/NAME.png; ``saved`` are keywords of savefig."""
    if layout := figure.get_layout_engine():
        layout.execute(figure)  # savefig would draw the whole figure once more for the layout
        figure.set_layout_engine(None)
    mlflow.log_figure(figure, f"figures/{name}.png", save_kwargs=saved)


def read_table(run_id: str, path: str) -> pd.DataFrame:
    """Read the table that a run logged as the artifact ``path``."""
    with _downloaded(run_id, path) as file:
        return pd.read_parquet(file) if path.endswith(".parquet") else pd.read_csv(file)


def find_table(run_id: str, path: str) -> pd.DataFrame | None:
    """Read the table that a run logged as the artifact ``path``; None if there is none."""
    logged = mlflow.MlflowClient().list_artifacts(run_id, path.rpartition("/")[0] or None)
    return read_table(run_id, path) if path in {file.path for file in logged} else None


def read_json(run_id: str, path: str) -> Any:
    """Read a JSON artifact of a run."""
    return mlflow.artifacts.load_dict(f"runs:/{run_id}/{path}")


def read_config(run_id: str) -> dict[str, Any]:
    """Read the resolved config of a run."""
    return yaml.safe_load(mlflow.artifacts.load_text(f"runs:/{run_id}/{Artifact.CONFIG}"))


def read_bytes(run_id: str, path: str) -> bytes | None:
    """Read the file that a run logged as the artifact ``path``; None if there is none."""
    logged = mlflow.MlflowClient().list_artifacts(run_id, path.rpartition("/")[0] or None)
    if path not in {file.path for file in logged}:
        return None
    with _downloaded(run_id, path) as file:
        return file.read_bytes()


def download(run_id: str, path: str, folder: Path) -> None:
    """Copy one artifact of a run into a folder, under its file name."""
    folder.mkdir(exist_ok=True)
    with _downloaded(run_id, path) as file:
        shutil.copy(file, folder / file.name)


@contextmanager
def _downloaded(run_id: str, path: str) -> Iterator[Path]:
    """Download an artifact of a run to a temporary file."""
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(
            mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, dst_path=scratch)
        )
