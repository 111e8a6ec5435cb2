"""Every write of a command is killed once, and fails once: for lack of space and with an I/O error.

After each, doctor names what is left and repairs it, and the same command completes, in either
order. A kill leaves a store whole; a failed write ends the command with one paragraph.

In the suite a sample of points, with CHURNLAB_SOAK=100 (make soak) all of them.
"""

import random
import signal
from collections import Counter
from dataclasses import dataclass

import pytest

from support import promises
from support.faulted_store import FIX, PROMOTE, RAW, SEGMENT, TUNE, FaultedStore, chosen
from support.promises import Check
from support.running import Ended
from support.soak import SEED
from support.write_faults import BROKEN, FULL, KILL, Point, calls, hit

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Tried:
    """A command whose writes are hit, what holds after it, and the size of the samples of points:
    of those to kill at, and of those to fail with each error.

    ``worker``: the writes of the first of its workers are hit, not its own.
    """

    words: tuple[str, ...]
    check: Check
    kills: int
    failures: int
    worker: bool = False

    @property
    def attempts(self) -> int:
        """Return how often a point is tried that does not come: how many of the trials one of
        several workers runs is left to chance."""
        return 5 if self.worker else 1


SCORE = ("score", "dataset=demo", "input=members.csv", "output=scored/out.csv")
REJECT = "score.on_bad_row=reject"
WORKERS = ("engine=processes", "engine.workers=2")
TRIED = {
    "rollback": Tried(("rollback",), promises.version_is_champion, 28, 4),
    "promote": Tried(PROMOTE, promises.promoted, 5, 1),
    "score": Tried((*SCORE, REJECT), promises.same_files, 26, 4),
    "segment": Tried(SEGMENT, promises.same_line, 3, 1),
    "tune": Tried(TUNE, promises.same_study, 4, 1),
    "tune with two workers": Tried((*TUNE, *WORKERS), promises.all_trials, 2, 0),
    "a worker of tune": Tried((*TUNE, *WORKERS), promises.all_trials, 2, 1, worker=True),
}


@pytest.mark.parametrize("name", TRIED)
def test_a_command_stopped_at_any_write_leaves_nothing_that_doctor_and_it_do_not_repair(
    store: FaultedStore, name: str
) -> None:
    tried, rng = TRIED[name], random.Random(SEED)
    counts, violations = Counter[str](), list[str]()
    for _ in range(tried.attempts):
        store.restore()
        sound, trace = store.run(tried.words, worker=tried.worker)
        assert sound.code == 0, sound.err
        found, whole = calls(trace, [store.home, store.scored]), store.outputs()
        if tried.worker:  # how many of the trials a worker runs is left to chance
            found = found[: len(found) // 2]
        if found:
            break
    assert found
    todo = chosen(name, found, {KILL: tried.kills, FULL: tried.failures, BROKEN: tried.failures})
    for point in todo:
        for _ in range(tried.attempts):
            store.restore()
            ended, trace = store.run(tried.words, point, worker=tried.worker)
            if (what := hit(trace)) is not None:
                break
        left, fixed_first = store.outputs(), rng.random() < 0.5
        counts["missed" if what is None else point.fault] += 1
        steps = [FIX, tried.words, ("doctor",)] if fixed_first else [tried.words, FIX]
        try:
            if what is not None:
                check_end(ended, point, tried)
                assert left.items() <= whole.items(), "a half-written output"
                store.go_on(steps, tried.check, sound.line)
                assert store.outputs() == whole
        except AssertionError as error:
            violations.append(f"{point}, which hit {what}\n{ended.err}\n{steps}: {error}")
    print(f"seed {SEED}: {name}, of {len(found)} calls {dict(counts)}")
    assert not violations, "\n\n".join([f"{len(violations)} violations, seed {SEED}", *violations])
    assert counts["missed"] <= len(todo) / (3 if tried.worker else 10)


def check_end(ended: Ended, point: Point, tried: Tried) -> None:
    """Check that a kill killed, and that a command whose write failed says so in one paragraph,
    unless it could go on; a worker that died is replaced."""
    killed = point.fault == KILL
    if killed and not tried.worker:
        assert ended.code == -signal.SIGKILL
        return
    assert ended.code in ((0,) if killed else (0, 1, 2)), ended
    assert not RAW.search(ended.err), ended.err


@pytest.mark.parametrize("fault", [FULL, BROKEN])
def test_a_copy_that_cannot_be_written_makes_a_rollback_skip_no_version(
    store: FaultedStore, fault: str
) -> None:
    store.restore()
    sound, trace = store.run(("rollback",))
    assert sound.line["version"] == "2"
    first = calls(trace, [store.root / "tmp"])[0]
    assert "churnlab-version-" in first.path
    store.restore()
    ended, trace = store.run(("rollback",), Point(first, fault))
    assert hit(trace) is not None
    assert ended.code == 1, ended.err
    assert not RAW.search(ended.err), ended.err
    store.go_on([FIX, ("rollback",), ("doctor",)], promises.version_is_champion, sound.line)


def test_a_message_for_which_the_disk_has_no_space_is_only_left_out(store: FaultedStore) -> None:
    store.restore()
    sound, trace = store.run(("rollback",))
    first = calls(trace, [store.root / "tried.err"])[0]
    store.restore()
    ended, trace = store.run(("rollback",), Point(first, FULL))
    assert hit(trace) is not None
    assert (ended.code, ended.line["version"]) == (0, sound.line["version"])
    assert set(ended.err.splitlines()) < set(sound.err.splitlines())
