"""What makes two runs the same, and where runs belong: fingerprints of config and code,
experiments, tags."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from churnlab.models.splits import Split
from churnlab.tracking.names import Tag

NOT_DECIDING = {
    "tracking",
    "engine",
    "storage",
    "run_name",
    "force",
    "dry_run",
    "reason",
    "input",
    "output",
}
"""Keys that do not decide a result and are no part of its config_sha256 (nor is any path)."""

HOW_IT_IS_WRITTEN = {"path", "encoding", "rename"}
"""Keys of a dataset that say where and how its table is written, not what it holds."""


def config_sha256(command: str, config: Mapping[str, Any]) -> str:
    """Fingerprint what decides a result: the command and its deciding keys."""
    return hashlib.sha256(
        json.dumps([command, deciding(config)], sort_keys=True).encode()
    ).hexdigest()


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a config that decide a result: all but paths, engines and names of runs."""
    kept = {key: value for key, value in config.items() if key not in NOT_DECIDING}
    if kept.get("dataset"):
        kept["dataset"] = {
            key: value for key, value in kept["dataset"].items() if key not in HOW_IT_IS_WRITTEN
        }
    return kept


@cache
def code_sha256() -> str:
    """Fingerprint the installed package: every file of it but what Python compiles."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for path in sorted(path for path in package.rglob("*.*") if path.parent.name != "__pycache__"):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@cache
def git_tags() -> dict[str, str]:
    """The commit the code stands at and whether it was changed since; nothing outside a checkout."""
    asked = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run(
            [*asked, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        status = subprocess.run(
            [*asked, "status", "--porcelain"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {
        Tag.GIT_COMMIT: commit.stdout.strip(),
        Tag.GIT_DIRTY: str(bool(status.stdout)).lower(),
    }


def identity_tags(
    command: str, config: Mapping[str, Any], *, data_sha256: str | None = None
) -> dict[str, str]:
    """The tags by which runs of the same thing find each other: command, config, code and data."""
    tags = {
        Tag.COMMAND: command,
        Tag.CONFIG: config_sha256(command, config),
        Tag.CODE: code_sha256(),
    }
    return tags if data_sha256 is None else tags | {Tag.DATA: data_sha256}


DECIDING = ("numpy", "scipy", "pandas", "scikit-learn", "optuna", "mlflow")
"""Packages in whose hands the last bit of a result is."""


@cache
def packages() -> dict[str, str]:
    """What decides the bits of a result besides code, config and data: Python, its packages, the
    kind of machine."""
    python = {"python": platform.python_version(), "machine": platform.machine()}
    return python | {name: version(name) for name in DECIDING}


def split_tags(split: Split) -> dict[str, str]:
    """Return the tags by which runs on the same data, split and folds find each other."""
    return {
        Tag.DATA: split.data_sha256,
        Tag.SPLIT: split.split_sha256,
        Tag.FOLDS: split.folds_sha256,
    }
