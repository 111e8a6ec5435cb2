"""Tell how long the long form of tests is, and draw the random moments of both forms."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SOAK = int(os.environ.get("CHURNLAB_SOAK", 0))
"""Kills per way of killing in the long form (make soak); 0 is the short form of every day."""

SEED = int(os.environ.get("CHURNLAB_SEED", 0))
RANDOM = random.Random(SEED)
"""The source of all random moments."""


@contextmanager
def repeatable(*story: Any) -> Iterator[None]:
    """Add the seed and the story so far to an exception that is raised inside."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"CHURNLAB_SEED={SEED}; {' '.join(str(part) for part in story)}")
        raise
