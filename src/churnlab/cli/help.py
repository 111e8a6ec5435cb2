"""``churnlab COMMAND --help``: what it does and why, its choices, its keys with defaults, examples.

The words come from where they are kept true: the command's docstring and the comments of its YAML.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from churnlab.cli.hydra_compose import register_experiments

CONTENT = {
    "columns",
    "rules",
    "derive",
    "space",
    "risk",
    "traits",
    "naming",
    "actions",
    "reasons",
    "claims",
}
"""Blocks that are the content of a choice, not keys to type."""

KEY = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*)(?:# *(?P<comment>.*))?$")


def command_help(command: str, *, root: Path) -> str:
    """The help text of one command."""
    package = Path(__file__).parents[1]
    docstring = ast.get_docstring(
        ast.parse((package / "commands" / f"{command}.py").read_text(encoding="utf-8"))
    )
    register_experiments(root / "experiments", command=command)
    with initialize_config_dir(str(root / "conf"), version_base="1.3"):
        config = compose(command, return_hydra_config=True)
        loader = GlobalHydra.instance().config_loader()
        chosen = {str(group): choice for group, choice in config.hydra.runtime.choices.items()}
        groups = {
            group: choice for group, choice in chosen.items() if not group.startswith("hydra/")
        }
        options = {group: loader.get_group_options(group.partition("@")[0]) for group in groups}
    comments = _comments(root / "conf" / "base.yaml") | _comments(root / "conf" / f"{command}.yaml")
    for group, choice in groups.items():
        folder, _, place = group.partition("@")
        file = root / "conf" / folder / f"{choice}.yaml"
        if file.exists():
            comments |= {
                f"{place or folder}.{key}": comment for key, comment in _comments(file).items()
            }
    keys = OmegaConf.to_container(config, resolve=False)
    assert isinstance(keys, dict)
    shown = [
        f"{key}={value}" for key, value in _keys({key: keys[key] for key in keys if key != "hydra"})
    ]
    width = min(max(map(len, shown)), 48)
    lines = [inspect.cleandoc(docstring or ""), "", "Choices (the default first):"]
    for group, choice in sorted(groups.items()):
        others = [option for option in options[group] if option != choice]
        lines.append(f"  {group}={'|'.join([str(choice or 'none'), *others])}")
    lines += ["", "Keys and their defaults:"]
    lines += [
        f"  {text:{width}}  {comments.get(text.partition('=')[0], '')}".rstrip() for text in shown
    ]
    return "\n".join(lines)


def _comments(file: Path) -> dict[str, str]:
    """What a YAML file says beside its keys, by dotted key."""
    found: dict[str, str] = {}
    path: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        match = KEY.match(line)
        if match is None:
            continue
        path = [*path[: len(match["indent"]) // 2], match["key"]]
        if match["comment"]:
            found[".".join(path)] = match["comment"]
    return found


def _keys(block: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The keys a user may type, dotted, with their defaults."""
    for key, value in block.items():
        if isinstance(value, Mapping) and value and key not in CONTENT:
            yield from _keys(value, f"{prefix}{key}.")
        elif not isinstance(value, Mapping) and not _is_content(value):
            yield f"{prefix}{key}", _shown(value)


def _is_content(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(part, Mapping) for part in value)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
