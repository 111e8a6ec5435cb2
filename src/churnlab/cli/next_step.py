"""Say which command usually comes next, with the words of the command line that it shares."""

from __future__ import annotations

from churnlab.cli.arguments import OVERRIDE, SEVERAL
from churnlab.cli.launch import PRINTING
from churnlab.cli.outcomes import shell_words
from churnlab.config.commands import COMMANDS

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


def next_step(command: str, options: list[str], overrides: list[str], *, yes: bool) -> str | None:
    """Return the command line that usually comes next; None if there is none.

    ``options`` are those of the command line. What was swept is left out.
    """
    if PRINTING & {option.partition("=")[0] for option in options}:
        return None
    if "dry_run=true" in overrides:
        words = [word for word in overrides if word != "dry_run=true"]
        return shell_words(["churnlab", command, *options, *words])
    if command == "doctor" and not yes and "fix=true" not in overrides:
        return shell_words(["churnlab", command, *options, *overrides, "fix=true"])
    following = (FOLLOWING if yes else IF_NO).get(command)
    if following is None:
        return None
    folders = [option for option in options if option not in ("-m", "--multirun")]
    words = [word for word in overrides if _is_shared(word, following)]
    return shell_words(["churnlab", following, *folders, *words])


def _is_shared(word: str, command: str) -> bool:
    given = OVERRIDE.fullmatch(word)
    if given is None or SEVERAL.match(given["value"]):
        return False
    key = given["key"].partition(".")[0]
    return key in SHARED and key in COMMANDS[command].model_fields
