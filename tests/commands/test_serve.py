"""``churnlab serve``: which version, which address, and how it ends."""

import json
import shutil
import signal
import socket
import threading
import time

import pytest

from churnlab.data.demo import members
from support.killing import Command
from support.running import churnlab_at, tracked_at, version_folder
from support.servers import churnlab_serve, post

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def churnlab(promoted):
    """Run commands that end by themselves."""
    return churnlab_at(promoted.home)


def test_without_a_champion_the_answer_is_no(home, run_command):
    ended = run_command(home, "serve", "port=0")
    assert ended.code == 3, ended.err
    assert "There is no registered model with a champion" in ended.err
    assert ended.line == {"command": "serve", "run_id": None, "version": None}


def test_a_version_that_does_not_exist_is_wrong_input(churnlab):
    ended = churnlab("serve", "port=0", "model_uri=models:/demo-churn/9")
    assert ended.code == 2, ended.err
    assert "There is no model models:/demo-churn/9" in ended.err


def test_several_champions_need_a_choice(tmp_path, promoted, client_at, run_command):
    home = shutil.copytree(promoted.kept, tmp_path / "home")
    with tracked_at(home):
        client = client_at(home)
        source = client.get_model_version("demo-churn", "1").source
        client.create_registered_model("other-churn")
        client.create_model_version("other-churn", source)
    client.set_registered_model_alias("other-churn", "champion", "1")
    ended = run_command(home, "serve", "port=0")
    assert ended.code == 2, ended.err
    assert "demo-churn, other-churn" in ended.err
    assert "dataset=demo" in ended.err


def test_a_taken_port_is_wrong_input(churnlab):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = churnlab("serve", f"port={port}")
    assert ended.code == 2, ended.err
    assert f"port={port} cannot be used" in ended.err
    assert "give another port, as port=5002." in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1"])
def test_an_address_of_another_machine_is_wrong_input(churnlab, host):
    ended = churnlab("serve", "port=0", f"host={host}")
    assert ended.code == 2, ended.err
    assert "an address of this machine" in ended.err


def test_an_unregistered_folder_is_served_only_unverified(promoted, client_at, churnlab):
    files = version_folder(client_at(promoted.home), "demo-churn", "1")
    ended = churnlab("serve", "port=0", f"model_uri={files}")
    assert ended.code == 3, ended.err
    assert "model.unverified=true" in ended.err
    words = (f"model_uri={files}", "model.unverified=true")
    with churnlab_serve(promoted.home, *words) as server:
        table = members(1, seed=3).drop(columns="Churn")
        assert post(server.address, {"dataframe_records": table.to_dict("records")})[0] == 200


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_a_signal_waits_for_the_requests_in_flight(promoted, number, code):
    table = members(8000, seed=3).drop(columns="Churn")
    body = json.dumps({"dataframe_records": table.to_dict("records")})
    with churnlab_serve(promoted.home) as server:
        found = []
        asking = threading.Thread(target=lambda: found.append(post(server.address, body)))
        slow = socket.create_connection(("127.0.0.1", server.port))
        head = "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        slow.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-10].encode())
        asking.start()
        time.sleep(0.3)
        server.process.send_signal(number)
        time.sleep(0.3)
        slow.sendall(body[-10:].encode())
        answer = b""
        with slow:
            while part := slow.recv(65536):
                answer += part
        asking.join()
        assert server.process.wait(timeout=60) == code
        text = server.output.read_text(encoding="utf-8")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["predictions"]) == 8000
    assert found[0][0] == 200
    assert len(found[0][1]["predictions"]) == 8000
    assert "Traceback" not in text
    assert text.endswith("Stopped. To run it again: churnlab serve port=0\n")


def test_a_signal_before_the_first_request_ends_it_at_once(promoted, tmp_path):
    with Command(promoted.home, "serve", "port=0", root=tmp_path) as server:
        assert server.until(lambda: server.err.endswith("\n"), "its first line")
        assert server.err.startswith("http://127.0.0.1:")
        server.process.terminate()
        ended = server.ended()
    assert ended.code == 143
    assert ended.out == ""
