"""One study in PostgreSQL, tuned by several machines that are killed, stopped and cut off.

In the short form a few faults hit one study; `make soak` goes on until each kind has hit as often
as it asks for.
"""

import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from support.killing import Command, dead
from support.machines import GRACE, Link, Shared, sharing
from support.soak import RANDOM, SOAK, repeatable
from support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("moments_of_its_own")]

SECONDS = 1.0
TWO = ("engine=processes", "engine.workers=2")


@pytest.fixture
def shared(tmp_path, postgres, request):
    with sharing(tmp_path, postgres, request.node.name[:60]) as shared:
        yield shared


def test_two_machines_complete_exactly_n_whatever_hits_them(shared):
    n = 30
    words = (*shared.model(seconds=SECONDS), f"tune.n_trials={n}")
    link = Link(shared.postgres.port)
    with (
        shared.tune("one", *words) as one,
        shared.tune("two", *words, *TWO, link=link) as two,
        repeatable("two machines"),
    ):
        # killed: the machine's only process, in the midst of a fit
        victim, trial = until(lambda: shared.busy(one), "a fit on the first machine")
        one.kill_everything()
        killed = trial.number
        with shared.tune("one", *words) as one:
            # stopped: a worker, until another machine has given up its trial
            worker, trial = until(lambda: shared.busy(two), "a fit on the second machine")
            worker.suspend()
            stopped = trial.number
            until(
                lambda: shared.trials()[stopped].state.name in ("FAIL", "COMPLETE"),
                "the end of the stopped trial",
                seconds=60,
            )
            worker.resume()
            # restarted: the database, between two fits or in the midst of a statement
            shared.postgres.stop()
            time.sleep(2)
            shared.postgres.start()
            # cut off: the second machine
            assert link.cut()
            time.sleep(GRACE + 1)
            link.mend()
            ended = [one.ended(), two.ended()]
    link.close()
    found = shared.check(n, *ended)
    assert {killed, stopped} <= {trial.number for trial in dead(found)}


FAULTS = ("kill", "stop", "restart", "cut")

NOT_THERE = "does not answer: start it"
"""What a command says that finds no database when it starts."""


def hit(shared: Shared, fault: str, machines: dict[str, Command], name: str, link: Link) -> bool:
    """Let a fault hit a machine; return whether it hit a trial (restart and cut: a connection)."""
    busy = shared.busy(machines[name])
    if busy is None:
        return False
    process, trial = busy
    if fault == "kill":
        machines[name].kill_everything()
    elif fault == "stop":
        process.suspend()
        time.sleep(2 * GRACE)
        process.resume()
    elif fault == "restart":
        shared.postgres.stop(at_once=RANDOM.random() < 0.5)
        time.sleep(RANDOM.uniform(0, 2 * GRACE))
        shared.postgres.start()
    else:
        link.cut()
        time.sleep(RANDOM.uniform(0, 2 * GRACE))
        link.mend()
    return fault in ("restart", "cut") or trial.number in {
        trial.number for trial in shared.trials() if trial.state.name in ("RUNNING", "FAIL")
    }


def rounds(root: Path, postgres, number: int, hits: Counter[str]) -> None:
    """Tune one study on two machines under faults until it is complete, and check it."""
    root.mkdir()
    n, link = 40, Link(postgres.port)
    with sharing(root, postgres, f"rounds {number}") as shared, repeatable(dict(hits)):
        words = (*shared.model(seconds=SECONDS), f"tune.n_trials={n}")

        def start(name: str) -> Command:
            if name == "one":
                return shared.tune("one", *words)
            return shared.tune("two", *words, *TWO, link=link)

        def goes_on(name: str) -> bool:
            """Start a machine again that was killed, or whose start found no database."""
            command = machines[name]
            code = command.process.poll()
            if code == -signal.SIGKILL or (code == 2 and NOT_THERE in command.err):
                machines[name] = start(name)
                return True
            return code is None

        machines = {name: start(name) for name in ("one", "two")}
        try:
            while all(goes_on(name) for name in machines):
                fault, name = RANDOM.choice(FAULTS), RANDOM.choice(list(machines))
                name = "two" if fault == "cut" else name
                hits[fault] += hit(shared, fault, machines, name, link)
                time.sleep(RANDOM.uniform(0, 2))
            while any(goes_on(name) for name in machines):
                time.sleep(0.5)
            shared.check(n, *[command.ended() for command in machines.values()])
            print(f"study {number}: {dict(hits)}", flush=True)
        finally:
            for command in machines.values():
                command.__exit__()
            link.close()


@pytest.mark.skipif(not SOAK, reason="part of the long form: make soak")
def test_rounds_of_faults_on_two_machines_leave_exactly_n(tmp_path, postgres):
    hits: Counter[str] = Counter()
    number = 0
    while hits.total() < SOAK or not all(hits[fault] for fault in FAULTS):
        number += 1
        rounds(tmp_path / str(number), postgres, number, hits)
    print(f"{hits.total()} faults over {number} studies hit: {dict(hits)}")
