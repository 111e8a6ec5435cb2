"""Every write of a server that swaps its version is killed once, and fails once.

The store is whole afterwards, a server that lives answers, and one that is started again answers
with the champion.
"""

import json
import os
import re
import signal
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from churnlab.data import demo
from support import promises
from support.faulted_store import FIX, RAW, FaultedStore, chosen, read, until
from support.forked import churnlab
from support.soak import SEED
from support.write_faults import BROKEN, FULL, KILL, Call, Point, Tracer, calls, hit

pytestmark = pytest.mark.slow

SERVE = ("serve", "port=0", "serve.poll=0.2")
ROW = demo.members(1, seed=2).drop(columns="Churn").astype(float).to_dict("records")


class Served(NamedTuple):
    """A server that was started: its pid, address and file of messages."""

    pid: int
    address: str
    output: Path

    @property
    def lives(self) -> bool:
        return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE

    def version(self) -> str | None:
        """Return the version that answers a request; None if the server is killed."""
        body = json.dumps({"dataframe_records": ROW}).encode()
        head = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.address}/invocations", data=body, headers=head)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.headers["x-churnlab-version"]
        except OSError:
            until(lambda: not self.lives, "the end of a server that does not answer")
            return None


@contextmanager
def serving(store: FaultedStore) -> Iterator[Served]:
    """Serve the champion; stop the server in the end, if it lives, as a user does."""
    output = store.root / "served"
    pid = store.forks.start(churnlab, store.home, SERVE, output=output)
    found = until(lambda: re.search(r"http://\S+:\d+", read(output, "err")), "an address")
    served = Served(pid, found[0], output)
    try:
        yield served
    finally:
        lives = served.lives
        if lives:
            os.kill(pid, signal.SIGTERM)
        code = store.forks.wait(pid)
    assert code == (128 + signal.SIGTERM if lives else -signal.SIGKILL), read(output, "err")


def swap(store: FaultedStore, point: Point | None = None) -> tuple[list[str], str | None]:
    """Serve version 3, let a rollback replace it by version 2, and wait until the server has done
    so, refuses it or is killed. What it says of a swap can be the write that fails.

    Returns the trace of the server meanwhile, and the version that answers in the end; None if the
    server was killed.
    """
    with serving(store) as served:
        assert served.version() == "3"
        tracer = Tracer(served.pid, store.root / "trace", point, threads=True)
        tasks = Path(f"/proc/{served.pid}/task")
        until(
            lambda: all(
                "TracerPid:\t0\n" not in each.read_text() for each in tasks.glob("*/status")
            ),
            "the tracer",
        )
        back = store.forks.start(churnlab, store.home, ("rollback",), output=store.root / "back")
        assert store.forks.wait(back) == 0
        until(
            lambda: "version 2" in read(served.output, "err") or served.version() != "3", "a swap"
        )
        version = served.version()
    return tracer.ended(), version


def test_a_server_stopped_at_any_write_of_a_swap_harms_nothing(store: FaultedStore) -> None:
    counts, violations = Counter[str](), list[str]()
    store.restore()
    trace, version = swap(store)
    assert version == "2"
    found = calls(trace, [store.home, store.root / "tmp"])
    todo = chosen("swap", found, {KILL: 4, FULL: 1, BROKEN: 1})
    for point in todo:
        store.restore()
        trace, version = swap(store, point)
        what, printed = hit(trace), read(store.root / "served", "err")
        counts["missed" if what is None else point.fault] += 1
        try:
            if what is not None:
                assert (version is None) == (point.fault == KILL)
                assert version in (None, "2", "3")
                assert not RAW.search(printed)
                store.go_on([FIX, ("history",)], promises.history_is_whole, {})
                with serving(store) as served:
                    assert served.version() == "2"
        except AssertionError as error:
            violations.append(f"{point}, which hit {what}\n{printed}: {error}")
    print(f"seed {SEED}: swap, of {len(found)} calls {dict(counts)}")
    assert not violations, "\n\n".join([f"{len(violations)} violations, seed {SEED}", *violations])
    assert counts["missed"] <= len(todo) / 10


def test_a_version_that_a_full_disk_cannot_take_is_not_used_and_the_server_says_why(
    store: FaultedStore,
) -> None:
    store.restore()
    copying = Call("sendfile", 1, str(store.root / "tmp"))
    trace, version = swap(store, Point(copying, FULL))
    assert hit(trace) is not None
    assert version == "3"
    printed = read(store.root / "served", "err")
    reason = (
        "its files cannot be copied to the folder of temporary files (TMPDIR): No space left on "
        "device; version 3 stays"
    )
    assert printed.count(f"demo-churn version 2 is not used: {reason}") == 1
    assert "cannot be reached" not in printed
