"""Add the words that need not be typed: the presets of a dataset's YAML, and what a folder keeps.

Both are read before Hydra composes a config. The command line is over an experiment, an experiment
over the presets, and these over the defaults.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from churnlab.errors import InputError, unknown_choice, unknown_key

KEPT = Path("churnlab.yaml")
"""The file in the current folder that keeps words: config_dir, the folder of the user's YAMLs, and
dataset."""

CONF = "CHURNLAB_CONF"
"""The environment variable that names the folder of the user's YAMLs."""


def kept_words(command: str, words: Sequence[str], *, root: Path) -> list[str]:
    """Return --config-dir and dataset as CHURNLAB_CONF and KEPT have them, if nothing else does.

    ``words`` are those of the command line; with a --config-dir of its own it takes neither.
    """
    kept = read_yaml(KEPT) if KEPT.is_file() else {}
    if strange := [key for key in kept if key not in ("config_dir", "dataset")]:
        raise InputError(f"{KEPT}: {unknown_key([], strange[0], ['config_dir', 'dataset'])}")
    folder = os.environ.get(CONF) or kept.get("config_dir")
    if any(re.match("(--config-dir|-cd)(=|$)", word) for word in words):
        return []
    options = [] if folder is None else ["--config-dir", str(folder)]
    folders = [Path(str(folder)), root / "conf"] if folder is not None else [root / "conf"]
    decided = _decided(command, words, root=root, folders=folders)
    drafted = command == "pipeline" and "input" in decided
    if "dataset" not in kept or "dataset" in decided or drafted:
        return options
    if "dataset" not in _groups(command, root / "conf"):
        return options
    return [*options, f"dataset={kept['dataset']}"]


def preset_words(
    command: str, overrides: Sequence[str], *, root: Path, folders: Sequence[Path]
) -> list[str]:
    """Return the words for what the YAML of the chosen dataset presets for this command.

    ``folders`` are those of the user's own YAMLs. What the command line or its experiment decides
    is left out, as are groups that the command does not have. InputError: a preset that does not
    exist, or datasets of one sweep with unlike presets.
    """
    if strange := [word for word in overrides if re.match(r"\+*dataset\.presets\b", word)]:
        raise InputError(
            f"{strange[0]}: presets are kept in the dataset's YAML; on the command line choose the "
            "group itself, such as segments=all."
        )
    places, groups = [*folders, root / "conf"], _groups(command, root / "conf")
    decided = _decided(command, overrides, root=root, folders=places)
    presets = {
        name: {
            group: choice
            for group, choice in _presets(name, places).items()
            if group in groups and group not in decided
        }
        for name in decided.get("dataset", groups.get("dataset", "")).split(",")
    }
    first, *others = presets.items()
    for other in others:
        if other[1] != first[1]:
            raise InputError(_unlike(first, other))
    return [
        word for group, choice in first[1].items() for word in _words(groups[group], group, choice)
    ]


def _decided(
    command: str, words: Sequence[str], *, root: Path, folders: Sequence[Path]
) -> dict[str, str]:
    """Return the groups that the words or their experiment decide, each with its choice."""
    given = {
        re.split("[@=]", word.lstrip("+~"))[0]: word.partition("=")[2]
        for word in words
        if not word.startswith("-")
    }
    chosen = given.get("experiment")
    if chosen is None:
        return given
    places = [root / "experiments", *(folder / "experiment" for folder in folders)]
    file = next((path for place in places if (path := place / f"{chosen}.yaml").is_file()), None)
    experiment = {} if file is None else read_yaml(file)
    swept = ((experiment.get("hydra") or {}).get("sweeper") or {}).get("params") or {}
    overridden = {
        str(key).removeprefix("override ").strip().lstrip("/"): str(choice)
        for default in experiment.get("defaults") or []
        if isinstance(default, dict)
        for key, choice in default.items()
    }
    return overridden | {str(key): str(value) for key, value in swept.items()} | given


def _presets(dataset: str, folders: Sequence[Path]) -> dict[str, str]:
    """Return what a dataset's YAML presets: a choice for each group."""
    files = [folder / "dataset" / f"{dataset}.yaml" for folder in folders]
    file = next((file for file in files if file.is_file()), None)
    presets = {} if file is None else read_yaml(file).get("presets") or {}
    if not isinstance(presets, dict):
        raise InputError(f"{file}: presets is a block, GROUP: CHOICE, such as {{segments: all}}.")
    for group, choice in presets.items():
        options = sorted(
            path.stem for folder in folders for path in (folder / str(group)).glob("[!_]*.yaml")
        )
        if not options or group == "dataset":
            raise InputError(
                f"{file}: presets.{group} is no group; presets choose features, segments, "
                "playbook, decision and the like."
            )
        if str(choice) not in options:
            raise InputError(f"{file}: presets: {unknown_choice(str(group), str(choice), options)}")
    return {str(group): str(choice) for group, choice in presets.items()}


def _groups(command: str, conf: Path) -> dict[str, Any]:
    """Return the groups of a command: the default choice, or the places of a set of choices."""
    groups: dict[str, Any] = {}
    for default in read_yaml(conf / f"{command}.yaml").get("defaults") or []:
        for key, choice in default.items() if isinstance(default, dict) else ():
            group, _, place = str(key).partition("@")
            if place:
                groups.setdefault(group, []).append(place)
            else:
                groups[group] = str(choice)
    return groups


def _words(found: Any, group: str, choice: str) -> Iterator[str]:
    """Yield the words that choose ``choice``; of a set of choices it becomes the only one."""
    if isinstance(found, str):
        yield f"{group}={choice}"
        return
    parent = found[0].rpartition(".")[0]
    for place in found:
        if place != f"{parent}.{choice}":
            yield f"~{group}@{place}"
    if f"{parent}.{choice}" not in found:
        yield f"+{group}@{parent}.{choice}={choice}"


def _unlike(one: tuple[str, Mapping[str, str]], other: tuple[str, Mapping[str, str]]) -> str:
    (first, its), (second, theirs) = one, other
    group = next(group for group in [*its, *theirs] if its.get(group) != theirs.get(group))
    choice = its.get(group) or theirs.get(group)
    return (
        f"The datasets {first} and {second} have unlike presets for {group} "
        f"({its.get(group, 'none')} and {theirs.get(group, 'none')}), and one sweep has one: "
        f"choose it, such as {group}={choice}, or run the command once for each dataset."
    )


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the keys of a YAML file; InputError: it cannot be read."""
    import yaml

    try:
        block = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file} cannot be read as YAML: {reason}.") from None
    return block if isinstance(block, dict) else {}
