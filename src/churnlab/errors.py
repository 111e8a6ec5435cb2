"""Errors that stop a job: invalid input, a failure of the machine, or a signal."""

import difflib
import errno
import os
from collections.abc import Sequence


class InputError(ValueError):
    """Invalid input (exit code 2): one paragraph that says where, what was found and the fix."""


class JobError(RuntimeError):
    """A job that cannot continue with valid input (exit code 1): one paragraph, why and the fix."""


class Refused(RuntimeError):
    """What must not be done (exit code 3): one paragraph, why and what to do instead."""


class Terminated(BaseException):
    """SIGTERM: runs end as KILLED and the process exits with code 143."""


def exception_chain(error: BaseException) -> list[BaseException]:
    """Return an exception and all that it was raised from or during, the latest first."""
    chain: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop(0)
        if cause is not None and cause not in chain:
            chain.append(cause)
            waiting += [cause.__cause__, cause.__context__]
    return chain


DISK_FAULTS = {
    errno.ENOSPC: ("No space left on device", "Disk quota exceeded", "disk is full"),
    errno.EIO: ("Input/output error", "disk I/O error"),
}
"""How the system, and SQLite, say that a disk is full or fails."""


def disk_fault(error: BaseException) -> int | None:
    """Return ENOSPC if a full disk caused an error, EIO if a disk that fails did, else None.

    Only the text is sure to say it: SQLite and shutil give no number.
    """
    text = " ".join(map(str, exception_chain(error)))
    faults = (fault for fault, words in DISK_FAULTS.items() if any(word in text for word in words))
    return next(faults, None)


def in_systems_words(error: OSError) -> str:
    """Return what the system says of an error; Arrow puts words of its own around it.

    >>> in_systems_words(OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28]"))
    'No space left on device'
    """
    return os.strerror(error.errno) if error.errno else str(error)


def did_you_mean(word: str, known: Sequence[str], prefix: str = "") -> str:
    """Suggest the closest known word in a sentence; return nothing when none is close.

    >>> did_you_mean("trian", ["train", "tune"])
    ' Did you mean train?'
    """
    near = [name for name in known if name.lower() == word.lower()]
    near = near or difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {prefix}{near[0]}?" if near else ""


def unknown_key(parents: Sequence[str], key: str, known: Sequence[str]) -> str:
    """Say that a key does not exist, suggest the closest one and list the keys that exist."""
    prefix = "".join(f"{parent}." for parent in parents)
    place = f"under {'.'.join(parents)}" if parents else "here"
    hint = did_you_mean(key, known, prefix)
    return f"There is no key {prefix}{key}.{hint} The keys {place}: {', '.join(known) or 'none'}."


def unknown_choice(group: str, name: str, options: Sequence[str]) -> str:
    """Say that a group has no such choice, suggest the closest one and list its choices."""
    choices = ", ".join(options) or "none"
    hint = did_you_mean(name, options, f"{group}=")
    return f"There is no {group}={name}.{hint} Choices of {group}: {choices}."
