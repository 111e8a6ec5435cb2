"""Reach a Dask cluster, or start one on this machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from churnlab.errors import InputError
from churnlab.tracking.processes import interruption
from churnlab.tuning import pool

if TYPE_CHECKING:
    from distributed import Client

PATIENCE = 10.0
"""Seconds in which a scheduler must answer."""

GOODBYE = 2.0
"""Seconds in which the connection to a scheduler is closed, if it is still there."""


@contextmanager
def local_cluster(workers: int) -> Iterator[Client]:
    """Start a cluster on this machine, which nobody else on it can use."""
    import dask
    from distributed import Client, LocalCluster

    with (
        dask.config.set(
            {
                "distributed.scheduler.allowed-failures": pool.ATTEMPTS - 1,
                "distributed.scheduler.http.routes": [],
                "distributed.worker.http.routes": [],
            }
        ),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=0,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
            security=True,
            preload=["churnlab.tuning.dask_worker"],
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def check_installed() -> None:
    """Refuse to go on without Dask."""
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise InputError(
            "engine=dask needs Dask, which is not installed: pip install 'churnlab[dask]'."
        ) from None


def check_scheduler(address: str) -> None:
    """Refuse an address where no scheduler answers.

    A client would wait there for ever if something else answers, and complain when it is deleted.
    """
    from distributed.comm import connect
    from distributed.security import Security

    async def greet() -> None:
        settings = Security().get_connection_args("client")
        await (await connect(address, timeout=PATIENCE, **settings)).close()

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        asyncio.run(asyncio.wait_for(greet(), PATIENCE))
    except Exception as error:  # what else answers there can be taken for anything
        if stopped := interruption(error):
            raise stopped from None
        raise InputError(
            f"No Dask scheduler answers at engine.address={address}. Start one (dask scheduler) or "
            "correct the address (tcp://HOST:8786); without one churnlab starts a cluster on this "
            "machine."
        ) from error


@contextmanager
def remote_cluster(address: str) -> Iterator[Client]:
    """Connect to the cluster of a scheduler; InputError: none answers."""
    from distributed import Client

    check_scheduler(address)
    client = Client(address, timeout=PATIENCE, set_as_default=False)
    try:
        yield client
    finally:
        client.close(timeout=GOODBYE)
