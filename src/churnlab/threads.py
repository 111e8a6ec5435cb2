"""Spread numeric work over cores or processes without changing a bit of the result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, TypeVar

from joblib import cpu_count
from threadpoolctl import ThreadpoolController, threadpool_limits

Item = TypeVar("Item")
Value = TypeVar("Value")


Elsewhere = Callable[[Callable[[Any], Any], list[Any]], list[Any]]
"""What applies a function to items in other processes, and returns the results in order."""

_elsewhere: ContextVar[Elsewhere | None] = ContextVar("_elsewhere", default=None)


def spread(
    work: Callable[[Item], Value], items: Iterable[Item], *, n_jobs: int | None = None
) -> list[Value]:
    """Apply ``work`` to each item, and return the results in order.

    Inside ``spread_by`` other processes do it, else one thread per core. Threads suffice because
    the loops of scikit-learn and BLAS release the GIL; a process would have to import everything
    first. ``n_jobs``: number of threads, all cores by default.

    >>> spread(abs, [-1, 2, -3])
    [1, 2, 3]
    """
    every, elsewhere = list(items), _elsewhere.get()
    if elsewhere is not None and len(every) > 1:
        return elsewhere(work, every)
    threads = min(n_jobs or cpu_count(), len(every))
    with one_thread():
        if threads <= 1:
            return [work(item) for item in every]
        with ThreadPoolExecutor(threads, initializer=threadpool_limits, initargs=(1,)) as pool:
            return list(pool.map(work, every))


@contextmanager
def spread_by(elsewhere: Elsewhere) -> Iterator[None]:
    """Let ``elsewhere`` do what is spread inside the block.

    Threads and processes that start there do not inherit it, so that nothing is spread twice.
    """
    token = _elsewhere.set(elsewhere)
    try:
        yield
    finally:
        _elsewhere.reset(token)


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
