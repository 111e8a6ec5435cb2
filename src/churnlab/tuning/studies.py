"""Open Optuna studies, keep different questions apart, and enumerate finite search spaces.

All other modules use only Optuna's storage interface and what ``Storage`` and ``Seat`` say here.
``Local`` works for the processes of one machine: one driver at a time holds the lock of a study, so
every trial that does not belong to its own workers is orphaned. The workers inherit the lock, so it
is free once the last of them has ended. Across machines no process can see another's workers:
``postgres.Postgres`` judges them by their heartbeats.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, Protocol

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial

from churnlab.errors import InputError
from churnlab.tracking.store import check_writable

log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

QUESTION = "asked"
"""The user attribute with a study's question; this is its key in the journals that exist."""

WORKER = "worker"
"""The user attribute with a trial's worker."""


class Seat(Protocol):
    """The place of one driver at a study. It begins with the study locked against other drivers.

    ``id`` distinguishes its workers from those of other drivers, ``number`` their draws; ``keep``
    are file descriptors that its workers inherit. After ``patience`` seconds a dead worker of any
    machine has lost its trial.
    """

    id: str
    number: int
    keep: Sequence[int]
    patience: float

    def lock(self) -> None:
        """Lock the study against other drivers that open or end it; wait for one that does."""

    def is_locked(self) -> bool:
        """Return whether the study has been locked without a break since ``lock``."""

    def unlock(self) -> None:
        """Let other drivers take part."""

    def others(self, study: optuna.Study, running: Sequence[FrozenTrial]) -> set[int]:
        """Return the numbers of RUNNING trials that workers of other drivers may be fitting."""

    def leaves_others(self) -> bool:
        """Return whether other drivers go on with the study; lock it if there are none."""

    def hurry(self) -> None:
        """Wait for a storage that is away no longer: the command is about to end."""


class Storage(Protocol):
    """Where studies are kept. ``place`` names it if other machines can reach it, else it is ""."""

    place: str

    def open(self, name: str) -> BaseStorage:
        """Open the storage of a study."""

    def names(self) -> list[str]:
        """Return the names of all studies."""

    def locked(self, name: str, *, wait: bool = True) -> AbstractContextManager[Seat]:
        """Take a seat at a study; without ``wait``, BlockingIOError if another driver has one."""

    def stale(self, study: optuna.Study) -> list[FrozenTrial]:
        """Return the RUNNING trials whose worker, on any machine, has shown no sign of life."""

    def alone(self, name: str) -> AbstractContextManager[None]:
        """Let one process at a time, over all machines, give up trials of a study."""

    def beating(self, trial: Trial) -> AbstractContextManager[None]:
        """Show signs of life while a trial is run."""


@dataclass(frozen=True)
class OnlySeat:
    """The seat of a study's only driver, which holds its lock, a file descriptor."""

    held: int
    id: ClassVar[str] = ""
    number: ClassVar[int] = 0
    patience: ClassVar[float] = 0

    @property
    def keep(self) -> Sequence[int]:
        """Return the lock: it is free once the last worker has ended."""
        return [self.held]

    def lock(self) -> None:
        """Do nothing: the lock is held to the end."""

    def is_locked(self) -> bool:
        """Return True."""
        return True

    def unlock(self) -> None:
        """Do nothing: nobody else can take part."""

    def others(self, study: optuna.Study, running: Sequence[FrozenTrial]) -> set[int]:
        """Return no trial."""
        return set()

    def leaves_others(self) -> bool:
        """Return False."""
        return False

    def hurry(self) -> None:
        """Do nothing: the files are here."""


@dataclass(frozen=True)
class Local:
    """Keep each study in a file of a folder: Optuna's journal, ten times faster than its SQLite."""

    folder: str
    place: ClassVar[str] = ""

    def __str__(self) -> str:
        return self.folder

    def open(self, name: str) -> BaseStorage:
        """Open the storage of a study; create it if it is new."""
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        path = str(Path(self.folder) / f"{name}.log")
        return JournalStorage(JournalFileBackend(path, lock_obj=_JournalLock(path)))

    def names(self) -> list[str]:
        """Return the names of all studies."""
        return sorted(path.stem for path in Path(self.folder).glob("*.log"))

    @contextmanager
    def locked(self, name: str, *, wait: bool = True) -> Iterator[OnlySeat]:
        """Lock a study against other drivers.

        Wait for a driver that has the lock, or, without ``wait``, raise BlockingIOError, and lock
        also what cannot be written. InputError: nothing can be written to the folder.
        """
        path = Path(self.folder) / f"{name}.lock"
        if wait:
            check_writable(path.parent)
        try:
            held = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:  # without permission to write, a reader can lock all the same
            held = os.open(path if path.exists() else path.parent, os.O_RDONLY)
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise
                log.info("Another process is running the study %s; waiting for it to end.", name)
                fcntl.flock(held, fcntl.LOCK_EX)
            yield OnlySeat(held)
        finally:
            os.close(held)

    def stale(self, study: optuna.Study) -> list[FrozenTrial]:
        """Return no trial: the driver sees its workers itself."""
        return []

    def alone(self, name: str) -> AbstractContextManager[None]:
        """Do nothing: only the driver gives up trials."""
        return nullcontext()

    def beating(self, trial: Trial) -> AbstractContextManager[None]:
        """Do nothing: the driver sees its workers itself."""
        return nullcontext()


class _JournalLock:
    """Lock the journal file itself; the kernel releases the lock of a process that dies.

    Optuna's own locks are files, which block everybody for half a minute after a kill. The new
    owner of the lock cuts off a line that a kill or a full disk left unfinished: the next write
    would make it, and the whole study, unreadable.
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


def study_name(question: Mapping[str, Any], *, prefix: str) -> str:
    """Name a study after a hash of its question, so that the same question finds its study.

    >>> study_name({"metric": "log_loss", "seed": 0}, prefix="gym")
    'gym-611be29d'
    """
    text = json.dumps(question, sort_keys=True)
    return f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def open_study(
    storage: BaseStorage, name: str, question: Mapping[str, Any], *, direction: str
) -> optuna.Study:
    """Create or resume a study; InputError, naming the differences, if it has another question."""
    study = optuna.create_study(
        storage=storage, study_name=name, direction=direction, load_if_exists=True
    )
    before, now = study.user_attrs.get(QUESTION), json.loads(json.dumps(question))
    if before is None:
        # The id tells it from a study of the same name whose file was deleted.
        study.set_user_attr("id", uuid.uuid4().hex)
        study.set_user_attr(QUESTION, now)
    elif before != now:
        keys = [key for key in {**now, **before} if before.get(key) != now.get(key)]
        differ = [_difference(key, before.get(key), now.get(key)) for key in keys]
        raise InputError(
            f"tune.study={name} has trials for a different question: {'; '.join(differ)}. Trials "
            "for different questions are not mixed: choose another tune.study, or leave it out to "
            "get a study of its own for this question."
        )
    return study


def _difference(key: str, before: Any, now: Any) -> str:
    """Describe a difference in one phrase: both values if they are short, else the parts in which
    they differ."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        if before.get("name") == now.get("name"):
            parts = [part for part in {**before, **now} if before.get(part) != now.get(part)]
            return f"{key} ({', '.join(parts)})"
        before, now = before["name"], now["name"]
    short = all(len(str(value)) <= 40 for value in (before, now))
    return f"{key} ({before} there, {now} here)" if short else key


def params_key(params: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return a key that is equal for equal parameters, despite rounding errors of stepped floats.

    >>> params_key({"C": 0.1 + 0.2, "depth": 3}) == params_key({"depth": 3, "C": 0.3})
    True
    """
    return tuple(
        sorted(
            (key, f"{value:.12g}" if isinstance(value, float) else repr(value))
            for key, value in params.items()
        )
    )


def size(space: Mapping[str, BaseDistribution]) -> float:
    """Return the number of points of a space; inf if a parameter is continuous.

    >>> size({"depth": IntDistribution(1, 9, step=2), "kind": CategoricalDistribution(["a", "b"])})
    10
    """
    return math.prod(_count(distribution) for distribution in space.values())


def points(space: Mapping[str, BaseDistribution]) -> Iterator[dict[str, Any]]:
    """Yield every point of a finite space; the last parameter changes fastest.

    >>> list(points({"depth": IntDistribution(1, 2), "C": FloatDistribution(0, 0.5, step=0.5)}))[:2]
    [{'depth': 1, 'C': 0.0}, {'depth': 1, 'C': 0.5}]
    """
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
    if distribution.step is None:
        return math.inf
    return round((distribution.high - distribution.low) / distribution.step) + 1


def _values(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    number, low = int(_count(distribution)), distribution.low
    if isinstance(distribution, IntDistribution):
        return [low + distribution.step * step for step in range(number)]
    width = Decimal(str(distribution.step or 0))
    return [float(Decimal(str(low)) + width * step) for step in range(number)]
