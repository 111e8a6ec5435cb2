"""The server follows the champion: no request is lost, and none gets another version's answer."""

import http.client
import itertools
import json
import random
import shutil
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import mlflow
import pandas as pd
import psutil
import pytest

from churnlab.data.demo import members
from support.running import PROMOTED_ROWS, churnlab_at, tracked_at, version_folder
from support.servers import forked_serve
from support.soak import SOAK

pytestmark = pytest.mark.slow

MOVES, CLIENTS, REQUESTS = (100, 4, 100_000) if SOAK else (3, 4, 100)

MODEL = "demo-churn"

SWAPPED, REFUSED = (f'churnlab_swaps_total{{outcome="{how}"}}' for how in ("swapped", "refused"))


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return members(20, seed=4).drop(columns="Churn")


@pytest.fixture(scope="module")
def home(promoted, tmp_path_factory):
    """A store with three versions that answer differently; the first is the champion."""
    home = shutil.copytree(promoted.kept, tmp_path_factory.mktemp("moving") / "home")
    small = (*PROMOTED_ROWS, "evaluation.folds=2")
    forced = ("force=true", "reason=a test")
    churnlab, ended = churnlab_at(home), []
    for strength in ("0.01", "0.0001"):
        train = churnlab("train", *small, f"model.estimator.C={strength}")
        run = f"churn_run={train.line['run_id']}"
        ended += [train, churnlab("promote", *small, run, *forced)]
    assert {end.code for end in ended} == {0}, [end.err for end in ended]
    return home


@pytest.fixture
def client(home, client_at):
    """MLflow's client; the first version is the champion again."""
    client = client_at(home)
    client.set_registered_model_alias(MODEL, "champion", "1")
    return client


@pytest.fixture(scope="module")
def following(home, client_at):
    """A server that follows the champion; most tests share it."""
    client_at(home).set_registered_model_alias(MODEL, "champion", "1")
    with forked_serve(home, "serve.poll=0.1") as started:
        yield started


@pytest.fixture
def server(following, client):
    """That server, back at the first version."""
    wait_until(lambda: state(following)["version"] == "1")
    return following


@pytest.fixture(scope="module")
def promised(home, client_at, table):
    """What each version answers in a notebook."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.dont_write_bytecode", True)  # leave the versions as they are
        for number in ("1", "2", "3"):
            files = version_folder(client_at(home), MODEL, number)
            found[number] = mlflow.pyfunc.load_model(str(files)).predict(table)
    assert found["1"] != found["2"] != found["3"]
    return found


def ask(connection, table) -> tuple[int, str, list[object]]:
    """Return the status, the version in the header, and the answers."""
    return send(connection, json.dumps({"dataframe_records": table.to_dict("records")}))


def send(connection, body: str) -> tuple[int, str, list[object]]:
    connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = json.loads(answer.read())
    return answer.status, answer.headers["X-Churnlab-Version"], content.get("predictions")


def connected(server) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60))


def asked(server, table) -> tuple[int, str, list[object]]:
    with connected(server) as connection:
        return ask(connection, table)


def told(server, path: str) -> str:
    with connected(server) as connection:
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def state(server) -> dict[str, object]:
    return json.loads(told(server, "/version"))


def metric(server, name: str) -> float:
    lines = [line for line in told(server, "/metrics").splitlines() if line.startswith(name)]
    return float(lines[0].rpartition(" ")[2]) if lines else 0


def written_by(server, words: str) -> int:
    return server.output.read_text(encoding="utf-8").count(words)


def wait_until(true, *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_the_champion_moves_under_load_and_no_request_is_lost_or_mixed(
    server, client, table, promised
):
    counts, failures, done = [0] * CLIENTS, [], threading.Event()
    before = metric(server, SWAPPED)

    def load(place: int) -> None:
        try:
            rows = 20 if place == 0 else 1
            body = json.dumps({"dataframe_records": table.iloc[:rows].to_dict("records")})
            with connected(server) as connection:
                while not done.is_set():
                    status, version, answers = send(connection, body)
                    if status != 200 or answers != promised[version][:rows]:
                        failures.append((status, version, answers))
                    counts[place] += 1
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=load, args=(place,)) for place in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        moves = itertools.islice(itertools.cycle(("2", "3", "1")), MOVES)
        for move, number in enumerate(moves, start=1):
            client.set_registered_model_alias(MODEL, "champion", number)
            wait_until(lambda number=number: state(server)["version"] == number)
            enough = REQUESTS * move / MOVES
            wait_until(lambda enough=enough: sum(counts) >= enough or failures, seconds=600)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert sum(counts) >= REQUESTS
    wait_until(lambda: metric(server, SWAPPED) == before + MOVES)
    assert {line["version"] for line in server.log if line["rows"]} >= {"1", "2", "3"}


def change_a_byte(files: Path) -> None:
    draw = random.Random(0)
    file = draw.choice(sorted(files.rglob("*.skops")))
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1
    file.write_bytes(content)


def add_a_file(files: Path) -> None:
    (files / "sitecustomize.py").write_text("raise SystemExit(1)", encoding="utf-8")


def remove_a_file(files: Path) -> None:
    (files / "artifacts" / "served.json").unlink()


@pytest.mark.parametrize("tamper", [change_a_byte, add_a_file, remove_a_file])
def test_a_tampered_champion_is_not_swapped_in_until_it_is_repaired(
    home, server, client, table, promised, tamper, tmp_path
):
    files, words = version_folder(client, MODEL, "3"), "version 3 is not used"
    kept = shutil.copytree(files, tmp_path / "kept")
    written, counted = written_by(server, words), metric(server, REFUSED)
    tamper(files)
    try:
        client.set_registered_model_alias(MODEL, "champion", "3")
        wait_until(lambda: state(server)["refused"])
        refused = state(server)
        assert refused["version"] == "1"
        assert refused["refused"]["version"] == "3"
        assert str(home) not in json.dumps(refused)
        assert asked(server, table) == (200, "1", promised["1"])
        time.sleep(0.5)  # five further looks
        wait_until(lambda: metric(server, REFUSED) == counted + 1)
        assert written_by(server, words) == written + 1
        client.set_registered_model_alias(MODEL, "champion", "2")
        wait_until(lambda: state(server)["version"] == "2")
        assert state(server)["refused"] is None
        shutil.rmtree(files)
        shutil.copytree(kept, files)
        client.set_registered_model_alias(MODEL, "champion", "3")
        wait_until(lambda: state(server)["version"] == "3")
        assert asked(server, table) == (200, "3", promised["3"])
    finally:
        shutil.rmtree(files, ignore_errors=True)
        shutil.copytree(kept, files)


@pytest.mark.skipif(not SOAK, reason="the long form: make soak")
def test_a_refused_champion_is_tried_again_after_a_minute(server, client, tmp_path):
    files = version_folder(client, MODEL, "3")
    lost = shutil.move(files / "artifacts" / "served.json", tmp_path)
    written = written_by(server, "version 3 is not used")
    try:
        client.set_registered_model_alias(MODEL, "champion", "3")
        wait_until(lambda: state(server)["refused"])
    finally:
        shutil.move(lost, files / "artifacts")
    wait_until(lambda: state(server)["version"] == "3", seconds=120)
    assert state(server)["refused"] is None
    assert written_by(server, "version 3 is not used") == written + 1


def test_a_tampered_version_is_not_started(home, server, client, run_command, tmp_path):
    files = version_folder(client, MODEL, "1")
    kept = shutil.copytree(files, tmp_path / "kept")
    try:
        change_a_byte(files)
        ended = run_command(home, "serve", "port=0")
    finally:
        shutil.rmtree(files)
        shutil.copytree(kept, files)
    assert ended.code == 3, ended.err
    assert "models:/demo-churn/1 is not served: its files are not those that were registered" in (
        ended.err
    )
    assert ".skops" in ended.err
    assert "Traceback" not in ended.err


def test_a_version_that_forgot_its_answers_is_not_swapped_in(server, client):
    """Its manifest fits, too: only its examples show that something is wrong."""
    from churnlab.registry.manifest import manifest_of
    from churnlab.tracking.names import Tag

    files, before = version_folder(client, MODEL, "2"), client.get_model_version(MODEL, "2").tags
    examples = files / "examples.json"
    kept = examples.read_text(encoding="utf-8")
    forged = json.loads(kept)
    forged["answers"][0]["churn_probability"] = 0.123456
    try:
        examples.write_text(json.dumps(forged), encoding="utf-8")
        ours = {
            name: sha for name, sha in manifest_of(files).items() if "registered_model" not in name
        }
        client.set_model_version_tag(MODEL, "2", Tag.MANIFEST, json.dumps(ours))
        client.set_registered_model_alias(MODEL, "champion", "2")
        wait_until(lambda: state(server)["refused"])
        reason = state(server)["refused"]["reason"]
        assert reason == "it does not answer its examples as it did when it was made"
        assert state(server)["version"] == "1"
    finally:
        examples.write_text(kept, encoding="utf-8")
        client.set_model_version_tag(MODEL, "2", Tag.MANIFEST, before[Tag.MANIFEST])


def rename_aliases(home, before: str, after: str) -> None:
    """Rename a table of the registry, in one step for all who read it."""
    with closing(sqlite3.connect(home / "mlflow.db", timeout=60)) as database, database:
        database.execute(f"ALTER TABLE {before} RENAME TO {after}")


def test_a_registry_that_cannot_be_read_keeps_the_version(home, server, client, table, promised):
    written = written_by(server, "cannot be reached")
    rename_aliases(home, "registered_model_aliases", "lost")
    try:
        wait_until(lambda: state(server)["registry"] == "unreachable")
        wait_until(lambda: metric(server, "churnlab_registry_unreachable") == 1)
        assert asked(server, table) == (200, "1", promised["1"])
    finally:
        rename_aliases(home, "lost", "registered_model_aliases")
    wait_until(lambda: state(server)["registry"] == "reachable")
    client.set_registered_model_alias(MODEL, "champion", "2")
    wait_until(lambda: state(server)["version"] == "2")
    assert written_by(server, "cannot be reached") == written + 1


def test_a_version_whose_files_cannot_be_copied_here_is_not_used_and_the_registry_is_not_blamed(
    home, client, tmp_path
):
    copies = tmp_path / "copies"
    copies.mkdir()
    with forked_serve(home, "serve.poll=0.1", TMPDIR=str(copies)) as server:
        before = state(server)
        shutil.rmtree(copies)
        client.set_registered_model_alias(MODEL, "champion", "3")
        wait_until(lambda: state(server)["refused"])
        reason = (
            "its files cannot be copied to the folder of temporary files (TMPDIR): No such file or "
            "directory"
        )
        assert state(server)["refused"] == {"version": "3", "reason": reason}
        assert state(server)["registry"] == "reachable"
        assert state(server)["version"] == before["version"] != "3"
        assert written_by(server, f"version 3 is not used: {reason}") == 1
        assert written_by(server, "cannot be reached") == 0


def test_a_version_with_a_number_stays(home, client, table, promised):
    words = ("model_uri=models:/demo-churn/2", "serve.poll=0.1")
    with forked_serve(home, *words) as server:
        client.set_registered_model_alias(MODEL, "champion", "3")
        time.sleep(0.5)  # five looks of a server that follows
        assert asked(server, table) == (200, "2", promised["2"])
        assert state(server)["follows"] is None


def test_all_workers_follow_and_a_dead_one_is_replaced(home, client, table, promised):
    """Also if the version with which they started was deleted."""
    first = client.get_model_version(MODEL, "1")
    with tracked_at(home):
        number = client.create_model_version(
            MODEL, first.source, first.run_id, tags=first.tags
        ).version
    made = str(number)
    client.set_registered_model_alias(MODEL, "champion", made)
    promised = promised | {made: promised["1"]}
    with forked_serve(home, "serve.poll=0.1", "serve.workers=2") as server:

        def answers() -> set[str]:
            found = set()
            for _ in range(20):
                status, version, given = asked(server, table)
                assert (status, given) == (200, promised[version])
                found.add(version)
            return found

        def living() -> float:
            return metric(server, 'churnlab_version_workers{model="demo-churn",version="2"}')

        assert answers() == {made}
        client.set_registered_model_alias(MODEL, "champion", "2")
        wait_until(lambda: living() == 2)
        assert answers() == {"2"}
        client.delete_model_version(MODEL, made)
        # psutil's order is that of their start; the first child is Python's resource tracker
        worker = psutil.Process(server.process.pid).children()[-1]
        worker.kill()
        wait_until(lambda: living() == 1)
        wait_until(lambda: living() == 2)
        assert answers() == {"2"}
        assert metric(server, 'churnlab_rows_total{version="2"}') >= 400
        server.process.terminate()
        assert server.process.wait(timeout=60) == 143
        assert "Traceback" not in server.output.read_text()
