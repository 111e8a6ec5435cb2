"""Run commands on real terminals: tables, colors, the live line, flags; and in pipes without."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from io import StringIO

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from churnlab.cli.next_step import FOLLOWING, IF_NO, next_step
from churnlab.cli.terminal import draw
from churnlab.config.commands import COMMANDS
from churnlab.formatting import Table
from support.running import PROMOTED_ROWS, environment
from support.terminals import CONTROL, on_terminal, python_on_terminal

TRAINED = (*PROMOTED_ROWS, "evaluation.folds=3")
COLOR = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")
SHOWN = "import logging, time; from churnlab.cli import terminal; terminal.set_up([]); "
LOG = "log = logging.getLogger('churnlab.x'); "
LINE = '{"command"'


@pytest.fixture(scope="module")
def trained(promoted, tmp_path_factory, succeed):
    """Return a home with two models."""
    home = shutil.copytree(promoted.kept, tmp_path_factory.mktemp("trained") / "home")
    succeed(home, "train", *TRAINED, "model=dummy")
    return home


@pytest.mark.parametrize("columns", [70, 160])
def test_a_terminal_shows_a_table_within_its_width_and_no_json(trained, columns):
    seen = on_terminal(trained, "compare", *TRAINED, columns=columns)
    assert seen.code == 0
    assert LINE not in seen.text
    rule = next(number for number, line in enumerate(seen.lines) if set(line.strip()) == {"─"})
    table = seen.lines[rule - 2 : rule + 3]
    assert max(map(len, table)) <= columns
    numbers = re.findall(r"\b0\.\d{4}\b", "\n".join(table))
    assert len(numbers) >= 3, "numbers are not broken"
    assert COLOR.search(seen.raw)
    assert seen.lines[-2] == f"next: churnlab segment {TRAINED[0]}"


def test_the_result_line_goes_to_a_pipe_although_stderr_is_a_terminal(promoted):
    seen = on_terminal(promoted.home, "history", stdout_is_pipe=True)
    assert json.loads(seen.out.splitlines()[-1])["command"] == "history"
    assert LINE not in seen.text
    assert "\x1b" not in seen.out


def test_json_on_a_terminal_is_asked_for_and_no_color_leaves_tables_without_color(promoted):
    assert COLOR.search(on_terminal(promoted.home, "hist").raw)
    seen = on_terminal(promoted.home, "history", "--json", columns=400, NO_COLOR="1")
    assert json.loads(next(line for line in seen.lines if line.startswith(LINE)))["entries"]
    assert not COLOR.search(seen.raw)
    assert "─────" in seen.text


def test_quiet_shows_nothing_of_a_command_that_succeeds(promoted, run_command):
    assert on_terminal(promoted.home, "-q", "history").raw == ""
    for flag in ("-q", "--quiet"):
        ended = run_command(promoted.home, "history", flag)
        assert (ended.code, ended.err) == (0, "")
        assert ended.line["entries"]


def test_quiet_shows_errors_and_warnings(promoted, run_command):
    assert "There is no command hist." in on_terminal(promoted.home, "-q", "hist").text
    assert "There is no command hist." in run_command(promoted.home, "hist", "-q").err
    ended = run_command(promoted.home, "history", "-q", "engine=processes")
    assert ended.err.startswith("The engine runs the jobs of a sweep")


def test_verbose_shows_the_progress_of_a_study_in_a_pipe(home, run_command):
    words = ("tune", "dataset.rows=200", "evaluation.folds=2", "tune.n_trials=2", "-v")
    ended = run_command(home, *words)
    assert "2 of 2 trials, best" in ended.err  # tests/tuning/test_nothing_twice.py: not without -v


def test_quiet_and_verbose_together_are_refused(home, run_command):
    ended = run_command(home, "history", "-q", "-v")
    assert ended.code == 2
    assert ended.err == "-q shows less and -v shows more; give one of them.\n"


def test_pipes_get_plain_text(promoted, run_command):
    ended = run_command(promoted.home, "history")
    head, row, sentence = ended.err.splitlines()
    assert head.split() == ["from", "to", "when", "who", "why", "command"]
    assert row.split()[:2] == ["-", "1"]
    assert sentence == "The champion of demo-churn is version 1."


def test_the_live_line_comes_after_two_seconds_and_goes(home):
    quick = python_on_terminal(home, SHOWN + "\nwith terminal.live('train'): time.sleep(.2)")
    assert quick.raw == ""
    work = "\nwith terminal.live('train'):\n {}time.sleep(3); {}"
    at_level = "log.log(15, '%s', '3 of 9 trials'); "
    slow = python_on_terminal(home, SHOWN + LOG + work.format(at_level, "log.info('done')"))
    assert re.search(r"0:00:0[23].*train: 3 of 9 trials", slow.raw)
    assert [line for line in slow.lines if line] == ["done"]


def test_the_live_line_is_one_line_however_long_its_text_is(home):
    code = "\nwith terminal.live('train'):\n log.log(15, 'job 1 of 9: ' + 'key=value ' * 40); "
    seen = python_on_terminal(home, SHOWN + LOG + code + "time.sleep(3)", columns=60)
    drawn = [CONTROL.sub("", part).strip() for part in seen.raw.split("\r\x1b[2K")]
    assert "job 1 of 9: key=value" in drawn[0]
    assert max(map(len, drawn)) <= 60


@pytest.mark.parametrize("end", ["raise KeyboardInterrupt", "os.kill(os.getpid(), 9)"])
def test_a_command_that_ends_in_the_middle_leaves_the_cursor_visible(home, end):
    code = f"\nimport os\nwith terminal.live('train'):\n time.sleep(3); {end}"
    seen = python_on_terminal(home, SHOWN + code)
    assert "train" in seen.raw
    assert "\x1b[?25l" not in seen.raw


def test_a_warning_is_marked_and_shown_once(home):
    twice = "log.warning('warning: %s', 'two twins'); log.warning('two twins'); "
    seen = python_on_terminal(home, SHOWN + LOG + 2 * twice)
    assert seen.text.strip() == "warning: two twins"
    assert COLOR.search(seen.raw)


def test_workers_of_one_sweep_show_a_warning_once(home, tmp_path):
    code = "".join(
        f"terminal.log_to_stderr('job {job}: ', is_worker=True, warned_in={str(tmp_path)!r}); "
        f"log.warning('two twins'); log.warning('job {job} alone'); "
        for job in (1, 2)
    )
    seen = python_on_terminal(home, SHOWN + LOG + code)
    assert re.findall("warning: (.*?)\r", seen.raw.replace("\x1b[0m", "")) == [
        *("job 1: two twins", "job 1: job 1 alone", "job 2: job 2 alone")
    ]


def test_a_worker_prints_over_the_live_line_of_its_leader(home):
    code = "terminal.log_to_stderr('job 2: ', is_worker=True); log.info('cv log loss 0.2')"
    assert python_on_terminal(home, SHOWN + LOG + code).raw == "\r\x1b[2Kjob 2: cv log loss 0.2\r\n"


def test_text_in_brackets_is_no_markup(home):
    seen = python_on_terminal(home, SHOWN + LOG + "log.info('[bold]%s[/] :smile:', '[red]')")
    assert seen.raw == "[bold][red][/] :smile:\r\n"


TEXTS = st.text(alphabet=st.sampled_from("ab0 _,.:=é"), max_size=30)


@given(
    st.lists(st.tuples(TEXTS, st.floats(-1e4, 1e4), TEXTS), max_size=4),
    st.integers(min_value=30, max_value=160),
)
def test_any_table_stays_within_the_width_and_loses_no_text(rows, width):
    frame = pd.DataFrame(rows, columns=["a_long_name", "cv_log_loss", "mark"])
    drawn = StringIO()
    draw(Console(file=drawn, width=width), Table.of(frame, floats="{:.4f}".format))
    lines = drawn.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    left = Counter("".join(lines))
    for text, value, mark in rows:
        left.subtract(Counter(f"{text}{value:.4f}{mark}".replace(" ", "")))
    assert min(left.values()) >= 0


@pytest.mark.parametrize(
    ("width", "left"), [(40, ["name", "run"]), (80, ["name", "finished", "run"])]
)
def test_a_narrow_terminal_leaves_out_the_columns_that_are_needed_least(width, left):
    frame = pd.DataFrame(
        {
            "name": ["logistic_regression behaviour"],
            "finished": ["12 minutes ago on another machine"],
            "took": ["hours_and_hours_and_hours_of_training"],
            "run": ["0123456789abcdef"],
        }
    )
    drawn = StringIO()
    table = Table.of(frame, spare=("took", "finished"))
    draw(Console(file=drawn, width=width), table)
    assert [name for name in frame if name in drawn.getvalue()] == left
    for word in ("logistic_regression", "behaviour", "0123456789abcdef"):
        assert word in drawn.getvalue()
    assert "took" in table, "a pipe gets all columns"


@pytest.mark.parametrize(
    ("command", "options", "overrides", "expected"),
    [
        ("explore", [], ["dataset=gym", "features=raw"], "train dataset=gym"),
        ("train", [], ["dataset.path=a b.csv", "seed=3"], "compare 'dataset.path=a b.csv' seed=3"),
        (
            "train",
            ["--config-dir", "mine", "-m"],
            ["dataset=bank", "model=dummy,random_forest"],
            "compare --config-dir mine dataset=bank",
        ),
        ("train", ["-m"], ["seed=1,2"], "compare"),
        ("train", [], ["dataset.rows=300", "dry_run=true"], "train dataset.rows=300"),
        ("train", ["--cfg", "job"], [], None),
        ("doctor", [], [], None),
        ("score", [], ["input=members.csv"], None),
        (
            "compare",
            ["--config-dir", "mine"],
            ["dataset=bank", "seed=3"],
            "segment --config-dir mine dataset=bank seed=3 segments=all playbook=any",
        ),
        ("compare", [], ["dataset=gym"], "segment dataset=gym"),
    ],
)
def test_the_next_command_keeps_what_both_share(command, options, overrides, expected):
    found = next_step(command, options, overrides, yes=True)
    assert found == (expected and f"churnlab {expected}")


def test_what_a_command_says_of_the_next_one_wins_over_the_usual_order():
    mended = next_step("doctor", [], ["storage.x=1"], yes=False, then="doctor fix=true")
    assert mended == "churnlab doctor storage.x=1 fix=true"
    assert next_step("segment", [], [], yes=True, then="") is None
    assert next_step("segment", [], [], yes=True) == "churnlab promote"


def test_doctor_is_followed_by_its_repair_only_if_something_can_be_repaired(home):
    (home / "studies").mkdir(parents=True)
    seen = on_terminal(home, "doctor")
    assert (seen.code, "next:" in seen.text) == (0, False)
    (home / "mlflow.db").write_text("no database")
    seen = on_terminal(home, "doctor")
    assert (seen.code, "next:" in seen.text) == (3, False), seen.text


def test_the_next_commands_exist():
    assert {*FOLLOWING, *FOLLOWING.values(), *IF_NO, *IF_NO.values()} <= COMMANDS.keys()


@pytest.mark.parametrize("command", ["history", "doctor"])
def test_a_command_that_only_looks_up_loads_no_science(promoted, command):
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "churnlab", command],
        capture_output=True,
        text=True,
        env=environment(promoted.home),
    )
    assert ended.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert "mlflow" in loaded
    assert not loaded & {"sklearn", "scipy.stats", "joblib", "skops", "matplotlib", "rich", "git"}
