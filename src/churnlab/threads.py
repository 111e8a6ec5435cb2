"""Spread numeric work over the cores without changing a bit of the result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeVar

from joblib import cpu_count
from threadpoolctl import ThreadpoolController, threadpool_limits

Item = TypeVar("Item")
Value = TypeVar("Value")


def on_all_cores(
    work: Callable[[Item], Value], items: Iterable[Item], *, n_jobs: int | None = None
) -> list[Value]:
    """Apply ``work`` to each item on one thread per core, and return the results in order.

    Threads suffice because the loops of scikit-learn and BLAS release the GIL; a process would have
    to import everything first. ``n_jobs``: number of threads, all cores by default.

    >>> on_all_cores(abs, [-1, 2, -3])
    [1, 2, 3]
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
    """Limit the numeric libraries to one thread, so that a fit has the same bits on any machine.

    Threads that share the rows of a fit add them up in any order.
    """
    with _libraries(len(sys.modules)).limit(limits=1):
        yield


@lru_cache(maxsize=1)
def _libraries(modules: int) -> ThreadpoolController:
    """Find the numeric libraries; to search again costs as much as a small fit, and only a further
    module (``modules`` is their number) loads a further library."""
    return ThreadpoolController()
