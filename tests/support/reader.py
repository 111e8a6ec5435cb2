"""Type documented commands into a terminal, as a reader would, and compare what it shows."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from support.pages import ROOT
from support.running import environment

SCRIPTS = Path(sys.executable).parent
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
NUMBER = r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?"
CLOSE, NEAR = 0.02, 0.002
"""How far a documented number may be from this machine's: relative, and absolute."""

COMMANDS = """
import json, os, sys
from churnlab.__main__ import main
for line in sys.stdin:
    folder, words = json.loads(line)
    os.chdir(folder)
    code = main(words)
    sys.stderr.flush()
    print(f"\\nended {code}", flush=True)
"""


class Ended(NamedTuple):
    """The exit code of a command, and what the terminal shows."""

    code: int
    output: str


class Reader:
    """Runs commands one after another; a folder is both the working directory and CHURNLAB_HOME.

    All churnlab commands run in one process: most of a short command's time is its imports.
    """

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.folder = home
        self._stack = stack
        self._ports: dict[str, str] = {}
        self._environment = environment(home) | {
            "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"
        }
        self._churnlab = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", COMMANDS],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=home,
                env=self._environment,
            )
        )
        stack.callback(self._churnlab.stdin.close)

    def run(self, command: str) -> Ended:
        """Run a command, wait for its end, or for a server to answer."""
        words = shlex.split(command, comments=True)
        if words[:2] == ["churnlab", "serve"] and not {"dry_run=true", "--help"} & {*words}:
            return self._serve([*words, "port=5001"])
        if words[0] == "churnlab":
            return self._run_churnlab(words[1:])
        if words[0] == "make":
            assert words[1] in TARGETS, f"the Makefile has no target {words[1]}"
            return Ended(0, "")
        if words == [".", ".venv/bin/activate"]:
            return Ended(0, "")
        if words[:3] == ["mlflow", "models", "serve"]:
            return self._serve(words)
        if words[0] == "curl":
            return self._post(words)
        done = subprocess.run(
            ["bash", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env=self._environment,
        )
        return Ended(done.returncode, done.stdout)

    def _run_churnlab(self, words: list[str]) -> Ended:
        self._churnlab.stdin.write(json.dumps([str(self.folder), words]) + "\n")
        self._churnlab.stdin.flush()
        shown = []
        for line in self._churnlab.stdout:
            if line.startswith("ended "):
                return Ended(int(line.split()[1]), "".join(shown))
            shown.append(line)
        pytest.fail(f"{words} ended the process: {''.join(shown)}")

    def _serve(self, words: list[str]) -> Ended:
        """Start the server on a free port instead of the documented one; wait until it answers."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self._ports["5001"] = port
        words = [word.replace("5001", port) for word in words]
        log = self.folder / f"served-{port}.txt"
        with log.open("w") as shown:
            server = subprocess.Popen(
                words,
                cwd=self.folder,
                env=self._environment,
                stdout=shown,
                stderr=shown,
                start_new_session=True,
            )
        self._stack.callback(server.wait, timeout=60)
        self._stack.callback(os.killpg, server.pid, signal.SIGTERM)
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.5)
            else:
                return Ended(0, log.read_text())
        pytest.fail(f"the server did not answer: {log.read_text()}")

    def _post(self, words: list[str]) -> Ended:
        """Send what curl would send: not every machine has curl."""
        url = next(word for word in words if word.startswith("http"))
        for documented, port in self._ports.items():
            url = url.replace(f":{documented}/", f":{port}/")
        header = words[words.index("-H") + 1].split(": ")
        body = words[words.index("-d") + 1].encode()
        request = urllib.request.Request(url, data=body, headers=dict([header]))
        with urllib.request.urlopen(request, timeout=60) as response:
            return Ended(0, response.read().decode() + "\n")


@contextmanager
def reading(home: Path) -> Iterator[Reader]:
    """Yield a reader in a folder, which is created if needed; servers end with it."""
    home.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        yield Reader(home, stack)


def not_shown(documented: str, output: str) -> str | None:
    """Return the first documented line that the output does not show in its place, or None.

    ``...`` stands for anything, and on a line of its own for any lines. Runs of blanks are one
    blank. Numbers may differ by CLOSE (relative) or NEAR (absolute).
    """
    lines = [line for line in map(_tidy, output.splitlines()) if line]
    at, anywhere = 0, False
    for line in filter(None, map(_tidy, documented.splitlines())):
        if line == "...":
            anywhere = True
            continue
        rest = range(at, len(lines)) if anywhere else range(at, min(at + 1, len(lines)))
        found = next((place for place in rest if _shows(line, lines[place])), None)
        if found is None:
            return line
        at, anywhere = found + 1, False
    return None if anywhere or at == len(lines) else f"(nothing more, but there is) {lines[at]}"


def _tidy(line: str) -> str:
    return " ".join(line.split())


def _shows(documented: str, shown: str) -> bool:
    """Return whether a line is as documented, up to the last digits of its numbers."""
    parts = [re.split(f"({NUMBER})", part) for part in documented.split("...")]
    pattern = ".*".join(
        "".join(f"({NUMBER})" if odd % 2 else re.escape(text) for odd, text in enumerate(part))
        for part in parts
    )
    match = re.fullmatch(pattern, shown)
    numbers = [text for part in parts for text in part[1::2]]
    return match is not None and all(map(_close, numbers, match.groups()))


def _close(documented: str, shown: str) -> bool:
    one, other = (float(text.replace(",", "")) for text in (documented, shown))
    return abs(one - other) <= max(CLOSE * abs(one), NEAR)
