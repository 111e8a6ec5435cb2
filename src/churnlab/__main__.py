"""Run ``churnlab COMMAND [KEY=VALUE ...]``."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import threading
from pathlib import Path

from churnlab.cli import help, outcomes
from churnlab.errors import InputError, Terminated, did_you_mean

PACKAGE = Path(__file__).parent
CHECKOUT = PACKAGE.parents[1]
ROOT = CHECKOUT if (CHECKOUT / "conf").is_dir() else PACKAGE
"""The folder of conf/ and experiments/: the checkout, or the package of an installed wheel."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _repeat_signal
    words = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    level = os.environ.get("CHURNLAB_LOG", "INFO").upper()
    if level not in logging.getLevelNamesMapping():
        return outcomes.refuse(f"CHURNLAB_LOG={level} is no level; give DEBUG, INFO or WARNING.")
    logging.getLogger("churnlab").setLevel(level)
    if not words or words[0] in ("--help", "-h", "help"):
        _show(help.overview())
        return outcomes.DONE
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("churnlab"))
        return outcomes.DONE
    command, *rest = words
    known = help.commands()
    if command not in known:
        hint = did_you_mean(command, known)
        return outcomes.refuse(
            f"There is no command {command}.{hint} Commands: {', '.join(known)}."
        )
    home = ROOT if ROOT == CHECKOUT else Path.cwd()
    os.environ["CHURNLAB_HOME"] = str(Path(os.environ.get("CHURNLAB_HOME") or home).absolute())
    try:
        if "--help" in rest or "-h" in rest:
            _show(help.command_help(command, root=ROOT))
            return outcomes.DONE
        return _run(command, rest)
    except InputError as error:
        return outcomes.refuse(str(error))
    except (KeyboardInterrupt, Terminated) as stop:
        print(
            f"Stopped. To run it again: {shlex.join(['churnlab', command, *rest])}", file=sys.stderr
        )
        interrupted = isinstance(stop, KeyboardInterrupt)
        return outcomes.INTERRUPTED if interrupted else outcomes.TERMINATED


def _show(text: str) -> None:
    """Print for a person, who may read no further than ``| head`` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:  # Python flushes again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(command: str, words: list[str]) -> int:
    """Check the words of a command line, which is cheap, and only then load Hydra and run."""
    from churnlab.cli import arguments

    options, overrides = arguments.split(words)
    overrides = arguments.named(command, overrides)
    own = any(word.startswith(("--config-dir", "-cd", "hydra.searchpath")) for word in words)
    arguments.check(command, overrides, root=None if own else ROOT)
    from churnlab.cli.launch import launch

    return launch(command, options, overrides, root=ROOT)


def _terminate(*_: object) -> None:
    raise Terminated


def _repeat_signal(ignored: sys.UnraisableHookArgs) -> None:
    """Send a signal again if Python dropped its exception, as it does inside a destructor."""
    dropped = {KeyboardInterrupt: signal.SIGINT, Terminated: signal.SIGTERM}
    if ignored.exc_type in dropped:
        threading.Timer(0.05, os.kill, [os.getpid(), dropped[ignored.exc_type]]).start()
    else:
        sys.__unraisablehook__(ignored)


if __name__ == "__main__":
    sys.exit(main())
