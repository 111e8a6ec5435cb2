"""The server: every form gets the version's own answers, and no request harms it."""

import http.client
import json
import socket
import threading
import time
import urllib.request
from contextlib import ExitStack, suppress

import mlflow
import pandas as pd
import psutil
import pytest

from churnlab.data.demo import members
from support.running import version_folder
from support.servers import forked_serve, post
from support.soak import SOAK

pytestmark = pytest.mark.slow

TOKEN = "a long secret"

ROUNDS = 20 if SOAK else 1

LIMITS = ("serve.seconds=2", "serve.concurrency=80", "serve.most_rows=3000")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    ids = [f"{number:03d}" for number in range(2000)]
    return members(2000, seed=21).drop(columns="Churn").assign(member_id=ids)


@pytest.fixture(scope="module")
def server(promoted):
    with forked_serve(promoted.home, *LIMITS) as started:
        yield started


@pytest.fixture(scope="module")
def guarded(promoted):
    words = ("serve.hosts=[churn.example.com,localhost]",)
    with forked_serve(promoted.home, *words, CHURNLAB_SERVE_TOKEN=TOKEN) as started:
        yield started


@pytest.fixture(scope="module")
def promised(promoted, client_at, table):
    files = version_folder(client_at(promoted.home), "demo-churn", "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.dont_write_bytecode", True)  # leave the version as it is
        return mlflow.pyfunc.load_model(str(files)).predict(table)


def ask(server, method="GET", path="/ping", body=None, **headers):
    """Return status, headers and body of an answer; ``content_type`` is Content-Type."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body=body, headers=sent)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def raw(server, request: bytes) -> bytes:
    """Return what the server sends to these bytes before it closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(request)
        found = b""
        while part := connection.recv(65536):
            found += part
        return found


def records(table, rows):
    return {"dataframe_records": table.iloc[:rows].to_dict("records")}


@pytest.mark.parametrize("rows", [1, 7, 2000])
def test_every_form_gets_the_bits_of_a_notebook(server, table, promised, rows):
    part = table.iloc[:rows]
    split = part.to_dict("split")
    bodies = [
        records(table, rows),
        {"dataframe_split": {"columns": split["columns"], "data": split["data"]}},
        {"inputs": part.to_dict("list")},
        {"inputs": part.to_dict("records")},
        {"instances": part.to_dict("records")},
    ]
    for body in bodies:
        assert post(server.address, body) == (200, {"predictions": promised[:rows]})
    csv = part.to_csv(index=False)
    assert post(server.address, csv, content="text/csv") == (200, {"predictions": promised[:rows]})


def test_an_answer_names_its_version_also_if_it_is_a_refusal(server, table):
    body = json.dumps(records(table, 1))
    answers = [
        ask(server, "POST", "/invocations", body, content_type="application/json"),
        ask(server, "POST", "/invocations", "{", content_type="application/json"),
        ask(server),
        ask(server, path="/nowhere"),
    ]
    assert [status for status, _, _ in answers] == [200, 400, 200, 404]
    assert {headers["x-churnlab-version"] for _, headers, _ in answers} == {"1"}


REFUSED = {
    "no content type": (("POST", "/invocations", "{}"), {}, 415, "content"),
    "XML": (("POST", "/invocations", "<a/>"), {"content_type": "text/xml"}, 415, "content"),
    "Latin-1": (
        ("POST", "/invocations", "{}"),
        {"content_type": "application/json; charset=latin-1"},
        415,
        "content",
    ),
    "gzip": (
        ("POST", "/invocations", "{}"),
        {"content_type": "application/json", "content_encoding": "gzip"},
        415,
        "content",
    ),
    "GET of members": (("GET", "/invocations"), {}, 405, "method"),
    "POST to a question": (("POST", "/version", "{}"), {}, 405, "method"),
    "no such path": (("GET", "/../etc/passwd"), {}, 404, "path"),
    "documents from elsewhere": (("GET", "/docs"), {}, 404, "path"),
    "another host": (("GET", "/version"), {"Host": "evil.example.com"}, 403, "host"),
    "long headers": (("GET", "/version"), {"X_Note": "a" * 13_000}, 431, "headers"),
    "no JSON": (
        ("POST", "/invocations", "nothing"),
        {"content_type": "application/json"},
        400,
        "json",
    ),
    "nested": (
        ("POST", "/invocations", "[" * 100_000),
        {"content_type": "application/json"},
        400,
        "json",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_request_gets_a_reason_and_no_number(server, name):
    words, headers, status, reason = REFUSED[name]
    found, sent, body = ask(server, *words, **headers)
    answer = json.loads(body)
    assert (found, answer["reason"]) == (status, reason)
    assert set(answer) == {"error_code", "message", "reason"}
    assert "Traceback" not in answer["message"]
    assert "site-packages" not in answer["message"]
    assert (status == 405) == ("allow" in sent)


def test_a_row_that_breaks_the_contract_is_named(server, table):
    body = records(table, 3)
    body["dataframe_records"][2]["Age"] = 30.5
    status, answer = post(server.address, body)
    assert (status, answer["reason"], answer["row"], answer["field"], answer["value"]) == (
        400,
        "range",
        2,
        "Age",
        30.5,
    )


def test_too_many_rows_are_refused(server, table):
    rows = [*table.to_dict("records"), *table.to_dict("records")]
    status, answer = post(server.address, {"dataframe_records": rows})
    assert (status, answer["reason"]) == (413, "rows")


def test_a_token_is_needed_for_all_but_ping(guarded, table):
    right = {"Authorization": f"Bearer {TOKEN}", "Host": "churn.example.com:5001"}
    wrong = [
        {},
        {"Authorization": TOKEN},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer \xff"},
    ]
    for path in ("/version", "/metrics", "/openapi.json", "/health"):
        assert ask(guarded, path=path, **right)[0] == 200
        for headers in wrong:
            status, sent, _ = ask(guarded, path=path, **(headers | {"Host": "localhost"}))
            assert (status, sent["www-authenticate"]) == (401, "Bearer")
    assert ask(guarded)[0] == 200
    body = json.dumps(records(table, 1))
    sent = {"content_type": "application/json"}
    assert ask(guarded, "POST", "/invocations", body, **sent, **right)[0] == 200
    assert ask(guarded, "POST", "/invocations", body, **sent, Host="localhost")[0] == 401
    assert TOKEN not in guarded.output.read_text()


def test_a_page_of_another_name_for_this_machine_gets_nothing(guarded):
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert ask(guarded, path="/version", Host="rebound.example.org", **right)[0] == 403
    assert ask(guarded, path="/version", Host="127.0.0.1", **right)[0] == 403
    assert ask(guarded, path="/version", Host="LOCALHOST:80", **right)[0] == 200


def memory(server) -> int:
    return psutil.Process(server.process.pid).memory_info().rss


HEAD = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_a_body_that_does_not_arrive_is_given_up(server):
    started = time.monotonic()
    found = raw(server, HEAD + b"Content-Length: 900\r\n\r\n{")
    assert found.startswith(b"HTTP/1.1 408 ")
    assert b'"reason":"slow"' in found
    assert 1.5 < time.monotonic() - started < 20


def test_a_header_that_does_not_arrive_is_given_up_also_on_a_kept_connection(server):
    started, half = time.monotonic(), b"GET /ping HTTP/1.1\r\nHost: local"
    address = ("127.0.0.1", server.port)
    with (
        socket.create_connection(address, timeout=60) as fresh,
        socket.create_connection(address, timeout=60) as kept,
    ):
        kept.sendall(half + b"host\r\n\r\n")
        answer = b""
        while not answer.endswith(b"\r\n\r\n\n"):
            answer += kept.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 ")
        for connection in (fresh, kept):
            connection.sendall(half)
        for connection in (fresh, kept):
            assert connection.recv(65536) == b""
    assert 9 < time.monotonic() - started < 45


def test_bodies_that_are_too_long_are_refused_with_and_without_a_length(server):
    before, fifty, kind = memory(server), b" " * 50_000_000, {"content_type": "application/json"}
    for _ in range(ROUNDS):
        for sent in (fifty, (b" " * 1_000_000 for _ in range(50))):
            status, _, body = ask(server, "POST", "/invocations", sent, **kind)
            assert (status, json.loads(body)["reason"]) == (413, "bytes")
    assert memory(server) - before < 50_000_000


def test_half_sent_bodies_and_many_connections_leave_no_trace(server, table, promised):
    before = memory(server)
    halves = []
    for _ in range(50):
        half = socket.create_connection(("127.0.0.1", server.port))
        half.sendall(HEAD + b'Content-Length: 900000\r\n\r\n{"dataframe_records": [')
        halves.append(half)
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(400)]
    try:
        assert post(server.address, records(table, 7)) == (200, {"predictions": promised[:7]})
    finally:
        for connection in (*halves[:25], *idle):  # the others are answered 408
            connection.close()
    for half in halves[25:]:
        half.settimeout(30)
        assert half.recv(65536).startswith(b"HTTP/1.1 408 ")
        half.close()
    assert post(server.address, records(table, 7)) == (200, {"predictions": promised[:7]})
    assert_few_connections(server)
    assert memory(server) - before < 50_000_000


def assert_few_connections(server, *, seconds=10):
    for _ in range(seconds * 10):
        if len(psutil.Process(server.process.pid).net_connections()) < 20:
            return
        time.sleep(0.1)
    pytest.fail("connections stay open")


def whole(body: object) -> bytes:
    """Return a request with this body."""
    content = json.dumps(body).encode()
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(content) + content


def received(client: socket.socket) -> tuple[int, bytes]:
    """Return the status and the body of an answer."""
    answer = http.client.HTTPResponse(client)
    answer.begin()
    return answer.status, answer.read()


def test_five_hundred_requests_at_once_are_answered_or_get_503(server, table, promised):
    before, sent, statuses = memory(server), whole(records(table, 7)), []
    for _ in range(ROUNDS):
        with ExitStack() as opened:
            address = ("127.0.0.1", server.port)
            clients = [
                opened.enter_context(socket.create_connection(address, timeout=60))
                for _ in range(500)
            ]
            for client in clients:
                client.sendall(sent)
            for client in clients:
                status, body = received(client)
                statuses.append(status)
                if status != 503:
                    assert (status, json.loads(body)) == (200, {"predictions": promised[:7]})
    assert statuses.count(200) >= 80 * ROUNDS
    assert_few_connections(server)
    assert memory(server) - before < 50_000_000


def test_clients_that_take_no_answer_are_given_up(server, table, promised):
    sent, used = whole(records(table, 2000)), []
    for _ in range(5 if SOAK else 1):
        with ExitStack() as opened:
            for _ in range(60 if SOAK else 30):
                client = opened.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(("127.0.0.1", server.port))
                client.settimeout(0.05)
                with suppress(TimeoutError):  # the server reads no more than it has answered
                    client.sendall(10 * sent)
            assert post(server.address, records(table, 7)) == (200, {"predictions": promised[:7]})
            assert_few_connections(server, seconds=60)
        used.append(memory(server))
    assert used[-1] - used[0] < 50_000_000
    assert post(server.address, records(table, 7)) == (200, {"predictions": promised[:7]})


def test_too_many_requests_at_once_get_503_and_are_told_when_to_return(server, table, promised):
    halves = []
    try:
        for _ in range(85):
            half = socket.create_connection(("127.0.0.1", server.port))
            half.sendall(HEAD + b"Content-Length: 900000\r\n\r\n{")
            halves.append(half)
        time.sleep(0.5)
        body = json.dumps(records(table, 1))
        status, headers, _ = ask(
            server, "POST", "/invocations", body, content_type="application/json"
        )
        assert (status, headers["retry-after"]) == (503, "1")
        assert ask(server)[0] == 200
    finally:
        for half in halves:
            half.close()
    time.sleep(0.5)
    assert post(server.address, records(table, 1)) == (200, {"predictions": promised[:1]})


def test_what_is_no_http_is_answered_400(server):
    assert raw(server, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(server, b"GET /ping HTTP/1.1\r\nX: " + b"a" * 100_000).startswith(b"HTTP/1.1 400 ")
    assert ask(server)[0] == 200


def test_the_access_log_holds_no_data_of_members_and_nothing_that_a_client_made_up(server, table):
    body = records(table, 2)
    body["dataframe_records"][1] |= {"member_id": "Ann Secret", "Age": 31.0625}
    post(server.address, body)
    ask(server, path="/ping?member=Ann+Secret")
    ask(server, path="/members/Ann-Secret")
    ask(server, "ANNSECRET", "/ping")
    server.wait_for('"method":"other"')
    text = server.output.read_text(encoding="utf-8")
    assert "Secret" not in text
    assert "SECRET" not in text
    assert "31.0625" not in text
    keys = ["time", "method", "path", "status", "ms", "rows", "bytes", "version"]
    assert all(list(line)[:8] == keys for line in server.log)
    last = server.log[-4:]
    assert [line.get("reason") for line in last] == ["range", None, "path", "method"]
    assert [line["path"] for line in last] == ["/invocations", "/ping", "other", "/ping"]


def metrics(server) -> dict[str, float]:
    text = ask(server, path="/metrics")[2].decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_the_metrics_count_requests_rows_refusals_and_predictions(server, table, promised):
    before = metrics(server)
    post(server.address, records(table, 40))
    post(server.address, {})
    after = metrics(server)

    def more(name: str) -> float:
        return after[name] - before.get(name, 0)

    churn = [answer["churn_probability"] for answer in promised[:40]]
    assert more('churnlab_rows_total{version="1"}') == 40
    assert more('churnlab_churn_probability_total{version="1"}') == pytest.approx(sum(churn))
    leaving = sum(answer["will_churn"] for answer in promised[:40])
    assert more('churnlab_predicted_churn_total{version="1"}') == leaving
    assert more('churnlab_requests_total{path="/invocations",status="200"}') == 1
    assert more('churnlab_requests_total{path="/invocations",status="400"}') == 1
    assert more('churnlab_refusals_total{reason="form"}') == 1
    assert more('churnlab_request_seconds_count{path="/invocations"}') == 2
    assert after['churnlab_version_workers{model="demo-churn",version="1"}'] == 1
    assert after["churnlab_registry_unreachable"] == 0


def test_the_api_describes_the_fields_of_the_dataset(server):
    described = json.loads(ask(server, path="/openapi.json")[2])
    assert described["info"]["title"] == "demo-churn"
    assert described["info"]["version"] == "1"
    request = described["paths"]["/invocations"]["post"]["requestBody"]
    example = request["content"]["application/json"]["example"]
    assert post(server.address, example)[0] == 200


def test_the_server_says_which_version_answers(server):
    status, _, body = ask(server, path="/version")
    state = json.loads(body)
    assert status == 200
    assert (state["model"], state["version"], state["follows"]) == ("demo-churn", "1", "champion")
    assert (state["refused"], state["registry"]) == (None, "reachable")


def test_thirty_two_clients_at_once_all_get_their_own_answers(server, table, promised):
    wrong: list[object] = []

    def client(row: int) -> None:
        body = {"dataframe_records": [table.iloc[row].to_dict()]}
        for _ in range(10):
            answer = post(server.address, body)
            if answer != (200, {"predictions": [promised[row]]}):
                wrong.append(answer)

    threads = [threading.Thread(target=client, args=(row,)) for row in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_head_request_has_no_body(server):
    request = urllib.request.Request(f"{server.address}/ping", method="HEAD")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert (answer.status, answer.read()) == (200, b"")
