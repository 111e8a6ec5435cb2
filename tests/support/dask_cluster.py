"""A real Dask cluster on loopback: ``dask scheduler`` and ``dask worker`` as processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from support.killing import SUPPORT, alive
from support.running import environment
from support.waiting import PATIENCE

QUIET = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "false",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "5s",
}
"""What Dask watches of itself costs a tenth of a core for as long as a cluster lives."""


class Cluster:
    """A scheduler and its workers; each worker has one thread and a nanny that restarts it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.root.mkdir(parents=True, exist_ok=True)
        self.processes: list[subprocess.Popen[bytes]] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"
        )
        self._wait_for(self.scheduler, "Scheduler at:")

    def worker(self, *words: str, **settings: str) -> subprocess.Popen[bytes]:
        """Start a worker, and wait until the scheduler knows it."""
        worker = self._start(
            *("worker", self.address, "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard"),
            *("--local-directory", str(self.root), *words),
            **settings,
        )
        self._wait_for(worker, "Registered to:")
        return worker

    def pids(self) -> list[int]:
        """Return the processes below the nannies, which do the tasks."""
        return [
            child.pid
            for nanny in self.processes[1:]
            if nanny.poll() is None
            for child in psutil.Process(nanny.pid).children()
            if alive(child) and "spawn_main" in " ".join(child.cmdline())
        ]

    def output(self, process: subprocess.Popen[bytes]) -> str:
        """Return what a process has written."""
        return (self.root / f"{self.processes.index(process)}.txt").read_text()

    def close(self) -> None:
        """End all processes by their ids, workers first."""
        for process in reversed(self.processes):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _start(self, *words: str, **settings: str) -> subprocess.Popen[bytes]:
        given = {"PYTHONPATH": str(SUPPORT), "CHURNLAB_HOME": ""} | settings
        variables: dict[str, Any] = environment(self.root, **QUIET, **given)
        with (self.root / f"{len(self.processes)}.txt").open("w") as output:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dask", *words],
                    cwd=self.root,
                    env=variables,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            )
        return self.processes[-1]

    def _wait_for(self, process: subprocess.Popen[bytes], words: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while words not in self.output(process):
            assert process.poll() is None, self.output(process)
            assert time.monotonic() < deadline, self.output(process)
            time.sleep(0.1)


@contextmanager
def dask_cluster(root: Path, *, workers: int) -> Iterator[Cluster]:
    """Run a scheduler and so many workers."""
    cluster = Cluster(root)
    try:
        for _ in range(workers):
            cluster.worker()
        yield cluster
    finally:
        cluster.close()
