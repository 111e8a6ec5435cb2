import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import threadpool_info

from churnlab.threads import one_thread, spread, spread_by

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


def test_spread_work_comes_back_in_order_and_each_thread_computes_alone():
    def alone(item: int) -> tuple[int, set[int]]:
        return item, set(threads())

    for n_jobs in (1, 3):
        assert spread(alone, range(20), n_jobs=n_jobs) == [(item, {1}) for item in range(20)]


def test_what_is_spread_inside_a_block_goes_elsewhere_but_not_from_its_threads():
    sent = []

    def elsewhere(work, items):
        sent.append(items)
        return [work(item) for item in items]

    def twice(item: int) -> list[int]:
        return spread(abs, [item, -item])

    with spread_by(elsewhere):
        assert spread(abs, iter([-1, 2])) == [1, 2]
        assert spread(abs, [-3], n_jobs=1) == [3], "one item is not worth the way"
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(twice, 4).result() == [4, 4]
    assert spread(abs, [-5, 6]) == [5, 6]
    assert sent == [[-1, 2]]
