"""Say what work needs from workers that may run on other machines."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from churnlab.models.own_code import types_in

SQLITE = "sqlite:///"

RUNS = (
    "where the runs are kept. Keep them on a server (tracking=server), or in a folder that all "
    "machines see under the same path (CHURNLAB_HOME)."
)
STUDIES = (
    "where studies are kept. Keep them in a database (storage=postgres), or in a folder that all "
    "machines see under the same path (CHURNLAB_HOME)."
)
PARTS = (
    "where the scored parts are kept until the output is whole. Choose an output in a folder that "
    "all machines see under the same path."
)


@dataclass(frozen=True)
class Needs:
    """What workers elsewhere must have.

    ``types`` are the dotted names of classes that the work loads; ``folders`` must be the same
    there, each with what is kept in it and what to do if it is not.
    """

    types: frozenset[str] = frozenset()
    folders: Mapping[Path, str] = field(default_factory=dict)

    def and_folder(self, folder: Path, consequence: str) -> Needs:
        """Return the same with one more folder."""
        return replace(self, folders={**self.folders, folder.absolute(): consequence})


NOTHING = Needs()


def needs_of(configs: Iterable[Mapping[str, Any]]) -> Needs:
    """Return what the work of these configs needs: classes, and the folders of runs and studies."""
    types, folders = set[str](), dict[Path, str]()
    for config in configs:
        types.update(types_in(config))
        if "tracking" in config:
            uri = os.environ.get("MLFLOW_TRACKING_URI") or config["tracking"]["uri"] or ""
            if uri.startswith(SQLITE):
                folders[Path(unquote(uri.removeprefix(SQLITE).partition("?")[0])).parent] = RUNS
            elif not uri:
                folders[Path(os.environ["CHURNLAB_HOME"])] = RUNS
        if folder := (config.get("storage") or {}).get("folder"):
            folders[Path(folder)] = STUDIES
    return Needs(frozenset(types), folders)


def own_types(types: Collection[str]) -> list[str]:
    """Return the types that are neither churnlab's nor those of a space's distributions."""
    return sorted(name for name in types if not name.startswith(("churnlab.", "optuna.")))
