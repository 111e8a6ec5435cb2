"""Keep warm worker processes that take calls: the jobs of a sweep.

All are forked from one process that has imported everything, so that imports are paid once. A call
whose worker dies is made again, in another worker. No worker outlives the process that started it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, Protocol

from churnlab.errors import Terminated
from churnlab.tracking.processes import raise_on_signals

CONTEXT = multiprocessing.get_context("forkserver")

ATTEMPTS = 3
"""How often a call is made whose worker dies."""

GRACE = 30.0
"""Seconds that workers have to end what they do after SIGTERM, before they are killed."""

Call = Callable[[Any], Any]
"""A picklable function of one picklable argument; it raises nothing but Terminated."""


OnStart = Callable[[int, int], None]
"""Called with an item's place and how many are done, when a worker takes the item."""

OnDeath = Callable[[int, int, int | None], Any]
"""Called with an item's place, its attempts and the exit code when its worker has died (None: with
its Dask worker); after ATTEMPTS the value is the item's result."""

_serves = False
"""Whether this process takes calls from another one."""


def is_worker() -> bool:
    """Return whether this process takes calls from another one."""
    return _serves


def silent(place: int, done: int) -> None:
    """Say nothing when an item is taken."""


class Pool(Protocol):
    """What makes calls."""

    def run(
        self, call: Call, items: Sequence[Any], *, on_death: OnDeath, on_start: OnStart = silent
    ) -> list[Any]:
        """Return what the call returns for each item, in their order."""
        ...


class ThisProcess:
    """Make calls in this process, one after another."""

    def run(
        self, call: Call, items: Sequence[Any], *, on_death: OnDeath, on_start: OnStart = silent
    ) -> list[Any]:
        """Return what the call returns for each item, in their order."""
        results = []
        for place, item in enumerate(items):
            on_start(place, place)
            results.append(call(item))
        return results


class Worker(NamedTuple):
    """A worker process and the pipe to it."""

    process: BaseProcess
    pipe: Connection


def warm_up(modules: Sequence[str]) -> None:
    """Start the process that workers are forked from; it imports the modules meanwhile."""
    if sys.platform == "linux":  # elsewhere a fork after such imports may crash
        CONTEXT.set_forkserver_preload(list(modules))
    _ensure_forkserver()


def _ensure_forkserver() -> None:
    """Start the process that workers are forked from if it does not run; Ctrl-C does not reach it.

    Python's own lets Ctrl-C be only after its imports, which take seconds.
    """
    resource_tracker.ensure_running()  # the first that it starts, and it lets signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(target: Callable[..., None], *arguments: Any, keep: Sequence[int] = ()) -> Worker:
    """Fork a worker that calls ``target(pipe, *arguments)`` and ends.

    ``keep`` are file descriptors that it inherits.
    """
    ours, theirs = CONTEXT.Pipe()
    kept = [Connection(os.dup(handle)) for handle in keep]  # what multiprocessing can send
    words = (target, theirs, *arguments)
    _ensure_forkserver()
    process = CONTEXT.Process(target=_work, args=(dict(os.environ), kept, words))
    process.start()
    for sent in (theirs, *kept):
        sent.close()  # of the pipe, so that its end is noticed
    return Worker(process, ours)


def ready(workers: Collection[Worker], *, timeout: float | None = None) -> list[Worker]:
    """Wait until some workers have sent something or are dead; return these."""
    pipes = {worker.pipe: worker for worker in workers}
    found = wait(list(pipes), timeout)
    return [pipes[pipe] for pipe in found if isinstance(pipe, Connection)]


class WorkerProcesses:
    """Make calls in up to ``workers`` processes, which start when they are needed."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.idle: list[Worker] = []
        self.busy: dict[Worker, int] = {}

    def run(
        self, call: Call, items: Sequence[Any], *, on_death: OnDeath, on_start: OnStart = silent
    ) -> list[Any]:
        """Return what the call returns for each item, in their order."""
        results: list[Any] = [None] * len(items)
        waiting, attempts = deque(range(len(items))), Counter[int]()
        done = 0
        while waiting or self.busy:
            while waiting and len(self.busy) < self.workers:
                worker = self.idle.pop() if self.idle else start(serve, self.workers)
                place = waiting.popleft()
                if attempts[place] == 0:
                    on_start(place, done)
                self.busy[worker] = place
                try:
                    worker.pipe.send((call, items[place]))
                except OSError:  # it is dead: receiving says so, too
                    continue
            for worker in ready(self.busy):
                place = self.busy.pop(worker)
                try:
                    results[place] = worker.pipe.recv()
                    self.idle.append(worker)
                except (EOFError, OSError):
                    worker.process.join()
                    attempts[place] += 1
                    code = worker.process.exitcode or 0
                    results[place] = on_death(place, attempts[place], code)
                    if attempts[place] < ATTEMPTS:
                        waiting.appendleft(place)
                        continue
                done += 1
        return results

    def close(self) -> None:
        """Let idle workers go; end the others by SIGTERM, and after GRACE by SIGKILL."""
        for worker in self.busy:
            worker.process.terminate()
        for worker in self.idle:
            worker.pipe.close()
        deadline = time.monotonic() + GRACE
        for worker in [*self.busy, *self.idle]:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self.busy.clear()
        self.idle.clear()


@contextmanager
def worker_processes(workers: int) -> Iterator[WorkerProcesses]:
    """Open worker processes; end them when the work is done or stopped."""
    opened = WorkerProcesses(workers)
    try:
        yield opened
    finally:
        opened.close()


def _work(environment: Mapping[str, str], kept: Sequence[Connection], words: Any) -> None:
    """Do what this process was forked for; ``kept`` stays open until then."""
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(2, 1)  # what an estimator prints goes to stderr
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that leads ends its workers itself
    threading.Thread(target=_die_with_parent, daemon=True).start()
    target, *arguments = words
    target(*arguments)


def serve(pipe: Connection, workers: int, *, idle: float | None = None) -> None:
    """Take calls from the pipe and return what they return, until it closes or SIGTERM comes.

    ``workers`` of them share the cores of the machine. Without a call for ``idle`` seconds it ends.
    """
    import joblib  # here: it takes long, and the process that leads does without

    global _serves
    _serves = True
    raise_on_signals()
    os.environ["LOKY_MAX_CPU_COUNT"] = str(max(1, joblib.cpu_count() // workers))
    try:
        while pipe.poll(idle):
            call, item = pipe.recv()
            pipe.send(call(item))
    except (EOFError, BrokenPipeError):
        pass
    except Terminated:
        os._exit(128 + signal.SIGTERM)
    os._exit(0)


def _die_with_parent() -> None:
    """Exit when the process that leads has ended without closing the pipe in order."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
