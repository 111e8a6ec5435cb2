"""Scoring stopped at its writes, of parts and of the output: killed, or without room on the disk.

strace injects the fault at a call, so that no stage is left out: parts, manifest, the joined
output, its renaming, and what is removed in the end.
"""

import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from churnlab.data.demo import members
from churnlab.models.decision import COSTS
from support.calls import score_in_small_parts
from support.forked import Forks, churnlab
from support.running import Ended, environment
from support.soak import SEED, SOAK
from support.write_faults import FULL, KILL, Call, Point, Tracer, calls, hit

pytestmark = pytest.mark.slow

ROWS, BAD = 3_000, (3, 1_500, 2_990)

KINDS = {
    "CSV": ("scored.csv", ()),
    "Parquet": ("scored.parquet", ()),
    "contacts": ("contacts.csv", ("contacts=true", "score.top=50", *COSTS.split())),
}


class Scorer:
    """Score members.csv into ``folder``, in forks of one process."""

    def __init__(self, root: Path, forks: Forks) -> None:
        self.root, self.home, self.forks = root, root / "home", forks
        self.folder = root / "out"
        self.input = root / "members.csv"

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()

    def score(self, output: str, *words: str) -> Ended:
        return self._ended(*self._start(output, words, traced=False))

    def traced(
        self, output: str, *words: str, point: Point | None = None
    ) -> tuple[Ended, list[str]]:
        started = self._start(output, words, traced=True)
        tracer = Tracer(started[0], self.root / "trace", point, threads=True)
        return self._ended(*started), tracer.ended()

    def files(self) -> dict[str, bytes]:
        """Return the files that a user sees in the folder."""
        return {path.name: path.read_bytes() for path in self.folder.glob("[!.]*")}

    def _start(self, output: str, words: tuple[str, ...], *, traced: bool) -> tuple[int, Path]:
        command = ("score", f"input={self.input}", f"output={self.folder}/{output}", *words)
        log = self.root / "log"
        command = (*command, "score.on_bad_row=reject")
        return self.forks.start(churnlab, self.home, command, output=log, traced=traced), log

    def _ended(self, pid: int, log: Path) -> Ended:
        code = self.forks.wait(pid)
        out, err = (log.with_suffix(end).read_text(encoding="utf-8") for end in (".out", ".err"))
        return Ended(code, out.rstrip("\n"), err)


@pytest.fixture(scope="module")
def scorer(promoted, tmp_path_factory) -> Iterator[Scorer]:
    """Yield a scorer with a copy of the promoted store."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace: apt-get install strace")
    root = tmp_path_factory.mktemp("faults")
    subprocess.run(["cp", "-a", promoted.home, root / "home"], check=True)
    with Forks(root, environment(root / "home")) as forks:
        scorer = Scorer(root, forks)
        table = members(ROWS, seed=5).drop(columns="Churn")
        table.loc[[*BAD], "Age"] = 7
        table.to_csv(scorer.input, index=False)
        forks.inside(score_in_small_parts)
        scorer.clear()
        words = ("score", f"input={scorer.input}", f"output={scorer.folder}/warm.csv")
        assert forks.inside(churnlab, scorer.home, (*words, "score.on_bad_row=reject")) == 0
        yield scorer


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_stopped_at_any_write_leaves_no_half_output_and_the_same_command_completes(
    scorer: Scorer, kind: str
) -> None:
    words, tried, violations = (KINDS[kind][0], *KINDS[kind][1]), 0, []
    scorer.clear()
    sound, trace = scorer.traced(*words)
    assert sound.code == 0, sound.err
    assert sound.line["rows"] + sound.line["rejected"] == ROWS
    whole = scorer.files()
    for point in chosen(calls(trace, [scorer.folder]), kind):
        scorer.clear()
        ended, trace = scorer.traced(*words, point=point)
        tried += hit(trace) is not None
        half = [name for name, content in scorer.files().items() if content != whole.get(name)]
        again = scorer.score(*words)
        try:
            assert not half
            assert ended.code in ((0, 1) if point.fault == FULL else (0, -signal.SIGKILL))
            assert "Traceback" not in ended.err
            assert ended.code != 1 or "run the same command again" in ended.err.splitlines()[-1]
            assert again.code == 0, again.err
            assert again.line["rows"] + again.line["rejected"] == ROWS
            assert scorer.files() == whole
            assert {path.name for path in scorer.folder.iterdir()} == {*whole}
        except AssertionError as error:
            violations.append(f"{point}: {ended.err}\n{error}")
    assert not violations, "\n\n".join(violations)
    assert tried > 3


def chosen(found: list[Call], kind: str) -> list[Point]:
    """Return points among the writes of parts, and among those from the first of the output on."""
    joined = next(
        number
        for number, call in enumerate(found)
        if Path(call.path).name.startswith(("building.", ".new.", "#"))
    )
    rng, todo = random.Random(f"{SEED} {kind}"), list[Point]()
    for stage, size in ((found[:joined], 1), (found[joined:], 2)):
        for fault in (KILL, FULL):
            points = [Point(call, fault) for call in stage]
            todo += points if SOAK else rng.sample(points, min(size, len(points)))
    return todo
