"""Measure what an answer costs: churnlab serve beside other servers of the same members.

    .venv/bin/python benchmarks/serving.py --short     # two minutes: one round, logistic regression
    .venv/bin/python benchmarks/serving.py             # five rounds, also a forest of 300 trees
    .venv/bin/python benchmarks/serving.py --minute    # 32 connections for a minute each
    .venv/bin/python benchmarks/serving.py --peers DIR # also MLServer and BentoML (README.md)

Each server is a process on a port of its own, and all stay up; rounds interleave them. The client
is a socket that keeps its connection and only counts bytes. Medians over the rounds are printed,
ratios to the stock server of the same estimator, and CPU time of the server per request.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

SCRIPTS = Path(sys.executable).parent

SMALL = ("evaluation.folds=2", "segments.n_init=2", "segments.bootstraps=2", "segments.splits=2")

MODELS = {
    "lr": ("model=logistic_regression",),
    "rf": ("model=random_forest", "model.estimator.n_estimators=300"),
}

BARE = """
import json, sys
import skops.io, numpy as np, orjson, pandas as pd, uvicorn
from fastapi import FastAPI, Request, Response
from churnlab.bundle.skops_types import TRUSTED
pipeline = skops.io.load(sys.argv[1], trusted=TRUSTED)
names = json.loads(sys.argv[2])
estimator = pipeline[-1]
app = FastAPI()
@app.get("/ping")
def ping(): return {}
@app.post("/invocations")
async def invocations(request: Request):
    rows = orjson.loads(await request.body())["dataframe_records"]
    if sys.argv[4] == "arrays":
        values = np.array([[row[name] for name in names] for row in rows], np.float64)
        scores = estimator.predict_proba(values)[:, 1].tolist()
    else:
        scores = pipeline.predict_proba(pd.DataFrame(rows))[:, 1].tolist()
    return Response(orjson.dumps({"predictions": scores}), media_type="application/json")
uvicorn.run(app, port=int(sys.argv[3]), log_level="error", access_log=False)
"""
"""Bare FastAPI: a frame into the pipeline, or arrays into the estimator alone, without scaler, and
both without check, segment or reason."""

BENTO = """
import bentoml, mlflow, pandas as pd
@bentoml.service(workers=1)
class Stock:
    def __init__(self) -> None:
        self.model = mlflow.sklearn.load_model("stock")
    @bentoml.api(route="/invocations")
    def invocations(self, dataframe_records: list[dict]) -> list:
        return self.model.predict_proba(pd.DataFrame(dataframe_records)).tolist()
"""
"""BentoML's service of a scikit-learn model, on one worker."""

OURS = ("churnlab serve", "mlflow, our version")
"""The contenders that take the parameter reasons."""


class Server(NamedTuple):
    """A server under test: its name, port and process."""

    name: str
    port: int
    process: subprocess.Popen[bytes]


def main() -> None:
    """Make the versions, start the servers, and print what each costs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true", help="one round of a second each")
    parser.add_argument("--only", choices=MODELS, help="one model")
    parser.add_argument("--minute", action="store_true", help="32 connections for a minute each")
    parser.add_argument("--peers", type=Path, help="the folder with mlserver/ and bentoml/")
    chosen = parser.parse_args()
    models = [chosen.only] if chosen.only else ["lr"] if chosen.short else [*MODELS]
    rounds, seconds = (1, 1.0) if chosen.short else (1, 60.0) if chosen.minute else (5, 5.0)
    loads = {name: load for name, load in LOADS.items() if not chosen.minute or load.clients > 1}
    for model in models:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            servers = [*start_all(Path(folder), model, stack, chosen.peers)]
            measure(model, servers, loads, rounds=rounds, seconds=seconds)


def start_all(folder: Path, model: str, stack: ExitStack, peers: Path | None) -> Iterator[Server]:
    """Yield the servers of a model, with those whose environments are in ``peers``."""
    home = folder / "home"
    environment = os.environ | {"CHURNLAB_HOME": str(home)}
    promote(model, environment)
    environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db"}
    environment |= {"PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}
    pipeline = log_stock(home, folder, environment)
    mlflow = (str(SCRIPTS / "mlflow"), "models", "serve", "--env-manager", "local")
    names = json.dumps([*member()])
    bare = (sys.executable, "-c", BARE, str(pipeline), names, "PORT")
    contenders = {
        "churnlab serve": (sys.executable, "-m", "churnlab", "-q", "serve", "port=PORT"),
        "mlflow, our version": (*mlflow, "-m", "models:/demo-churn@champion", "-p", "PORT"),
        "mlflow, stock": (*mlflow, "-m", f"{folder}/stock", "-p", "PORT"),
        "mlflow, stock unsigned": (*mlflow, "-m", f"{folder}/unsigned", "-p", "PORT"),
        "FastAPI, pipeline": (*bare, "pipeline"),
        "FastAPI, arrays": (*bare, "arrays"),
    }
    if peers is not None:
        (folder / "service.py").write_text(BENTO, encoding="utf-8")
        bento = (str(peers / "bentoml/bin/bentoml"), "serve", "service:Stock", "--port", "PORT")
        mlserver = (str(peers / "mlserver/bin/mlserver"), "start", str(folder / "mlserver"))
        others = {"MLServer": mlserver, "BentoML": bento}
        contenders |= {name: words for name, words in others.items() if Path(words[0]).exists()}
    for name, words in contenders.items():
        yield stack.enter_context(running(name, words, environment, folder))


def promote(model: str, environment: dict[str, str]) -> None:
    """Make a champion with this model."""
    rows = ("dataset.rows=4000",)
    for command in (
        ("train", *rows, "evaluation.folds=2", *MODELS[model]),
        ("segment", *rows, *SMALL[1:], "segments.references=2", "segments.k=3"),
        ("promote", *rows, "evaluation.folds=2", "force=true", "reason=a benchmark"),
    ):
        words = [sys.executable, "-m", "churnlab", *command]
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def log_stock(home: Path, folder: Path, environment: dict[str, str]) -> Path:
    """Save the champion's own pipeline as MLflow's documentation does, with the signature of its
    table, and without it; return its skops file."""
    served = next(home.rglob("served.json")).parent
    code = (
        "import sys, mlflow, skops.io\n"
        "from churnlab.bundle.skops_types import TRUSTED\n"
        "pipeline = skops.io.load(sys.argv[1], trusted=TRUSTED)\n"
        "from churnlab.data.demo import members\n"
        "table = members(100, seed=5).drop(columns='Churn')\n"
        "signature = mlflow.models.infer_signature(table, pipeline.predict_proba(table))\n"
        "for name, signed in (('stock', signature), ('unsigned', False)):\n"
        "    mlflow.sklearn.save_model(pipeline, f'{sys.argv[2]}/{name}', signature=signed, "
        "pyfunc_predict_fn='predict_proba', skops_trusted_types=TRUSTED, pip_requirements=[])\n"
    )
    pipeline = served / "churn.skops"
    words = [sys.executable, "-c", code, str(pipeline), str(folder)]
    subprocess.run(words, check=True, env=environment, stderr=subprocess.DEVNULL)
    return Path(shutil.copy(pipeline, folder / "churn.skops"))


@contextmanager
def running(
    name: str, words: tuple[str, ...], environment: dict[str, str], folder: Path
) -> Iterator[Server]:
    """Run a server until it answers, and end it afterwards."""
    port = free_port()
    if name == "MLServer":
        configure_mlserver(folder, port)
    process = subprocess.Popen(
        [word.replace("PORT", str(port)) for word in words],
        env=environment,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    sent, kind = request(1).partition(b"\r\n\r\n")[2], {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", sent, kind)
    try:
        for _ in range(1200):
            try:
                urllib.request.urlopen(asked, timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, f"{name} ended"
                time.sleep(0.2)
        yield Server(name, port, process)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def configure_mlserver(folder: Path, port: int) -> None:
    """Write what MLServer reads to serve the stock model."""
    (folder / "mlserver").mkdir()
    ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    model = {
        "name": "stock",
        "implementation": "mlserver_mlflow.MLflowRuntime",
        "parameters": {"uri": str(folder / "stock")},
    }
    for name, content in (("settings", ports), ("model-settings", model)):
        (folder / "mlserver" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def member() -> dict[str, Any]:
    """Return one member of the demo."""
    from churnlab.data.demo import members

    return members(1, seed=5).drop(columns="Churn").to_dict("records")[0]


def request(rows: int, **params: bool) -> bytes:
    """Return the request for so many members, header and body."""
    from churnlab.data.demo import members

    table = members(rows, seed=5).drop(columns="Churn")
    given = {"dataframe_records": table.to_dict("records")} | ({"params": params} if params else {})
    body = json.dumps(given).encode()
    head = "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def is_complete(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return bool(end) and len(body) >= int(length)


def load(port: int, sent: bytes, *, connections: int, seconds: float) -> list[float]:
    """Send a request over each connection, again when it is answered; return the seconds of all."""
    times = []
    with selectors.DefaultSelector() as waiting, ExitStack() as stack:

        def send(connection: socket.socket) -> None:
            waiting.modify(connection, selectors.EVENT_READ, [time.perf_counter(), b""])
            connection.sendall(sent)

        for _ in range(connections):
            opened = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            waiting.register(opened, selectors.EVENT_READ, None)
            send(opened)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or not times:
            for key, _ in waiting.select():
                key.data[1] += key.fileobj.recv(1 << 20)  # type: ignore[union-attr]
                if is_complete(key.data[1]):
                    assert key.data[1].startswith(b"HTTP/1.1 200"), key.data[1][:500]
                    times.append(time.perf_counter() - key.data[0])
                    send(key.fileobj)  # type: ignore[arg-type]
    return times


def cpu(server: Server) -> float:
    """Return the seconds of CPU that a server and its processes have taken."""
    own = psutil.Process(server.process.pid)
    return sum(sum(process.cpu_times()[:2]) for process in (own, *own.children(recursive=True)))


class Load(NamedTuple):
    """Requests: rows of each, connections, and what ours are asked for."""

    rows: int
    clients: int = 1
    params: Mapping[str, bool] = {}


LOADS = {
    "1 row": Load(1),
    "1,000 rows": Load(1000),
    "1,000 rows, ours without reasons": Load(1000, params={"reasons": False}),
    "1 row, 32 connections": Load(1, clients=32),
}


def measure(
    model: str,
    servers: list[Server],
    loads: Mapping[str, Load],
    *,
    rounds: int,
    seconds: float,
) -> None:
    """Print the medians of the rounds."""
    for title, (rows, connections, params) in loads.items():
        plain, chosen = request(rows), request(rows, **params)
        found: dict[str, list[tuple[float, ...]]] = {server.name: [] for server in servers}
        for turn in range(rounds + 1):
            for server in servers:
                before = cpu(server)
                length = seconds if turn else 0.3  # the first is to warm up
                sent = chosen if server.name in OURS else plain
                times = load(server.port, sent, connections=connections, seconds=length)
                taken = (cpu(server) - before) / len(times)
                cuts = statistics.quantiles([*times, times[-1]], n=100)
                if turn:
                    found[server.name].append((len(times) / length, cuts[49], cuts[98], taken))
        print(f"\n{model}: {title}\n")
        print("| server | requests/s | times stock | p50 ms | p99 ms | CPU ms | CPU, stock / it |")
        print("|---|---|---|---|---|---|---|")
        stock = found["mlflow, stock"]
        for name, rounds_of in found.items():
            rate, p50, p99, taken = (
                statistics.median(part) for part in zip(*rounds_of, strict=True)
            )
            ratio = statistics.median(a[0] / b[0] for a, b in zip(rounds_of, stock, strict=True))
            less = statistics.median(b[3] / a[3] for a, b in zip(rounds_of, stock, strict=True))
            print(
                f"| {name} | {rate:.0f} | {ratio:.1f} | {p50 * 1e3:.2f} | {p99 * 1e3:.2f} "
                f"| {taken * 1e3:.2f} | {less:.1f} |"
            )


if __name__ == "__main__":
    main()
