"""Write the help texts from the docstrings of the commands and the comments of their YAMLs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

COMMANDS = Path(__file__).parents[1] / "commands"

CONTENT = {
    *("columns", "rules", "derive", "space", "risk", "traits"),
    *("naming", "actions", "reasons", "claims"),
}
"""Blocks that are the content of a choice, not keys to type."""

KEY = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*)(?:# *(?P<comment>.*))?$")


def commands() -> list[str]:
    """Return the names of all commands: each is a file in commands/ and a YAML in conf/."""
    return [path.stem for path in sorted(COMMANDS.glob("[a-z]*.py"))]


def docstring(command: str) -> str:
    """Return the docstring of a command without importing the command, which takes seconds."""
    source = (COMMANDS / f"{command}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


def overview() -> str:
    """Return the list of all commands, each with the first line of its docstring."""
    width = max(map(len, commands()))
    lines = [f"  {name:{width}}  {docstring(name).splitlines()[0]}" for name in commands()]
    return "\n".join(
        [
            "churnlab COMMAND [KEY=VALUE ...]   who will leave, what kinds of members there are, "
            "and what to do about each",
            "",
            *lines,
            "",
            "churnlab COMMAND --help   what it does, its keys, and examples",
            "churnlab COMMAND -m KEY=A,B   every combination, as one sweep",
        ]
    )


def command_help(command: str, *, root: Path) -> str:
    """Return the help text of one command; ``root`` is the folder of conf/ and experiments/."""
    from omegaconf import OmegaConf

    config, groups, options = _composed(command, root=root)
    comments = _all_comments(command, groups, conf=root / "conf")
    keys = OmegaConf.to_container(config, resolve=False)
    assert isinstance(keys, dict)
    own = {key: value for key, value in keys.items() if key != "hydra"}
    shown = [f"{key}={value}" for key, value in _keys(own)]
    width = min(max(map(len, shown)), 48)
    lines = [docstring(command), "", "Choices (the default first):"]
    for group, choice in sorted(groups.items()):
        others = [option for option in options[group] if option != choice]
        lines.append(f"  {group}={'|'.join([str(choice or 'none'), *others])}")
    lines += ["", "Keys and their defaults:"]
    lines += [
        f"  {text:{width}}  {comments.get(text.partition('=')[0], '')}".rstrip() for text in shown
    ]
    return "\n".join(lines)


def _composed(command: str, *, root: Path) -> tuple[Any, dict[str, Any], dict[str, list[str]]]:
    """Return a command's composed config, and of each group the choice and the options."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from churnlab.cli.hydra_compose import register_experiments

    register_experiments(root / "experiments", command=command)
    with initialize_config_dir(str(root / "conf"), version_base="1.3"):
        config = compose(command, return_hydra_config=True)
        loader = GlobalHydra.instance().config_loader()
        chosen = {str(group): choice for group, choice in config.hydra.runtime.choices.items()}
        groups = {group: choice for group, choice in chosen.items() if "hydra/" not in group}
        options = {
            group: [
                option
                for option in loader.get_group_options(group.partition("@")[0])
                if not option.startswith("_")
            ]
            for group in groups
        }
    return config, groups, options


def _all_comments(command: str, groups: Mapping[str, Any], *, conf: Path) -> dict[str, str]:
    """Return the comments on a command's keys, from its own YAML and those of its choices."""
    found = _comments(conf / "base.yaml") | _comments(conf / f"{command}.yaml")
    for group, choice in groups.items():
        folder, _, place = group.partition("@")
        for file in (conf / folder / f"{choice}.yaml", *sorted((conf / folder).glob("_*.yaml"))):
            if file.exists():
                own = _comments(file)
                found |= {f"{place or folder}.{key}": comment for key, comment in own.items()}
    return found


def _comments(file: Path) -> dict[str, str]:
    """Return the comments at the end of a YAML file's lines, by dotted key."""
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
    """Yield the keys that a user may type, dotted, with their defaults."""
    for key, value in block.items():
        if isinstance(value, Mapping):
            if key not in CONTENT:
                yield from _keys(value, f"{prefix}{key}.")
        elif not (isinstance(value, list) and value and isinstance(value[0], Mapping)):
            yield f"{prefix}{key}", _format_value(value)


def _format_value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
