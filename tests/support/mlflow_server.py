"""Run an MLflow server on PostgreSQL, as deploy/README.md says, and kill and start it at will."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.postgres import Postgres, free_port


class MlflowServer:
    """A server at one address for its whole life; ``artifacts`` is where it keeps files."""

    def __init__(self, folder: Path, backend: str) -> None:
        self.port, self.artifacts = free_port(), folder / "artifacts"
        self.address = f"http://127.0.0.1:{self.port}"
        self._log, self._backend = folder / "log", backend
        self._process: subprocess.Popen[bytes] | None = None
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        from mlflow import MlflowClient

        self.client = MlflowClient(self.address)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        words = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        words += ["--backend-store-uri", self._backend]
        words += ["--artifacts-destination", str(self.artifacts)]
        tools = Path(sys.executable).parent
        settings = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
        settings |= {"MLFLOW_DISABLE_TELEMETRY": "true"}
        settings |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(tools / "mlflow"), "server", *words],
                stdout=log,
                stderr=log,
                env=os.environ | settings,
                start_new_session=True,
            )
        for _ in range(1200):
            assert self._process.poll() is None, self._log.read_text()
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=5).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        pytest.fail(f"the server did not answer: {self._log.read_text()}")

    def kill(self) -> None:
        """Kill the server and its workers outright."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=60)

    def runs(self, command: str) -> list[Any]:
        """Return the runs of a command, oldest first."""
        kinds = [kind.experiment_id for kind in self.client.search_experiments()]
        return self.client.search_runs(
            kinds,
            f"tags.`churnlab.command` = '{command}'",
            max_results=5000,
            order_by=["attributes.start_time ASC"],
        )


@contextmanager
def mlflow_server(folder: Path, postgres: Postgres, database: str) -> Iterator[MlflowServer]:
    """Run a server whose backend is a database of PostgreSQL."""
    server = MlflowServer(folder, postgres.url(database))
    server.start()
    try:
        yield server
    finally:
        server.kill()
