"""What every test shares: the real table when there is one."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def gym_csv() -> Path:
    """The real table of 4,000 gym members; it is not part of the project."""
    named = os.environ.get("CHURNLAB_GYM")
    if not named:
        pytest.skip("set CHURNLAB_GYM=FILE to run the tests on the real table")
    return Path(named).resolve()
