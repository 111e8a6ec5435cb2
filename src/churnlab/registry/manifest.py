"""Verify the files of a version against its manifest before anything of it is imported."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mlflow
import yaml
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from churnlab.errors import disk_fault
from churnlab.formatting import listed
from churnlab.registry.champion import find_version, version_uri
from churnlab.tracking.names import Tag
from churnlab.tracking.server import raise_unanswered

NOT_OURS = ("registered_model_meta", "__pycache__")
"""What MLflow and Python write into a version's folder later: never copied, so never used."""

LOADER = {"loader_module": "mlflow.pyfunc.loaders.code_model", "code": None}
"""How a version is loaded: by its own served_model.py, with no further code on the path."""


class Unverified(LookupError):
    """The reason why a version's files are not to be trusted."""


class Lost(Unverified):
    """Files are missing, and the others are those that were registered."""


class NoManifest(Unverified):
    """There is nothing to check the files against."""


def manifest_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a version's folder, by its path there."""
    return {
        path.relative_to(folder).as_posix(): _sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextmanager
def copied(model_uri: str) -> Iterator[Path]:
    """Copy the files of a version or a logged model into a folder of this process, and yield it.

    The originals may change at any time. Lost: they cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="churnlab-version-") as folder:
        try:
            made = mlflow.artifacts.download_artifacts(artifact_uri=model_uri, dst_path=folder)
        except (MlflowException, OSError, shutil.Error) as error:
            raise_unanswered(error)
            if disk_fault(error):
                raise  # this says nothing of the version's own files
            raise Lost("its files cannot be read") from error
        copy = Path(made)
        for name in NOT_OURS:
            for path in sorted(copy.rglob(name)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield copy


@contextmanager
def verified_copy(model_uri: str, *, unverified: bool = False) -> Iterator[Path]:
    """Copy a version's files, check the copy, and yield its folder: what is checked is used.

    Unverified: a file was changed, added or removed (Lost, if nothing else), or the version would
    be loaded in another way than churnlab made it. NoManifest: there is nothing to check it
    against, and it is not to be taken ``unverified``.
    """
    found = re.fullmatch(r"models:/([^/]+)/(\d+)", model_uri)
    version = find_version(*found.groups()) if found else None
    manifest = version.tags.get(Tag.MANIFEST) if version else None
    if manifest is None and not unverified:
        raise NoManifest(
            "it has no manifest of its files: it was made before manifests, or is not registered"
        )
    with copied(model_uri) as copy:
        if manifest is not None:
            check(copy, json.loads(manifest))
        yield copy


def check(folder: Path, manifest: Mapping[str, str]) -> None:
    """Refuse a copy of a version whose files differ from its manifest, or that is loaded otherwise.

    Unverified (Lost, if files are missing and nothing else): names the files.
    """
    import skops.io  # loads scikit-learn, which doctor does without

    compare(folder, manifest)
    flavors = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["flavors"]
    loaded = {key: flavors.get("python_function", {}).get(key) for key in LOADER}
    if [*flavors] != ["python_function"] or loaded != LOADER:
        raise Unverified("its MLmodel names another way to load it than churnlab's")
    trusted = trusted_types(folder / "artifacts" / "skops_types.py")
    for file in sorted(folder.rglob("*.skops")):
        if unknown := set(skops.io.get_untrusted_types(file=file)) - trusted:
            raise Unverified(
                f"{file.name} holds types that its list does not: {listed(sorted(unknown))}"
            )


def compare(folder: Path, manifest: Mapping[str, str]) -> None:
    """Refuse a folder whose files differ from a manifest.

    Unverified (Lost, if files are missing and nothing else): names the files.
    """
    found = manifest_of(folder)
    unlike = {
        "changed": [name for name in manifest if found.get(name, manifest[name]) != manifest[name]],
        "added": sorted({*found} - {*manifest}),
        "removed": sorted({*manifest} - {*found}),
    }
    if words := [f"{verb}: {listed(names, 5)}" for verb, names in unlike.items() if names]:
        reason = Unverified if unlike["changed"] or unlike["added"] else Lost
        raise reason(f"its files are not those that were registered ({'; '.join(words)})")


def difference(version: ModelVersion) -> str | None:
    """Say how a version's files differ from its manifest; None if they do not, or it has none."""
    manifest = version.tags.get(Tag.MANIFEST)
    if manifest is None:
        return None
    try:
        with copied(version_uri(version)) as copy:
            compare(copy, json.loads(manifest))
    except Unverified as error:
        return str(error)
    return None


def trusted_types(file: Path) -> set[str]:
    """Return the types that a version's skops_types.py lists, without running it."""
    return {
        ast.literal_eval(name)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.List)
        for name in node.elts
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
