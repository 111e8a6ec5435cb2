"""Wait for what other processes do."""

import time
from collections.abc import Callable
from typing import Any

from support.soak import SOAK

PATIENCE = 60 * (20 if SOAK else 5)
"""Seconds after which an event will never come; no measure of speed, because machines are busy."""


def until(reached: Callable[[], Any], what: str, *, seconds: float = PATIENCE) -> Any:
    """Look until something is there, and return it.

    A look into a store costs as much as a small fit: looks leave most of a core to the processes
    that are waited for, but come often enough for what lasts a second.
    """
    deadline = time.monotonic() + seconds
    while True:
        started = time.monotonic()
        if found := reached():
            return found
        took = time.monotonic() - started
        assert started < deadline, f"{what} never came"
        time.sleep(min(max(0.02, 4 * took), 0.3))
