"""Run a real PostgreSQL 15 for tests, as an unprivileged user, on a free port of this machine."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
"""Where Debian keeps the programs of PostgreSQL 15; elsewhere they are found by PATH."""

USER, PASSWORD = "churn", "se/cret:1"
"""The superuser of the test's server; the password has characters that an address must escape."""

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "fsync": "off",  # the machine stays up, whatever happens to the server
    "log_checkpoints": "off",
}


class Postgres:
    """A server of PostgreSQL: ``url(database)`` makes a database; stop and start it at will."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> str:
        """Return the address of a database, with user and password; create it if it is new."""
        with self.connect("postgres") as connection:
            known = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(known, [database]).fetchone() is None:
                connection.execute(f'CREATE DATABASE "{database}"')
        where = f"127.0.0.1:{self.port}/{quote(database, safe='')}"
        return f"postgresql://{USER}:{quote(PASSWORD, safe='')}@{where}"

    def connect(self, database: str) -> Any:
        """Open a connection of psycopg that commits every statement."""
        import psycopg

        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=PASSWORD,
            dbname=database,
            autocommit=True,
        )

    def start(self) -> None:
        """Start the server and wait until it takes connections; it must have got the port."""
        words = [word for pair in SETTINGS.items() for word in ("-c", "=".join(pair))]
        words += ["-c", f"port={self.port}", "-c", f"unix_socket_directories={self.folder}"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(program("postgres")), "-D", str(self.folder / "data"), *words],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C of the tests must not stop it first
                **unprivileged(),
            )
        state = self.folder / "data" / "postmaster.pid"
        for _ in range(600):
            assert self._process.poll() is None, (self.folder / "log").read_text()
            # Its own file says that it is ready: another server may answer on the port.
            lines = state.read_text().splitlines() if state.exists() else []
            if lines and int(lines[0]) == self._process.pid and lines[-1].strip() == "ready":
                return
            time.sleep(0.05)
        pytest.fail(f"PostgreSQL did not start: {(self.folder / 'log').read_text()}")

    def stop(self, *, at_once: bool = True) -> None:
        """Stop the server: it breaks off all connections, or, not ``at_once``, it is asked to."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT if at_once else signal.SIGINT)
            self._process.wait(timeout=60)


def program(name: str) -> Path:
    """Return the path of a program of PostgreSQL 15; skip the test where there is none."""
    found = PROGRAMS / name
    elsewhere = shutil.which(name)
    if not found.exists() and elsewhere is not None:
        version = subprocess.run([elsewhere, "--version"], capture_output=True, text=True).stdout
        found = Path(elsewhere) if " 15." in version else found
    if not found.exists():
        pytest.skip(f"there is no PostgreSQL 15 here: neither {found} nor on PATH")
    return found


def unprivileged() -> dict[str, Any]:
    """Return how subprocess starts a process as somebody whom PostgreSQL accepts: never root."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam("nobody")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def free_port() -> int:
    """Return a port that nobody listens at now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Make a new cluster and run its server; stop it and delete the cluster afterwards."""
    initdb = program("initdb")
    # Not in pytest's folder, which belongs to its user alone; the name is short for the socket.
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as name:
        folder, account = Path(name), unprivileged()
        (folder / "password").write_text(PASSWORD)
        for path in (folder, folder / "password"):
            os.chown(path, account.get("user", -1), account.get("group", -1))
        words = ["-D", "data", "-U", USER, "-A", "scram-sha-256", "--pwfile", "password"]
        made = subprocess.run(
            [str(initdb), *words, "--no-sync", "--locale=C", "--encoding=UTF8"],
            capture_output=True,
            text=True,
            cwd=folder,
            **account,
        )
        assert made.returncode == 0, made.stderr
        server = Postgres(folder, free_port())
        server.start()
        try:
            yield server
        finally:
            server.stop()
