"""Start servers as a user would, ours and MLflow's own, and send requests to them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import pytest

from support.forked import Fork, churnlab_as
from support.running import environment, forks


@contextmanager
def serving(home: Path, model_uri: str) -> Iterator[str]:
    """Run ``mlflow models serve`` in the home, where it finds the store; yield its address."""
    words = ["models", "serve", "-m", model_uri, "--env-manager", "local"]
    with _running(home, words, ready="ping") as (address, output):
        assert "WARNING" not in output.read_text(), output.read_text()
        yield address


@contextmanager
def ui(home: Path) -> Iterator[str]:
    """Run ``mlflow ui`` in the home, as ``make ui`` does; yield its address."""
    words = ["ui", "--backend-store-uri", "sqlite:///mlflow.db", "--workers", "1"]
    with _running(home, words, ready="health") as (address, _):
        yield address


@contextmanager
def _running(home: Path, words: list[str], *, ready: str) -> Iterator[tuple[str, Path]]:
    """Run ``mlflow WORDS`` on a free port until ``ready`` answers; yield its address and output."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    scripts = Path(sys.executable).parent
    settings = environment(home) | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    output = home.parent / f"served-{port}.txt"
    with output.open("w") as log:
        process = subprocess.Popen(
            [str(scripts / "mlflow"), *words, "--port", str(port)],
            cwd=home,
            env=settings,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/{ready}", process, output)
        yield address, output
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


class Server(NamedTuple):
    """A ``churnlab serve`` that answers: its address, process, and file of messages."""

    address: str
    process: subprocess.Popen[str] | Fork
    output: Path

    @property
    def port(self) -> int:
        """Return the port at which it listens."""
        return int(self.address.rpartition(":")[2])

    @property
    def log(self) -> list[dict[str, Any]]:
        """Return the lines of the access log so far."""
        text = self.output.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def wait_for(self, words: str) -> None:
        """Wait until the server has written these words."""
        for _ in range(300):
            if words in self.output.read_text(encoding="utf-8"):
                return
            time.sleep(0.1)
        pytest.fail(f"the server did not write {words!r}: {self.output.read_text()}")


@contextmanager
def forked_serve(home: Path, *words: str, **settings: str) -> Iterator[Server]:
    """Run ``churnlab serve WORDS`` in a fork, without the cost of its imports."""
    with NamedTemporaryFile(suffix=".err", delete=False, dir=home.parent) as log:
        output = Path(log.name)
    given = (home, environment(home, **settings), "", ("serve", "port=0", *words))
    process = Fork(forks(), churnlab_as, *given, output=output.with_suffix(""))
    yield from _answering(process, output)


@contextmanager
def churnlab_serve(home: Path, *words: str, **settings: str) -> Iterator[Server]:
    """Run ``churnlab serve WORDS`` on a free port until it answers; end it with SIGTERM."""
    with NamedTemporaryFile("w", suffix=".txt", delete=False, dir=home.parent) as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "churnlab", "serve", "port=0", *words],
            cwd=home,
            env=environment(home, **settings),
            stdout=log,
            stderr=log,
            text=True,
        )
    yield from _answering(process, Path(log.name))


def _answering(process: subprocess.Popen[str] | Fork, output: Path) -> Iterator[Server]:
    """Yield a server when it answers; end it with SIGTERM."""
    try:
        for _ in range(600):
            found = re.search(r"http://\S+:\d+", output.read_text(encoding="utf-8"))
            if found:
                break
            assert process.poll() is None, output.read_text()
            time.sleep(0.1)
        else:
            pytest.fail(f"the server did not start: {output.read_text()}")
        _wait_for(f"{found[0]}/ping", process, output)
        yield Server(found[0], process, output)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=60)


def _wait_for(address: str, process: subprocess.Popen[Any] | Fork, output: Path) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            assert process.poll() is None, output.read_text()
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"the server did not answer: {output.read_text()}")


def post(
    address: str, body: object, *, content: str = "application/json", path: str = "invocations"
) -> tuple[int, dict[str, Any]]:
    """Send a body to the server; return the status and the decoded answer."""
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{address}/{path}", data=data, headers={"Content-Type": content}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)
