"""Run ``churnlab COMMAND [KEY=VALUE ...]``."""

from __future__ import annotations

import gc
import os
import shlex
import sys
from pathlib import Path

from churnlab.cli import help, outcomes, terminal
from churnlab.cli.presets import kept_words
from churnlab.config.shipped import CHECKOUT, ROOT, check_names
from churnlab.errors import InputError, JobError, Terminated, did_you_mean
from churnlab.tracking.processes import raise_on_signals


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    terminal.open_streams()
    raise_on_signals()
    gc.disable()  # what is imported lives to the end: a fifth of the start; until a job is run
    typed = sys.argv[1:] if arguments is None else arguments
    if any("storage.url=" in word for word in typed):
        from churnlab.tracking.postgres import take_password

        typed = take_password(typed)
    try:
        flags, words = terminal.set_up(typed)
        return _dispatch(words, as_json="--json" in flags)
    except (InputError, JobError) as error:
        return outcomes.report_error(error)
    except (KeyboardInterrupt, Terminated) as stop:
        terminal.show_error(f"Stopped. To run it again: {shlex.join(['churnlab', *typed])}")
        interrupted = isinstance(stop, KeyboardInterrupt)
        return outcomes.INTERRUPTED if interrupted else outcomes.TERMINATED


def _dispatch(words: list[str], *, as_json: bool) -> int:
    """Show a help text, or run a command; returns the exit code."""
    if not words or words[0] in ("--help", "-h", "help"):
        terminal.print_out(help.overview())
        return outcomes.DONE
    if words[0] == "--version":
        from importlib.metadata import version

        terminal.print_out(version("churnlab"))
        return outcomes.DONE
    command, *rest = words
    if command == "completion":
        from churnlab.cli.completion import completion

        if text := completion(rest, root=ROOT):
            terminal.print_out(text)
        return outcomes.DONE
    known = help.commands()
    if command not in known:
        hint = did_you_mean(command, known)
        raise InputError(f"There is no command {command}.{hint} Commands: {', '.join(known)}.")
    home = ROOT if ROOT == CHECKOUT else Path.cwd()
    os.environ["CHURNLAB_HOME"] = str(Path(os.environ.get("CHURNLAB_HOME") or home).absolute())
    if "--help" in rest or "-h" in rest:
        words = [word for word in rest if word not in ("--help", "-h")]
        words = [*kept_words(command, words, root=ROOT), *words]
        terminal.print_out(help.command_help(command, words, root=ROOT))
        return outcomes.DONE
    return _run(command, rest, as_json=as_json)


def _run(command: str, words: list[str], *, as_json: bool) -> int:
    """Check the words of a command line, which is cheap, and only then load Hydra and run."""
    from churnlab.cli import arguments
    from churnlab.cli.drafted import draft_input

    words = [*kept_words(command, words, root=ROOT), *words]
    words = draft_input(command, words, arguments.config_folders(words))
    options, overrides = arguments.split(words)
    overrides = arguments.named(command, overrides)
    folders = arguments.config_folders(words)
    for folder in folders:
        check_names(folder)
    # at the end: a module of the user's own must not stand in for an installed one
    own = [str(folder.absolute()) for folder in (*folders, Path.cwd())]
    sys.path += [folder for folder in own if folder not in sys.path]
    arguments.check(command, overrides, root=None if folders else ROOT)
    from churnlab.cli.launch import launch

    return launch(command, options, overrides, root=ROOT, as_json=as_json)


if __name__ == "__main__":
    sys.exit(main())
