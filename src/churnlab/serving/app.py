"""Answer HTTP requests with the current version: routes, limits, the access log.

A plain ASGI application: each request takes the current version once, at its start, so that the
header X-Churnlab-Version and the answer belong together.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from importlib.metadata import version as installed
from typing import Any, NamedTuple

import orjson

from churnlab.serving import metrics
from churnlab.serving.current import Current, Version
from churnlab.serving.requests import Answers, Refusal

log = logging.getLogger(__name__)
access = logging.getLogger("churnlab.access")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

ROUTES = {
    "/invocations": "POST",
    **dict.fromkeys(("/ping", "/health", "/version", "/metrics", "/openapi.json"), "GET"),
}
"""The method of each path; GET includes HEAD."""

OPEN = "/ping"
"""Answers also without the token and under any name: it says no more than that the server lives."""

CHURNLAB = installed("churnlab")

JSON, TEXT = b"application/json", b"text/plain; charset=utf-8"

SMALL = 32 * 1024
"""Bytes: a body up to this is answered in the event loop, which takes less than a thread's turn."""

MOST_HEADERS = 12 * 1024
"""Bytes of all headers together."""

OF_STATUS = {
    401: [(b"www-authenticate", b"Bearer")],
    408: [(b"connection", b"close")],
    503: [(b"retry-after", b"1")],
}
"""The headers of refusals, by status."""


class Limits(NamedTuple):
    """What a request may be: bytes of the body, seconds that it may take to arrive, requests at the
    same time, the names of this server (None: any), and the token that it must know (b"": none)."""

    most_bytes: int
    seconds: float
    concurrency: int
    hosts: frozenset[str] | None
    token: bytes


class Answer(NamedTuple):
    """An answer to be sent; ``reason`` is that of a refusal."""

    body: bytes
    status: int = 200
    content: bytes = JSON
    rows: int = 0
    reason: str | None = None


class Disconnected(Exception):
    """The client has gone before its request was complete."""


class App:
    """Answer requests with ``current`` within the limits; look at its alias every ``poll`` seconds
    while the server runs."""

    def __init__(self, current: Current, limits: Limits, *, poll: float) -> None:
        self.current, self.limits, self.poll = current, limits, poll
        self.inside = 0
        self.shown = current.version
        current.events = self._count_event
        self._count_event("started")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or follow the start and the end of the server."""
        if scope["type"] == "lifespan":
            return await self._live(receive, send)
        started, version, status = time.perf_counter(), self.current.version, 499
        answer = Answer(b"", reason="disconnected")
        self.inside += 1
        try:
            answer = await self._answer(scope, receive, version)
            status = answer.status
            await _send(send, answer, scope["path"], version)
        except Disconnected:
            pass
        finally:
            self.inside -= 1
            self._record(scope, answer, status, version, time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, version: Version) -> Answer:
        try:
            headers = self._checked_headers(scope)
            path = scope["path"]
            if path == "/invocations":
                return await self._invoke(headers, receive, version)
            return self._tell(path, version)
        except Refusal as refusal:
            body = orjson.dumps(refusal.body)
            return Answer(body, refusal.status, reason=refusal.body["reason"])
        except (Disconnected, asyncio.CancelledError):
            raise
        except Exception as error:  # a bug: the log says where, the client only that it is ours
            log.exception("error: %s on %s", type(error).__name__, _known(scope["path"]))
            found = {"error_code": "INTERNAL_ERROR", "message": "The server has failed."}
            return Answer(orjson.dumps(found), 500, reason="bug")

    def _checked_headers(self, scope: Scope) -> dict[bytes, bytes]:
        """Return the headers of a request; refuse one that is not for us, or not now."""
        path, limits = scope["path"], self.limits
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if path != OPEN:
            if self.inside > limits.concurrency:
                raise refusal(503, "busy", "The server is busy; try again in a second.")
            if limits.hosts is not None and _host(headers) not in limits.hosts:
                raise refusal(403, "host", "The Host header names none of serve.hosts.")
            given = headers.get(b"authorization", b"")
            if limits.token and not hmac.compare_digest(given, b"Bearer " + limits.token):
                raise refusal(401, "token", "Send the header Authorization: Bearer TOKEN.")
        if path not in ROUTES:
            raise refusal(404, "path", f"There is no such path; there are {', '.join(ROUTES)}.")
        method = ROUTES[path]
        if scope["method"] != method and (scope["method"], method) != ("HEAD", "GET"):
            raise refusal(405, "method", f"{path} answers {method}.")
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEADERS:
            text = f"The headers have more than {MOST_HEADERS:,} bytes."
            raise refusal(431, "headers", text)
        return headers

    async def _invoke(
        self, headers: dict[bytes, bytes], receive: Receive, version: Version
    ) -> Answer:
        """Answer the members in a body. Small bodies are answered at once, others in a thread."""
        ask = _reader(headers, version)
        body = await self._read(headers, receive)
        if len(body) <= SMALL:
            answers, encoded = _answered(ask, body)
        else:
            answers, encoded = await asyncio.to_thread(_answered, ask, body)
        metrics.count_answers(version.number, answers)
        return Answer(encoded, rows=len(answers))

    async def _read(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """Return the body. Refusal: it is too long or too slow."""
        length, most = headers.get(b"content-length", b"0"), self.limits.most_bytes
        too_long = refusal(413, "bytes", f"The body has more than {most:,} bytes.")
        if not length.isdigit() or len(length) > 15 or int(length) > most:
            raise too_long
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.limits.seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Disconnected
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise too_long
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            text = f"The body did not arrive within {self.limits.seconds:g} seconds."
            raise refusal(408, "slow", text) from None

    def _tell(self, path: str, version: Version) -> Answer:
        """Answer a question about the server."""
        if path == "/metrics":
            return Answer(metrics.exposition(), content=metrics.CONTENT)
        if path == "/openapi.json":
            most_bytes, token = self.limits.most_bytes, bool(self.limits.token)
            return Answer(version.described(most_bytes=most_bytes, token=token))
        if path == "/version":
            return Answer(orjson.dumps(self._state(version)))
        return Answer(b"\n", content=TEXT)

    def _state(self, version: Version) -> dict[str, Any]:
        current = self.current
        refused = current.refused and dict(zip(("version", "reason"), current.refused, strict=True))
        return {
            "model": version.name,
            "version": version.number,
            "since": version.since,
            "follows": current.source.alias,
            "refused": refused,
            "registry": "reachable" if current.reachable else "unreachable",
            "churnlab": CHURNLAB,
        }

    async def _live(self, receive: Receive, send: Send) -> None:
        """Follow the alias from the start of the server to its end."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.current.follow(self.poll)
                await send({"type": "lifespan.startup.complete"})
            else:
                self.current.leave()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _count_event(self, event: str) -> None:
        """Let the metrics say which version answers, and whether the registry can be reached."""
        if event in ("swapped", "refused"):
            metrics.SWAPS.labels(event).inc()
        before, now = self.shown, self.current.version
        metrics.WORKERS.labels(before.name, before.number).set(0)
        metrics.WORKERS.labels(now.name, now.number).set(1)
        metrics.UNREACHABLE.set(not self.current.reachable)
        self.shown = now

    def _record(
        self, scope: Scope, answer: Answer, status: int, version: Version, seconds: float
    ) -> None:
        """Count the request and log it, without what a client wrote."""
        path = _known(scope["path"])
        metrics.count_request(path, status, seconds, answer.reason)
        if not access.isEnabledFor(logging.INFO):
            return
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "method": scope["method"] if scope["method"] in METHODS else "other",
            "path": path,
            "status": status,
            "ms": round(seconds * 1000, 2),
            "rows": answer.rows,
            "bytes": len(answer.body),
            "version": version.number,
        }
        shown = line if answer.reason is None else line | {"reason": answer.reason}
        access.info(orjson.dumps(shown).decode())


METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
"""The methods that the log names."""


def refusal(status: int, reason: str, message: str) -> Refusal:
    """Return the refusal of a request because of what is around its body."""
    code = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "ENDPOINT_NOT_FOUND"}
    code |= {503: "TEMPORARILY_UNAVAILABLE"}
    return Refusal(message, reason, status=status, error_code=code.get(status, "BAD_REQUEST"))


def _reader(headers: dict[bytes, bytes], version: Version) -> Callable[[bytes], Answers]:
    """Return what reads a body of this content type. Refusal: nothing does."""
    given, _, parameters = headers.get(b"content-type", b"").lower().partition(b";")
    charset = parameters.strip().removeprefix(b"charset=").strip(b'"')
    readers = {JSON: version.invocations.json, b"text/csv": version.invocations.csv}
    plain = headers.get(b"content-encoding", b"identity").lower() == b"identity"
    if given.strip() not in readers or charset not in (b"", b"utf-8", b"utf8") or not plain:
        text = (
            "Set the header Content-Type to application/json or text/csv; the body is UTF-8 "
            "and not compressed."
        )
        raise refusal(415, "content", text)
    return readers[given.strip()]


def _answered(ask: Callable[[bytes], Answers], body: bytes) -> tuple[Answers, bytes]:
    """Return the answers to a body, and as MLflow's server writes them."""
    answers = ask(body)
    return answers, orjson.dumps({"predictions": answers})


def _host(headers: dict[bytes, bytes]) -> str:
    """Return the name in the Host header, without the port.

    >>> _host({b"host": b"[::1]:5001"}), _host({b"host": b"LocalHost"})
    ('[::1]', 'localhost')
    """
    name = headers.get(b"host", b"").decode("latin-1").lower()
    return name if name.endswith("]") else name.rpartition(":")[0] or name


def _known(path: str) -> str:
    return path if path in ROUTES else "other"


async def _send(send: Send, answer: Answer, path: str, version: Version) -> None:
    headers = [
        (b"content-type", answer.content),
        (b"content-length", str(len(answer.body)).encode()),
        version.header,
        *OF_STATUS.get(answer.status, ()),
    ]
    if answer.status == 405:
        headers.append((b"allow", b"POST" if ROUTES[path] == "POST" else b"GET, HEAD"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": True})
    await send({"type": "http.response.body"})  # waits for most of a long answer to be taken
