"""Say which command usually comes next, with the words of the command line that it shares."""

from __future__ import annotations

import shlex

from churnlab.cli.arguments import OVERRIDE, PRINTING, SEVERAL, config_folders, without_sweep
from churnlab.cli.outcomes import shell_words
from churnlab.cli.presets import preset_words
from churnlab.config.commands import COMMANDS
from churnlab.config.shipped import ROOT, presets

FOLLOWING = {
    "explore": "train",
    "train": "compare",
    "tune": "compare",
    "compare": "segment",
    "segment": "promote",
    "promote": "report",
    "rollback": "history",
}
"""The usual order of a first day; pipeline and init say themselves what comes next."""

IF_NO = {"compare": "compare", "promote": "compare", "history": "promote"}
"""What comes after the answer no."""

SHARED = {"dataset", "evaluation", "seed", "metric", "tracking"}
"""The keys that the commands on one table have in common."""


def next_step(
    command: str,
    options: list[str],
    overrides: list[str],
    *,
    yes: bool,
    then: str | None = None,
) -> str | None:
    """Return the command line that comes next; None if there is none.

    ``options`` are those of the command line. What was swept is left out. ``then`` is what the
    command itself says of it (config.commands.Result): None leaves it to the usual order.
    """
    if PRINTING & {option.partition("=")[0] for option in options}:
        return None
    if "dry_run=true" in overrides:
        words = [word for word in overrides if word != "dry_run=true"]
        return shell_words(["churnlab", command, *options, *words])
    usual = (FOLLOWING if yes else IF_NO).get(command, "")
    following, *keys = shlex.split(usual if then is None else then) or [""]
    if not following:
        return None
    words = [word for word in overrides if following == command or _is_shared(word, following)]
    if following == "segment" and not _presets_segments(words, options):
        keys += presets(_dataset(words))
    return shell_words(["churnlab", following, *without_sweep(options), *words, *keys])


def _presets_segments(words: list[str], options: list[str]) -> bool:
    """Return whether the YAML of the dataset chooses the segments itself."""
    preset = preset_words("segment", words, root=ROOT, folders=config_folders(options))
    return any(word.startswith("segments=") for word in preset)


def _dataset(words: list[str]) -> str | None:
    """Return the dataset that the words of a command line choose."""
    chosen = [word.partition("=")[2] for word in words if word.startswith("dataset=")]
    return chosen[-1] if chosen else None


def _is_shared(word: str, command: str) -> bool:
    given = OVERRIDE.fullmatch(word)
    if given is None or SEVERAL.match(given["value"]):
        return False
    key = given["key"].partition(".")[0]
    return key in SHARED and key in COMMANDS[command].model_fields
