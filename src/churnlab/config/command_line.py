"""Repeat words of the present command line in a command that churnlab suggests."""

from __future__ import annotations

import shlex
from collections.abc import Collection

from hydra.core.hydra_config import HydraConfig

from churnlab.config.commands import COMMANDS
from churnlab.config.groups import DatasetKeys
from churnlab.config.shipped import presets


def own_folders() -> list[str]:
    """Return the words that name the user's own folders of YAMLs."""
    return [
        word
        for source in HydraConfig.get().runtime.config_sources
        if source.provider == "command-line"
        for word in ("--config-dir", source.path)
    ]


def suggested(command: str, dataset: DatasetKeys, *, shared: Collection[str]) -> str:
    """Complete a command with the words of this command line for the ``shared`` keys that it has,
    and with presets that suit the dataset."""
    if not HydraConfig.initialized():
        return f"churnlab {command}"
    schema, words = COMMANDS[command.split()[0]], own_folders()
    for word in HydraConfig.get().overrides.task:
        key = word.lstrip("+").partition("=")[0]
        if key.partition(".")[0] in {*shared} & {*schema.model_fields} and (
            schema.reads_table or key != "dataset.path"
        ):
            words.append(word)
    words += presets(dataset.name) if command == "segment" and not dataset.presets else []
    return f"churnlab {command} {shlex.join(words)}".strip()
