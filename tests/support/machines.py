"""Several machines on one: homes of their own that share a PostgreSQL and an MLflow server, with a
link in between that a test can cut."""

import os
import select
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.pool import NullPool

from support.killing import Command, assert_logged, in_state, notes, own_model
from support.mlflow_server import MlflowServer
from support.postgres import Postgres, free_port
from support.running import Ended
from support.waiting import until

HEARTBEAT, GRACE = 0.5, 3
"""Seconds between two signs of life of a worker, and after which a silent one loses its trial."""


class Link:
    """A proxy in front of a server; while it is cut, it drops what it has and takes nothing."""

    def __init__(self, port: int) -> None:
        self.target, self.port = port, free_port()
        self.is_cut = False
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> int:
        """Break off all connections and take no new one; return how many there were."""
        pairs = until(lambda: list(self._pairs), "a connection")
        self.is_cut = True
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        return len(pairs)

    def mend(self) -> None:
        """Take connections again."""
        self.is_cut = False

    def close(self) -> None:
        self.is_cut = True
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.is_cut:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:  # the server itself is down
                near.close()
                continue
            threading.Thread(target=self._forward, args=[near, far], daemon=True).start()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        self._pairs.add((near, far))
        other = {near: far, far: near}
        with near, far, suppress(OSError):
            while not self.is_cut:
                for end in select.select([near, far], [], [], 0.2)[0]:
                    got = end.recv(65536)
                    if not got:
                        self._pairs.discard((near, far))
                        return
                    if not self.is_cut:
                        other[end].sendall(got)
        self._pairs.discard((near, far))


class Shared:
    """What two machines share: a database of studies, an MLflow server, a folder of tables."""

    def __init__(self, root: Path, postgres: Postgres, tracking: str, database: str) -> None:
        self.root, self.postgres, self.tracking = root, postgres, tracking
        self.database, self.url = database, postgres.url(database)

    @property
    def client(self) -> Any:
        """Return MLflow's client for the shared store, which a command must have made."""
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        from mlflow import MlflowClient

        return MlflowClient(self.tracking)

    def tune(self, machine: str, *words: str, link: Link | None = None) -> Command:
        """Start churnlab tune on a machine, a home of its own."""
        home = self.root / machine
        home.mkdir(exist_ok=True)
        shared = (*self.words(link), f"tracking.uri={self.tracking}")
        return Command(home, "tune", *words, *shared, root=self.root)

    def words(self, link: Link | None = None) -> tuple[str, ...]:
        """Return the words that keep studies in the shared database."""
        url = self.url
        if link is not None:
            url = url.replace(f":{self.postgres.port}/", f":{link.port}/")
        times = (f"storage.heartbeat={HEARTBEAT}", f"storage.grace={GRACE}")
        return ("storage=postgres", f"storage.url={url}", *times)

    def model(self, *, seconds: float) -> tuple[str, ...]:
        """Return the words of a model whose fits take some time."""
        return own_model(self.root, "sleeper", {"x": (0.0, 1.0)}, seconds=seconds)

    def trials(self) -> list[FrozenTrial]:
        """Return all trials of the only study; [] before it is made."""
        with self.postgres.connect(self.database) as connection:
            made = "SELECT to_regclass('alembic_version') IS NOT NULL"
            if not connection.execute(made).fetchone()[0]:
                return []
            names = [name for (name,) in connection.execute("SELECT study_name FROM studies")]
        if not names:
            return []
        storage = RDBStorage(
            self.url.replace("postgresql:", "postgresql+psycopg:"),
            {"poolclass": NullPool},
            skip_table_creation=True,
        )
        (name,) = names
        return optuna.load_study(study_name=name, storage=storage).get_trials()

    def runs(self, command: str) -> list[Any]:
        """Return the runs of a command, oldest first."""
        kinds = [kind.experiment_id for kind in self.client.search_experiments()]
        condition = f"tags.`churnlab.command` = '{command}'"
        return self.client.search_runs(
            kinds, condition, max_results=5000, order_by=["attributes.start_time ASC"]
        )

    def busy(self, command: Command) -> tuple[psutil.Process, FrozenTrial] | None:
        """Return a process of a command that fits a trial now, and the trial; None if none does."""
        processes = {process.pid: process for process in command.session()}
        running = in_state(self.trials(), "RUNNING")
        fits = {line["x"]: line["pid"] for line in notes(self.root, "sleeper")}
        for trial in running:
            pid = fits.get(trial.params.get("x"))
            if pid in processes and "run_id" in trial.user_attrs:
                return processes[pid], trial
        return None

    def run_of(self, trial: FrozenTrial) -> Any:
        """Return the run of a trial; None if it has none yet."""
        run_id = trial.user_attrs.get("run_id")
        return run_id and self.client.get_run(run_id)

    def check(self, n: int, *ended: Ended) -> list[FrozenTrial]:
        """Check that the study has n trials, over all machines, with a run of its own for each
        attempt, one parent, one best run, and nothing RUNNING; return its trials."""
        assert {end.code for end in ended} == {0}, [end.err for end in ended]
        found = self.trials()
        assert {trial.state.name for trial in found} <= {"COMPLETE", "FAIL"}
        complete = in_state(found, "COMPLETE")
        runs = self.runs("trial")
        finished = {run.info.run_id: run for run in runs if run.info.status == "FINISHED"}
        assert len(complete) == len(finished) == n
        assert_logged(complete, finished)
        numbers = Counter(run.data.tags["churnlab.trial"] for run in runs)
        assert set(numbers.values()) == {1}, "an attempt has several runs"
        assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
        repeats = Counter(trial.user_attrs.get("repeats") for trial in found)
        assert all(count == 1 for number, count in repeats.items() if number is not None)
        assert "RUNNING" not in {run.info.status for run in self.runs("train")}
        (parent,) = self.runs("tune")
        assert parent.info.status == "FINISHED"
        assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {parent.info.run_id}
        (best,) = [run for run in self.runs("train") if run.info.status == "FINISHED"]
        for end in ended:
            assert end.line["run_id"] == parent.info.run_id
            assert (end.line["n_complete"], end.line["best_run_id"]) == (n, best.info.run_id)
        return found

    def states(self) -> dict[str, set[str]]:
        """Return the states of trials, and the statuses of runs by command."""
        found = {command: self.runs(command) for command in ("tune", "trial", "train")}
        statuses = {key: {run.info.status for run in runs} for key, runs in found.items()}
        return {"study": {trial.state.name for trial in self.trials()}} | statuses


@contextmanager
def sharing(root: Path, postgres: Postgres, database: str) -> Iterator[Shared]:
    """Start an MLflow server for two machines; yield what they share."""
    folder = root / "server"
    folder.mkdir()
    server = MlflowServer(folder, f"sqlite:///{folder}/mlflow.db")
    server.start()
    try:
        yield Shared(root, postgres, server.address, database)
    finally:
        server.kill()
