"""Follow a local store that was moved or copied: its database says where its files are.

MLflow records absolute addresses of artifacts. churnlab keeps them in the folder of the database,
so an address in another folder is one from before a move. The files themselves are never changed.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote, urlparse

from churnlab.formatting import counted
from churnlab.tracking.names import EXPERIMENTS

log = logging.getLogger(__name__)

ARTIFACTS = "mlartifacts"
"""The folder of a local store's artifacts, next to its database."""

ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
    ("datasets", "dataset_source"),
)
"""Where MLflow's schema keeps addresses of files, by table and column."""


def connect(path: Path) -> closing[sqlite3.Connection]:
    """Connect to a database that exists; every statement is a transaction unless one is begun."""
    # Not mode=ro: a kill during a commit leaves a journal, which a read-only connection can neither
    # roll back nor ignore.
    address = f"file:{quote(str(path))}?mode=rw"
    return closing(sqlite3.connect(address, uri=True, timeout=60, isolation_level=None))


def local_path(address: str) -> Path | None:
    """Return the path that an address of MLflow's names; None if it is not on this machine's disk.

    >>> local_path("file:///a%20b/c"), local_path("mlflow-artifacts:/1")
    (PosixPath('/a b/c'), None)
    """
    if address.startswith("/"):
        return Path(address)
    parts = urlparse(address)
    return Path(unquote(parts.path)) if parts.scheme == "file" and not parts.netloc else None


def follow(path: Path) -> None:
    """Rewrite the addresses in the database at ``path`` if they name another folder than its own.

    One transaction does it, so that of two processes one does it and a kill leaves all or nothing.
    A database that cannot be written stays as it is, with a warning.
    """
    with connect(path) as database:
        if not _former_homes(database, path.parent):
            return
        try:
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_READONLY":
                raise
            log.warning(
                "warning: %s was moved here and cannot be written, so the files of its runs are "
                "looked for in their former place; use an account that may write to it.",
                path,
            )
            return
        former = _former_homes(database, path.parent)  # another process may have been faster
        for home in former:
            database.create_function("moved", 1, _rewriter(home, path.parent), deterministic=True)
            for table, column in ADDRESSES:
                database.execute(
                    f"UPDATE {table} SET {column} = moved({column}) "
                    f"WHERE {column} IS NOT moved({column})"
                )
        database.execute("COMMIT")
        for home in former:
            log.info("This store was in %s: its addresses now name %s.", home, path.parent)
            _warn_of_files_left(database, home, path.parent)


def _former_homes(database: sqlite3.Connection, here: Path) -> list[Path]:
    """Return the folders, other than ``here``, in which our experiments keep their artifacts."""
    found = database.execute("SELECT experiment_id, name, artifact_location FROM experiments")
    homes = set()
    for number, name, address in found:
        artifacts = local_path(address or "")
        if number == 0 and artifacts is not None and artifacts.name == "0":
            artifacts = artifacts.parent  # MLflow's own experiment, which comes with the schema
        elif name.rpartition("-")[2] not in EXPERIMENTS.values():
            continue  # not ours: its artifacts may be anywhere
        if artifacts is not None and artifacts.name == ARTIFACTS:
            homes.add(artifacts.parent)
    return sorted(home for home in homes if home != here and not _same(home, here))


def _same(first: Path, second: Path) -> bool:
    """Return whether two paths are the same folder, by a link or a mount."""
    try:
        return os.path.samefile(first, second)
    except OSError:
        return False


def _rewriter(former: Path, here: Path) -> Callable[[str | None], str | None]:
    """Return a function that rewrites an address inside the former home; others stay."""

    def moved(text: str | None) -> str | None:
        if text is None:
            return None
        if text.startswith("{"):  # the source of a dataset: a table that may have stayed
            source = json.loads(text)
            table = Path(str(source.get("uri", "")))
            if table.is_relative_to(former) and (here / table.relative_to(former)).exists():
                return json.dumps(source | {"uri": str(here / table.relative_to(former))})
            return text
        place = local_path(text)
        if place is None or not place.is_relative_to(former / ARTIFACTS):
            return text
        target = here / place.relative_to(former)
        return target.as_uri() if text.startswith("file:") else str(target)

    return moved


def _warn_of_files_left(database: sqlite3.Connection, former: Path, here: Path) -> None:
    """Warn of folders of runs and models that are still in the former place only.

    An earlier churnlab wrote there after the move.
    """
    known = {run_id for (run_id,) in database.execute("SELECT run_uuid FROM runs")}
    known |= {
        f"models/{model}" for (model,) in database.execute("SELECT model_id FROM logged_models")
    }
    left = [
        name
        for name in _folders(former / ARTIFACTS)
        if name in known and not (here / ARTIFACTS / name).exists()
    ]
    if left:
        words = ["cp", "-Rn", f"{former / ARTIFACTS}/.", str(here / ARTIFACTS)]
        log.warning(
            "warning: %s of runs or models of this store are still in the former place; copy what "
            "is missing here: %s",
            counted(len(left), "folder"),
            shlex.join(words),
        )


def _folders(artifacts: Path) -> Iterator[str]:
    """Yield the names of the folders of runs, and of models as models/NAME."""
    for folder, prefix in ((artifacts, ""), (artifacts / "models", "models/")):
        if folder.is_dir():
            yield from (f"{prefix}{path.name}" for path in folder.iterdir())
