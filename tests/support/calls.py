"""Calls for worker processes in tests: they must be importable there."""

import os
import signal
import time
from pathlib import Path

from joblib import cpu_count

from churnlab.errors import Terminated


def pid_and_cores(item: int) -> tuple[int, int, int]:
    """Return the item, the process and the cores that it may use, after a moment."""
    time.sleep(0.2)
    return item, os.getpid(), cpu_count()


def die_the_first_time(path: Path) -> int:
    """Kill this process unless it was so before; then return its id."""
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def die(item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_a_signal(path: Path) -> None:
    """Write the process's id into a file, wait, and say there which exception ended it."""
    path.write_text(str(os.getpid()))
    try:
        time.sleep(600)
    except Terminated:
        path.write_text(f"{path.read_text()} terminated")
        raise


def kill_the_starter(path: Path) -> int:
    """Kill the process that has started this one unless it was so before, as a machine that goes
    away would; a folder is no file that can be made, so that it is so every time."""
    if path.is_dir() or not path.exists():
        path.is_dir() or path.touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    return os.getpid()


def score_in_small_parts() -> int:
    """Let this process score in parts of some 400 rows, so that a small table has many."""
    from churnlab.scoring import blocks

    blocks.SIZE, blocks.ROWS = 20_000, 400
    return 0
