"""Be a worker process of engine=dask: compare what is installed here with the command, then work.

It knows nothing of Dask: the Dask worker that starts it is dask_worker's.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from churnlab.errors import InputError
from churnlab.models.own_code import own_code
from churnlab.tracking.fingerprints import code_sha256, packages
from churnlab.tuning import pool
from churnlab.tuning.workers import WorkerSlot, pickled

IDLE = 60.0
"""Seconds without a call after which a process ends: its command may have been killed."""

CODE = "churnlab's code"
"""What the fingerprint of churnlab's files is called among the versions."""


class Setup(NamedTuple):
    """What the processes of a command share: its id, what they must find, and where they run.

    ``expected`` are the versions that the command has, by package and file, for its own ``types``;
    ``folders`` are to be seen there, by files with the name ``command``. ``at_once``: how many
    tasks a machine does at once. ``forwards``: whether stderr is sent to the command.
    """

    command: str
    expected: Mapping[str, str]
    types: Collection[str]
    folders: Mapping[Path, str]
    path: Sequence[str]
    folder: str
    environment: Mapping[str, str]
    at_once: int
    forwards: bool


def versions(types: Collection[str]) -> dict[str, str]:
    """Return what decides a result here: code, packages, and those of the user's own types."""
    own = own_code(types)
    found = {CODE: code_sha256()[:12]} | packages()
    for name in own.packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    files = own.files.items()
    return found | {
        place: hashlib.sha256(file.read_bytes()).hexdigest()[:12] for place, file in files
    }


def compare(setup: Setup, address: str, found: Mapping[str, str]) -> None:
    """Refuse a worker that has other versions than the command."""
    differ = [
        f"{name} is {here} here and {found.get(name, 'missing')} there"
        for name, here in setup.expected.items()
        if found.get(name) != here
    ]
    if differ:
        raise InputError(
            f"The Dask worker {address} is not like this command: {'; '.join(differ)}. Results "
            "would depend on where a task runs: make them equal, restart the worker, and run the "
            "same command again."
        )


def checked(setup: Setup, address: str, work: bytes, slot: WorkerSlot) -> Iterator[None]:
    """Compare what is installed here, then do the work."""
    compare(setup, address, versions(setup.types))
    yield from pickle.loads(work)(slot)


def look(setup: Setup, address: str, slot: WorkerSlot) -> Iterator[None]:
    """Refuse a worker that does not see the folders of the command."""
    for folder, consequence in setup.folders.items():
        if not (folder / setup.command).exists():
            raise InputError(f"The Dask worker {address} does not see {folder}, {consequence}")
    yield from ()


def take_calls(handle: int, at_once: int, slot: WorkerSlot) -> Iterator[None]:
    """Take the calls of a pool."""
    pool.serve(Connection(handle), at_once, idle=IDLE)
    yield from ()


def _main() -> None:
    """Read the work from stdin, do it, and write the exception that ended it, if any, to stdout."""
    stdout = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what an estimator prints goes to stderr
    sys.path[:], work, slot = pickle.load(sys.stdin.buffer)  # the user's own modules, too
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        for _ in pickle.loads(work)(slot):
            pass
    except Exception as error:
        stdout.write(pickled(error))
        stdout.close()
        os._exit(1)


def _die_with_parent() -> None:
    """Exit when the process that started this one ends: then the pipe from it closes."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    # imported under its own name, not __main__, because the work was pickled with it
    from churnlab.tuning.dask_process import _main as main

    main()
