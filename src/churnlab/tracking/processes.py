"""Identify processes, so that others can see whether the process that opened a run is alive, and
turn the signals that end a process into exceptions."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

from churnlab.errors import Terminated, exception_chain

BOOT = Path("/proc/sys/kernel/random/boot_id")


@cache
def process() -> str:
    """Return the identity of this process: ``HOST PID STARTED``.

    The start time distinguishes it from an earlier process with the same number.
    """
    pid = os.getpid()
    return f"{socket.gethostname()} {pid} {_started(pid)}"


def is_alive(process: str) -> bool | None:
    """Return whether the process with this identity runs; None if it is on another machine."""
    machine, pid, started = process.split(" ", 2)
    if machine != socket.gethostname():
        return None
    return _started(int(pid)) == started


def runs(pid: int) -> bool:
    """Return whether this machine has a process with this number."""
    return _started(pid) is not None


def _started(pid: int) -> str | None:
    """Return when a process started, unique across reboots; None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = stat.rpartition(")")[2].split()  # the name may contain spaces and parentheses
        if fields[0] == "Z":
            return None
        return f"{fields[19]}-{BOOT.read_text(encoding='utf-8').strip()}"
    except FileNotFoundError:
        if BOOT.exists():
            return None
    # macOS has no /proc
    ps = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True)
    return "-".join(ps.stdout.split()) or None


_stops: list[type[BaseException]] = []
"""The kinds of signals that reached this process, the latest last."""

_held = 0
"""How many things are done now that a signal waits for."""

_waiting: type[BaseException] | None = None
"""The kind of signal that will stop this process when they are done."""


def raise_on_signals() -> None:
    """Let SIGTERM raise Terminated in the main thread, as Ctrl-C raises KeyboardInterrupt."""
    signal.signal(signal.SIGTERM, partial(_stop, Terminated))
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a script's background job
        signal.signal(signal.SIGINT, partial(_stop, KeyboardInterrupt))
    sys.unraisablehook = _repeat_signal


@contextmanager
def finish_first() -> Iterator[None]:
    """Let a signal wait until what is done inside is done; a second one does not wait.

    MLflow knows a run as the open one only some time after it is in the store.
    """
    hold()
    try:
        yield
    finally:
        release()


def hold(*_: object) -> None:
    """Let a signal wait until ``release``."""
    global _held
    if threading.current_thread() is threading.main_thread():
        _held += 1


def release(*_: object) -> None:
    """Raise what a signal would have raised, unless it still waits for something else."""
    global _held, _waiting
    if threading.current_thread() is not threading.main_thread():
        return
    _held = max(_held - 1, 0)
    if _held == 0 and _waiting is not None:
        kind, _waiting = _waiting, None
        raise kind


def interruption(error: BaseException) -> BaseException | None:
    """Return the Ctrl-C or SIGTERM that caused an exception, or None.

    Cleanup after a signal often raises an error of its own: SQLAlchemy does when a commit is
    interrupted, and some C code forgets what it was raised during. So any error after a signal is
    put down to the signal.
    """
    signals = (KeyboardInterrupt, Terminated)
    causes = [cause for cause in exception_chain(error) if isinstance(cause, signals)]
    return next(iter(causes), None) or (_stops[-1]() if _stops else None)


def _stop(kind: type[BaseException], *_: object) -> None:
    global _waiting
    _stops.append(kind)
    if not _held or _waiting is not None:
        raise kind
    _waiting = kind


def _repeat_signal(ignored: sys.UnraisableHookArgs) -> None:
    """Send a signal again if Python dropped its exception, as it does inside a destructor."""
    dropped = {KeyboardInterrupt: signal.SIGINT, Terminated: signal.SIGTERM}
    if ignored.exc_type in dropped:
        threading.Timer(0.05, os.kill, [os.getpid(), dropped[ignored.exc_type]]).start()
    else:
        sys.__unraisablehook__(ignored)
