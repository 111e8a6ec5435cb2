"""Estimators and tables for tests: they take the time they are told to, fail where they are told
to, and say so.

Commands find this module when their PYTHONPATH is the folder of the tests.
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


def note(path: str, **said: Any) -> None:
    """Append one line to a file; lines of several processes do not mix."""
    if path:
        line = json.dumps({"pid": os.getpid(), "at": time.time(), **said}) + "\n"
        with Path(path).open("ab", buffering=0) as file:
            file.write(line.encode())


def share(x: float) -> float:
    """A number from 0 to 1 that looks drawn, and is the same for the same ``x``."""
    return zlib.crc32(repr(float(x)).encode()) / 2**32


class Sleeper(ClassifierMixin, BaseEstimator):
    """One probability for everybody, best at x=.3, which takes ``seconds`` to fit.

    With ``uneven`` it takes ``seconds`` times share(x) to the power of ``uneven``: few take long,
    most do not. Every fit is noted in the file ``told`` as it begins; an x below ``fails_below``
    fails, below ``dies_below`` it takes its process along, as one does that needs too much memory.
    """

    def __init__(self, x=0.5, seconds=0.0, uneven=0.0, fails_below=-1.0, dies_below=-1.0, told=""):
        self.x = x
        self.seconds = seconds
        self.uneven = uneven
        self.fails_below = fails_below
        self.dies_below = dies_below
        self.told = told

    def fit(self, X, y):
        note(self.told, what="fit", x=self.x)
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


def noted_members(n: int, seed: int, told: str = ""):
    """Generated members; every time they are made is noted in the file ``told``."""
    note(told, what="table")
    return members(n, seed=seed)
