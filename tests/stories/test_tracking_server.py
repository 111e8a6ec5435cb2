"""A team on an MLflow server with PostgreSQL: each machine has a home of its own, and shares
nothing but the server and, for a lock, the database."""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from churnlab.data.demo import members
from support.killing import own_model
from support.mlflow_server import MlflowServer, mlflow_server
from support.running import (
    SMALL_CLAIMS,
    THREE_SEGMENTS,
    Ended,
    churnlab_at,
    environment,
)
from support.servers import churnlab_serve, post
from support.soak import SOAK
from support.waiting import until

pytestmark = pytest.mark.slow

ROWS = ("dataset.rows=300",)
TRAINED = (*ROWS, "evaluation.folds=2")
AGAIN = ("promote", *TRAINED, "require=not_worse", "force=true")
"""Promotes the champion's own runs once more: every check passes."""
NAME = "demo-churn"


class Machine(NamedTuple):
    """A home, and a process there that runs one command after another on the server."""

    home: Path
    run: Callable[..., Ended]

    def succeed(self, *words: str) -> Ended:
        ended = self.run(*words)
        assert ended.code == 0, (words, ended.err)
        return ended


@pytest.fixture(scope="module")
def server(tmp_path_factory, postgres) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("server"), postgres, "mlflow") as running:
        yield running


@pytest.fixture(scope="module")
def machines(server, tmp_path_factory) -> Iterator[tuple[Machine, Machine]]:
    """Yield two machines; temporary files are kept in a folder of each."""
    root = tmp_path_factory.mktemp("machines")
    places = [root / name / "home" for name in ("one", "two")]
    for place in places:
        (place.parent / "tmp").mkdir(parents=True)
    one, two = [
        churnlab_at(home, MLFLOW_TRACKING_URI=server.address, TMPDIR=str(home.parent / "tmp"))
        for home in places
    ]
    yield Machine(places[0], one), Machine(places[1], two)
    left = [path for home in places for path in (home.parent / "tmp").rglob("*")]
    assert not [path for path in left if path.is_file()], "copies of the server's files are left"


@pytest.fixture(scope="module")
def made(machines) -> dict[str, Ended]:
    """What the first machine has done: everything up to a champion and another version."""
    one, _ = machines
    tune = ("tune", *TRAINED, "tune.n_trials=2")
    return {
        "explore": one.succeed("explore", *ROWS),
        "train": one.succeed("train", *TRAINED),
        "tune": one.succeed(*tune),
        "workers": one.succeed(*tune, "tune.study=two", "engine=processes", "engine.workers=2"),
        "segment": one.succeed("segment", *ROWS, *THREE_SEGMENTS),
        "sweep": one.succeed("train", "-m", *TRAINED, "model=dummy"),
        "compare": one.succeed("compare", *TRAINED),
        "promote": one.succeed("promote", *TRAINED, "reason=the first"),
        "again": one.succeed(*AGAIN, "reason=the second"),
        "claims": one.succeed("claims", *ROWS, *SMALL_CLAIMS),
    }


def history(server: MlflowServer) -> list[dict[str, Any]]:
    """Return the changes of champion; each begins where the one before it ended, and the aliases
    show the last."""
    model = server.client.get_registered_model(NAME)
    moves = [json.loads(model.tags[key]) for key in sorted(model.tags) if "churnlab.move." in key]
    assert moves[0]["from"] is None
    assert all(before["to"] == after["from"] for before, after in pairwise(moves))
    assert str(model.aliases["champion"]) == moves[-1]["to"]
    assert len({move["run_id"] for move in moves}) == len(moves)
    return moves


def test_what_one_machine_made_is_used_by_every_command_on_another(server, machines, made):
    one, two = machines
    members(100, seed=5).to_csv(two.home.parent / "members.csv", index=False)
    members(100, seed=5).drop(columns="Churn").to_csv(two.home.parent / "in.csv", index=False)
    scored = two.succeed("score", "input=in.csv", "output=out.csv").line
    assert (scored["rows"], scored["version"]) == (100, made["again"].line["version"])
    for kind in ("train", "segment", "tune"):
        assert two.succeed("reproduce", f"run={made[kind].line['run_id']}").line["identical"]
    page = two.succeed("report", *TRAINED).line["path"]
    assert Path(page).is_relative_to(two.home)
    assert two.succeed("rollback", "reason=in doubt").line["version"] == "1"
    assert [entry["to"] for entry in two.succeed("history").line["entries"]] == ["1", "2", "1"]
    two.succeed("init", "members.csv", "name=own", "target=Churn")
    two.succeed("explore", "--config-dir", "my_conf", "dataset=own")
    (two.home / "mlartifacts" / "0123456789abcdef0123456789abcdef").mkdir(parents=True)
    assert two.succeed("doctor", "fix=true").line["problems"] == [], "of a store on this machine"
    shutil.rmtree(two.home / "mlartifacts")
    with churnlab_serve(two.home, MLFLOW_TRACKING_URI=server.address) as serving:
        body = {"dataframe_records": [json.loads(members(1, seed=5).to_json(orient="records"))[0]]}
        del body["dataframe_records"][0]["Churn"]
        status, answer = post(serving.address, body)
    assert (status, len(answer["predictions"])) == (200, 1)
    for machine in (one, two):
        kept = {path.name for path in machine.home.iterdir()}
        assert not kept & {"mlflow.db", "mlartifacts"}, "a store on the machine itself"


def test_the_servers_own_database_is_refused_for_studies(server, machines, postgres, tmp_path):
    settings = {"MLFLOW_TRACKING_URI": server.address}
    settings |= {"CHURNLAB_STORAGE_URL": postgres.url("mlflow")}
    ended = churnlab_at(tmp_path / "home", **settings)("tune", *TRAINED, "storage=postgres")
    assert (ended.code, ended.out) == (2, "")
    assert "is the database of an MLflow server: name another one for the studies." in ended.err


def test_advice_names_the_server_and_no_program_that_would_open_a_second_one(server, made):
    assert f"In the MLflow UI: {server.address}/#/experiments/" in made["sweep"].err
    assert "mlflow ui" not in made["sweep"].err


@pytest.mark.parametrize("lock", [False, True], ids=["without a lock", "with a lock"])
def test_promotions_at_once_from_two_machines_keep_the_history_whole(
    server, machines, made, postgres, lock
):
    words = ("storage=postgres", f"storage.url={postgres.url('studies')}") if lock else ()
    for number in range(SOAK or 1):
        before, ended = history(server), {}

        def promote(machine: Machine, name: str) -> None:
            ended[name] = machine.run(*AGAIN, *words, f"reason={name} {number}")  # noqa: B023

        at_once = [
            threading.Thread(target=promote, args=[machine, name])
            for machine, name in zip(machines, ("one", "two"), strict=True)
        ]
        for thread in at_once:
            thread.start()
        for thread in at_once:
            thread.join()
        assert {end.code for end in ended.values()} == {0}, [end.err for end in ended.values()]
        after = history(server)
        assert after[: len(before)] == before, "an entry of the history was lost"
        new = after[len(before) :]
        assert {move["why"]: move["to"] for move in new} == {
            f"{name} {number}": end.line["version"] for name, end in ended.items()
        }
        for move in new:
            path = server.client.download_artifacts(move["run_id"], "gate.json")
            gate = json.loads(Path(path).read_text(encoding="utf-8"))
            assert (gate["against"], gate["version"]) == (move["from"], move["to"])
        overtaken = sum("the gate judges again" in end.err for end in ended.values())
        verdicts = [
            version.tags["churnlab.gate"]
            for version in server.client.search_model_versions(f"name='{NAME}'")
        ]
        print(f"round {number}: {overtaken} judged again, {verdicts.count('overtaken')} in all")
        assert not (lock and overtaken), "the lock did not keep the other machine waiting"


RACE = """
import os, sys, time
import mlflow
from churnlab.registry.champion import find_champion
from churnlab.registry.succession import Overtaken, replace_champion
name, me, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
client = mlflow.MlflowClient()
runs = [client.create_run("0").info.run_id for _ in range(number)]
made = [
    str(client.create_model_version(name, f"runs:/{run}/none", run_id=run).version) for run in runs
]
print("ready", flush=True)
sys.stdin.readline()
done = overtaken = 0
while done < number:
    now = find_champion(name)
    now = now and str(now.version)
    try:
        replace_champion(name, expected=now, to=made[done], previous=now, why=me,
                         command="promote", run_id=runs[done])
        done += 1
    except Overtaken:
        overtaken += 1
print(overtaken)
"""


def test_of_two_that_replace_one_champion_at_once_only_one_does(server, tmp_path):
    number, name = max(8, SOAK), "raced-churn"
    server.client.create_registered_model(name)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, name, me, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(
                tmp_path, MLFLOW_TRACKING_URI=server.address, CHURNLAB_STORE=str(tmp_path)
            ),
        )
        for me in ("one", "two")
    ]
    with racers[0] as one, racers[1] as two:
        assert [racer.stdout.readline() for racer in (one, two)] == ["ready\n"] * 2
        for racer in (one, two):
            racer.stdin.write("go\n")
            racer.stdin.flush()
        overtaken = [int(racer.communicate(timeout=120)[0]) for racer in (one, two)]
    assert [racer.returncode for racer in racers] == [0, 0]
    assert sum(overtaken), "the two never met"
    model = server.client.get_registered_model(name)
    moves = [json.loads(model.tags[key]) for key in sorted(model.tags)]
    assert len(moves) == 2 * number, "a change was lost"
    assert all(before["to"] == after["from"] for before, after in pairwise(moves))
    assert str(model.aliases["champion"]) == moves[-1]["to"]
    assert str(model.aliases["previous"]) == moves[-1]["from"]


def test_a_change_whose_process_died_after_its_claim_is_completed_by_the_next_command(
    server, machines, made
):
    last = history(server)[-1]
    to = "2" if last["to"] == "1" else "1"
    claim = {**last, "from": last["to"], "to": to, "previous": last["to"], "why": "it died"}
    claim["run_id"] = server.client.create_run("0").info.run_id
    server.client.log_param(last["run_id"], "churnlab.next_champion", json.dumps(claim))
    ended = machines[1].succeed("rollback", "dataset=demo", "reason=after it")
    *_, completed, own = history(server)
    assert completed == claim
    assert (own["from"], own["to"], own["why"]) == (to, ended.line["version"], "after it")


CLIENTS = """
import multiprocessing, os, sys
from pathlib import Path
import numpy as np, pandas as pd
from churnlab.data.contract import Column, Contract
from churnlab.data.dataset import make_dataset
from churnlab.data.table import in_memory
from churnlab.tracking import artifacts
from churnlab.tracking.runs import log_metrics, start_run
from churnlab.tracking.store import open_store

contract = Contract("crowd", "left", 1, columns={"age": Column("numeric")})

def client(me, barrier):
    open_store(None, home=Path(os.environ["CHURNLAB_HOME"]))
    for number in range(int(sys.argv[1])):
        age, left = np.arange(40.0) + number, np.arange(40) % 3 == 0
        frame = pd.DataFrame({"age": age, "left": left.astype(int)})
        dataset = make_dataset(in_memory(frame, source="invented"), contract)
        barrier.wait()
        with start_run("train", {"me": me}, name=f"{me} {number}", dataset=dataset):
            log_metrics({f"m{place}": place + number / 10 for place in range(20)})
            artifacts.log_table(frame, "table.csv")

fork = multiprocessing.get_context("fork")
barrier = fork.Barrier(8, timeout=300)
crowd = [fork.Process(target=client, args=[me, barrier]) for me in range(8)]
for one in crowd:
    one.start()
for one in crowd:
    one.join()
sys.exit(max(one.exitcode for one in crowd))
"""


def test_eight_clients_that_make_one_experiment_and_log_one_table_at_once_lose_no_run(
    server, tmp_path
):
    each = max(2, SOAK)
    crowd = subprocess.run(
        [sys.executable, "-c", CLIENTS, str(each)],
        env=environment(tmp_path, MLFLOW_TRACKING_URI=server.address),
        capture_output=True,
        text=True,
    )
    assert crowd.returncode == 0, crowd.stderr
    (kind,) = [one for one in server.client.search_experiments() if one.name == "crowd-churn"]
    found = server.client.search_runs([kind.experiment_id], max_results=5000)
    assert sorted(run.info.run_name for run in found) == sorted(
        f"{me} {number}" for me in range(8) for number in range(each)
    )
    for run in found:
        number = int(run.info.run_name.split()[1])
        assert run.info.status == "FINISHED"
        assert run.data.metrics == {f"m{place}": place + number / 10 for place in range(20)}
        assert [one.dataset.name for one in run.inputs.dataset_inputs] == ["crowd"]
        files = {file.path for file in server.client.list_artifacts(run.info.run_id)}
        assert files == {"config.yaml", "data_report.json", "table.csv"}


def check_study(server: MlflowServer, study: str, *, n: int) -> None:
    """Check that a study has n trials with a run each, one parent, and nothing RUNNING."""
    trials = [run for run in server.runs("trial") if run.data.tags["churnlab.study"] == study]
    (parent,) = [run for run in server.runs("tune") if run.data.tags["churnlab.study"] == study]
    assert [run.info.status for run in trials].count("FINISHED") == n
    assert {run.info.status for run in trials} <= {"FINISHED", "KILLED", "FAILED"}
    assert parent.info.status == "FINISHED"


def trials_of(server: MlflowServer, study: str) -> int:
    return sum(run.data.tags["churnlab.study"] == study for run in server.runs("trial"))


def sleeping_study(root: Path, study: str, *, n: int) -> tuple[str, ...]:
    """Return the words of a study whose trials take time, but little work."""
    model = own_model(root, "sleeper", {"x": (0.0, 1.0)}, seconds=0.3)
    return ("tune", *model, f"tune.n_trials={n}", f"tune.study={study}")


def wait_for_trials(server, study: str, enough: int, tuning: Future[Ended]) -> None:
    def reached() -> bool:
        assert not tuning.done(), tuning.result()
        return trials_of(server, study) >= enough

    until(reached, f"trial {enough}")


def test_a_server_and_its_database_that_restart_under_a_study_lose_nothing(
    server, made, postgres, tmp_path
):
    n = 30 if SOAK else 10
    words = sleeping_study(tmp_path, "restarted", n=n)
    churnlab = churnlab_at(tmp_path / "home", MLFLOW_TRACKING_URI=server.address)
    with ThreadPoolExecutor() as background:
        tuning = background.submit(churnlab, *words)
        for stop, begin in ((server.kill, server.start), (postgres.stop, postgres.start)):
            enough = trials_of(server, "restarted") + 2
            wait_for_trials(server, "restarted", enough, tuning)
            stop()
            time.sleep(10 if SOAK else 3)
            assert not tuning.done(), "it ended before the part was gone"
            begin()
        ended = tuning.result()
    assert ended.code == 0, ended.err
    assert ended.err.count("does not answer") == 1  # with its database gone the server does
    assert "Retry" not in ended.err
    check_study(server, "restarted", n=n)


def test_a_server_that_is_gone_for_good_ends_the_command_and_the_same_command_completes_it(
    server, made, tmp_path
):
    n = 60 if SOAK else 8
    words = sleeping_study(tmp_path, "gone", n=n)
    settings = {"MLFLOW_TRACKING_URI": server.address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
    churnlab = churnlab_at(tmp_path / "home", **settings)
    with ThreadPoolExecutor() as background:
        tuning = background.submit(churnlab, *words)
        wait_for_trials(server, "gone", 2, tuning)
        server.kill()
        ended = tuning.result()
    server.start()
    assert ended.code == 1, ended.err
    assert ended.out == ""
    *_, message = ended.err.strip().split("\n")
    assert "does not answer any more" in message
    assert "run the same command again" in message
    assert "Traceback" not in ended.err
    again = churnlab(*words)
    assert (again.code, again.line["n_complete"]) == (0, n), again.err
    check_study(server, "gone", n=n)


class Guarded(BaseHTTPRequestHandler):
    """A server that knows nobody, as MLflow with basic-auth answers who has no right password."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b"You are not authenticated.")

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def test_a_wrong_password_is_named_in_a_paragraph_that_does_not_show_it(tmp_path):
    with HTTPServer(("127.0.0.1", 0), Guarded) as guarded:
        threading.Thread(target=guarded.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{guarded.server_port}"
        settings = {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "s3cret"}
        ended = churnlab_at(tmp_path / "home", **settings)("train", f"tracking.uri={address}")
        guarded.shutdown()
    assert (ended.code, ended.out) == (2, "")
    assert "refused the name or the password" in ended.err
    assert "MLFLOW_TRACKING_PASSWORD" in ended.err
    assert "s3cret" not in ended.err


@pytest.mark.parametrize(
    ("address", "instead"),
    [
        ("http://ann:s3cret@127.0.0.1:9", "set MLFLOW_TRACKING_USERNAME"),
        ("http://ann:p/s3cret@127.0.0.1:9", "set MLFLOW_TRACKING_USERNAME"),
        ("postgresql+psycopg://ann:s3cret@127.0.0.1:9/lab", "~/.pgpass"),
        ("postgresql://127.0.0.1:9/lab?user=ann&password=s3cret", "~/.pgpass"),
    ],
)
@pytest.mark.parametrize("by", ["key", "variable"])
def test_an_address_with_a_password_is_refused_because_every_run_would_record_it(
    tmp_path, address, instead, by
):
    words = [f"tracking.uri='{address}'"] if by == "key" else []
    settings = {} if by == "key" else {"MLFLOW_TRACKING_URI": address}
    ended = churnlab_at(tmp_path / "home", **settings)("history", *words)
    assert ended.code == 2
    assert "every run would record" in ended.err
    assert instead in ended.err
    assert "s3cret" not in ended.err
