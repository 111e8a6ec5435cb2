"""Measure what a logged train run costs against a bare script: ``python training.py``.

    python benchmarks/training.py --rounds 5           a few minutes
    CHURNLAB_GYM=FILE python benchmarks/training.py    on a table instead of generated members

Whole processes in turns: bare.py, which does the same with pandas, scikit-learn, matplotlib and
skops, its short form, and ``churnlab train`` in a store that exists; then all of them with further
runs in the same process. Medians of CPU seconds (user and system, children included) are compared.
It reports and asserts nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
CHURNLAB, BARE, SHORT = "churnlab train", "bare script", "short bare script"

Command = list[str]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=6, help="runs in one process")
    options = parser.parse_args()
    with members() as table, tempfile.TemporaryDirectory() as home:
        values = [str(round(0.1 * 1.5**number, 4)) for number in range(options.jobs)]
        commands = {
            (name, len(given)): command(name, table, given)
            for given in (values[:1], values)
            for name in (CHURNLAB, BARE, SHORT)
        }
        report(measure(commands, Path(home), rounds=options.rounds), options.jobs)


def command(name: str, table: Path, values: list[str]) -> Command:
    """Return a contender's command for one run per value of C, in one process."""
    if name != CHURNLAB:
        script = str(Path(__file__).with_name("bare.py"))
        return [
            sys.executable,
            script,
            str(table),
            ",".join(values),
            *["--short"] * (name == SHORT),
        ]
    words = ["dataset=gym", f"dataset.path={table}", f"model.estimator.C={','.join(values)}"]
    sweep = ["-m", "force=true"] if len(values) > 1 else []
    return [sys.executable, "-m", "churnlab", "train", *sweep, *words]


Measured = dict[tuple[str, int], list[float]]


def measure(commands: dict[tuple[str, int], Command], home: Path, *, rounds: int) -> Measured:
    """Run all commands in turns; return the CPU seconds of each round. A first round warms up."""
    measured: Measured = {key: [] for key in commands}
    for number in range(-1, rounds):
        for key, command in sorted(commands.items(), reverse=bool(number % 2)):
            seconds = cpu_seconds(command, home)
            if number >= 0:
                measured[key].append(seconds)
                print(f"{key[0]}, runs {key[1]}: {seconds:.2f} s", file=sys.stderr, flush=True)
    return measured


def cpu_seconds(command: Command, home: Path) -> float:
    """Return the CPU seconds of a command and its children."""
    environment = {key: os.environ[key] for key in os.environ if key != "PYTHONDONTWRITEBYTECODE"}
    environment |= ONE_THREAD | {"CHURNLAB_HOME": str(home)}
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, cwd=home, **quiet) as process:
        assert process.stderr is not None
        shown = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(shown)
    return used.ru_utime + used.ru_stime


def report(measured: Measured, jobs: int) -> None:
    """Print the medians and their ratios, for a run and for each further one."""
    one = {name: median(measured[name, 1]) for name in (CHURNLAB, BARE, SHORT)}
    more = {
        name: median(
            (several - single) / (jobs - 1)
            for several, single in zip(measured[name, jobs], measured[name, 1], strict=True)
        )
        for name in one
    }
    for what, seconds, limit in (("one run", one, 1.65), ("each further job", more, 1.3)):
        print(
            f"- {what}: {seconds[CHURNLAB]:.2f} s of CPU, target at most {limit:g} times the bare "
            "script's"
        )
        for name in (BARE, SHORT):
            ratio = seconds[CHURNLAB] / seconds[name]
            print(f"  - {name}: {seconds[name]:.2f} s, ratio {ratio:.2f}")


@contextmanager
def members() -> Iterator[Path]:
    """Yield the CSV of CHURNLAB_GYM, or one of 4,000 generated members."""
    if table := os.environ.get("CHURNLAB_GYM"):
        yield Path(table).absolute()
        return
    from churnlab.data.demo import members as generated

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "members.csv"
        generated(4000).to_csv(path, index=False)
        yield path


if __name__ == "__main__":
    main()
