"""``churnlab COMMAND [HYDRA OVERRIDES]``: read the command line, run the command, tell how it
ended."""

from __future__ import annotations

import ast
import json
import logging
import math
import os
import shlex
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from churnlab.errors import InputError, Terminated, meant

if TYPE_CHECKING:
    from churnlab.cli.launch import Launch

PACKAGE = Path(__file__).parent
CHECKOUT = PACKAGE.parents[1]
ROOT = CHECKOUT if (CHECKOUT / "conf").is_dir() else PACKAGE
"""Where conf/ and experiments/ are: the checkout, or the package when it is installed from a wheel.
"""

DONE, FAILED, WRONG_INPUT, ANSWER_IS_NO, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _signal_again
    words = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    logging.getLogger("churnlab").setLevel(os.environ.get("CHURNLAB_LOG", "INFO"))
    if not words or words[0] in ("--help", "-h", "help"):
        _show(_overview())
        return DONE
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("churnlab"))
        return DONE
    command, *rest = words
    if command not in commands():
        return _wrong(
            f"There is no command {command}.{meant(command, commands())} Commands: "
            f"{', '.join(commands())}."
        )
    home = ROOT if ROOT == CHECKOUT else Path.cwd()
    os.environ["CHURNLAB_HOME"] = str(Path(os.environ.get("CHURNLAB_HOME") or home).absolute())
    try:
        if "--help" in rest or "-h" in rest:
            from churnlab.cli.help import command_help

            _show(command_help(command, root=ROOT))
            return DONE
        return _launch(command, rest)
    except InputError as error:
        return _wrong(str(error))
    except (KeyboardInterrupt, Terminated) as stop:
        print(f"Stopped. To go on: {shlex.join(['churnlab', command, *rest])}", file=sys.stderr)
        return INTERRUPTED if isinstance(stop, KeyboardInterrupt) else TERMINATED


def commands() -> list[str]:
    """The commands there are: a file in commands/ and a YAML in conf/ of the same name."""
    return [path.stem for path in sorted((PACKAGE / "commands").glob("[a-z]*.py"))]


def _show(text: str) -> None:
    """Print for a person, who may read no further than ``| head`` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # what is left is flushed at the end


def _overview() -> str:
    width = max(map(len, commands()))
    lines = [f"  {name:{width}}  {_first_line(name)}" for name in commands()]
    return "\n".join(
        [
            "churnlab COMMAND [KEY=VALUE ...]   who will leave, what kinds of members are there, what to do about each",
            "",
            *lines,
            "",
            "churnlab COMMAND --help   what it does, its keys and examples",
            "churnlab COMMAND -m KEY=A,B   every combination, as one sweep",
        ]
    )


def _first_line(command: str) -> str:
    """A command's docstring without importing the command (which takes seconds)."""
    docstring = ast.get_docstring(
        ast.parse((PACKAGE / "commands" / f"{command}.py").read_text(encoding="utf-8"))
    )
    return (docstring or "").splitlines()[0]


def _wrong(message: str) -> int:
    print(message, file=sys.stderr)
    return WRONG_INPUT


def _launch(command: str, words: list[str]) -> int:
    """Let Hydra compose and run the job or the jobs, and turn their outcomes into the exit code."""
    from churnlab.cli import arguments

    options, overrides = arguments.split(words)
    overrides = arguments.named(command, overrides)
    own = any(word.startswith(("--config-dir", "-cd", "hydra.searchpath")) for word in words)
    arguments.check(command, overrides, root=None if own else ROOT)
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    from churnlab.cli.hydra_compose import explain, register_experiments, sweep_words
    from churnlab.cli.launch import Launch

    launch = Launch(command)

    def job(config: DictConfig) -> None:
        about = HydraConfig.get()
        if about.mode == RunMode.MULTIRUN:
            launch.sweep = sweep_words(overrides, about.sweeper.get("params"))
        launch.run(config, overrides=list(about.overrides.task))

    register_experiments(ROOT / "experiments", command=command)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra prints errors for programmers; ours are for users
    sys.argv = [f"churnlab {command}", *options, *overrides]
    try:
        hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name=command)(job)()
    except (KeyboardInterrupt, Terminated):
        with suppress(
            Exception
        ):  # the store may be what was interrupted; the next start ends what is left open
            launch.close(ended="KILLED")
        raise
    except SystemExit as leaving:  # argparse has refused a word
        return WRONG_INPUT if leaving.code else DONE
    except (HydraException, OmegaConfBaseException) as error:
        launch.close(ended="FAILED")
        raise InputError(explain(error, command=command)) from None
    except (
        OSError
    ) as error:  # jobs raise nothing: it is the folder that Hydra makes before the first
        home = os.environ["CHURNLAB_HOME"]
        raise InputError(
            f"Nothing can be written to {home} ({error.strerror}); set CHURNLAB_HOME to a folder "
            "of yours."
        ) from None
    return _tell(launch, [option for option in options if option not in ("-m", "--multirun")])


def _terminate(*_: object) -> None:
    raise Terminated


def _signal_again(ignored: sys.UnraisableHookArgs) -> None:
    """Send a signal again whose exception was dropped: Python ignores those that are raised inside
    a destructor."""
    dropped = {KeyboardInterrupt: signal.SIGINT, Terminated: signal.SIGTERM}
    if ignored.exc_type in dropped:
        threading.Timer(0.05, os.kill, [os.getpid(), dropped[ignored.exc_type]]).start()
    else:
        sys.__unraisablehook__(ignored)


def _tell(launch: Launch, options: list[str]) -> int:
    """Print what failed for people, the result line for scripts, and return the exit code."""
    parent = launch.close()
    failed = [outcome for outcome in launch.outcomes if outcome.message]
    if launch.sweep is None and failed:
        print(failed[0].message, file=sys.stderr)
        return WRONG_INPUT if failed[0].status == "input" else FAILED
    if failed:
        print(f"{len(failed)} of {len(launch.outcomes)} jobs failed:", file=sys.stderr)
        for outcome in failed:
            print(f"  {' '.join(outcome.overrides)}\n    {outcome.message}", file=sys.stderr)
        print("Jobs that finished are kept. To run only a failed one, mended:", file=sys.stderr)
        for outcome in failed:
            print(
                f"  {shlex.join(['churnlab', launch.command, *options, *outcome.overrides])}",
                file=sys.stderr,
            )
        return FAILED
    if not launch.outcomes:  # Hydra was asked about the config only
        return DONE
    line: dict[str, Any] = {"command": launch.command, "run_id": parent}
    if launch.sweep is None:
        line |= launch.outcomes[0].values
    else:
        line["runs"] = [outcome.values.get("run_id") for outcome in launch.outcomes]
    print(json.dumps(_plain(line), allow_nan=False, ensure_ascii=False))
    return ANSWER_IS_NO if any(outcome.status == "no" for outcome in launch.outcomes) else DONE


def _plain(value: Any) -> Any:
    """A result in JSON's own types; what is not a number there (NaN, infinity) is null."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
