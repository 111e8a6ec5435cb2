"""Run commands whose input and outputs are closed, unread or full."""

import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from support.running import environment
from support.waiting import until

SMALL = ("dataset.rows=300", "evaluation.folds=2")
ANSWERS = (("train", "--help"), ("--version",), ("doctor", "-q"), ("train", "--cfg", "job"))
"""Command lines that print something on stdout, in all the ways there are."""


def run(home, *words: str, streams: str) -> tuple[int, str]:
    """Run a command with a shell's redirections; return its exit code and stderr."""
    line = f"exec {shlex.join([sys.executable, '-m', 'churnlab', *words])} {streams}"
    ended = subprocess.run(["sh", "-c", line], env=environment(home), stderr=subprocess.PIPE)
    return ended.returncode, ended.stderr.decode()


@pytest.mark.parametrize("words", ANSWERS, ids=" ".join)
def test_an_answer_may_be_read_no_further_than_its_first_line(home, words):
    answer = subprocess.Popen(
        [sys.executable, "-m", "churnlab", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(home),
    )
    answer.stdout.close()  # as `head` does when it has enough
    with answer.stderr:
        assert answer.stderr.read() == b""
    assert answer.wait() == 0


@pytest.mark.parametrize("words", ANSWERS, ids=" ".join)
def test_an_answer_that_cannot_be_written_is_a_failure_in_one_paragraph(home, words):
    code, err = run(home, *words, streams=">/dev/full")
    assert (code, err.count("\n")) == (1, 1)
    assert "cannot be written to standard output (No space left on device)" in err


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_the_exit_code_is_that_of_the_command_whatever_its_streams(home, streams):
    assert run(home, "doctor", streams=streams)[0] == 0
    assert run(home, "train", "sed=1", streams=streams)[0] == 2


@pytest.mark.slow
def test_a_study_without_any_streams_does_all_its_trials(home, runs_at):
    words = ("tune", *SMALL, "tune.n_trials=3", "engine=processes", "engine.workers=2")
    assert run(home, *words, streams="<&- >&- 2>&-")[0] == 0
    assert [run.info.status for run in runs_at(home, command="trial")] == ["FINISHED"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("words", [("tune", "tune.n_trials=2"), ("train", "-m", "seed=1,2")])
def test_ctrl_c_is_quiet_while_the_process_that_workers_are_forked_from_still_imports(home, words):
    stopped = subprocess.Popen(
        [sys.executable, "-m", "churnlab", *words, *SMALL, "engine=processes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(home),
        start_new_session=True,
        text=True,
    )

    def imports() -> bool:
        with suppress(psutil.Error):
            for child in psutil.Process(stopped.pid).children():
                if any("multiprocessing.forkserver" in word for word in child.cmdline()):
                    return "numpy" in " ".join(part.path for part in child.memory_maps())
        return False

    until(imports, "its first imports")
    time.sleep(0.1)
    os.killpg(stopped.pid, signal.SIGINT)  # as a terminal does
    out, err = stopped.communicate()
    assert (stopped.returncode, out) == (130, ""), err
    assert err.startswith("Stopped. To run it again: ")
    assert err.count("\n") == 1
