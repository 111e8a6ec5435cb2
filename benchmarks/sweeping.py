"""Run a sweep of light jobs one after another and by two workers: ``python sweeping.py``.

``--engine dask``: by one worker and by two of a Dask cluster on this machine.

Each contender is a process of its own with a store of its own, once a round; rounds interleave
them. ``cpu`` is that of all its processes. ``chain`` is the CPU that cannot run side by side: that
of the process that imports (or of the one that does everything) and of the busiest worker. On idle
cores the wall time comes close to it; on a busy machine only ``cpu`` and ``chain`` mean something.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

import psutil

CONTENDERS = {
    "processes": {
        "one after another": ("engine=inline",),
        "two workers": ("engine=processes", "engine.workers=2"),
    },
    "dask": {
        "one worker": ("engine=dask", "engine.workers=1"),
        "two workers": ("engine=dask", "engine.workers=2"),
    },
}
UNITS = ("wall", "cpu", "chain")


def sweep(words: list[str]) -> dict[str, float]:
    """Run ``churnlab WORDS`` in a new store; return its seconds by unit."""
    with tempfile.TemporaryDirectory() as home:
        started = time.monotonic()
        command = subprocess.Popen(
            [sys.executable, "-m", "churnlab", *words],
            env=os.environ | {"CHURNLAB_HOME": home},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        used: dict[int, float] = {}
        parents: dict[int, int] = {}
        while command.poll() is None:
            with suppress(psutil.Error):
                leader = psutil.Process(command.pid)
                for process in [leader, *leader.children(recursive=True)]:
                    times = process.cpu_times()
                    used[process.pid] = times.user + times.system
                    parents[process.pid] = process.ppid()
            time.sleep(0.2)
        wall = time.monotonic() - started
        assert command.stderr is not None
        if command.returncode != 0:
            sys.exit(command.stderr.read())
    chains = [sum(used[pid] for pid in line(pid, parents, command.pid)) for pid in used]
    return {"wall": wall, "cpu": sum(used.values()), "chain": max(chains)}


def line(pid: int, parents: dict[int, int], leader: int) -> list[int]:
    """Return a process and those above it, without a leader that has workers: it only waits."""
    above = [pid]
    while parents.get(above[-1]) in parents and parents[above[-1]] != leader:
        above.append(parents[above[-1]])
    return above


def main() -> None:
    """Print a line per contender and round, then the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", choices=CONTENDERS, default="processes")
    given = parser.parse_args()
    contenders = CONTENDERS[given.engine]
    values = ",".join(str(round(0.01 * 1.5**number, 6)) for number in range(given.jobs))
    words = ["train", "-m", f"dataset.rows={given.rows}", f"model.estimator.C={values}"]
    times: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for number in range(given.rounds):
        for name, engine in sorted(contenders.items(), reverse=bool(number % 2)):
            load = os.getloadavg()[0]
            times[name].append(sweep([*words, *engine]))
            print(json.dumps({"contender": name, **times[name][-1], "load": load}), flush=True)
    for unit in UNITS:
        first, second = (statistics.median(run[unit] for run in times[name]) for name in contenders)
        both = zip(contenders, (first, second), strict=True)
        print(f"{unit}: {', '.join(f'{took:.1f} s {name}' for name, took in both)}, ", end="")
        print(f"ratio {second / first:.2f}")


if __name__ == "__main__":
    main()
