"""Draft the YAML of a table that a pipeline is given as it is: ``churnlab pipeline input=FILE``."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

from churnlab.cli.presets import read_yaml
from churnlab.config.commands import Init
from churnlab.errors import InputError

log = logging.getLogger(__name__)

OF_INIT = ("input", "target", "encoding", "name")
"""The keys that are init's: ``input`` is its path."""

FOLDER = Path("my_conf")


def draft_input(command: str, words: list[str], folders: list[Path]) -> list[str]:
    """Draft the YAML for the file that a pipeline names by ``input=``; return the words to go on.

    The YAML goes into the first of the user's own folders, else into FOLDER; one that is there for
    the same file is kept, and with dry_run=true none is written. InputError: the words name another
    dataset, or no column says who left.
    """
    given = {key: value for word in words for key, _, value in [word.partition("=")]}
    if command != "pipeline" or "input" not in given:
        return words
    rest = [word for word in words if word.partition("=")[0] not in OF_INIT]
    if "dataset" in given:
        raise InputError(
            f"input={given['input']} and dataset={given['dataset']} name two tables; give one. A "
            "dataset reads another file with dataset.path=FILE."
        )
    folder = folders[0] if folders else FOLDER
    name = _drafted(given, folder)
    if name is None and "dry_run=true" in words:
        log.info(
            "would first draft the YAML of %s in %s, as churnlab init does", given["input"], folder
        )
        return rest
    name = name or _draft(given, folder)
    options = [] if folders else ["--config-dir", str(folder)]
    return [*options, f"dataset={name}", *rest]


def _drafted(given: dict[str, str], folder: Path) -> str | None:
    """Return the dataset in the folder whose path is the file, if its target is that of the words
    and no name is given; None if there is none."""
    source = str(Path(given["input"]).absolute())
    for file in sorted(folder.glob("dataset/*.yaml")):
        keys = read_yaml(file)
        kept = {"target": keys.get("target"), "name": file.stem}
        same = all(given.get(key, value) == value for key, value in kept.items())
        if same and keys.get("path") in (source, given["input"]):
            log.info("%s describes %s already.", file, given["input"])
            return file.stem
    return None


def _draft(given: dict[str, str], folder: Path) -> str:
    """Write the YAML as ``churnlab init`` does; return the name of the dataset."""
    init: Any = importlib.import_module("churnlab.commands.init")
    settings = Init.model_validate(
        {
            **{"path": given["input"], "target": given.get("target"), "name": given.get("name")},
            **{"encoding": given.get("encoding", "utf-8"), "output": None},
            **{"seed": 0, "tracking": {"uri": None}, "run_name": None},
            **{"force": False, "dry_run": False},
        }
    )
    file = folder / "dataset" / f"{init.name_for(settings)}.yaml"
    settings = settings.model_copy(update={"output": str(file)})
    if file.exists():
        raise InputError(
            f"{file} is there already and describes another table or target; give this one another "
            "name with name=NAME, or delete the file."
        )
    init.write(settings, key="input", needs_target=True)
    return file.stem
