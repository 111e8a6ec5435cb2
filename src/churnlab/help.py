"""``churnlab COMMAND --help``: what it does and why, its keys with defaults and choices, examples."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from churnlab.compose import register_experiments

FOLDED = ("dataset.columns", "dataset.rules", "features.derive", "model.space", "playbook.")
"""Blocks that are shown as one line: they are the content of a choice, not keys to type."""


def command_help(command: str, *, root: Path) -> str:
    """The help text of one command: its docstring, then its groups with their choices, then its keys."""
    source = root / "src" / "churnlab" if (root / "src").is_dir() else root
    text = (source / "commands" / f"{command}.py").read_text(encoding="utf-8")
    register_experiments(root / "experiments", command=command)
    with initialize_config_dir(str(root / "conf"), version_base="1.3"):
        config = compose(command, return_hydra_config=True)
        loader = GlobalHydra.instance().config_loader()
        chosen = {
            str(group): choice
            for group, choice in config.hydra.runtime.choices.items()
            if not str(group).startswith("hydra/")
        }
        groups = [(group, choice, loader.get_group_options(group)) for group, choice in sorted(chosen.items())]
    lines = [inspect.cleandoc(ast.get_docstring(ast.parse(text)) or ""), "", "Choices (the default first):"]
    for group, choice, options in groups:
        rest = [option for option in options if option != choice]
        lines.append(f"  {group}={'|'.join([str(choice or 'none'), *rest])}")
    lines += ["", "Keys and their defaults:"]
    lines += [f"  {key}={_shown(value)}" for key, value in _keys(config, set(chosen))]
    return "\n".join(lines)


def _keys(config: DictConfig, groups: set[str]) -> Iterator[tuple[str, Any]]:
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    plain.pop("hydra", None)
    yield from _flat(plain)


def _flat(block: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in block.items():
        full = f"{prefix}{key}"
        if full in FOLDED or any(full.startswith(part) for part in FOLDED if part.endswith(".")):
            continue
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{full}.")
        else:
            yield full, value


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower() if value is not None else "null"
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value)
