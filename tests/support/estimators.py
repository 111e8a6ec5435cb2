"""Estimators and tables for tests, which take a set time, fail where they should, and note each
call in a file.

Commands find this module when their PYTHONPATH is tests/support.
"""

import json
import os
import signal
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from churnlab.data.demo import members

FEW = 40


def note(path: str, **values: Any) -> None:
    """Append one line to a file; lines of several processes do not mix."""
    if path:
        line = json.dumps({"pid": os.getpid(), "at": time.time(), **values}) + "\n"
        with Path(path).open("ab", buffering=0) as file:
            file.write(line.encode())


def share(x: float) -> float:
    """Return a number from 0 to 1 that looks random, but is the same for the same ``x``."""
    return zlib.crc32(repr(float(x)).encode()) / 2**32


class Sleeper(ClassifierMixin, BaseEstimator):
    """Predict one probability for everybody, best at x=.3, after a fit of ``seconds``.

    With ``uneven`` a fit takes ``seconds`` times share(x) to the power of ``uneven``: few take
    long, most do not. Every fit is noted in the file ``notes`` as it begins. A fit fails for x
    below ``fails_below``, and kills its process, as if out of memory, for x below ``dies_below``.
    The fit on FEW members, by which a command checks a model before it trains, does none of this.
    """

    def __init__(self, x=0.5, seconds=0.0, uneven=0.0, fails_below=-1.0, dies_below=-1.0, notes=""):
        self.x = x
        self.seconds = seconds
        self.uneven = uneven
        self.fails_below = fails_below
        self.dies_below = dies_below
        self.notes = notes

    def fit(self, X, y):
        if len(X) > FEW:
            note(self.notes, what="fit", x=self.x)
            time.sleep(self.seconds * share(self.x) ** self.uneven)
            if self.x < self.dies_below:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.x < self.fails_below:
                raise ValueError(f"x={self.x} is below {self.fails_below}")
        self.classes_ = np.unique(y)
        self.rate_ = float(np.mean(y)) * (1 - (self.x - 0.3) ** 2)
        return self

    def predict_proba(self, X):
        return np.tile([1 - self.rate_, self.rate_], (len(X), 1))


def noted_members(n: int, seed: int, notes: str = ""):
    """Generate members, and note every call in the file ``notes``."""
    note(notes, what="table")
    return members(n, seed=seed)
