"""Run commands that tests kill, and compare Optuna's journal with MLflow's store afterwards.

A command is a process in a session of its own, so that a test can kill everything that it started
and nothing else.
"""

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pandas as pd
import psutil
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from support.forked import Fork, churnlab_session
from support.running import Ended, artifact, environment, forks
from support.soak import RANDOM
from support.waiting import PATIENCE, until

SUPPORT = Path(__file__).parent
ENDED = {"FINISHED", "KILLED", "FAILED"}
FOLDS = 2
SMALL = ("dataset.rows=200", f"evaluation.folds={FOLDS}")

# Tests that run in the background ignore Ctrl-C, and so would everything that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Commands


class Command:
    """Run a command, and keep track of every process that it starts; its output goes to files.

    ``before`` is Python that the process runs first.
    """

    def __init__(self, home: Path, *words: str, root: Path | None = None, before: str = "") -> None:
        self.started = time.time()
        root = root or next(parent for parent in home.parents if parent.is_dir())
        self.output = root / "output" / str(time.monotonic_ns())
        self.output.parent.mkdir(parents=True, exist_ok=True)
        given = (root, environment(home), before, words)
        self.process = Fork(forks(), churnlab_session, *given, output=self.output)
        until(lambda: _session(psutil.Process(self.process.pid)) == self.process.pid, "a session")

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        for left in self.session():  # whether the test passed or failed
            left.kill()
        self.process.wait()

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def age(self) -> float:
        return time.time() - self.started

    @property
    def err(self) -> str:
        return Path(f"{self.output}.err").read_text()

    def workers(self) -> list[psutil.Process]:
        """Return the workers of its study that are alive."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [child for child in children if alive(child) and has_a_study(child)]

    def session(self) -> list[psutil.Process]:
        """Return all living processes of the command, orphans included."""
        return [
            process
            for process in psutil.process_iter()
            if _session(process) == self.process.pid and alive(process)
        ]

    def until(self, reached: Callable[[], Any], what: str) -> bool:
        """Wait for an event; return False if the command ended first."""
        try:
            until(lambda: reached() or not self.running, what)
        except AssertionError as error:
            error.add_note(self.err)
            raise
        return self.running

    def pause(self, seconds: float) -> bool:
        """Let it run for some time; return False if it ended first."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.running:
            time.sleep(0.005)
        return self.running

    def kill(self) -> None:
        """Kill the process itself, which must be alive."""
        self.process.kill()
        assert self.process.wait() == -signal.SIGKILL, f"it had ended before the kill: {self.err}"

    def kill_everything(self) -> None:
        """Kill it and all processes that it started, at once, in random order."""
        together = self.session()
        RANDOM.shuffle(together)
        for process in together:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        assert self.process.wait() == -signal.SIGKILL, f"it had ended before the kill: {self.err}"

    def ended(self) -> Ended:
        """Wait for its end, and return exit code and output."""
        self.process.wait(PATIENCE)
        out = Path(f"{self.output}.out").read_text().rstrip("\n")
        return Ended(self.process.returncode, out, self.err)


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(processes: list[psutil.Process]) -> bool:
    """Return whether all processes end by themselves within PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while left := [process for process in processes if alive(process)]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return not left


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return None


def has_a_study(process: psutil.Process) -> bool:
    """Return whether a process holds the lock of a study, which workers inherit."""
    with suppress(psutil.Error):
        files = [Path(file.path) for file in process.open_files()]
        return any((file.parent.name, file.suffix) == ("studies", ".lock") for file in files)
    return False


# Models and their notes


def own_model(root: Path, name: str, space: dict[str, Any], **estimator: Any) -> tuple[str, ...]:
    """Write a model of support/estimators.py into ``root``/own; return the words that select it.

    ``space`` maps parameters to a list of choices or to the ends of a range.
    """
    kinds = {
        True: lambda given: {
            "_target_": "optuna.distributions.CategoricalDistribution",
            "choices": given,
        },
        False: lambda given: {
            "_target_": "optuna.distributions.FloatDistribution",
            "low": given[0],
            "high": given[1],
        },
    }
    model = {
        "name": name,
        "scale": False,
        "estimator": {
            "_target_": "estimators.Sleeper",
            "notes": str(root / f"{name}.jsonl"),
            **estimator,
        },
        "trusted": ["estimators.Sleeper"],
        "space": {key: kinds[isinstance(given, list)](given) for key, given in space.items()},
    }
    (root / "own/model").mkdir(parents=True, exist_ok=True)
    (root / "own/model" / f"{name}.yaml").write_text(yaml.safe_dump(model))
    return ("--config-dir", "own", f"model={name}", *SMALL)


def notes(root: Path, name: str, *, since: float = 0) -> list[dict[str, Any]]:
    """Return what estimators and tables noted in ``root``/NAME.jsonl."""
    path = root / f"{name}.jsonl"
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if line["at"] >= since]


# Trials and runs


def trials(home: Path, study: str | None = None) -> list[FrozenTrial]:
    """Return all trials in Optuna's journal, of the only study or of a named one."""
    logs = [path for path in (home / "studies").glob("*.log") if study in (None, path.stem)]
    if not logs:
        return []
    (log,) = logs
    storage = JournalStorage(JournalFileBackend(str(log)))
    names = optuna.study.get_all_study_names(storage)
    if not names:
        return []
    assert names == [log.stem]
    return optuna.load_study(study_name=log.stem, storage=storage).get_trials(deepcopy=False)


def in_state(found: list[FrozenTrial], state: str) -> list[FrozenTrial]:
    return [trial for trial in found if trial.state.name == state]


def dead(found: list[FrozenTrial]) -> list[FrozenTrial]:
    """Return the killed attempts: not those whose fit failed, nor surplus ones."""
    return [
        trial
        for trial in in_state(found, "FAIL")
        if not {"error", "surplus"} & trial.user_attrs.keys()
    ]


def runs(home: Path, command: str | None = None, study: str | None = None) -> list[Any]:
    """Return the runs in the store, oldest first."""
    if not (home / "mlflow.db").exists():
        return []
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found: list[Any] = []
    token = None
    while True:
        page = client.search_runs(
            experiments, order_by=["attributes.start_time ASC"], page_token=token
        )
        found += page
        token = page.token
        if not token:
            break
    tags = {"churnlab.command": command, "churnlab.study": study}
    wanted = {key: value for key, value in tags.items() if value is not None}
    return [run for run in found if wanted.items() <= run.data.tags.items()]


class Kept(NamedTuple):
    """The complete trials, in Optuna's journal and MLflow's store: a kill must not change them."""

    complete: dict[int, tuple[dict[str, Any], float, str]]
    finished: dict[str, float]


def kept(home: Path) -> Kept:
    """Return the trials that are complete now."""
    complete = in_state(trials(home), "COMPLETE")
    finished = [run for run in runs(home, "trial") if run.info.status == "FINISHED"]
    return Kept(
        {
            trial.number: (trial.params, float(trial.value), trial.user_attrs["run_id"])
            for trial in complete
        },
        {run.info.run_id: run.data.metrics["cv_log_loss"] for run in finished},
    )


def unchanged(before: Kept, after: Kept) -> bool:
    """Return whether all trials that were complete before are still the same."""
    return (
        before.complete.items() <= after.complete.items()
        and before.finished.items() <= after.finished.items()
    )


def assert_logged(complete: list[FrozenTrial], finished: dict[str, Any]) -> None:
    """Assert that the finished runs, by id, are those of the complete trials, with their values."""
    assert {trial.user_attrs["run_id"] for trial in complete} == set(finished)
    for trial in complete:
        run = finished[trial.user_attrs["run_id"]]
        assert run.data.tags["churnlab.trial"] == str(trial.number)
        assert run.data.params == {key: str(value) for key, value in trial.params.items()}
        assert run.data.metrics["cv_log_loss"] == trial.value


def check_promise(
    home: Path, n: int, ended: Ended, *, study: str | None = None
) -> list[FrozenTrial]:
    """Check promise 1: n complete trials, n FINISHED trial runs, one parent, nothing RUNNING.

    Return the trials in Optuna's journal.
    """
    assert ended.code == 0, ended.err
    found, everything = trials(home, study), runs(home)
    complete = in_state(found, "COMPLETE")
    assert {trial.state.name for trial in found} <= {"COMPLETE", "FAIL"}
    assert {run.info.status for run in everything} <= ENDED

    attempts = runs(home, "trial", study)
    finished = {run.info.run_id: run for run in attempts if run.info.status == "FINISHED"}
    assert len(complete) == len(finished) == n == ended.line["n_complete"]
    assert_logged(complete, finished)
    killed = dead(found)
    tried = [trial.params for trial in found if trial not in killed]
    for trial in killed:
        assert not trial.params or trial.params in tried, "not tried again"
        logged = [run for run in attempts if run.info.run_id == trial.user_attrs.get("run_id")]
        params = {key: str(value) for key, value in trial.params.items()}
        assert [(run.info.status, run.data.params) for run in logged] in ([], [("KILLED", params)])

    (parent,) = runs(home, "tune", study)
    assert (parent.info.status, parent.info.run_id) == ("FINISHED", ended.line["run_id"])
    assert {run.data.tags["mlflow.parentRunId"] for run in attempts} == {parent.info.run_id}
    table = pd.read_csv(artifact(parent, "trials.csv"))
    assert table["state"].tolist().count("COMPLETE") == n
    best = [run for run in everything if run.info.run_id == ended.line["best_run_id"]]
    assert [(run.info.status, run.data.tags["mlflow.parentRunId"]) for run in best] == [
        ("FINISHED", parent.info.run_id)
    ]
    assert ended.line["best_value"] == min(trial.value for trial in complete)
    return found
