"""Fingerprint configs and code, and tag runs so that equal ones find each other."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Collection, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from churnlab.models.own_code import own_code, types_in
from churnlab.tracking.names import Tag

if TYPE_CHECKING:  # commands that split nothing do not load scikit-learn
    from churnlab.models.splits import Split

PACKAGE = Path(__file__).parents[1]
"""The folder of the package: all rooms, not just this one."""

NOT_DECIDING = {
    *("tracking", "engine", "storage", "run_name", "force"),
    *("dry_run", "reason", "input", "output"),
}
"""Keys that do not decide a result and are left out of its config_sha256 (as is any path)."""

FILE_FORMAT = {
    *("path", "encoding", "rename", "extra"),
    *("separator", "decimal", "missing"),
}
"""Keys of a dataset that describe where and how its table is written, not its content."""

CELL_FORMAT = {"format", "missing"}
"""Keys of a column that describe how its cells are written."""

LATER = {
    **{"rows_where": None, "before": None, "ordered": False, "encoding": "one_hot"},
    **{"fold": False, "on_bad_row": "fail"},
}
"""Keys that datasets, columns and score have got since, and what was the rule before: they decide
nothing where they say so, and configs from before keep their fingerprint."""


def config_sha256(command: str, config: Mapping[str, Any]) -> str:
    """Fingerprint what decides a result: the command and its deciding keys."""
    text = json.dumps([command, deciding(config)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a config that decide a result: no paths, engines or run names.

    >>> deciding({"seed": 0, "force": True, "dataset": {"name": "gym", "path": "a.csv"}})
    {'seed': 0, 'dataset': {'name': 'gym'}}
    """
    kept = {key: value for key, value in config.items() if key not in NOT_DECIDING}
    if kept.get("score"):
        kept["score"] = _content(kept["score"], ())
    if kept.get("dataset"):
        kept["dataset"] = _content(kept["dataset"], FILE_FORMAT)
        if columns := kept["dataset"].get("columns"):
            named = {name: _content(column, CELL_FORMAT) for name, column in columns.items()}
            kept["dataset"]["columns"] = named
    return kept


def _content(keys: Mapping[str, Any], form: Collection[str]) -> dict[str, Any]:
    """Return the keys of a block but those of its form and those that decide nothing."""
    return {
        key: value
        for key, value in keys.items()
        if key not in form and not (key in LATER and value == LATER[key])
    }


@cache
def code_sha256(package: Path = PACKAGE) -> str:
    """Fingerprint all files of a package, in all its folders, except what Python compiles."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and path.parent.name != "__pycache__":
            digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@cache
def git_tags() -> dict[str, str]:
    """Return the commit of the checkout and whether it has uncommitted changes; {} outside git."""
    git = ["git", "-C", str(PACKAGE)]
    try:
        commit, status = (
            subprocess.run([*git, *words], capture_output=True, text=True, check=True).stdout
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {Tag.GIT_COMMIT: commit.strip(), Tag.GIT_DIRTY: str(bool(status)).lower()}


def identity_tags(
    command: str, config: Mapping[str, Any], *, data_sha256: str | None = None
) -> dict[str, str]:
    """Return the tags by which equal runs find each other: command, config, code and data."""
    tags = {Tag.COMMAND: command, Tag.CONFIG: config_sha256(command, config)}
    tags[Tag.CODE] = code_of(config)
    return tags if data_sha256 is None else tags | {Tag.DATA: data_sha256}


def code_of(config: Mapping[str, Any]) -> str:
    """Fingerprint the code that a config runs: the package, and the files of a model's own classes.

    Without such classes it is that of the package.
    """
    sha256, found = code_sha256(), own_code(types_in((config.get("model") or {}).get("estimator")))
    return hashlib.sha256((sha256 + found.sha256()).encode()).hexdigest() if found.files else sha256


DECIDING_PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn", "optuna", "mlflow")
"""Packages that decide the last bits of a result."""


@cache
def packages() -> dict[str, str]:
    """Return what else decides a result: machine type and versions of Python and packages."""
    python = {"python": platform.python_version(), "machine": platform.machine()}
    return python | {name: version(name) for name in DECIDING_PACKAGES}


def split_tags(split: Split) -> dict[str, str]:
    """Return the tags by which runs on the same data, split and folds find each other."""
    return {
        Tag.DATA: split.data_sha256,
        Tag.SPLIT: split.split_sha256,
        Tag.FOLDS: split.folds_sha256,
    }
