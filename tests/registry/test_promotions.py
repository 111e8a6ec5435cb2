"""Promotions that are killed at any step or run at once: what the registry holds afterwards.

One store for all: the kills come first, and what they leave is what the others start from.
"""

import json
import signal
import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from churnlab.data.demo import members
from support.killing import Command, runs
from support.running import THREE_SEGMENTS, artifact, churnlab_at, folder
from support.soak import RANDOM, SOAK, repeatable

pytestmark = pytest.mark.slow

TRAINED = ("dataset.rows=300", "evaluation.folds=2")
PROMOTE = ("promote", *TRAINED, "require=not_worse")
AGAIN = (*PROMOTE, "force=true")
"""Promotes the champion's own runs once more: every check passes."""
NAME = "demo-churn"

STEPS = ("run", "bundle", "version", "kept", "ended", "recorded", "previous", "champion")
"""What a promotion does, one after the other, as it is seen from outside."""

KILLED_AT = STEPS * max(1, SOAK // len(STEPS)) if SOAK else ("version", "recorded", "previous")
ROUNDS = 50 if SOAK else 1


def step(home: Path, before: set[str]) -> int:
    """How many steps the promotion that is not among the runs ``before`` has taken."""
    with closing(
        sqlite3.connect(home / "mlflow.db", timeout=20)
    ) as db:  # a kill leaves a journal to be rolled back

        def rows(query: str, *values: str) -> list[tuple]:
            return db.execute(query, values).fetchall()

        promotions = rows(
            "select r.run_uuid, r.status, r.artifact_uri from runs r join tags t on t.run_uuid = "
            "r.run_uuid where t.key = 'churnlab.command' and t.value = 'promote'"
        )
        new = [run for run in promotions if run[0] not in before]
        if not new:
            return 0
        ((run_id, status, uri),) = new
        aliases = dict(
            rows("select alias, version from registered_model_aliases where name = ?", NAME)
        )
        made = rows("select version from model_versions where run_id = ?", run_id)
        recorded = rows(
            "select value from registered_model_tags where name = ? and value like ?",
            NAME,
            f"%{run_id}%",
        )
        change = json.loads(recorded[0][0]) if recorded else {"from": "", "to": ""}
        taken = {
            "run": True,
            "bundle": bool(rows("select 1 from logged_models where source_run_id = ?", run_id)),
            "version": bool(made),
            "kept": (folder(uri) / "gate.json").exists(),
            "ended": status == "FINISHED",
            "recorded": bool(recorded),
            "previous": str(aliases.get("previous")) == change["from"],
            "champion": str(aliases.get("champion")) == change["to"],
        }
    return next((number for number, name in enumerate(STEPS) if not taken[name]), len(STEPS))


def promotions(home: Path) -> list:
    return runs(home, "promote")


def check_registry(home: Path, client) -> tuple[list[dict], list]:
    """Assert that each champion passed the gate against the one before it, and that none is lost.

    Returns the changes that took effect, and what is to be repaired: runs left open and a change
    that was only recorded.
    """
    model = client.get_registered_model(NAME)
    aliases = {alias: str(version) for alias, version in model.aliases.items()}
    moves = [
        json.loads(model.tags[key])
        for key in sorted(model.tags)
        if key.startswith("churnlab.move.")
    ]
    unfinished = [moves.pop()] if moves[-1]["to"] != aliases["champion"] else []
    running = [run for run in promotions(home) if run.info.status == "RUNNING"]
    assert {run.info.status for run in promotions(home)} <= {"FINISHED", "RUNNING"}
    assert len(unfinished) <= 1, "a kill leaves at most one thing to repair"
    assert moves[0]["from"] is None
    assert all(before["to"] == after["from"] for before, after in pairwise(moves))
    assert moves[-1]["to"] == aliases["champion"]
    versions = {
        str(version.version): version for version in client.search_model_versions(f"name='{NAME}'")
    }
    for move in moves:
        run = client.get_run(move["run_id"])
        gate = json.loads(artifact(run, "gate.json").read_text(encoding="utf-8"))
        assert run.info.status == "FINISHED"
        assert (gate["version"], gate["against"], gate["gate"]) == (
            move["to"],
            move["from"],
            "passed",
        )
        assert all(check["passed"] for check in gate["checks"])
        assert versions[move["to"]].tags["churnlab.gate"] == "passed"
        assert versions[move["to"]].run_id == move["run_id"]
    serves = mlflow.pyfunc.load_model(
        str(folder(client.get_model_version_download_uri(NAME, aliases["champion"])))
    )
    answers = serves.predict(members(3, seed=1).drop(columns="Churn").astype("float64"))
    assert [0 <= answer["churn_probability"] <= 1 for answer in answers] == [True] * 3
    return moves, running + unfinished


@pytest.fixture(scope="module")
def home(shared_home) -> Path:
    """A store with a champion, models to replace it, and a poor one."""
    churnlab = churnlab_at(shared_home)
    ended = {
        "twin": churnlab("train", *TRAINED),
        "good": churnlab("train", *TRAINED),
        "segments": churnlab("segment", "dataset.rows=300", *THREE_SEGMENTS),
        "champion": churnlab("promote", *TRAINED),
        "poor": churnlab("train", *TRAINED, "model=dummy"),
    }
    assert [end.code for end in ended.values()] == [0] * 5, [end.err for end in ended.values()]
    return shared_home


def test_a_promotion_killed_at_any_step_leaves_the_old_champion_or_the_new_one(
    home, client_at, moments_of_its_own
):
    client = client_at(home)
    left = 0
    for at in KILLED_AT:
        for _ in range(5):  # the last steps take a few milliseconds: a kill can come too late
            before = {run.info.run_id for run in promotions(home)}
            found = client.search_model_versions(f"name='{NAME}'")
            versions = {str(version.version) for version in found}
            old = str(client.get_registered_model(NAME).aliases["champion"])
            with Command(home, *AGAIN, f"reason=killed at {at}") as promoting:
                promoting.until(lambda: step(home, before) > STEPS.index(at), at)  # noqa: B023
                if SOAK:
                    promoting.pause(RANDOM.choice([0, 0, 0.01, 0.03]))
                promoting.process.kill()
                code = promoting.process.wait()
            if code == -signal.SIGKILL:
                break
        assert code == -signal.SIGKILL, "no kill came before the end"
        reached = step(home, before)
        print(f"killed at {at}: {STEPS[reached - 1]} was the last step taken")
        with repeatable("killed at", at, "after step", reached):
            assert STEPS.index(at) < reached
            moves, to_repair = check_registry(home, client)
            now = moves[-1]["to"]
            assert now == old or now not in versions
            assert (now != old) == (reached == len(STEPS))
            assert len(to_repair) - left <= 1, "a kill leaves at most one thing to repair"
            left = len([run for run in promotions(home) if run.info.status == "RUNNING"])
        if SOAK:
            with Command(home, *AGAIN, "reason=after a kill") as again:
                ended = again.ended()
            assert ended.code == 0, ended.err
            moves, _ = check_registry(home, client)
            assert moves[-1]["to"] == ended.line["version"]


def test_promotions_at_once_are_each_gated_against_the_champion_that_the_one_before_left(
    home, client_at
):
    client = client_at(home)
    twin, *_, poor = [run.info.run_id for run in runs(home, "train")]
    promotions_at_once = {
        "equal": AGAIN,
        "equal again": AGAIN,
        "better": ("promote", *TRAINED, f"churn_run={twin}"),
        "poor": (*PROMOTE, f"churn_run={poor}"),
    }
    for number in range(ROUNDS):
        moves, _ = check_registry(home, client)
        made = {str(version.version) for version in client.search_model_versions(f"name='{NAME}'")}
        order = RANDOM.sample(sorted(promotions_at_once), len(promotions_at_once))
        commands = {
            name: Command(home, *promotions_at_once[name], f"reason={name} {number}")
            for name in order
        }
        try:
            ended = {name: command.ended() for name, command in commands.items()}
        finally:
            for command in commands.values():
                command.__exit__()
        with repeatable("round", number, {name: end.err for name, end in ended.items()}):
            codes = {name: end.code for name, end in ended.items()}
            assert codes == {"equal": 0, "equal again": 0, "better": 3, "poor": 3}
            lines = {name: end.line for name, end in ended.items()}
            new = {
                str(version.version) for version in client.search_model_versions(f"name='{NAME}'")
            } - made
            assert new == {line["version"] for line in lines.values()}
            assert len(new) == len(promotions_at_once), "a version was lost"
            after, _ = check_registry(home, client)
            assert after[: len(moves)] == moves, "an entry of the history was lost"
            done = after[len(moves) :]
            assert {move["why"] for move in done} == {
                f"equal {number}",
                f"equal again {number}",
            }
            assert {move["to"] for move in done} == {
                lines["equal"]["version"],
                lines["equal again"]["version"],
            }
            assert client.get_registered_model(NAME).aliases["previous"] == int(done[-1]["from"])
            for line in lines.values():
                gate = json.loads(
                    artifact(client.get_run(line["run_id"]), "gate.json").read_text(
                        encoding="utf-8"
                    )
                )
                champions = [move["to"] for move in after]
                assert gate["against"] in champions
    times = pd.to_datetime([move["when"] for move in after])
    assert times.is_monotonic_increasing
