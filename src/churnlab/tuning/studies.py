"""Studies: where Optuna keeps them, whose question one answers, and the spaces that can be walked
through.

Everything above this module knows Optuna's storage interface only. ``Local`` is for the processes
of one machine: one driver at a time holds the lock of a study, so it knows that every trial which
is not its own workers' is dead, and the lock, which its workers inherit, is free when the last of
them is gone. On several machines no process can know that of another's workers. There a storage of
the same two methods must give an ``RDBStorage`` with ``heartbeat_interval`` and ``grace_period``, a
lock of the database's (an advisory one), and trials.reconcile must fail only the trials that
``optuna.storages.fail_stale_trials`` finds, instead of all that nobody here is working on.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import logging
import math
import os
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from churnlab.errors import InputError

log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


@dataclass(frozen=True)
class Local:
    """A folder with a file a study: Optuna's journal, an order of magnitude faster than its sqlite."""

    folder: str

    def open(self, name: str) -> BaseStorage:
        """The storage that the study of this name is in, made when it is new."""
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        path = str(Path(self.folder) / f"{name}.log")
        return JournalStorage(JournalFileBackend(path, lock_obj=_JournalLock(path)))

    def names(self) -> list[str]:
        """The studies there are."""
        return sorted(path.stem for path in Path(self.folder).glob("*.log"))

    @contextmanager
    def locked(self, name: str, *, wait: bool = True) -> Iterator[int]:
        """Be the only driver of a study, waiting for one that is at work; yields the descriptor
        that holds the lock.

        Without ``wait``, BlockingIOError is raised when another is at work.
        """
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        held = os.open(Path(self.folder) / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise
                log.info("Another process is at work on the study %s; waiting for it to end.", name)
                fcntl.flock(held, fcntl.LOCK_EX)
            yield held
        finally:
            os.close(held)


class _JournalLock:
    """A lock on the journal itself, which the kernel takes back from a process that dies.

    Optuna's own locks are files: after a kill they hold everybody up for half a minute. Whoever
    gets the lock cuts off the line that a kill or a full disk has left unfinished: the next one
    would make nonsense of it, and of the study.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._held = -1

    def acquire(self) -> bool:
        self._held = os.open(self._path, os.O_RDWR)
        fcntl.flock(self._held, fcntl.LOCK_EX)
        size = os.fstat(self._held).st_size
        if size and os.pread(self._held, 1, size - 1) != b"\n":
            os.ftruncate(self._held, os.pread(self._held, size, 0).rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        os.close(self._held)


def name_of(asked: Mapping[str, Any], *, prefix: str) -> str:
    """A study's name made from what it is asked, so that the same question finds its own study."""
    text = json.dumps(asked, sort_keys=True)
    return f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def open_study(
    storage: BaseStorage, name: str, asked: Mapping[str, Any], *, direction: str
) -> optuna.Study:
    """The study of this name, new or as it was left; InputError, naming what differs, when it was
    asked otherwise."""
    study = optuna.create_study(
        storage=storage, study_name=name, direction=direction, load_if_exists=True
    )
    before, now = study.user_attrs.get("asked"), json.loads(json.dumps(asked))
    if before is None:
        study.set_user_attr(
            "id", uuid.uuid4().hex
        )  # tells it from a study of this name whose file was deleted
        study.set_user_attr("asked", now)
    elif before != now:
        keys = [key for key in {**now, **before} if before.get(key) != now.get(key)]
        differ = [_difference(key, before.get(key), now.get(key)) for key in keys]
        raise InputError(
            f"tune.study={name} holds trials of another question: {'; '.join(differ)}. Trials of "
            "different questions are not mixed; choose another tune.study, or leave it out, and "
            "the question finds its own study."
        )
    return study


def _difference(key: str, before: Any, now: Any) -> str:
    """What differs, in one phrase: both values where they are short, else the names of the parts
    that differ."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        if before.get("name") == now.get("name"):
            parts = [part for part in {**before, **now} if before.get(part) != now.get(part)]
            return f"{key} ({', '.join(parts)})"
        before, now = before["name"], now["name"]
    short = all(len(str(value)) <= 40 for value in (before, now))
    return f"{key} ({before} there, {now} here)" if short else key


def same(params: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What is equal for equal parameters; steps of a float add up to neighbours of one number."""
    return tuple(
        sorted(
            (key, f"{value:.12g}" if isinstance(value, float) else repr(value))
            for key, value in params.items()
        )
    )


def size(space: Mapping[str, BaseDistribution]) -> float:
    """How many points a space has; inf when one of its parameters is continuous."""
    return math.prod(_count(distribution) for distribution in space.values())


def points(space: Mapping[str, BaseDistribution]) -> Iterator[dict[str, Any]]:
    """Every point of a finite space, the last parameter changing fastest."""
    for values in itertools.product(*[_values(distribution) for distribution in space.values()]):
        yield dict(zip(space, values, strict=True))


def _count(distribution: BaseDistribution) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return (distribution.high - distribution.low) // distribution.step + 1
    assert isinstance(distribution, FloatDistribution)
    if distribution.single():
        return 1
    return (
        math.inf
        if distribution.step is None
        else round((distribution.high - distribution.low) / distribution.step) + 1
    )


def _values(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    number, low = int(_count(distribution)), distribution.low
    if isinstance(distribution, IntDistribution):
        return [low + distribution.step * step for step in range(number)]
    width = Decimal(str(distribution.step or 0))
    return [float(Decimal(str(low)) + width * step) for step in range(number)]
