"""Run programs on a pseudo-terminal, as a person does."""

import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path
from typing import NamedTuple

from support.running import environment

CONTROL = re.compile(r"(\x1b\[[0-9;?]*[A-Za-z])")
"""A control sequence: colors, moves of the cursor, cleared lines."""


class Seen(NamedTuple):
    """Exit code, all that came to the terminal, and stdout if it was a pipe."""

    code: int
    raw: str
    out: str

    @property
    def lines(self) -> list[str]:
        """Return what stays on the terminal, line by line, on one that is wide enough for all."""
        lines, row = [""], 0
        for part in CONTROL.split(self.raw):
            if part == "\x1b[2K":
                lines[row] = ""
            elif part == "\x1b[1A":
                row -= 1
            elif not part.startswith("\x1b"):
                for number, text in enumerate(part.replace("\r", "").split("\n")):
                    row += number > 0
                    lines += [""] * (row + 1 - len(lines))
                    lines[row] += text
        return lines

    @property
    def text(self) -> str:
        """Return what stays on the terminal."""
        return "\n".join(self.lines)


def on_terminal(
    home: Path, *words: str, columns: int = 100, stdout_is_pipe: bool = False, **settings: str
) -> Seen:
    """Run ``churnlab WORDS`` on a terminal of this width; return how it ended."""
    argv = [sys.executable, "-m", "churnlab", *words]
    ours = _environment(home, **settings)
    return _run(argv, ours, home, columns=columns, stdout_is_pipe=stdout_is_pipe)


def python_on_terminal(home: Path, code: str, *, columns: int = 100) -> Seen:
    """Run lines of Python on a terminal."""
    ours = _environment(home)
    return _run([sys.executable, "-c", code], ours, home, columns=columns, stdout_is_pipe=False)


def _environment(home: Path, **settings: str) -> dict[str, str]:
    colors = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "COLORTERM", "TTY_COMPATIBLE")
    ours = environment(home, TERM="xterm-256color")
    return {key: value for key, value in ours.items() if key not in colors} | settings


def _run(
    argv: Sequence[str], env: dict[str, str], home: Path, *, columns: int, stdout_is_pipe: bool
) -> Seen:
    with _terminal(columns) as (leader, follower):
        process = subprocess.Popen(
            argv,
            stdin=follower,
            stdout=subprocess.PIPE if stdout_is_pipe else follower,
            stderr=follower,
            cwd=next(parent for parent in home.parents if parent.is_dir()),
            env=env,
        )
        os.close(follower)
        try:
            raw = read(leader, seconds=300)
            out = process.communicate(timeout=60)[0]
        finally:
            process.kill()
            process.wait()
    return Seen(process.returncode, raw, (out or b"").decode())


@contextmanager
def _terminal(columns: int) -> Iterator[tuple[int, int]]:
    """Open a pseudo-terminal; yield the end of the person and that of the program."""
    leader, follower = pty.openpty()
    ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    try:
        yield leader, follower
    finally:
        os.close(leader)


def read(leader: int, *, seconds: float, until: str | None = None) -> str:
    """Read until this text has come, or until every process has closed the terminal."""
    found, ends = b"", time.monotonic() + seconds
    while time.monotonic() < ends and (until is None or until not in found.decode(errors="ignore")):
        if not select.select([leader], [], [], 0.2)[0]:
            continue
        try:
            part = os.read(leader, 65536)
        except OSError:  # how Linux ends a terminal
            break
        if not part:
            break
        if b"\x1b[c" in part:  # fish asks what terminal this is
            os.write(leader, b"\x1b[?62;c")
        found += part
    return found.decode(errors="replace")
