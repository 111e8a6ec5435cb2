"""Count requests and answers for Prometheus, in one process or over all workers.

With several workers PROMETHEUS_MULTIPROC_DIR names the folder where each keeps its numbers; it must
be set before this module is imported.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)

from churnlab.tracking.processes import runs

FOLDER = "PROMETHEUS_MULTIPROC_DIR"

CONTENT = b"text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

REGISTRY = CollectorRegistry()

disable_created_metrics()

REQUESTS = Counter("churnlab_requests", "Requests", ["path", "status"], registry=REGISTRY)
LATENCY = Histogram(
    "churnlab_request_seconds",
    "Seconds from the header of a request to its answer",
    ["path"],
    buckets=SECONDS,
    registry=REGISTRY,
)
REFUSALS = Counter("churnlab_refusals", "Refused requests", ["reason"], registry=REGISTRY)
ROWS = Counter("churnlab_rows", "Members answered", ["version"], registry=REGISTRY)
CHURN = Counter(
    "churnlab_predicted_churn", "Members predicted to churn", ["version"], registry=REGISTRY
)
PROBABILITY = Counter(
    "churnlab_churn_probability",
    "Sum of the predicted churn probabilities",
    ["version"],
    registry=REGISTRY,
)
WORKERS = Gauge(
    "churnlab_version_workers",
    "Processes that answer with this version",
    ["model", "version"],
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
SWAPS = Counter(
    "churnlab_swaps",
    "Moves of the alias that a process followed (swapped) or not (refused)",
    ["outcome"],
    registry=REGISTRY,
)
UNREACHABLE = Gauge(
    "churnlab_registry_unreachable",
    "Processes that could not reach the registry at their last look",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
for outcome in ("swapped", "refused"):
    SWAPS.labels(outcome)


def count_request(path: str, status: int, seconds: float, reason: str | None) -> None:
    """Count one request; ``reason`` is that of its refusal."""
    REQUESTS.labels(path, str(status)).inc()
    LATENCY.labels(path).observe(seconds)
    if reason is not None:
        REFUSALS.labels(reason).inc()


def count_answers(version: str, answers: Sequence[dict[str, Any]]) -> None:
    """Count the members that a version answered and what it predicted."""
    ROWS.labels(version).inc(len(answers))
    CHURN.labels(version).inc(sum(map(itemgetter("will_churn"), answers)))
    PROBABILITY.labels(version).inc(sum(map(itemgetter("churn_probability"), answers)))


def exposition() -> bytes:
    """Return all numbers in Prometheus' text format; those of dead workers' gauges are dropped."""
    if FOLDER not in os.environ:
        return generate_latest(REGISTRY)
    for file in Path(os.environ[FOLDER]).glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not runs(pid):
            multiprocess.mark_process_dead(pid)
    together = CollectorRegistry()
    multiprocess.MultiProcessCollector(together)
    return generate_latest(together)
