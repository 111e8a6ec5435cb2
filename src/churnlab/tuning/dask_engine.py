"""Run the workers of a study, or the jobs of a sweep, on a Dask cluster.

Dask starts each task, and starts it again if its Dask worker dies. A task runs the same worker
process as engine=processes would; what workers agree on stays in the study's storage and in MLflow.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import uuid
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from churnlab.errors import InputError, JobError
from churnlab.tuning import pool
from churnlab.tuning.dask_cluster import (
    PATIENCE,
    check_installed,
    check_scheduler,
    local_cluster,
    remote_cluster,
)
from churnlab.tuning.needs import NOTHING, Needs, own_types
from churnlab.tuning.workers import (
    POLL,
    Deaths,
    OnDeath,
    Work,
    WorkerSlot,
    cause_of_death,
    check_workers,
)

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dask:
    """Run up to ``workers`` tasks at once on the cluster of the scheduler at ``address``.

    None: on a cluster of this machine that lives as long as the command.
    """

    workers: int
    address: str | None = None

    def __post_init__(self) -> None:
        check_workers(self.workers)

    def run(
        self,
        work: Work,
        *,
        watch: Callable[[], None],
        on_death: OnDeath,
        keep: Sequence[int] = (),
        needs: Needs = NOTHING,
    ) -> None:
        """Start the workers, replace those that die, and return when all have ended.

        ``keep`` has no use: a Dask worker ends its process when the command has died. Raises a
        worker's own exception, and JobError when workers keep dying or the scheduler is gone.
        """
        from churnlab.tuning import dask_worker

        pickled = pickle.dumps(work)
        with self._connected(needs) as cluster:
            deaths, living = Deaths(self.workers, on_death), dict[int, WorkerSlot]()
            numbers = {
                cluster.submit(dask_worker.study, number, pickled): number
                for number in range(self.workers)
            }
            while numbers:
                for key, happened in cluster.news():
                    if key not in numbers:
                        continue
                    number = numbers[key]
                    if isinstance(happened, WorkerSlot):
                        before, living[number] = number in living, happened
                        if before:  # Dask has started it again
                            deaths.add([*living.values()], cause_of_death(None))
                        continue
                    living.pop(number, None)
                    del numbers[key]
                    if happened != 0:
                        deaths.add([*living.values()], cause_of_death(happened))
                        numbers[cluster.submit(dask_worker.study, number, pickled)] = number
                watch()

    def warm_up(self, modules: Sequence[str]) -> None:
        """Refuse an address where no scheduler answers; workers import what they need."""
        check_installed()
        if self.address is not None:
            check_scheduler(self.address)

    @contextmanager
    def pool(self, needs: Needs = NOTHING) -> Iterator[pool.Pool]:
        """Open a pool for the jobs of a sweep: the cluster."""
        with self._connected(needs) as cluster:
            yield _Pool(cluster, self.workers)

    @contextmanager
    def _connected(self, needs: Needs) -> Iterator[_Cluster]:
        """Connect to the cluster, and refuse workers that are not like this process."""
        check_installed()
        from distributed.versions import VersionMismatchWarning

        for name in [name for name in logging.root.manager.loggerDict if "distributed" in name]:
            logging.getLogger(name).setLevel(logging.CRITICAL)  # each has a level of its own
        warnings.filterwarnings("ignore", category=VersionMismatchWarning)  # we compare more
        warnings.filterwarnings("ignore", message="Sending large graph")  # the table, once each
        with ExitStack() as opened:
            if self.address is None:
                client = opened.enter_context(local_cluster(self.workers))
            else:
                client = opened.enter_context(remote_cluster(self.address))
            cluster = opened.enter_context(_working(client, self, needs))
            yield cluster


@contextmanager
def _working(client: Client, engine: Dask, needs: Needs) -> Iterator[_Cluster]:
    """Check the workers of a cluster; end what they do for this command in the end."""
    from churnlab.tuning import dask_worker
    from churnlab.tuning.dask_process import Setup, versions

    try:
        client.wait_for_workers(1, timeout=PATIENCE)  # one may just be restarting
    except TimeoutError:
        raise InputError(
            f"The Dask scheduler at engine.address={engine.address} has no workers: start some on "
            f"machines that have churnlab (dask worker {engine.address} --nthreads 1)."
        ) from None
    threads = Counter[str]()
    for worker in client.scheduler_info(n_workers=-1)["workers"].values():
        threads[worker["host"]] += worker["nthreads"]
    types = own_types(needs.types)
    setup = Setup(
        command=f".churnlab-{uuid.uuid4().hex}",
        expected=versions(types),
        types=types,
        folders=needs.folders,
        path=[str(Path(place).absolute()) for place in sys.path],
        folder=os.getcwd(),
        environment={
            key: value for key, value in os.environ.items() if dask_worker.is_inherited(key)
        },
        at_once=min(engine.workers, max([1, *threads.values()])),
        forwards=engine.address is not None,
    )
    with _marked(setup.command, needs):
        for address, error in client.run(dask_worker.check, setup, on_error="return").items():
            if isinstance(error, InputError):
                raise error
            if error is not None and not isinstance(error, OSError):  # which is a worker that died
                raise InputError(
                    f"The Dask worker {address} cannot run churnlab ({error}): install the same "
                    "churnlab there, and restart the worker."
                )
    cluster = _Cluster(client, setup)
    try:
        yield cluster
    finally:
        cluster.close()


@contextmanager
def _marked(name: str, needs: Needs) -> Iterator[None]:
    """Put a file into each folder that the workers must see."""
    files = [folder / name for folder in needs.folders]
    for file in files:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        except OSError as error:
            raise InputError(
                f"Nothing can be written to {file.parent} ({error.strerror}); repair it, or choose "
                "another folder (CHURNLAB_HOME)."
            ) from error
    try:
        yield
    finally:
        for file in files:
            file.unlink(missing_ok=True)


class _Cluster:
    """Submit tasks, and learn from Dask's events when they start and end."""

    def __init__(self, client: Client, setup: Any) -> None:
        self.client = client
        self.setup = setup
        self.futures: dict[str, Future] = {}
        self.queue = SimpleQueue[Any]()
        client.subscribe_topic(setup.command, lambda event: self.queue.put(event[1]))

    def submit(self, task: Callable[..., Any], *words: Any) -> str:
        """Submit a task; return its key."""
        key = f"churnlab-{uuid.uuid4().hex}"
        future = self.client.submit(task, self.setup, *words, key=key, pure=False)
        self.futures[key] = future
        future.add_done_callback(lambda future: self.queue.put(["end", future.key]))
        return key

    def news(self) -> Iterator[tuple[str, Any]]:
        """Wait for a moment; yield what happened: a task's slot when it starts, its result, or None
        if it has killed its Dask workers.

        Raises a task's exception; JobError: the scheduler is gone.
        """
        wait = POLL
        while True:
            try:
                kind, key, *values = self.queue.get(timeout=wait)
            except Empty:
                return
            wait = 0
            if kind == "line":
                log.info("%s", key)
            elif kind == "start":
                yield key, WorkerSlot(*values)
            elif (future := self.futures.pop(key, None)) is not None:
                yield key, self._result(future)

    def _result(self, future: Future) -> Any:
        from distributed import KilledWorker

        if future.status == "cancelled":
            raise JobError(
                "The Dask scheduler is gone, or the connection to it. What was finished is kept: "
                "when the cluster runs again, run the same command again."
            )
        error = future.exception()
        if isinstance(error, KilledWorker):
            return None
        if isinstance(result := error or future.result(), BaseException):
            raise result
        return result

    def drop(self, key: str) -> None:
        """Cancel a task if it runs."""
        if (future := self.futures.pop(key, None)) is not None:
            self.client.cancel([future], force=True)

    def close(self) -> None:
        """Cancel what is not done, and wait until the processes of this command have ended."""
        from churnlab.tuning import dask_worker

        if self.client.status != "running":
            return
        with suppress(Exception):  # the scheduler may be gone: the workers then end them themselves
            self.client.cancel([*self.futures.values()], force=True)
            self.client.run(dask_worker.end, self.setup.command, on_error="return")
            [*self.news()]  # the last lines


@dataclass
class _Pool:
    """Make calls on a cluster, up to ``workers`` at once."""

    cluster: _Cluster
    workers: int

    def run(
        self,
        call: pool.Call,
        items: Sequence[Any],
        *,
        on_death: pool.OnDeath,
        on_start: pool.OnStart = pool.silent,
    ) -> list[Any]:
        """Return what the call returns for each item, in their order."""
        from churnlab.tuning import dask_worker

        results: list[Any] = [None] * len(items)
        waiting, attempts = deque(range(len(items))), Counter[int]()
        places, started, done = dict[str, int](), set[str](), 0
        while waiting or places:
            while waiting and len(places) < self.workers:
                item = pickle.dumps((call, items[waiting[0]]))
                places[self.cluster.submit(dask_worker.call, item)] = waiting.popleft()
            for key, happened in self.cluster.news():
                if (place := places.get(key)) is None:
                    continue
                starts, again = isinstance(happened, WorkerSlot), key in started
                if starts and not again:
                    started.add(key)
                    if not attempts[place]:
                        on_start(place, done)
                    continue
                if not isinstance(happened, bytes):
                    attempts[place] += 1
                    code = None if starts else happened
                    happened = pickle.dumps(on_death(place, attempts[place], code))
                    if attempts[place] < pool.ATTEMPTS:
                        if not starts:  # else Dask has started it again
                            waiting.appendleft(places.pop(key))
                        continue
                    self.cluster.drop(key)
                results[places.pop(key)], done = pickle.loads(happened), done + 1
        return results
