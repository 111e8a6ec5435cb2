"""Spread numeric work over the cores without changing a bit of the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from joblib import cpu_count
from threadpoolctl import threadpool_limits

Item = TypeVar("Item")


Value = TypeVar("Value")


def on_all_cores(
    work: Callable[[Item], Value], items: Iterable[Item], *, n_jobs: int | None = None
) -> list[Value]:
    """What ``work`` makes of each item, in the items' order; a thread for each core, each computing
    alone.

    Threads, for the loops of scikit-learn and BLAS let go of Python's lock, and a process would
    first import them all.
    """
    with (
        one_thread(),
        ThreadPoolExecutor(
            n_jobs or cpu_count(), initializer=threadpool_limits, initargs=(1,)
        ) as pool,
    ):
        return list(pool.map(work, items))


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold the numeric libraries to one thread: threads that share the rows of a fit add them up in
    any order.

    With one thread a fit gives the same bits however many cores there are.
    """
    with threadpool_limits(limits=1):
        yield
