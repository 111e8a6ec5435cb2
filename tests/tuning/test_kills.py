"""Studies that are killed at random moments, again and again, until promise 1 holds in the end.

In the short form every way of killing gets a few kills; `make soak` gives each a hundred.
"""

import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

import psutil
import pytest

from support.killing import (
    ENDED,
    Command,
    check_promise,
    dead,
    gone,
    in_state,
    kept,
    notes,
    own_model,
    runs,
    trials,
    unchanged,
)
from support.soak import RANDOM, SEED, SOAK, repeatable

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("moments_of_its_own")]


WORKERS = 4 if SOAK else 2
SECONDS = 0.2
N = {"inline": 10, "processes": 6 * WORKERS}
ENGINES = {
    "inline": ("engine=inline",),
    "processes": ("engine=processes", f"engine.workers={WORKERS}"),
}
WHOLE = 10.0
"""Seconds that a whole run takes, about: the random moments are in this time."""


def words(root: Path, engine: str, n: int) -> list[str]:
    model = own_model(root, "sleeper", {"x": (0.0, 1.0)}, seconds=SECONDS)
    return ["tune", *model, *ENGINES[engine], f"tune.n_trials={n}"]


def reached(command: Command, root: Path, moment: str) -> bool:
    """Wait for a random moment of a command; return False if it ended before."""
    if moment == "start-up":
        return command.pause(RANDOM.uniform(0, 0.2))
    if moment == "any":
        return command.pause(RANDOM.uniform(0, WHOLE))
    enough = RANDOM.randrange(1, 8)
    if not command.until(
        lambda: len(notes(root, "sleeper", since=command.started)) >= enough, f"fit {enough}"
    ):
        return False
    return command.pause(RANDOM.uniform(0, 0.8 * SECONDS))  # and so it is still fitting


def where(home: Path, command: Command) -> str:
    """Return what a kill has just hit, according to journal and store."""
    found = trials(home)
    if not (home / "mlflow.db").exists():
        return "an empty store"
    running = [
        trial
        for trial in in_state(found, "RUNNING")
        if trial.datetime_start.timestamp() > command.started  # earlier kills may have left others
    ]
    if running:
        logged = {
            run.data.tags["churnlab.trial"]
            for run in runs(home, "trial")
            if run.info.status == "RUNNING"
        }
        hit = {str(trial.number) for trial in running} & logged
        return "a trial" if hit else "a trial without a run"
    if not notes(home.parent, "sleeper", since=command.started):
        return "the start-up"
    left = [run for run in runs(home, "train") if run.info.status == "RUNNING"]
    return "the refit" if left else "between trials"


def study_after_study(root: Path, end_early: Callable[[Path], list[str]]) -> Counter[str]:
    """End new studies early, as often as the long form requires; count what the ends hit."""
    hit: Counter[str] = Counter()
    studies = 0
    while not studies or hit.total() < SOAK:
        studies += 1
        home = root / str(studies) / "home"
        home.parent.mkdir()
        hit.update(end_early(home))
    print(f"seed {SEED}: {hit.total()} ends over {studies} studies hit {dict(hit)}")
    return hit


def moments(engine: str) -> list[str]:
    """Return the moments at which to kill one study."""
    if not SOAK:
        return ["start-up", *["trial"] * len(WAYS[engine])]
    return [
        RANDOM.choice(["start-up", "any"]),
        *RANDOM.choices(["start-up", "any", "trial"], weights=[1, 4, 2], k=RANDOM.randrange(2, 8)),
    ]


def killed_until_done(home: Path, engine: str, ways: Sequence[str]) -> list[str]:
    """Kill a new study at some moments, run it to its end and check it; return what was hit."""
    command_line = words(home.parent, engine, N[engine])
    hit: list[str] = []
    before = kept(home)
    for moment, way in zip(moments(engine), cycle(ways), strict=False):
        with (
            Command(home, *command_line) as command,
            repeatable("the kills hit", hit, "the next came at", moment),
        ):
            if not reached(command, home.parent, moment):
                check_promise(home, N[engine], command.ended())
                return hit
            workers = command.workers()
            if way == "everything":
                command.kill_everything()
            else:
                command.kill()
            assert gone(workers), "workers outlive the process that started them"
            hit.append(where(home, command))
            after = kept(home)
            assert unchanged(before, after)
            before = after
    with Command(home, *command_line) as command, repeatable("the kills hit", hit):
        found = check_promise(home, N[engine], command.ended())
        assert unchanged(before, kept(home))
        killed = [run for run in runs(home, "trial") if run.info.status == "KILLED"]
        assert len(dead(found)) >= len(killed) >= hit.count("a trial")
        # any start: the last may have had nothing left to resume
        logs = [log.read_text() for log in home.parent.glob("output/*.err")]
        assert any("Resuming the study" in log for log in logs) or "a trial" not in hit
    return hit


WAYS = {"inline": ["the one process"], "processes": ["the parent of workers", "everything"]}
"""What is killed at once, by engine; in the long form each in studies of its own."""


@pytest.mark.parametrize(
    ("engine", "ways"),
    [
        (engine, alone)
        for engine, ways in WAYS.items()
        for alone in ([[way] for way in ways] if SOAK else [ways])
    ],
    ids=lambda given: given if isinstance(given, str) else " and ".join(given),
)
def test_a_study_killed_at_random_moments_ends_with_exactly_its_trials(tmp_path, engine, ways):
    hit = study_after_study(tmp_path, lambda home: killed_until_done(home, engine, ways))
    assert hit["a trial"]
    assert hit["an empty store"]


def workers_killed(home: Path, kills: int) -> int:
    """Kill random workers of a study at random moments and check it; count the killed attempts."""
    with Command(home, *words(home.parent, "processes", N["processes"])) as command, repeatable():
        for kill in range(kills):
            # the first kill hits an import, later ones most likely a fit
            if kill and not command.until(lambda: notes(home.parent, "sleeper"), "the first fit"):
                break
            if not command.until(command.workers, "a worker") or not command.pause(
                RANDOM.uniform(0, 2)
            ):
                break
            if workers := command.workers():
                RANDOM.choice(workers).kill()
        found = check_promise(home, N["processes"], command.ended())
    statuses = Counter(run.info.status for run in runs(home, "trial"))
    assert statuses["KILLED"] <= len(dead(found)) == len(found) - N["processes"]
    return len(dead(found))


@pytest.mark.skipif(not SOAK, reason="part of the long form: make soak")
def test_workers_killed_at_random_moments_are_replaced_and_their_trials_run_again(tmp_path):
    kills, attempts, studies = 0, 0, 0
    while not studies or kills < SOAK:
        studies += 1
        home = tmp_path / str(studies) / "home"
        home.parent.mkdir()
        attempts += workers_killed(home, 5)
        kills += 5
    print(f"seed {SEED}: {kills} kills of workers over {studies} studies cost {attempts} attempts")
    assert attempts


def test_a_killed_worker_is_replaced_and_another_runs_its_trial_again(home):
    model = own_model(home.parent, "sleeper", {"x": (0.0, 1.0)}, seconds=0.4)
    with Command(
        home, "tune", *model, "engine=processes", "engine.workers=2", "tune.n_trials=10"
    ) as command:
        assert command.until(lambda: notes(home.parent, "sleeper"), "the first fit")
        (victim,) = [
            worker
            for worker in command.workers()
            if worker.pid == notes(home.parent, "sleeper")[0]["pid"]
        ]
        victim.kill()
        found = check_promise(home, 10, command.ended())
    (attempt,) = dead(found)
    (again,) = [trial for trial in in_state(found, "COMPLETE") if trial.params == attempt.params]
    assert again.user_attrs["worker"] != attempt.user_attrs["worker"]
    fitted = notes(home.parent, "sleeper")
    assert {line["pid"] for line in fitted if line["x"] == attempt.params["x"]} > {victim.pid}
    workers = {trial.user_attrs["worker"] for trial in found}
    assert len(workers) == 3, "the killed worker was not replaced"


def test_a_study_goes_on_when_the_process_that_its_workers_were_forked_from_is_killed(home):
    with Command(home, *words(home.parent, "processes", 8)) as command:
        assert command.until(lambda: notes(home.parent, "sleeper"), "the first fit")
        children = psutil.Process(command.process.pid).children()
        (parent,) = [child for child in children if child.children()]
        parent.kill()
        found = check_promise(home, 8, command.ended())
    assert not dead(found)
    assert "died" not in command.err


@pytest.mark.skipif(not SOAK, reason="part of the long form: make soak")
def test_a_study_whose_every_fit_kills_its_worker_ends(home):
    model = own_model(home.parent, "sleeper", {"x": (0.0, 1.0)}, dies_below=2.0)
    with Command(
        home, "tune", *model, "engine=processes", "engine.workers=1", "tune.n_trials=6"
    ) as command:
        ended = command.ended()
    assert (ended.code, ended.out) in ((1, ""), (2, ""))
    assert "Traceback" not in ended.err
    assert "memory" in ended.err.splitlines()[-1]
    assert {run.info.status for run in runs(home)} <= ENDED
    assert not in_state(trials(home), "RUNNING")


def test_a_study_stopped_by_a_signal_says_how_to_resume_and_resumes(tmp_path):
    hit = study_after_study(tmp_path, stopped_until_done)
    assert hit["a trial"]


def stops() -> list[tuple[str, signal.Signals, str]]:
    """Return the engines, signals and moments with which to stop one study."""
    if not SOAK:
        return [("inline", signal.SIGTERM, "trial"), ("processes", signal.SIGINT, "trial")]
    return [
        (
            RANDOM.choice(list(ENGINES)),
            RANDOM.choice([signal.SIGTERM, signal.SIGINT]),
            RANDOM.choice(["any", "trial"]),
        )
        for _ in range(RANDOM.randrange(2, 6))
    ]


def stopped_until_done(home: Path) -> list[str]:
    """Stop a new study by signals at some moments, run it to its end and check it; return what was
    hit."""
    hit: list[str] = []
    before = kept(home)
    n = N["processes"]
    for engine, number, moment in stops():
        command_line = words(home.parent, engine, n)
        with Command(home, *command_line) as command, repeatable(hit, engine, number.name, moment):
            if not command.pause(1) or not reached(command, home.parent, moment):
                check_promise(home, n, command.ended())
                return hit
            workers = command.workers()
            killed = len([run for run in runs(home, "trial") if run.info.status == "KILLED"])
            if number == signal.SIGINT:
                os.killpg(command.process.pid, number)  # as a terminal does: to the whole group
            else:
                command.process.send_signal(number)
            ended = command.ended()
            if ended.code == 0:  # the signal came after the end
                check_promise(home, n, ended)
                return hit
            if ended.code == -number:  # it came before Python ran our first line
                assert unchanged(before, kept(home))
                continue
            assert (ended.code, ended.out) == (
                {signal.SIGTERM: 143, signal.SIGINT: 130}[number],
                "",
            )
            assert "Traceback" not in ended.err
            last = ended.err.splitlines()[-1]
            assert last.startswith("Stopped. To run it again: churnlab tune "), ended.err
            assert last.endswith(command_line[-1])
            assert {run.info.status for run in runs(home)} <= ENDED
            if moment == "trial":
                assert [run.info.status for run in runs(home, "tune")] == ["KILLED"]
            assert gone(workers)
            after = kept(home)
            assert unchanged(before, after)
            assert after.finished.keys() == {run_id for _, _, run_id in after.complete.values()}
            before = after
            now = len([run for run in runs(home, "trial") if run.info.status == "KILLED"])
            hit.append("a trial" if now > killed else "something else")
    with Command(home, *words(home.parent, "inline", n)) as command, repeatable(hit):
        check_promise(home, n, command.ended())
        assert unchanged(before, kept(home))
    return hit
