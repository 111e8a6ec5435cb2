"""Start MLflow's own servers as a user would, and send requests to them."""

import json
import os
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
from typing import Any

import pytest

from support.running import environment


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


def _wait_for(address: str, process: subprocess.Popen[bytes], output: Path) -> None:
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
