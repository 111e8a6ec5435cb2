"""A store on which tests stop commands at their writes; it is put back before each try."""

import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from churnlab.data import demo
from support.forked import Forks, churnlab
from support.killing import has_a_study
from support.promises import Check, go_on, steps_ended
from support.running import THREE_SEGMENTS, Ended, environment
from support.soak import SEED, SOAK
from support.waiting import until
from support.write_faults import Call, Point, Tracer, points

WRITES = 200
"""How many of a command's calls that write a part of a state are points, in the long form."""

ROWS = ("dataset.rows=300",)
TRAINED = (*ROWS, "evaluation.folds=2")
PROMOTE = ("promote", *TRAINED, "require=not_worse", "force=true", "reason=once more")
SEGMENT = ("segment", *ROWS, *THREE_SEGMENTS)
TUNE = ("tune", *TRAINED, "tune.n_trials=3")
FIX = ("doctor", "fix=true")

MADE = (
    *(("train", *TRAINED), SEGMENT, ("promote", *TRAINED), PROMOTE, PROMOTE),
    *(("rollback", "dry_run=true"), ("doctor",)),
)
"""The commands that make the store."""

RAW = re.compile(r"Traceback|sqlite3|sqlalche|\[SQL|INSERT|UPDATE|SELECT|Errno|Exception|Error:")
"""What no user may see: words of the libraries."""


class FaultedStore:
    """A store with three versions in ``home``, and ``scored``, where a table is scored to."""

    def __init__(self, root: Path, forks: Forks) -> None:
        self.root, self.forks = root, forks
        self.home, self.scored = root / "home", root / "scored"

    def restore(self) -> None:
        """Put the store back into its first state."""
        for folder in (self.home, self.scored):
            shutil.rmtree(folder, ignore_errors=True)
        subprocess.run(["cp", "-a", self.root / "kept", self.home], check=True)
        self.scored.mkdir()

    def run(
        self, words: tuple[str, ...], point: Point | None = None, *, worker: bool = False
    ) -> tuple[Ended, list[str]]:
        """Run a command under strace, or the first of its workers; return how the command ended
        and the trace."""
        output = self.root / "tried"
        given = (churnlab, self.home, words)
        pid = self.forks.start(*given, output=output, traced=not worker)
        traced = until(lambda: _first_worker(pid), "a worker") if worker else pid
        tracer = Tracer(traced, self.root / "trace", point)
        code = self.forks.wait(pid)
        return Ended(code, read(output, "out").rstrip("\n"), read(output, "err")), tracer.ended()

    def go_on(self, steps: list[tuple[str, ...]], check: Check, sound: dict[str, Any]) -> None:
        """Run commands on what is left, and check the store."""
        output = self.root / "after"
        given = (go_on, self.home, steps, output, check, sound)
        code = self.forks.wait(self.forks.start(*given, output=output))
        assert code == 0, f"{read(output, 'err')}\n{steps_ended(output)}"

    def outputs(self) -> dict[str, bytes]:
        """Return the files that users see where a table is scored to."""
        return {path.name: path.read_bytes() for path in self.scored.glob("[!.]*")}


@contextmanager
def faulted_store(root: Path) -> Iterator[FaultedStore]:
    """Make the store in the process from which all commands are forked, and yield it."""
    table = demo.members(200, seed=1).drop(columns="Churn").astype(object)
    table.loc[[3, 120], "Age"] = "many"
    table.to_csv(root / "members.csv", index=False)
    (root / "tmp").mkdir()
    with Forks(root, environment(root / "home", TMPDIR=str(root / "tmp"))) as forks:
        store = FaultedStore(root, forks)
        for words in MADE:
            assert forks.inside(churnlab, root / "made", words) == 0, words
        assert forks.inside(churnlab, root / "other", (*TUNE, "tune.n_trials=1")) == 0
        subprocess.run(["cp", "-a", root / "made", store.home], check=True)
        moved = forks.start(churnlab, store.home, ("history",), output=root / "moved")
        assert forks.wait(moved) == 0
        store.home.rename(root / "kept")
        yield store


def chosen(name: str, found: list[Call], sizes: dict[str, int]) -> list[Point]:
    """Return the points of a command: for each fault a sample of a size, in the long form all, or
    CHURNLAB_SOAK of a hundred."""
    todo: list[Point] = []
    for fault, size in sizes.items():
        rng = random.Random(f"{SEED} {name} {fault}")
        every = points(found, fault, writes=WRITES, rng=rng)
        size = len(every) * SOAK // 100 if SOAK else size
        todo += rng.sample(every, min(size, len(every)))
    return todo


def read(output: Path, name: str) -> str:
    """Return what a command printed: ``name`` is out or err."""
    return Path(f"{output}.{name}").read_text(encoding="utf-8")


def _first_worker(pid: int) -> int | None:
    """Return a worker of a study that has opened the store: its imports would take long traced."""
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            is_open = any(file.path.endswith("mlflow.db") for file in child.open_files())
            if is_open and has_a_study(child):
                return child.pid
    return None
