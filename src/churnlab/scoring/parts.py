"""Keep finished parts in a hidden folder next to the output, so that a killed job goes on there."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from churnlab.errors import InputError, JobError, in_systems_words
from churnlab.scoring.answers import TEXTS
from churnlab.scoring.counts import Counts, plain_counts
from churnlab.scoring.part import Part, Scoring, keep

MANIFEST = "manifest.json"
"""What the parts were made of and how; other parts are not continued."""

DOWNLOAD = "download"
"""The folder among the parts that a URL is downloaded to: what a kill leaves there goes at the next
start."""


def folder_of(output: Path) -> Path:
    """Return the folder of an output's parts."""
    return output.with_name(f".{output.name}.parts")


@contextmanager
def writing(output: Path) -> Iterator[None]:
    """Say of an error of the disk where it was, and that the same command goes on.

    ``output`` is the output or the folder of its parts.
    """
    try:
        yield
    except OSError as error:
        folder = output.absolute().parent
        if not folder.is_dir():
            raise JobError(
                f"The folder {folder} is gone, and with it what was scored. Create it and run the "
                "same command again."
            ) from error
        raise JobError(
            f"Nothing more can be written to {folder} ({in_systems_words(error)}). What was "
            "finished is kept there; correct that and run the same command again, which goes on."
        ) from error


def forget(folder: Path) -> None:
    """Remove the folder, its manifest first: what a kill leaves of it is not continued."""
    with suppress(OSError):
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(output: Path) -> Iterator[Path]:
    """Yield the folder of parts, which belongs to this process as long as it runs."""
    folder = folder_of(output)
    with writing(output):
        folder.mkdir(exist_ok=True)
        handle = (folder / "lock").open("w")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"Another process is writing output={output}; wait for it, or name another file."
            ) from None
        with writing(output):
            shutil.rmtree(folder / DOWNLOAD, ignore_errors=True)
            (folder / DOWNLOAD).mkdir(exist_ok=True)
        try:
            yield folder
        finally:
            if not (folder / MANIFEST).exists():
                forget(folder)


def begin(folder: Path, made_of: Mapping[str, Any]) -> None:
    """Keep the parts that were made of the same, and remove any others."""
    manifest = folder / MANIFEST
    try:
        if json.loads(manifest.read_text("utf-8")) == json.loads(json.dumps(made_of)):
            return
    except (OSError, ValueError):
        pass
    with writing(folder):
        manifest.unlink(missing_ok=True)
        for path in folder.iterdir():
            if path.name not in ("lock", DOWNLOAD):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        _write(manifest, made_of)


def finish(part: Part, number: int, scoring: Scoring, taken: list[int]) -> None:
    """Keep a part: it counts as soon as its counts are there."""
    with writing(scoring.folder):
        keep(part, number, scoring, header=False)
        kept = {"taken": taken, "counts": plain_counts(part.counts)}
        _write(_counts(scoring.folder, number), kept)


def finished(folder: Path, number: int) -> tuple[list[int], Counts] | None:
    """Return the rows whose id was taken, and the counts, of a finished part."""
    with writing(folder):
        if not _counts(folder, number).exists() and folder.is_dir():
            return None
        kept = json.loads(_counts(folder, number).read_text("utf-8"))
    return kept["taken"], Counts.of(kept["counts"])


def _counts(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.json"


def hashes(folder: Path, number: int, kind: str) -> np.ndarray:
    """Return the hashes of a part's ``rows`` or ``ids``."""
    with writing(folder):
        return np.load(folder / f"{number:06d}.{kind}.npy")


def rows(folder: Path, number: int) -> pa.Table | None:
    """Return the accepted rows of a part; None if there are none."""
    file = folder / f"{number:06d}.arrow"
    if not file.exists():
        return None
    found = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    for at, field in enumerate(found.schema):
        if field.name in TEXTS and pa.types.is_dictionary(field.type):
            found = found.set_column(at, field.name, found[at].cast(pa.string()))
    return found


def rejected(folder: Path, number: int) -> pd.DataFrame | None:
    """Return the rejected rows of a part; None if there are none."""
    file = folder / f"{number:06d}.rejected"
    return pd.read_parquet(file) if file.exists() else None


def _write(path: Path, content: Any) -> None:
    building = path.with_name(f"{path.name}.new")
    building.write_text(json.dumps(content), "utf-8")
    os.replace(building, path)
