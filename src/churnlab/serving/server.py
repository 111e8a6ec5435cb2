"""Run the application in one process or in several on one port, until a signal ends it."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import logging
import os
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.supervisors import Multiprocess

from churnlab.config.answers import ServingKeys
from churnlab.errors import InputError, JobError, Refused, Terminated
from churnlab.registry.champion import resolve
from churnlab.registry.manifest import NoManifest, Unverified
from churnlab.registry.versions import ANOTHER, INSTEAD
from churnlab.serving.current import Current, Source

if TYPE_CHECKING:  # the metrics must know at their import whether there are several workers
    from churnlab.serving.app import App

log = logging.getLogger(__name__)

SETTINGS = "CHURNLAB_SERVING"
"""The variable that carries the settings to the workers."""

TOKEN = "CHURNLAB_SERVE_TOKEN"
"""The variable with the bearer token that requests must have."""

METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""The variable with the folder where several workers keep their numbers."""

LONGEST_HEAD = 16 * 1024
"""Bytes of a request before its body; a longer one is no HTTP to uvicorn."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")


DRAIN = 30
"""Seconds that requests have, besides the time for their body, to be answered at the end."""

PATIENCE = 10
"""Seconds in which the header of a request must arrive."""

HUNG = 60
"""Seconds after which a worker that does nothing is replaced."""


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens. InputError: the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else 40 ms an answer
        return listener
    except OSError as error:
        ours = error.errno in (errno.EADDRINUSE, errno.EACCES)
        fix = "another port, as port=5002" if ours else "an address of this machine, as 127.0.0.1"
        why = str(error.strerror).partition(" (while")[0].lower()
        raise InputError(f"host={host} port={port} cannot be used ({why}); give {fix}.") from None


def serve(source: Source, keys: ServingKeys, listener: socket.socket, *, host: str) -> None:
    """Answer requests until SIGTERM or Ctrl-C, which is raised when all are answered.

    Refused: the version is not to be served.
    """
    hosts = None
    if keys.hosts is None or "*" not in keys.hosts:
        hosts = [*LOOPBACK, host] if keys.hosts is None else keys.hosts
        hosts = [f"[{name}]" if ":" in name else name.lower() for name in hosts]
    settings = {"source": source, "keys": keys.model_dump(), "hosts": hosts}
    try:
        current = Current(source, most_rows=keys.most_rows)
    except LookupError as error:
        raise Refused(f"{source.uri} is not served: {error}. {_advice(error, source)}") from error
    at = f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    if host not in LOOPBACK and not os.environ.get(TOKEN):
        log.warning("warning: everybody who reaches %s may ask; a token in %s ends that", at, TOKEN)
    follows = f" and follows its alias {source.alias}" if source.alias else ""
    number = current.version.number
    log.info("http://%s serves %s version %s%s.", at, source.name, number, follows)
    if keys.workers == 1:
        uvicorn.Server(_config(_app(current, settings), keys)).run([listener])
        return
    del current
    os.environ[SETTINGS] = json.dumps(settings)
    with tempfile.TemporaryDirectory(prefix="churnlab-metrics-") as folder:
        os.environ[METRICS] = folder
        Workers(_config("churnlab.serving.server:worker", keys), [listener]).run_until_stopped()


def _advice(error: LookupError, source: Source) -> str:
    """Return what to do about a version that is not served."""
    if isinstance(error, NoManifest):
        return (
            "model.unverified=true serves it without a check; a version that churnlab promote "
            "makes now has a manifest."
        )
    if isinstance(error, Unverified):
        return INSTEAD
    return ANOTHER


KEPT = 30
"""Seconds that a connection is kept for another request, or for an answer that is not taken."""


class Patient(H11Protocol):
    """Uvicorn's side of a connection, which hangs up on a client that sends no whole header or does
    not take its answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.waiting: asyncio.TimerHandle | None = self.loop.call_later(PATIENCE, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            if self.waiting is not None:
                self.waiting.cancel()
                self.waiting = None
        elif self.waiting is None:  # the start of another header on a kept connection
            self.waiting = self.loop.call_later(PATIENCE, self.transport.close)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.untaken = self.loop.call_later(KEPT, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.untaken.cancel()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self.transport.abort()  # closing alone would wait for a client that takes nothing


class Workers(Multiprocess):
    """Uvicorn's supervisor, which replaces dead workers, and ends as a command of churnlab does."""

    stop: type[BaseException] | None = None

    def handle_int(self) -> None:
        super().handle_int()
        self.stop = KeyboardInterrupt

    def handle_term(self) -> None:
        super().handle_term()
        self.stop = Terminated

    def run_until_stopped(self) -> NoReturn:
        """Run until a signal comes, and raise it when all workers have answered and ended."""
        self.run()
        if self.stop is None:
            raise JobError("The workers do not start; serve.workers=1 shows more.")
        raise self.stop


def worker() -> App:
    """Return the application of a worker process, from the settings in its environment."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("churnlab").setLevel(os.environ.get("CHURNLAB_LOG", "INFO").upper())
    gc.freeze()  # what is imported by now
    settings = json.loads(os.environ[SETTINGS])
    keys = ServingKeys(**settings["keys"])
    try:
        current = _loaded(Source(*settings["source"]), keys)
    except Exception as error:  # the registry can fail in any way
        why = error if isinstance(error, (LookupError, InputError)) else type(error).__name__
        log.error("failed: a worker cannot be replaced: %s", why)
        time.sleep(1)
        sys.exit(1)  # to be tried again
    return _app(current, settings)


def _loaded(source: Source, keys: ServingKeys) -> Current:
    """Return the version of the server's start, or what its alias names now, as the others do.

    LookupError, InputError: there is neither.
    """
    try:
        current = Current(source, most_rows=keys.most_rows)
    except LookupError:  # it was deleted, or its files were
        if source.alias is None:
            raise
        now = resolve(f"models:/{source.name}@{source.alias}").uri
        return Current(source._replace(uri=now), most_rows=keys.most_rows)
    if source.alias is not None:
        current.look()  # it may have moved since the server was started
    return current


def _app(current: Current, settings: Mapping[str, Any]) -> App:
    """Return the application, and prepare this process for it."""
    from churnlab.serving.app import App, Limits, access

    warnings.simplefilter("ignore")  # they name columns that a client made up
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(logging.Formatter("%(message)s"))
    access.handlers, access.propagate = [lines], False
    # a registry that does not answer is tried again soon, by the next look
    for name, value in (("MAX_RETRIES", "1"), ("TIMEOUT", "10")):
        os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)
    keys, hosts = ServingKeys(**settings["keys"]), settings["hosts"]
    limits = Limits(
        keys.most_bytes,
        keys.seconds,
        keys.concurrency,
        None if hosts is None else frozenset(hosts),
        os.environ.get(TOKEN, "").encode(),
    )
    return App(current, limits, poll=keys.poll)


def _config(app: Any, keys: ServingKeys) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=keys.workers,
        loop="asyncio",
        http=Patient,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEPT,
        timeout_graceful_shutdown=int(keys.seconds) + DRAIN,
        timeout_worker_healthcheck=HUNG,
        h11_max_incomplete_event_size=LONGEST_HEAD,
    )
