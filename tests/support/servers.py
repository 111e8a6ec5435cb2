"""MLflow's own scoring server, started as a user would and asked over HTTP."""

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
    """The address of ``mlflow models serve``, started from the home with the store's own defaults."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    scripts = Path(sys.executable).parent
    settings = environment(home) | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    said = home.parent / f"served-{port}.txt"
    words = ["models", "serve", "-m", model_uri, "--env-manager", "local", "--port", str(port)]
    with said.open("w") as log:
        process = subprocess.Popen(
            [str(scripts / "mlflow"), *words],
            cwd=home,
            env=settings,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address, process, said)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def _wait_for(address: str, process: subprocess.Popen[bytes], said: Path) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(f"{address}/ping", timeout=5).close()
        except OSError:
            assert process.poll() is None, said.read_text()
            time.sleep(0.5)
        else:
            assert "WARNING" not in said.read_text(), said.read_text()
            return
    pytest.fail(f"the server did not answer: {said.read_text()}")


def ask(
    address: str, body: object, *, content: str = "application/json"
) -> tuple[int, dict[str, Any]]:
    """What the server says to a body: status and answer."""
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{address}/invocations", data=data, headers={"Content-Type": content}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)
