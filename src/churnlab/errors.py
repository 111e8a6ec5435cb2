"""What stops a job: wrong input, a fault of the machine, or a signal."""

import difflib
from collections.abc import Sequence


class InputError(ValueError):
    """The user's input is wrong: one paragraph that says where, what was found and how to mend it
    (exit code 2)."""


class JobError(RuntimeError):
    """A job cannot go on although its input is right: one paragraph that says why and what to do
    (exit code 1)."""


class Terminated(BaseException):
    """SIGTERM arrived: runs end as KILLED and the process with exit code 143."""


def origins(error: BaseException) -> list[BaseException]:
    """An exception and what it came of, the latest first."""
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found


def interruption(error: BaseException) -> BaseException | None:
    """The Ctrl-C or SIGTERM that an exception came of, if any: what is interrupted often fails in
    putting itself right.

    SQLAlchemy, for one, interrupted in a commit, raises an error of its own over the signal's.
    """
    return next(
        (origin for origin in origins(error) if isinstance(origin, KeyboardInterrupt | Terminated)),
        None,
    )


def meant(word: str, known: Sequence[str], prefix: str = "") -> str:
    """The sentence that offers the nearest known word, or nothing when none is near."""
    near = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {prefix}{near[0]}?" if near else ""


def unknown_key(parents: Sequence[str], key: str, known: Sequence[str]) -> str:
    """Say that a key does not exist, which one was probably meant, and which exist."""
    prefix = "".join(f"{parent}." for parent in parents)
    place = f"under {'.'.join(parents)}" if parents else "here"
    return f"There is no key {prefix}{key}.{meant(key, known, prefix)} The keys {place}: {', '.join(known)}."


def unknown_choice(group: str, name: str, options: Sequence[str]) -> str:
    """Say that a group has no such choice, which one was probably meant, and which it has."""
    choices = ", ".join(options) or "none"
    return f"There is no {group}={name}.{meant(name, options, f'{group}=')} Choices of {group}: {choices}."
