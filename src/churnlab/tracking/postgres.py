"""Connect to PostgreSQL, wait for a server that is away, and hold its advisory locks.

An advisory lock belongs to a session and is free when the session ends. The server ends a session
that is silent for the grace period, so a machine that sleeps, crashes or is cut off blocks nobody.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from churnlab.errors import InputError, JobError
from churnlab.formatting import duration
from churnlab.tracking.processes import finish_first

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import URL

log = logging.getLogger(__name__)

ADDRESS, PASSWORD = "CHURNLAB_STORAGE_URL", "CHURNLAB_STORAGE_PASSWORD"
"""The environment variables with the address of the database and with the password of its user."""

EXAMPLE = "storage.url=postgresql://USER@HOST:5432/DATABASE"

CONNECT_SECONDS = 5
"""Seconds that one attempt to connect may take."""

PAUSES = (0.1, 5.0)
"""Seconds between two attempts to connect: the first pause, which doubles, and the longest."""

POLL = 0.2
"""Seconds between two looks at a lock that somebody else holds."""

_away_since: dict[str, float] = {}
"""When this process first got no answer from a server that is away."""

_hurried: set[str] = set()
"""The servers that this process no longer waits for, because it is about to end."""


@dataclass(frozen=True)
class Server:
    """A database of PostgreSQL, and for how many seconds to wait for it.

    ``grace``: a session that is silent for longer has lost its locks. ``patience``: so long a
    server may be away while work goes on.
    """

    address: URL = field(repr=False)
    grace: float
    patience: float

    def __str__(self) -> str:
        where = f"{self.address.host or 'localhost'}:{self.address.port or 5432}"
        return f"PostgreSQL at {where}/{self.address.database or ''}"

    def connect(self) -> psycopg.Connection:
        """Connect at once; InputError, one paragraph, if that is not possible."""
        psycopg = _psycopg()
        _hurried.discard(str(self))
        try:
            return self._connect()
        except psycopg.OperationalError as error:
            raise InputError(f"{self} {_reason(error)}") from None
        except psycopg.ProgrammingError as error:
            raise InputError(f"storage.url cannot be used: {str(error).strip()}.") from None

    def hurry(self) -> None:
        """Wait for the server no longer: this process is about to end."""
        _hurried.add(str(self))

    def reconnect(self) -> psycopg.Connection:
        """Connect again; wait for a server that is away, and JobError if it stays away."""
        psycopg, pause = _psycopg(), PAUSES[0]
        while True:
            try:
                connection = self._connect()
            except psycopg.OperationalError:
                self._wait(pause)
                pause = min(2 * pause, PAUSES[1])
                continue
            if _away_since.pop(str(self), None) is not None:
                log.info("%s answers again.", self)
            return connection

    def _connect(self) -> psycopg.Connection:
        milliseconds = str(int(self.grace * 1000))
        quarter = max(1, int(self.grace / 4))
        options = {
            "connect_timeout": CONNECT_SECONDS,
            "keepalives_idle": quarter,  # a link that is cut is noticed, too
            "keepalives_interval": quarter,
            "keepalives_count": 3,
            "tcp_user_timeout": milliseconds,
            "application_name": "churnlab",
        }
        options |= self.address.translate_connect_args(username="user", database="dbname")
        options |= self.address.query
        connection = _psycopg().connect(**options, autocommit=True)
        settings = {"timezone": "UTC", "idle_in_transaction_session_timeout": milliseconds}
        for key, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, false)", [key, value])
        return connection

    def _wait(self, seconds: float) -> None:
        """Pause before the next attempt; say once that the server is away, and at last give up."""
        if str(self) not in _away_since:
            _away_since[str(self)] = time.monotonic()
            log.info("%s does not answer; waiting up to %s.", self, duration(self.patience))
        if str(self) in _hurried or time.monotonic() - _away_since[str(self)] > self.patience:
            away = duration(time.monotonic() - _away_since[str(self)])
            raise JobError(
                f"{self} has not answered for {away}. What was finished is kept: run the same "
                "command again when it answers."
            )
        time.sleep(seconds)


def make_server(url: str | None, *, grace: float, patience: float) -> Server:
    """Read the address of a database: ``url``, else that of the environment; InputError if it is
    none.

    A password that is not in it comes from the environment, or from where libpq finds it.
    """
    given = url or os.environ.get(ADDRESS)
    if not given:
        raise InputError(
            f"storage=postgres needs the address of a database: {EXAMPLE}, or the environment "
            f"variable {ADDRESS}, which may have a password, too."
        )
    address = _read(given)
    named = "storage.url" if url else ADDRESS
    if address is None and given.count("@") > 1:
        raise InputError(
            f"The address in {named} contains several @. Write the special characters of its "
            "password in percent-encoding: @ is %40, / is %2F, : is %3A, # is %23, % is %25."
        )
    if address is None:
        raise InputError(f"{named} is not the address of a PostgreSQL database: {EXAMPLE}.")
    if address.password is None and os.environ.get(PASSWORD):
        address = address.set(password=os.environ[PASSWORD])
    return Server(address, grace=grace, patience=patience)


def take_password(words: list[str]) -> list[str]:
    """Return the words of a command line with the password of storage.url moved to the environment,
    so that no config, run or message has it."""
    kept = []
    for word in words:
        key, _, value = word.partition("=")
        address = _read(value.strip("'\"")) if key.lstrip("+") == "storage.url" else None
        if address is not None and address.password is not None:
            os.environ[PASSWORD] = str(address.password)
            word = f"{key}={address._replace(password=None).render_as_string(hide_password=False)}"
        kept.append(word)
    return kept


def _read(url: str) -> URL | None:
    """Read the address of a PostgreSQL database; None if it is none.

    A second @ belongs to a password that is not encoded: what is read would be another address.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        return None
    known = address.drivername in ("postgresql", "postgresql+psycopg") and url.count("@") < 2
    return address if known else None


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError:
        raise InputError(
            "storage=postgres needs the package psycopg: pip install 'churnlab[postgres]'."
        ) from None
    return psycopg


def raw_error() -> type[Exception]:
    """Return the driver's own error for a session that was lost.

    SQLAlchemy does not translate it while it prepares a new connection.
    """
    return _psycopg().OperationalError


def _reason(error: Exception) -> str:
    """Say why a connection was refused, from the server's or libpq's message."""
    text = str(error)
    refused = ("authentication failed", "no password supplied", "pg_hba.conf")
    if any(words in text for words in refused):
        return (
            "does not let this user in: correct the user of storage.url, or the password, in "
            f"{PASSWORD}, PGPASSWORD or ~/.pgpass."
        )
    if "does not exist" in text:
        return "has no such user or database: create it (createdb), or correct storage.url."
    if "too many" in text or "remaining connection slots" in text:
        return "has no free connection: raise its max_connections, or use fewer workers."
    return "does not answer: start it, or correct storage.url."


class Session:
    """A session that holds advisory locks; a thread keeps it awake, and opens it again if it is
    lost (``reopened`` counts). Locks that somebody else has got in the meantime are taken when they
    are free."""

    def __init__(self, server: Server, *, awake_every: float) -> None:
        self.server = server
        self._held: dict[int, bool] = {}
        self._lost: set[int] = set()
        self.reopened = 0
        self._guard = threading.RLock()
        self._connection = server.connect()
        self._prepare()
        self._closed = threading.Event()
        threading.Thread(target=self._stay_awake, args=[awake_every], daemon=True).start()

    def try_lock(self, name: str, *, shared: bool = False) -> bool:
        """Take a lock if it is free; return whether this session has it."""
        key = lock_key(name)
        with self._guard:
            if key in self._held:
                return key not in self._lost
            got = self._try(key, shared=shared)
            if got:
                self._held[key] = shared
        return got

    def lock(self, name: str, *, shared: bool = False, waiting: str = "") -> None:
        """Take a lock, and wait until it is free; log ``waiting`` if that takes time."""
        while not self.try_lock(name, shared=shared):
            if waiting:
                log.info("%s", waiting)
            waiting = ""
            time.sleep(POLL)

    def unlock(self, name: str) -> None:
        """Let others have a lock."""
        key = lock_key(name)
        with self._guard:
            shared = self._held.pop(key, None)
            if shared is not None and key not in self._lost:
                self.ask(f"SELECT pg_advisory_unlock{'_shared' * shared}(%s)", key)
            self._lost.discard(key)

    def is_only_holder(self, name: str) -> bool:
        """Return whether no other session has a lock, shared or not."""
        return self.ask("SELECT pg_try_advisory_xact_lock(%s)", lock_key(name))

    def close(self) -> None:
        """End the session: its locks are free."""
        self._closed.set()
        with suppress(Exception):  # the server may be away
            self._connection.close()

    def _try(self, key: int, *, shared: bool) -> bool:
        return self.ask(f"SELECT pg_try_advisory_lock{'_shared' * shared}(%s)", key)

    def ask(self, question: str, *values: Any) -> Any:
        """Return the value that the server answers; a lost session is opened again first."""
        psycopg = _psycopg()
        while True:
            try:
                with self._guard:
                    if self._connection.closed:
                        self._reopen()
                    with finish_first():
                        row = self._connection.execute(question, values).fetchone()
                    return row[0] if row else None
            except (psycopg.OperationalError, psycopg.InterfaceError):
                with suppress(Exception):
                    self._connection.close()

    def _prepare(self) -> None:
        """Let the server end the session if it is silent for the grace period."""
        if self._connection.info.server_version < 140000:
            raise InputError(f"{self.server} is too old: churnlab needs PostgreSQL 14 or later.")
        milliseconds = str(int(self.server.grace * 1000))
        self._connection.execute(
            "SELECT set_config('idle_session_timeout', %s, false)", [milliseconds]
        )

    def _reopen(self) -> None:
        self._connection = self.server.reconnect()
        self.reopened += 1
        self._prepare()
        self._lost = set(self._held)
        self._take_back()

    def _take_back(self) -> None:
        for key in list(self._lost):
            sql = f"SELECT pg_try_advisory_lock{'_shared' * self._held[key]}(%s)"
            row = self._connection.execute(sql, [key]).fetchone()
            if row and row[0]:
                self._lost.discard(key)

    def _stay_awake(self, seconds: float) -> None:
        while not self._closed.wait(seconds):
            try:
                with self._guard:
                    if self._closed.is_set():
                        return
                    self.ask("SELECT 1")
                    self._take_back()
            except JobError:
                return  # who needs the session next raises the same
            except Exception as error:
                log.debug("%s", error)


def lock_key(name: str) -> int:
    """Return the number by which PostgreSQL knows a lock."""
    digest = hashlib.sha256(f"churnlab {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
