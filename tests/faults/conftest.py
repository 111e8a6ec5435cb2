"""The store on which commands are stopped, and what they need of this machine."""

import shutil
from collections.abc import Iterator

import pytest

from support.faulted_store import FaultedStore, faulted_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultedStore]:
    """Yield a store with three versions, and the process from which commands are forked."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace: apt-get install strace")
    with faulted_store(tmp_path_factory.mktemp("faults")) as store:
        yield store
