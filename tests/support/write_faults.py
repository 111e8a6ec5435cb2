"""Kill a command at one of its writes, or let that write fail, with strace.

A command runs under strace once, which lists the calls that write to some folders. Each of them,
or a sample, is then a point: the same command runs again on the same files, and strace injects
SIGKILL, ENOSPC or EIO at that call. A call that is killed is not carried out.

strace counts the calls of one name in one thread. From run to run the number of a call can change,
so what a point hit is read from the trace afterwards, not assumed.
"""

import random
import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from support.waiting import PATIENCE

SYNCS = ("fsync", "fdatasync", "rename", "renameat", "renameat2", "unlink", "unlinkat")
"""Calls that make a state last: every one is a point."""

WRITES = ("write", "pwrite64", "sendfile", "copy_file_range", "ftruncate")
"""Calls that write a part of a state; a sample of them are points."""

KILL, FULL, BROKEN = "signal=KILL", "error=ENOSPC", "error=EIO"
"""What strace injects."""


class Call(NamedTuple):
    """A call that writes: the ``number``-th of this name in its thread."""

    name: str
    number: int
    path: str


class Point(NamedTuple):
    """A call at which to inject a fault."""

    call: Call
    fault: str

    @property
    def when(self) -> str:
        """Return at which calls of this name: a disk that is full for SQLite stays full."""
        stays = self.fault == FULL and self.call.name == "pwrite64"
        return f"{self.call.number}{'+' if stays else ''}"

    def __str__(self) -> str:
        return f"{self.fault} at {self.call.name} {self.call.number} of {self.call.path}"


class Tracer:
    """Trace the calls of a process that write, and inject a fault at a point.

    Without ``threads`` only those of its first thread, and not those of programs that it starts.
    """

    def __init__(
        self, pid: int, trace: Path, point: Point | None = None, *, threads: bool = False
    ) -> None:
        self.trace = trace
        words = ["strace", "-q", "-y", "-s", "0", "-o", str(trace), "-p", str(pid)]
        words += ["-e", f"trace={','.join(SYNCS + WRITES)}", *(["-f"] if threads else [])]
        if point is not None:
            words += ["-e", f"inject={point.call.name}:{point.fault}:when={point.when}"]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ended(self) -> list[str]:
        """Wait until the process has ended; return the lines of the trace."""
        self.process.wait(timeout=PATIENCE)
        return self.trace.read_text(encoding="utf-8", errors="replace").splitlines()


def calls(lines: Sequence[str], folders: Sequence[Path]) -> list[Call]:
    """Return the calls in a trace that write to files in some folders, in their order."""
    found, counts = [], Counter[str]()
    for line in lines:
        thread, arguments = line.split("(", 1) if "(" in line else (line, "")
        counts[thread] += 1  # "fsync", or "1234 fsync" with several threads
        name, paths = thread.split()[-1], re.findall(r'[<"](/[^">]*)[">]', arguments)
        for path in paths[:1] if name in ("sendfile", "copy_file_range") else paths:
            if any(Path(path).is_relative_to(folder) for folder in folders):
                found.append(Call(name, counts[thread], path))
                break
    return found


def hit(lines: Sequence[str]) -> str | None:
    """Return the call at which a trace says that the fault was injected; None if there were
    fewer calls."""
    return next((line for line in lines if re.search(r"\(INJECTED\)$|= \?$", line)), None)


def points(found: Sequence[Call], fault: str, *, writes: int, rng: random.Random) -> list[Point]:
    """Return a point at every call that makes a state last and at a sample of the other writes."""
    lasting = [call for call in found if call.name in SYNCS]
    others = [call for call in found if call.name not in SYNCS]
    others = rng.sample(others, min(writes, len(others)))
    return [Point(call, fault) for call in lasting + others]
