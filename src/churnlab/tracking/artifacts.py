"""Log a run's tables, figures and documents, and read them back."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import mlflow
import pandas as pd
import yaml
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from churnlab.errors import InputError
from churnlab.formatting import listed
from churnlab.tracking.moved import local_path
from churnlab.tracking.names import KEPT, Artifact, Tag
from churnlab.tracking.server import raise_unanswered
from churnlab.tracking.store import store_command

if TYPE_CHECKING:  # commands that draw nothing do not load matplotlib
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

Parsed = TypeVar("Parsed")

FITTED = ("train", "segment")
"""The commands whose runs keep a model; what promote logs is a version."""


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
    quickly = {"pil_kwargs": {"compress_level": 3}}  # 5% larger than by default
    mlflow.log_figure(figure, f"figures/{name}.png", save_kwargs=quickly | saved)


def read_table(run_id: str, path: str) -> pd.DataFrame:
    """Read the table that a run logged as the artifact ``path``; LostFile: it is gone."""
    return _read(run_id, path, pd.read_parquet if path.endswith(".parquet") else pd.read_csv)


def find_table(run_id: str, path: str) -> pd.DataFrame | None:
    """Read the table that a run logged as the artifact ``path``; None if it never logged it.

    LostFile: the run has lost its files.
    """
    return read_table(run_id, path) if _kept(run_id, path) else None


def read_json(run_id: str, path: str) -> Any:
    """Read a JSON artifact of a run; LostFile: it is gone."""
    return _read(run_id, path, lambda file: json.loads(file.read_text(encoding="utf-8")))


def read_config(run_id: str) -> dict[str, Any]:
    """Read the resolved config of a run; LostFile: it is gone."""
    return _read(
        run_id, Artifact.CONFIG, lambda file: yaml.safe_load(file.read_text(encoding="utf-8"))
    )


def read_bytes(run_id: str, path: str) -> bytes | None:
    """Read the file that a run logged as the artifact ``path``; None if it never logged it.

    LostFile: the run has lost its files.
    """
    return _read(run_id, path, Path.read_bytes) if _kept(run_id, path) else None


def download(run_id: str, path: str, folder: Path) -> None:
    """Copy one artifact of a run into a folder, under its file name; LostFile: it is gone."""
    folder.mkdir(exist_ok=True)
    _read(run_id, path, lambda file: shutil.copy(file, folder / file.name))


class LostFile(InputError):
    """A file that a run logged is gone or damaged; the message names the run, and how to go on."""


def damage(run: Run) -> str | None:
    """Say what a finished run of a local store has lost, its model included; None for nothing.

    On a server this would take some requests for every run: None.
    """
    folder = local_path(run.info.artifact_uri)
    if found := lost_files(run):
        return found
    model = folder and _model_folder(run, folder)
    if model and not (model / "MLmodel").is_file():
        return f"has lost its model in {model}"
    return None


def lost_files(run: Run, *, thorough: bool = False) -> str | None:
    """Say which files that others read a finished run has lost; None for none.

    On a server this takes some requests, which are sent only if it is to be ``thorough``.
    """
    folder = local_path(run.info.artifact_uri)
    files = KEPT.get(run.data.tags.get(Tag.COMMAND, ""), ())
    if run.info.status != "FINISHED" or not files or (folder is None and not thorough):
        return None
    if folder is not None:
        lost = [file for file in files if not (folder / file).is_file()]
        none_left, place = not any(folder.glob("*")), str(folder)
    else:
        there = _listed(run.info.run_id, files)
        lost = [file for file in files if file not in there]
        none_left, place = not there, "the server's artifacts"
    if not lost:
        return None
    return f"has lost {'its files' if none_left else listed(lost)} in {place}"


def _listed(run_id: str, files: Sequence[str]) -> set[str]:
    """Return the files in the folders of these files that a run has on a server."""
    client, folders = mlflow.MlflowClient(), {file.rpartition("/")[0] for file in files}
    return {
        found.path for folder in folders for found in client.list_artifacts(run_id, folder or None)
    }


def check_intact(run: Run) -> None:
    """Raise LostFile if a run has lost something that others read."""
    if found := damage(run):
        raise _lost(run, found)


def intact(runs: Iterable[Run]) -> Iterator[Run]:
    """Yield the runs that have lost nothing, in order; warn of each of the others."""
    for run in runs:
        if found := damage(run):
            log.warning("warning: %s %s and is left out: %s", name_of(run), found, repair(run))
        else:
            yield run


def _model_folder(run: Run, folder: Path) -> Path | None:
    """Return the folder of the model that a train or segment run keeps; None without one."""
    command, outputs = run.data.tags.get(Tag.COMMAND), run.outputs
    if command not in FITTED or Tag.MODEL in run.data.tags or not outputs:
        return None
    # MLflow keeps the models of an experiment next to its runs.
    models = [folder.parents[1] / "models" / model.model_id for model in outputs.model_outputs]
    return models[0] / "artifacts" if models else None


def _read(run_id: str, path: str, parse: Callable[[Path], Parsed]) -> Parsed:
    """Download an artifact of a run and parse it; LostFile: it is gone or damaged."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            file = mlflow.artifacts.download_artifacts(
                run_id=run_id, artifact_path=path, dst_path=scratch
            )
        except (MlflowException, OSError) as error:
            raise_unanswered(error)
            if has(run_id, path):
                raise  # it is there: the store has failed
            run = mlflow.get_run(run_id)
            raise _lost(run, _lost_of(run) or f"has lost {path}") from None
        try:
            return parse(Path(file))
        except (ValueError, yaml.YAMLError) as error:
            raise _lost(mlflow.get_run(run_id), f"has a damaged {path}") from error


def has(run_id: str, path: str) -> bool:
    """Return whether a run has an artifact."""
    logged = mlflow.MlflowClient().list_artifacts(run_id, path.rpartition("/")[0] or None)
    return path in {file.path for file in logged}


def _kept(run_id: str, path: str) -> bool:
    """Return whether a run has an artifact; LostFile: it has lost even its config."""
    if has(run_id, path):
        return True
    if not has(run_id, Artifact.CONFIG):
        run = mlflow.get_run(run_id)
        raise _lost(run, _lost_of(run) or "has lost its files")
    return False


def _lost_of(run: Run) -> str | None:
    return damage(run) or lost_files(run, thorough=True)


def _lost(run: Run, what: str) -> LostFile:
    return LostFile(f"{name_of(run)} {what}: {repair(run)}")


def name_of(run: Run) -> str:
    """Return a run as a message calls it: its command, id and name."""
    return f"{run.data.tags.get(Tag.COMMAND, '')} run {run.info.run_id} ({run.info.run_name})"


def repair(run: Run) -> str:
    """Say how to go on without a run that has lost files, or its model."""
    if run.data.tags.get(Tag.COMMAND) in FITTED and not lost_files(run, thorough=True):
        return make_again(run.info.run_id)
    return (
        "put them back from a backup, or run the same command again and delete this run: "
        f"{store_command('run', 'delete', run.info.run_id)}"
    )


def make_again(run_id: str) -> str:
    """Say how to replace a run that can be run again from its config."""
    return f"churnlab reproduce run={run_id} replaces it; delete it in the MLflow UI after that"
