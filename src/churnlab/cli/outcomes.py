"""Turn the outcomes of jobs into messages, the result line and the exit code."""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
from dataclasses import dataclass, field
from typing import Any, Literal

from churnlab.cli import terminal
from churnlab.errors import InputError, JobError

DONE = 0
"""The command did its work, and its answer, if it has one, is yes."""

FAILED = 1
"""A job failed, or its result cannot be written to standard output. A sweep says how many failed,
which, and how to run only those."""

WRONG_INPUT = 2
"""The input is wrong: one paragraph says where, what was found and how to fix it."""

ANSWER_IS_NO = 3
"""The command did its work, and the answer is no: runs not comparable, gate refused, not
reproduced, problems found."""

INTERRUPTED = 130
"""Ctrl-C (SIGINT) stopped the command; its runs are KILLED."""

TERMINATED = 143
"""SIGTERM stopped the command; its runs are KILLED."""


EXIT_CODES = {"done": DONE, "no": ANSWER_IS_NO, "input": WRONG_INPUT, "failed": FAILED}


@dataclass(frozen=True)
class Outcome:
    """How one job ended: done (yes), with the answer no, on wrong input, or failed.

    ``then`` is that of config.commands.Result.
    """

    status: Literal["done", "no", "input", "failed"]
    overrides: list[str]
    values: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    then: str | None = None


def report_error(error: InputError | JobError) -> int:
    """Print the error that stopped a command; returns the exit code."""
    terminal.show_error(str(error))
    return WRONG_INPUT if isinstance(error, InputError) else FAILED


def report_job(command: str, outcome: Outcome, *, as_json: bool = False) -> int:
    """Print the message or the result line of a single job; returns the exit code.

    ``as_json``: print the result line on a terminal, too.
    """
    if outcome.message:
        terminal.show_error(outcome.message)
    else:
        _print_line({"command": command, "run_id": None} | outcome.values, as_json=as_json)
    return EXIT_CODES[outcome.status]


def report_sweep(
    command: str,
    outcomes: list[Outcome],
    *,
    parent: str | None,
    options: list[str],
    as_json: bool = False,
) -> int:
    """Print which jobs of a sweep failed, or its result line; returns the exit code.

    ``options`` are Hydra's options of the command line, to be repeated for a failed job.
    """
    failed = [outcome for outcome in outcomes if outcome.message]
    if failed:
        lines = [f"{len(failed)} of {len(outcomes)} jobs failed:"]
        for outcome in failed:
            lines.append(f"  {' '.join(outcome.overrides)}\n    {outcome.message}")
        lines.append("Finished jobs are kept. To run a failed one again, corrected:")
        for outcome in failed:
            words = ["churnlab", command, *options, *outcome.overrides]
            lines.append(f"  {shell_words(words)}")
        terminal.show_error("\n".join(lines))
        return FAILED
    runs = [outcome.values.get("run_id") for outcome in outcomes]
    _print_line({"command": command, "run_id": parent, "runs": runs}, as_json=as_json)
    return ANSWER_IS_NO if any(outcome.status == "no" for outcome in outcomes) else DONE


def shell_words(words: list[str]) -> str:
    """Join words to a command line that a shell reads as these words.

    >>> print(shell_words(["churnlab", "train", "dataset.path='a b.csv'"]))
    churnlab train "dataset.path='a b.csv'"
    """
    return " ".join(
        f'"{word}"' if "'" in word and not re.search(r'["$`!\\]', word) else shlex.quote(word)
        for word in words
    )


def _print_line(values: dict[str, Any], *, as_json: bool) -> None:
    if sys.stdout.isatty() and not as_json:
        return  # a person has read the answer on stderr
    terminal.print_out(json.dumps(_to_json(values), allow_nan=False, ensure_ascii=False))


def _to_json(value: Any) -> Any:
    """Return a result in JSON's own types; NaN and infinity become null."""
    if isinstance(value, dict):
        return {str(key): _to_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(part) for part in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
