"""Runs that begin at the same moment in one store."""

import subprocess
import sys

from support.running import environment

BEGIN_TOGETHER = """
import sys, time
from pathlib import Path
import numpy as np, pandas as pd
from churnlab.data.contract import Column, Contract
from churnlab.data.dataset import make_dataset
from churnlab.data.table import in_memory
from churnlab.tracking import runs, store

home, rounds, ready = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
store.open_store(None, home=home)
contract = Contract("members", "left", 1, columns={"age": Column("numeric")})
for number in range(rounds):
    age, left = np.arange(40.0) + number, np.arange(40) % 3 == 0
    table = in_memory(pd.DataFrame({"age": age, "left": left.astype(int)}), source="invented")
    dataset = make_dataset(table, contract)
    ready.with_suffix(f".{number}").touch()
    given_up = time.monotonic() + 60
    while not all(ready.parent.joinpath(f"{n}.{number}").exists() for n in "012"):
        time.sleep(0.001)
        assert time.monotonic() < given_up, "another process has ended"
    with runs.start_run("train", {"seed": number}, name="any", dataset=dataset):
        pass
"""


def test_runs_that_log_a_new_table_at_the_same_moment_all_go_on(home, tmp_path, runs_at):
    home.mkdir(exist_ok=True)
    words = [sys.executable, "-c", BEGIN_TOGETHER, str(home), "15"]
    started = [
        subprocess.Popen(
            [*words, str(tmp_path / name)], env=environment(home), stderr=subprocess.PIPE, text=True
        )
        for name in "012"
    ]
    errors = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], errors
    found = runs_at(home, command="train")
    assert len(found) == 45
    assert {len(run.inputs.dataset_inputs) for run in found} == {1}
    assert {run.info.status for run in found} == {"FINISHED"}
