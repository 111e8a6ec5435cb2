"""Verify the files of a version against its manifest before anything of it is imported."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mlflow
import skops.io
import yaml
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from churnlab.formatting import listed
from churnlab.tracking.names import Tag

NOT_OURS = ("registered_model_meta", "__pycache__")
"""What MLflow and Python write into a version's folder later: never copied, so never used."""

LOADER = {"loader_module": "mlflow.pyfunc.loaders.code_model", "code": None}
"""How a version is loaded: by its own served_model.py, with no further code on the path."""


class Unverified(LookupError):
    """The reason why a version's files are not to be trusted."""


def manifest_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a version's folder, by its path there."""
    return {
        path.relative_to(folder).as_posix(): _sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part in NOT_OURS for part in path.parts)
    }


@contextmanager
def verified_copy(version: ModelVersion) -> Iterator[Path]:
    """Copy a version's files into a folder of this process, check them, and yield the folder.

    What is checked is what is used: the originals may change at any time. Unverified: a file was
    changed, added or removed, or the version would be loaded in another way than churnlab made it.
    """
    if Tag.MANIFEST not in version.tags:
        raise Unverified("it has no manifest: it was made before manifests")
    manifest = json.loads(version.tags[Tag.MANIFEST])
    with tempfile.TemporaryDirectory(prefix="churnlab-version-") as folder:
        copy = Path(folder) / "version"
        try:
            source = mlflow.artifacts.download_artifacts(
                f"models:/{version.name}/{version.version}", dst_path=None
            )
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns(*NOT_OURS), symlinks=True)
        except (MlflowException, OSError) as error:
            raise Unverified(f"its files cannot be read ({error})") from error
        check(copy, manifest)
        yield copy


def check(folder: Path, manifest: Mapping[str, str]) -> None:
    """Refuse a copy of a version whose files differ from its manifest, or that is loaded otherwise.

    Unverified: names the files.
    """
    strange = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not (path.is_file() or path.is_dir())
    ]
    if strange:
        raise Unverified(f"it holds links or devices: {listed(strange, 5)}")
    found = manifest_of(folder)
    unlike = {
        "changed": [name for name in manifest if found.get(name, manifest[name]) != manifest[name]],
        "added": sorted({*found} - {*manifest}),
        "removed": sorted({*manifest} - {*found}),
    }
    if words := [f"{verb}: {listed(names, 5)}" for verb, names in unlike.items() if names]:
        raise Unverified(f"its files are not those that were registered ({'; '.join(words)})")
    model = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    flavors = model["flavors"]
    loaded = {key: flavors.get("python_function", {}).get(key) for key in LOADER}
    if [*flavors] != ["python_function"] or loaded != LOADER:
        raise Unverified("its MLmodel names another way to load it than churnlab's")
    for file in folder.rglob("*.skops"):
        unknown = set(skops.io.get_untrusted_types(file=file)) - trusted_types(folder)
        if unknown:
            raise Unverified(f"{file.name} holds types that its list does not: {listed(unknown)}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
