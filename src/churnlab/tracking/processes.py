"""Where a job runs: the packages that decide its bits, and the process that others can tell alive
from dead."""

from __future__ import annotations

import os
import socket
import subprocess
from functools import cache
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")


@cache
def process() -> str:
    """This process in three words: its machine, its number there, and since when it has that
    number."""
    pid = os.getpid()
    return f"{socket.gethostname()} {pid} {_since(pid)}"


def is_alive(process: str) -> bool | None:
    """Whether a process, in the words of `process`, is still there; None when another machine must
    be asked."""
    machine, pid, since = process.split(" ", 2)
    if machine != socket.gethostname():
        return None
    return _since(int(pid)) == since


def runs(pid: int) -> bool:
    """Whether this machine has a process of that number."""
    return _since(pid) is not None


def _since(pid: int) -> str | None:
    """When a process was started, in words that no second process of its number has; None when
    there is none."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        after_name = told.rpartition(")")[2].split()  # a name may hold blanks and brackets
        return (
            None
            if after_name[0] == "Z"
            else f"{after_name[19]}-{BOOT.read_text(encoding='utf-8').strip()}"
        )
    except FileNotFoundError:
        if BOOT.exists():
            return None
    asked = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True
    )  # no /proc: macOS
    return "-".join(asked.stdout.split()) or None
