"""Let the workers of an engine do what a command spreads: folds, refits and bootstraps.

A worker gets a function and some of its items, and returns values; it knows no run and no store.
"""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import cloudpickle

from churnlab.errors import JobError
from churnlab.threads import one_thread, spread_by
from churnlab.tracking.processes import interruption
from churnlab.tuning.needs import Needs
from churnlab.tuning.pool import ATTEMPTS, Pool
from churnlab.tuning.workers import Inline, cause_of_death, pickled

log = logging.getLogger(__name__)

CHUNKS = 4
"""Chunks per worker: with few the last one is waited for, and each carries the function's data."""

_FOLDS, _REFITS = "churnlab.evaluation.learning_curve", "churnlab.segments.choose_k"

WARM: Mapping[str, Sequence[str]] = {
    "train": [_FOLDS],
    "tune": [_FOLDS, "churnlab.tuning.trials", "mlflow.store.tracking.sqlalchemy_workspace_store"],
    "segment": [_REFITS],
    "claims": [_FOLDS, _REFITS],
    "pipeline": [_FOLDS, _REFITS],
    "score": ["churnlab.scoring.part"],
}
"""What the workers of each command import while the command itself imports more."""


class Chunk(NamedTuple):
    """A pickled function and some of its items."""

    work: bytes
    items: list[Any]


class Done(NamedTuple):
    """A chunk's values, or the pickled exception that ended it, and what libraries warned of."""

    values: list[Any]
    error: bytes | None
    warned: list[tuple[type[Warning], str, str, int]]


@contextmanager
def spread_over(engine: Any, needs: Needs, command: str) -> Iterator[None]:
    """Let the workers of an engine do what ``threads.spread`` is given inside the block, which runs
    a command.

    The workers are started when there is something to do. Inline has none: threads do it.
    """
    if isinstance(engine, Inline):
        yield
        return
    engine.warm_up(["churnlab.tuning.spread", *WARM[command]])
    with ExitStack() as opened:
        pools: list[Pool] = []

        def elsewhere(work: Callable[[Any], Any], items: list[Any]) -> list[Any]:
            if not pools:
                pools.append(opened.enter_context(engine.pool(needs)))
            return apply(work, items, pools[0], workers=engine.workers)

        with spread_by(elsewhere):
            yield


def apply(
    work: Callable[[Any], Any], items: Sequence[Any], pool: Pool, *, workers: int
) -> list[Any]:
    """Apply ``work`` to each item in the processes of a pool; return the values in order.

    Raises the exception of the first item that has one; JobError: a chunk killed every worker.
    """
    function = cloudpickle.dumps(work)  # a closure, with the table
    chunks = [Chunk(function, part) for part in chunked(items, CHUNKS * workers)]
    values: list[Any] = []
    for done in pool.run(perform, chunks, on_death=_died):
        for category, text, file, line in done.warned:
            warnings.warn_explicit(text, category, file, line)
        if done.error is not None:
            raise pickle.loads(done.error)
        values += done.values
    return values


def chunked(items: Sequence[Any], parts: int) -> list[list[Any]]:
    """Divide items, in order, into at most so many parts of about equal length.

    >>> chunked("abcde", 2)
    [['a', 'b'], ['c', 'd', 'e']]
    """
    count = min(parts, len(items))
    ends = [len(items) * part // count for part in range(count + 1)]
    return [[*items[low:high]] for low, high in zip(ends, ends[1:], strict=False)]


def perform(chunk: Chunk) -> Done:
    """Apply the function of a chunk to its items, as one thread of the command would."""
    values, failed = list[Any](), None
    with warnings.catch_warnings(record=True) as caught:
        try:
            work = cloudpickle.loads(chunk.work)  # first: one_thread limits what is imported by now
            with one_thread():
                values = [work(item) for item in chunk.items]
        except Exception as error:
            if stopped := interruption(error):
                raise stopped from None
            failed = pickled(error)
    warned = [(one.category, str(one.message), one.filename, one.lineno) for one in caught]
    return Done(values, failed, warned)


def _died(place: int, attempts: int, code: int | None) -> Done:
    """Log that a chunk's worker died; return its result unless it is done again."""
    cause = cause_of_death(code)
    if attempts < ATTEMPTS:
        log.info("A worker died %s; only what it was doing is done again.", cause)
    error = JobError(
        f"The worker of some folds or refits died {attempts} times, the last {cause}. Use fewer "
        "workers (engine.workers) or a smaller model, and run the same command again."
    )
    return Done([], pickled(error), [])
