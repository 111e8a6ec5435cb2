"""Import modules of a folder for as long as something is loaded from it.

MLflow copies this file into each version that has code of its own, and runs it there: it must not
import churnlab.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


@contextmanager
def imported_from(folder: Path) -> Iterator[None]:
    """Import the folder's modules inside the block, even if others of these names are loaded.

    Afterwards the others are back, so that two versions of a class can be used in one process. The
    folder stays as it was: Python compiles nothing into it.
    """
    names = {path.stem for path in folder.iterdir()}
    path, compiles, before = [*sys.path], sys.dont_write_bytecode, _take(names)
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, compiles
        _take(names)
        sys.modules.update(before)


def _take(names: set[str]) -> dict[str, ModuleType]:
    """Take the modules of these names, and those inside them, out of the loaded ones."""
    loaded = [module for module in sys.modules if module.partition(".")[0] in names]
    return {module: sys.modules.pop(module) for module in loaded}
