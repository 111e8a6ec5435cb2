"""The page about a team: all parts are started by its own commands, used once, and ended."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from support.pages import ROOT, blocks
from support.postgres import PROGRAMS, free_port, program, unprivileged
from support.running import THREE_SEGMENTS, environment

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "how-to" / "team.md"
PORTS = ("PGPORT", "MLFLOW_PORT", "DASK_PORT", "SERVE_PORT")
SMALL = {
    "churnlab tune": "churnlab tune dataset.rows=300 evaluation.folds=2 tune.n_trials=4",
    "churnlab segment": f"churnlab segment dataset.rows=300 {' '.join(THREE_SEGMENTS)}",
    "churnlab promote": "churnlab promote dataset.rows=300 evaluation.folds=2",
    "--nworkers=2": "--nworkers=1",
    "--workers=2": "--workers=1",
}
"""What makes a command of the page quick."""


def shown() -> tuple[str, dict[str, list[str]]]:
    """Return the page's first block, which every shell runs, and the others by their names."""
    first, *others = [block.text for block in blocks(PAGE, "sh")]
    found: dict[str, list[str]] = {}
    for text in others:
        for long, quick in SMALL.items():
            text = re.sub(rf"{long}(?=\s)", quick.replace("\\", ""), text)
        found.setdefault(text.partition("\n")[0].removeprefix("# "), []).append(text)
    return first, found


def test_the_parts_that_the_page_starts_work_together(tmp_path):
    program("initdb")
    first, named = shown()
    ports = {name: str(free_port()) for name in PORTS}
    tools = [str(Path(sys.executable).parent), str(PROGRAMS), os.environ["PATH"]]
    settings = environment(tmp_path / "home", PGPASSWORD="a secret", PATH=os.pathsep.join(tools))
    settings |= ports
    data = Path("/tmp") / f"team-{os.getpid()}"  # pytest's folders belong to its user alone
    data.mkdir()
    account = unprivileged()
    os.chown(data, account.get("user", -1), account.get("group", -1))

    def run(text: str, folder: Path, **options: Any) -> str:
        ended = subprocess.run(
            ["bash", "-euc", f"{first}\n{text}"],
            cwd=folder,
            env=settings,
            capture_output=True,
            text=True,
            **options,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    with ExitStack() as parts:
        parts.callback(subprocess.run, ["rm", "-r", str(data)], check=True)

        def begin(name: str, folder: Path, **options: Any) -> subprocess.Popen[bytes]:
            (text,) = named[name]
            with (tmp_path / name).open("w") as log:
                part = subprocess.Popen(
                    ["bash", "-euc", f"{first}\n{text}"],
                    cwd=folder,
                    env=settings,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    **options,
                )
            parts.callback(end, part)
            return part

        make_cluster, make_databases = named["once"]
        run(make_cluster, data, **account)
        begin("postgres", data, **account)
        until(lambda: run_quietly(run, make_databases), "PostgreSQL", tmp_path / "postgres")
        begin("mlflow", tmp_path)
        begin("scheduler", tmp_path)
        begin("worker", tmp_path)
        until(lambda: answers(ports["MLFLOW_PORT"], "health"), "MLflow", tmp_path / "mlflow")
        lines = run(*named["work"], tmp_path).splitlines()
        tuned, segmented, promoted = [json.loads(line) for line in lines]
        assert (tuned["n_complete"], segmented["k"]) == (4, 3)
        assert promoted["promoted"]
        begin("serve", tmp_path)
        until(lambda: answers(ports["SERVE_PORT"], "ping"), "serve", tmp_path / "serve")
        assert "a secret" not in "".join(
            path.read_text() for path in tmp_path.glob("[a-z]*[a-z]") if path.is_file()
        )
    assert not any(listens(port) for port in ports.values()), "a part was not ended"


def end(part: subprocess.Popen[bytes]) -> None:
    """End a part as a person does, with SIGINT for PostgreSQL's fast shutdown."""
    left = [psutil.Process(part.pid), *psutil.Process(part.pid).children(recursive=True)]
    part.send_signal(signal.SIGINT if "postgres" in left[0].name() else signal.SIGTERM)
    part.wait(timeout=60)
    for process in psutil.wait_procs(left, timeout=20)[1]:
        process.kill()


def until(reached: Callable[[], bool], what: str, log: Path) -> None:
    for _ in range(600):
        if reached():
            return
        time.sleep(0.2)
    pytest.fail(f"{what} did not start: {log.read_text()}")


def run_quietly(run: Callable[..., str], text: str) -> bool:
    with suppress(AssertionError):
        run(text, ROOT)
        return True
    return False


def answers(port: str, path: str) -> bool:
    with suppress(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5).close()
        return True
    return False


def listens(port: str) -> bool:
    return any(
        found.laddr and str(found.laddr.port) == port and found.status == "LISTEN"
        for found in psutil.net_connections("tcp")
    )


def test_the_compose_file_starts_the_parts_as_the_page_does():
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    _, named = shown()
    for part in ("mlflow", "scheduler", "worker", "serve"):
        command = services[part]["command"]
        (text,) = named[part]
        assert " ".join(command[:2]) in text
        options = {word.partition("=")[0] for word in command[2:] if word.startswith("--")}
        assert {option for option in options if option not in text} <= {"--allowed-hosts"}
