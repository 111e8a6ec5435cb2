import json
import os
import subprocess
import sys

from threadpoolctl import threadpool_info

from churnlab.threads import one_thread

LOADED_LATER = """
import json, numpy
from threadpoolctl import threadpool_info
from churnlab.threads import one_thread

with one_thread():
    pass
known = len(threadpool_info())
import sklearn.ensemble
with one_thread():
    inside = [library["num_threads"] for library in threadpool_info()]
after = [library["num_threads"] for library in threadpool_info()]
print(json.dumps([known, inside, after]))
"""


def threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info()]


def test_numeric_libraries_have_one_thread_inside_and_their_own_number_afterwards():
    before = threads()
    with one_thread():
        with one_thread():
            assert set(threads()) == {1}
        assert set(threads()) == {1}
    assert threads() == before


def test_a_library_that_is_loaded_later_has_one_thread_too():
    several = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "2")
    ended = subprocess.run(
        [sys.executable, "-c", LOADED_LATER],
        env=os.environ | several,
        capture_output=True,
        text=True,
        check=True,
    )
    known, inside, after = json.loads(ended.stdout)
    assert len(inside) > known
    assert set(inside) == {1}
    assert set(after) == {2}
