"""Find what a model's own classes need: the files of modules that no package installs, and the
packages that theirs and these files import."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, NamedTuple

KNOWN = {"churnlab", "mlflow", "numpy", "pandas", "scipy", "sklearn", "skops"}
"""What every model may use: its requirements name these packages anyway."""


class OwnCode(NamedTuple):
    """The files of the user's own modules, by their place in an import path, and the packages that
    are installed."""

    files: Mapping[str, Path]
    packages: frozenset[str]

    def sha256(self) -> str:
        """Fingerprint the files."""
        digest = hashlib.sha256()
        for place, file in sorted(self.files.items()):
            digest.update(place.encode() + b"\0" + file.read_bytes())
        return digest.hexdigest()


def types_in(spec: Any) -> Iterator[str]:
    """Yield the dotted names after each ``_target_`` of a block, those of nested blocks too.

    >>> list(types_in({"_target_": "a.B", "steps": [["c", {"_target_": "d.E"}]]}))
    ['a.B', 'd.E']
    """
    if isinstance(spec, Mapping):
        if isinstance(spec.get("_target_"), str):
            yield spec["_target_"]
        spec = list(spec.values())
    if isinstance(spec, list | tuple):
        for part in spec:
            yield from types_in(part)


def own_code(types: Iterable[str]) -> OwnCode:
    """Find the code of types, given by dotted names, and of all that it imports in turn."""
    files: dict[str, Path] = {}
    packages, seen = set(), set(KNOWN | sys.stdlib_module_names)
    left = [name.partition(".")[0] for name in types]
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        if installed := _distributions().get(name):
            packages.add(installed[0])
            continue
        found = _files(name)
        files |= found
        left += [imported for file in found.values() for imported in _imports(file)]
    return OwnCode(files, frozenset(packages))


@cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


def _files(name: str) -> dict[str, Path]:
    """Return the Python files of a module or package; none if there is no such module."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return {}
    if spec.submodule_search_locations:
        folder = Path(next(iter(spec.submodule_search_locations)))
        return {file.relative_to(folder.parent).as_posix(): file for file in folder.rglob("*.py")}
    return {f"{name}.py": Path(spec.origin)} if spec.origin and spec.has_location else {}


def _imports(file: Path) -> Iterator[str]:
    """Yield the top-level names of the modules that a file imports."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
