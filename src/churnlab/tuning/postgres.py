"""Keep studies in PostgreSQL, where drivers on any number of machines work on one study at once.

A driver at a study holds a shared advisory lock, its *seat*. A driver that opens or ends the study
holds a second lock alone, so that there is one parent run and one best run. A trial is a row that
one worker claims; its worker writes a heartbeat next to it, and any waiting worker gives up a trial
whose heartbeat is older than the grace period.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, wraps
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from churnlab.errors import InputError, JobError, exception_chain
from churnlab.tracking.postgres import POLL, Server, Session, lock_key, make_server, raw_error
from churnlab.tuning.studies import WORKER

STALE = text(
    "SELECT number FROM trials JOIN studies USING (study_id) JOIN trial_heartbeats USING (trial_id)"
    " WHERE study_name = :name AND state = 'RUNNING' AND localtimestamp - :grace * interval '1 s'"
    " > greatest(heartbeat, pg_postmaster_start_time()::timestamp)"
)
"""The trials without a heartbeat for the grace period, in which the server was up."""

FIRST_BEAT = text(
    "INSERT INTO trial_heartbeats (trial_id, heartbeat) SELECT trial_id, localtimestamp"
    " FROM trials JOIN studies USING (study_id) WHERE study_name = :name AND state = 'RUNNING'"
    " AND trial_id NOT IN (SELECT trial_id FROM trial_heartbeats) ON CONFLICT DO NOTHING"
)
"""A first heartbeat for trials without one, whose worker may have died before it wrote one."""

TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(:key)")

REPEATED = ("40001", "40P01", "23505", "42P07")
"""The codes with which PostgreSQL breaks off one of several transactions that block each other, or
that make the same tables at once."""

UP = "SELECT now() - pg_postmaster_start_time() > %s * interval '1 s'"


# They log connections that were lost, which the next statement replaces.
for _logger in ("sqlalchemy.pool", "optuna.storages._rdb.storage"):
    logging.getLogger(_logger).setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Postgres:
    """Keep all studies in one database.

    ``heartbeat`` is the number of seconds between two signs of life, ``grace`` that after which a
    worker without one has lost its trial, ``patience`` that for which a server may be away.
    """

    url: str | None = field(repr=False)
    heartbeat: float = 2
    grace: float = 10
    patience: float = 300
    server: Server = field(init=False)

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat <= self.grace / 2:
            raise InputError(
                f"storage.heartbeat={self.heartbeat:g}: give more than 0 seconds and at most half "
                f"of storage.grace ({self.grace:g}), so that one late heartbeat costs no trial."
            )
        server = make_server(self.url, grace=self.grace, patience=self.patience)
        object.__setattr__(self, "server", server)

    @property
    def place(self) -> str:
        """Return which database it is, without user and password."""
        return str(self.server)

    def open(self, name: str = "") -> RDBStorage:
        """Open the database; the first process to do so makes Optuna's tables."""
        return _open(self.server)

    def names(self) -> list[str]:
        """Return the names of all studies."""
        self.server.connect().close()  # a wrong address is found at once
        return sorted(optuna.get_all_study_names(self.open()))

    @contextmanager
    def locked(self, name: str, *, wait: bool = True) -> Iterator[DriverSeat]:
        """Take a seat at a study next to other drivers, and lock it against them for the moment.

        Without ``wait``, raise BlockingIOError if another driver has a seat.
        """
        session = Session(self.server, awake_every=self.heartbeat)
        try:
            seat = DriverSeat(self, name, session)
            if wait:
                seat.take()
            elif not session.try_lock(seat.seats):
                raise BlockingIOError(f"a driver works on the study {name}")
            yield seat
        finally:
            session.close()

    def stale(self, study: optuna.Study) -> list[FrozenTrial]:
        """Return the RUNNING trials without a heartbeat for the grace period."""
        numbers = _stale(self.open(), study.study_name, self.grace)
        trials = study.get_trials(deepcopy=False)
        return [trials[number] for number in numbers if trials[number].state == TrialState.RUNNING]

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Hold a lock that the server frees if this process sleeps for the grace period."""
        connection = _alone(self.open(), lock_key(f"trials of {name}"))
        try:
            yield
        finally:
            with suppress(DBAPIError):  # a session that was lost has no lock to free
                connection.close()

    @contextmanager
    def beating(self, trial: Trial) -> Iterator[None]:
        """Write heartbeats of a trial while it is run."""
        storage, ended = self.open(), threading.Event()

        def beat() -> None:
            with suppress(Exception):  # the worker's next call raises the same
                while not ended.is_set():
                    storage.record_heartbeat(trial._trial_id)
                    ended.wait(self.heartbeat)

        threading.Thread(target=beat, daemon=True).start()
        try:
            yield
        finally:
            ended.set()


class DriverSeat:
    """A driver's seat at a study in PostgreSQL: a session with its locks."""

    keep: Sequence[int] = ()

    def __init__(self, storage: Postgres, name: str, session: Session) -> None:
        self.storage, self.name, self.session = storage, name, session
        self.id = uuid.uuid4().hex[:8]
        self.number = self.locked_in = 0
        self.patience = storage.grace + 2 * storage.heartbeat
        self.seats, self.door = f"seats of {name}", f"door of {name}"

    def take(self) -> None:
        """Sit down, with the lowest free number, and lock the study."""
        self.session.lock(self.seats, shared=True)
        free = (n for n in itertools.count() if self.session.try_lock(f"seat {n} of {self.name}"))
        self.number = next(free)
        self.lock()

    def lock(self) -> None:
        """Lock the study against other drivers that open or end it; wait for one that does."""
        waiting = f"Another driver opens or ends the study {self.name}; waiting for it."
        self.session.lock(self.door, waiting=waiting)
        self.locked_in = self.session.reopened

    def is_locked(self) -> bool:
        """Return whether the study has been locked all the time: no session was lost."""
        self.session.ask("SELECT 1")
        return self.session.reopened == self.locked_in

    def unlock(self) -> None:
        """Let other drivers take part."""
        self.session.unlock(self.door)

    def others(self, study: optuna.Study, running: Sequence[FrozenTrial]) -> set[int]:
        """Return the numbers of RUNNING trials that workers of other drivers may be fitting.

        Nobody but this driver has a seat: none. A server that has just started knows nobody.
        """
        if self.session.is_only_holder(self.seats) and self.session.ask(UP, self.storage.grace):
            return set()
        stale = {trial.number for trial in self.storage.stale(study)}
        return {
            trial.number
            for trial in running
            if trial.number not in stale
            and not trial.user_attrs.get(WORKER, "").endswith(f" {self.id}")
        }

    def leaves_others(self) -> bool:
        """Return whether other drivers go on with the study; lock it if there are none."""
        self.hurry()
        try:
            locked = self.session.try_lock(self.door)
            return not locked or not self.session.is_only_holder(self.seats)
        except JobError:  # the server is away: nobody can go on
            return False

    def hurry(self) -> None:
        """Wait for a server that is away no longer."""
        self.storage.server.hurry()


def _patiently(*errors: type[Exception]) -> Callable[..., Any]:
    """Repeat a call whose connection was lost: the next one waits for the server."""

    def patient(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*given: Any, **named: Any) -> Any:
            while True:
                try:
                    return method(*given, **named)
                except (*errors, raw_error()) as error:
                    chain = exception_chain(error)
                    broken = [cause for cause in chain if isinstance(cause, DBAPIError)]
                    if not broken and not isinstance(error, raw_error()):
                        raise
                    if broken and not any(_is_lost(cause) for cause in broken):
                        raise _refusal(broken[0]) from error

        return call

    return patient


def _is_lost(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    return error.connection_invalidated or state in REPEATED


def _refusal(error: DBAPIError) -> JobError:
    reason = str(error.orig).splitlines()[0]
    return JobError(
        f"PostgreSQL has refused to read or write the study: {reason}. What was finished is kept: "
        "repair the database, then run the same command again."
    )


class _PatientStorage(RDBStorage):
    """Optuna's storage; each of its calls waits for a server that is away.

    A call that was broken off may have been done: its repetition then finds the trial ended, as if
    by another worker, or leaves a trial that nobody runs, which becomes stale.
    """


for _name, _method in vars(RDBStorage).items():
    if inspect.isfunction(_method) and not _name.startswith("__"):
        setattr(_PatientStorage, _name, _patiently(StorageInternalError)(_method))


@cache
@_patiently(StorageInternalError, DBAPIError)
def _open(server: Server) -> _PatientStorage:
    """Open the database once per process; make Optuna's tables, one process at a time."""

    def connect() -> Any:
        connection = server.reconnect()
        connection.autocommit = False
        return connection

    other = server.reconnect()
    try:
        other.execute("SELECT pg_advisory_lock(%s)", [lock_key("tables")])
        kwargs = {"creator": connect, "pool_pre_ping": True}
        return _PatientStorage("postgresql+psycopg://", kwargs)
    except RuntimeError as error:
        if isinstance(error, JobError):
            raise
        of_mlflow = other.execute("SELECT 1 WHERE to_regclass('registered_models') IS NOT NULL")
        raise InputError(
            f"{server} is the database of an MLflow server: name another one for the studies."
            if of_mlflow.fetchone()
            else f"{server} has studies of another Optuna, which this one cannot read: install "
            "that version, or use another database."
        ) from error
    finally:
        other.close()


@_patiently(DBAPIError)
def _stale(storage: RDBStorage, name: str, grace: float) -> list[int]:
    """Return the numbers of a study's stale trials."""
    with storage.engine.begin() as connection:
        connection.execute(FIRST_BEAT, {"name": name})
        return list(connection.scalars(STALE, {"name": name, "grace": grace}))


@_patiently(DBAPIError)
def _alone(storage: RDBStorage, key: int) -> Connection:
    """Take a lock in a transaction; return its connection."""
    connection = storage.engine.connect()
    try:
        while not connection.scalar(TRY_LOCK, {"key": key}):
            connection.rollback()
            time.sleep(POLL)
        return connection
    except BaseException:
        connection.close()
        raise
