"""A signal at any moment of a run: the run ends as KILLED, and nothing keeps the store locked."""

import subprocess
import sys

import pytest

from support.running import environment
from support.soak import SOAK

pytestmark = pytest.mark.slow

POINTS = 1500 if SOAK else 100

STOPPED_AT_MANY_POINTS = """
import gc, os, signal, sqlite3, sys, time
from pathlib import Path
import mlflow
from churnlab.errors import Terminated
from churnlab.tracking import processes, runs, store

home, points = Path(sys.argv[1]), int(sys.argv[2])
store.open_store(None, home=home)
processes.raise_on_signals()
outer = mlflow.start_run(experiment_id=runs.experiment_id("members-churn"))


def attempt(point):
    "Send SIGTERM in the call of this number; return how many calls there were."
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event == "call"
        if calls == point:
            sys.setprofile(None)
            os.kill(os.getpid(), signal.SIGTERM)

    sys.setprofile(count)
    try:
        with runs.start_run("train", {"seed": 0}, name="any", dataset_name="members"):
            mlflow.log_metric("any", 1)
        if point > 0:
            time.sleep(1)  # Python drops what is raised in a destructor, and the signal comes again
            raise AssertionError(f"the signal at call {point} did not hit")
    except Terminated:
        with sqlite3.connect(home / "mlflow.db", timeout=0) as database:
            database.execute("BEGIN EXCLUSIVE")
            database.rollback()
    finally:
        sys.setprofile(None)
    gc.collect()  # what a process that ends would let go
    assert mlflow.active_run().info.run_id == outer.info.run_id
    return calls


calls = min(attempt(-1), attempt(-1), attempt(-1))  # later ones find more in caches
for point in range(1, int(0.9 * calls), max(1, calls // points)):
    attempt(point)
found = mlflow.search_runs([outer.info.experiment_id], output_format="list", max_results=5000)
states = [run.info.status for run in found if run.info.run_id != outer.info.run_id]
finished = states.count("FINISHED")  # the first three, and those of such a destructor
print(set(states) == {"FINISHED", "KILLED"} and finished < 0.1 * len(states) + 4, set(states))
"""


def test_a_run_that_is_stopped_in_any_call_is_killed_and_leaves_no_lock(home):
    home.mkdir(exist_ok=True)
    words = [sys.executable, "-c", STOPPED_AT_MANY_POINTS, str(home), str(POINTS)]
    ended = subprocess.run(words, env=environment(home), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("True "), ended.stdout
