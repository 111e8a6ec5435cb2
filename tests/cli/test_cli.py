"""Run the command line as a process: messages, streams, start-up cost and exit codes."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.killing import SUPPORT, notes, own_model
from support.running import churnlab_at, environment, scores_of, start, wait
from support.waiting import until

COMMANDS = sorted(
    path.stem for path in (Path(__file__).parents[2] / "src/churnlab/commands").glob("[a-z]*.py")
)
HEAVY = (
    "mlflow",
    "pandas",
    "numpy",
    "sklearn",
    "scipy",
    "matplotlib",
    "optuna",
    "skops",
    "sqlalchemy",
    "pyarrow",
)
SMALL = ("dataset.rows=300", "evaluation.folds=3")

LIGHT = {
    (): "churnlab COMMAND",
    ("--help",): "churnlab COMMAND",
    ("trian",): "There is no command trian. Did you mean train? Commands: ",
    ("train", "sed=1"): "There is no key sed. Did you mean seed? The keys here: ",
    (
        "train",
        "evaluation.fold=3",
    ): "There is no key evaluation.fold. Did you mean evaluation.folds? The keys",
    (
        "train",
        "model=logistic_regresion",
    ): "There is no model=logistic_regresion. Did you mean model=logistic_regression?",
    (
        "train",
        "experiment=corse_table",
    ): "There is no experiment=corse_table. Did you mean experiment=course_table?",
    ("train", "+foo=1"): "There is no key foo. The keys here: ",
}
"""Command lines that answer without work, and how the answer begins."""


def cpu_seconds(home: Path, *words: str) -> float:
    """What one start of Python with these words takes."""
    process = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(home),
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime


@pytest.fixture(scope="module")
def heavy(tmp_path_factory) -> float:
    return min(
        cpu_seconds(tmp_path_factory.mktemp("heavy") / "home", "-c", "import mlflow")
        for _ in range(2)
    )


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_an_answer_without_work_takes_less_than_a_third_of_what_importing_mlflow_takes(
    home, heavy, words
):
    tries = (cpu_seconds(home, "-m", "churnlab", *words) for _ in range(8))
    assert any(3 * spent < heavy for spent in tries), (
        "in none of eight tries, so it is not the machine's noise"
    )


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_an_answer_without_work_imports_nothing_heavy_and_says_what_exists(new_home, words):
    answer = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "churnlab", *words],
        capture_output=True,
        text=True,
        env=environment(new_home),
    )
    output = answer.stdout + re.sub(r"^import time:.*\n", "", answer.stderr, flags=re.MULTILINE)
    imported = {
        line.rpartition("|")[2].strip()
        for line in answer.stderr.splitlines()
        if line.startswith("import time")
    }
    assert "churnlab.errors" in imported
    assert not imported & set(HEAVY)
    assert output.startswith(LIGHT[words])
    assert not new_home.exists()


def test_the_overview_names_every_command_with_what_it_does(home, run_command):
    answer = run_command(home)
    assert answer.code == 0
    assert answer.out == run_command(home, "--help").out
    for command in COMMANDS:
        assert re.search(rf"^  {command} +[A-Z].*[.]$", answer.out, re.MULTILINE)


WRONG = {
    "a command": (["trian"], ["Did you mean train?", ", ".join(COMMANDS)]),
    "a key": (
        ["train", "sed=1"],
        ["Did you mean seed?", "seed", "dataset", "evaluation", "metric"],
    ),
    "a key inside a block": (
        ["train", "evaluation.test=1"],
        ["evaluation.test_size?", "stratify, folds, repeats"],
    ),
    "a key with a plus": (["train", "+foo=1"], ["There is no key foo", "metric"]),
    "a key inside a block with a plus": (
        ["train", "+evaluation.foo=1"],
        ["evaluation.foo", "stratify, folds"],
    ),
    "a key of another command": (["train", "segments.k=3"], ["train takes no segments=", "model"]),
    "a choice": (["train", "model=forest"], ["There is no model=forest", "dummy", "random_forest"]),
    "no choice": (["train", "model=null"], ["needs the name of a choice", "train --help"]),
    "a number for a group": (["train", "=3"], ["churnlab train --help"]),
    "a choice of a sweep": (
        ["train", "-m", "model=dummy,forest"],
        ["There is no model=forest", "random_forest"],
    ),
    "an experiment": (
        ["train", "experiment=course"],
        ["course_table", "churn_baselines", "forest_size"],
    ),
    "an experiment of another command": (
        ["train", "experiment=cluster_count"],
        ["experiment of another command: churnlab segment experiment=cluster_count"],
    ),
    "an experiment of a command without any": (
        ["explore", "experiment=foo"],
        ["train experiment=course_table"],
    ),
    "an experiment with a plus": (
        ["train", "+experiment=course_table"],
        ["without +: experiment=course"],
    ),
    "an option": (
        ["train", "--mulitrun", "seed=1"],
        ["There is no option --mulitrun", "--multirun", "--config-dir"],
    ),
    "an option without its value": (["train", "--config-dir"], ["--config-dir needs a value"]),
    "a folder of configs": (
        ["train", "--config-dir", "nowhere"],
        ["no folder", "nowhere; --config-dir"],
    ),
    "a word": (["train", "seed"], ["seed cannot be read as KEY=VALUE"]),
    "a bracket": (
        ["segment", "segments.range=[2"],
        ["segments.range=[2 cannot be read as KEY=VALUE"],
    ),
    "a sweep without -m": (["train", "seed=1,2"], ["seed", "--multirun"]),
    "a share above one": (
        ["train", "evaluation.test_size=1.5"],
        ["evaluation.test_size=1.5", "below 1"],
    ),
    "a number below zero": (
        ["tune", "tune.n_trials=-1"],
        ["tune.n_trials=-1", "at least 1"],
    ),
    "one segment": (
        ["segment", "segments.k=1"],
        ["segments.k=1", "at least 2 or auto"],
    ),
    "a range from above": (
        ["segment", "segments.range=[5,2]"],
        ["range=[5,2]", "2 <= FIRST <= LAST"],
    ),
    "no rows": (["train", "dataset.rows=0"], ["dataset.rows=0", "at least 1"]),
    "a text for a number": (
        ["train", "evaluation.folds=many"],
        ["evaluation.folds=many", "a whole number"],
    ),
    "a number for yes or no": (["train", "model.scale=7"], ["model.scale=7", "true or false"]),
    "a metric": (["train", "metric=auc"], ["metric=auc", "roc_auc", "log_loss", "f1"]),
    "two values at once": (
        ["train", "seed=-1", "evaluation.folds=1"],
        ["seed=-1", "evaluation.folds=1"],
    ),
    "a table without a path": (
        ["train", "dataset=gym"],
        ["dataset.path has no value yet", "dataset.path=VALUE"],
    ),
    "a key that the YAML leaves out": (
        ["train", "dataset.columns.gender.unit=x"],
        ["+dataset.columns.gender.unit=x"],
    ),
    "a key taken away": (["train", "~evaluation.folds"], ["evaluation.folds is missing"]),
    "a column that is late and not there": (
        ["train", "dataset.late=[Height]"],
        ["late names Height"],
    ),
}


@pytest.mark.parametrize(("words", "expected"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_one_short_message_that_lists_what_there_is(
    new_home, run_command, words, expected
):
    ended = run_command(new_home, *words)
    assert ended.code == 2
    assert ended.out == ""
    for part in expected:
        assert part in ended.err
    assert "Traceback" not in ended.err
    assert len(ended.err) < 600
    assert len(ended.err.splitlines()) <= 2
    assert not (new_home / "mlflow.db").exists()


PARAGRAPHS = {
    ("train", "sed=1"): "There is no key sed. Did you mean seed? The keys here: ",
    ("train", "model=forst"): "There is no model=forst. Choices of model: ",
    ("train", "seed=1.5"): "seed=1.5 is not possible: it must be a whole number.",
    ("train", "features=[raw,behaviour]"): """features=[raw,behaviour] is a list, and features takes
 one choice; for a job with each, write -m features=raw,behaviour.""",
    ("compare", "runs=[a,b,c]"): "runs=[a,b,c] is not possible: it must be a list of two, [A,B].",
    ("train", "evaluation.folds=1"): "evaluation.folds=1 is not possible: it must be at least 2.",
    ("init", "nowhere.csv"): "There is no file nowhere.csv",
    ("init", "a.csv", "b.csv"): "churnlab init takes one path and got 2: a.csv, b.csv. ",
    ("reproduce", "run=a", "b"): "churnlab reproduce takes one run and got 2: run=a, b. ",
    ("segment", "segments.range=[2"): """segments.range=[2 cannot be read as KEY=VALUE: brackets and
 quotes must be closed. If they are part of a text, it needs quotes, 'segments.range="[2"'.""",
    ("train", "dataset.columns.Возраст.min=0"): """dataset.columns.Возраст.min=0 cannot be read: a
 key of a command line has only Latin letters, digits, _ and dots. Set this one in a YAML""",
    ("init", "path=a#1.csv"): "There is no file a#1.csv (",
    ("score", "input=клиенты.csv"): "output has no value yet; give one: output=VALUE.",
    ("train", "seed=1=2"): "seed=1=2 is not possible: it must be a whole number.",
    ("train", "dataset.late=[Возраст]"): "dataset: late names Возраст, which is not among the ",
    (
        "score",
        "input=a,b.csv",
    ): """input=a,b.csv is several values: add -m (--multirun) to run a job for each. One value
 with commas needs quotes, 'input="a,b.csv"', and a list brackets: input=[a,b.csv].""",
    ("trian",): "There is no command trian. Did you mean train? Commands: ",
    ("score", "input=a.csv"): "output has no value yet; give one: output=VALUE.",
    ("train", "--config-dir", "nowhere"): "There is no folder ",
    ("train", "dataset.path=${nope}"): "dataset.path cannot be resolved: ${KEY} stands for ",
    ("train", "+seed=3"): "seed cannot be set, added (+), deleted (~) or swept like this; ",
    ("train", "~foo"): "foo cannot be set, added (+), deleted (~) or swept like this; ",
    ("train", "-m", "seed=interval(1,2)"): "A word cannot be set, added (+), deleted (~) or swept ",
    (
        "score",
        "-m",
        "input=a.csv,b.csv",
        "output=x.csv",
    ): "Several jobs of this sweep would write the same file, each over the last. Put input into ",
    ("report", "-m", "metric=log_loss,f1"): "Several jobs of this sweep would write the same file",
}
"""Command lines with one mistake, and how the only paragraph on stderr begins."""


def test_a_mistake_is_answered_by_one_paragraph_in_our_own_words(new_home, run_command):
    for words, opening in PARAGRAPHS.items():
        ended = run_command(new_home, *words)
        assert (ended.code, ended.out) == (2, ""), words
        assert ended.err.startswith(opening.replace("\n", "")), words
        assert ended.err.rstrip("\n").count("\n") == 0, words
        for word in ("Traceback", "omegaconf", "hydra.errors", "pydantic", "Error executing"):
            assert word not in ended.err, words
    assert not (new_home / "mlflow.db").exists()


def test_the_quotes_that_a_message_advises_work_in_a_shell(home):
    churnlab = churnlab_at(home)
    for name in ("a,b.csv", "клиент, другой.csv", 'a,"b".csv', "it's, a.csv"):
        advice = ADVICE.search(churnlab("init", f"path={name}").err)
        word = f"path={name}"
        if advice is not None:
            shell = ["bash", "-c", f"printf %s {advice[1]}"]
            word = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
        assert f"There is no file {name}" in churnlab("init", word).err


def test_the_word_that_a_message_advises_for_a_key_without_a_value_works_in_a_shell(home):
    churnlab = churnlab_at(home)
    for value in (";", '";"', "|"):
        refused = churnlab("explore", f"dataset.separator={value}", "dry_run=true")
        assert refused.code == 2
        advice = re.fullmatch(r".* add it with a plus: (.*)\n", refused.err)
        shell = ["bash", "-c", f"printf %s {advice[1]}"]
        word = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
        ended = churnlab("explore", word, "dry_run=true")
        assert ended.code == 0, ended.err


@pytest.mark.parametrize("name", ["клиенты.csv", "it's [new] & #1=2.csv", "2026", "café (май)"])
def test_a_file_is_read_whatever_its_name(home, run_command, tmp_path, name):
    (tmp_path / name).write_text("member,Churn\n1,0\n2,1\n", encoding="utf-8")
    ended = run_command(home, "explore", "dataset=gym", f"dataset.path={name}")
    assert ended.code == 2
    assert ended.err.startswith(f"{name} violates the contract of dataset gym: there are no ")


ADVICE = re.compile(r"""needs quotes, (.+?['"]), and """)


def test_a_sweep_whose_jobs_name_their_own_output_runs(home, run_command):
    words = ("score", "-m", "input=a.csv,b.csv", "dry_run=true")
    ended = run_command(home, *words, "output=${input}.scored.csv")
    assert (ended.code, ended.line["runs"]) == (0, [None, None]), ended.err


IDLE = dict.fromkeys(("rollback", "history", "doctor", "score", "serve"), "force")
"""Commands to which a key that all have means nothing."""


@pytest.fixture(scope="module")
def helped(shared_home):
    """Return what each command prints with --help."""
    churnlab = churnlab_at(shared_home)
    return {command: churnlab(command, "--help") for command in COMMANDS}


def test_the_help_shows_no_key_without_effect_and_no_content_of_a_yaml(helped):
    for command, answer in helped.items():
        text = answer.out
        assert not re.search(
            r"``|_target_|\.levers\.|\.sentences\.|@claims|segments\.early\.", text
        )
        assert not re.search(r"^  [\w.]+=.{200}", text, re.MULTILINE), command
        assert f"{IDLE.get(command, 'hydra')}=" not in text
    assert re.search(r"^  force=false +overwrite the output", helped["init"].out, re.MULTILINE)
    assert re.search(r"^  force=false +promote in spite of", helped["promote"].out, re.MULTILINE)
    assert re.search(r"^  force=false +with -m: run a job again", helped["train"].out, re.MULTILINE)
    assert re.search(r"^  ceiling\.cv_roc_auc=0\.995 +\w+", helped["compare"].out, re.MULTILINE)
    assert re.search(r"^  dataset\.target=Churn +\w+", helped["explore"].out, re.MULTILINE)


def test_a_key_misspelt_inside_the_users_own_yaml_is_refused_with_the_keys_there_are(
    home, run_command, tmp_path
):
    own = {
        "model/mine.yaml": "defaults: [dummy, _self_]\nscales: true\n",
        "dataset/mine.yaml": "defaults: [demo, _self_]\n"
        "columns: {Age: {kind: numeric, minimum: 3}}\n",
        "experiment/mine.yaml": "# @package _global_\ntunning: 3\n",
    }
    for path, text in own.items():
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text(text)

    def message(*words: str) -> str:
        ended = run_command(home, "train", "--config-dir", str(tmp_path), *words)
        assert (ended.code, ended.out) == (2, "")
        return ended.err

    assert (
        "no key model.scales. Did you mean model.scale? The keys under model: name, scale,"
        in message("model=mine")
    )
    assert "no key dataset.columns.Age.minimum" in message("dataset=mine")
    assert "no key tunning. " in message("experiment=mine")


def test_a_yaml_of_the_user_that_cannot_be_read_is_wrong_input(home, run_command, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/broken.yaml").write_text("name: broken\nestimator: [\n")
    ended = run_command(home, "train", "--config-dir", str(tmp_path), "model=broken")
    assert (ended.code, ended.out) == (2, "")
    assert "A YAML file cannot be read; check brackets, quotes and indents: " in ended.err
    assert 'broken.yaml", line 3' in ended.err
    assert "Traceback" not in ended.err


def test_a_level_of_logging_that_does_not_exist_is_wrong_input(home, run_command):
    ended = run_command(home, "history", settings={"CHURNLAB_LOG": "loud"})
    assert (ended.code, ended.err) == (
        2,
        "CHURNLAB_LOG=LOUD is no level; give DEBUG, INFO or WARNING.\n",
    )


@pytest.mark.parametrize("options", ["before", "between", "after"])
def test_options_stand_before_between_or_after_overrides(home, run_command, tmp_path, options):
    (tmp_path / "own/model").mkdir(parents=True)
    (tmp_path / "own/model/mine.yaml").write_text("defaults: [dummy, _self_]\nname: mine\n")
    given = ["--config-dir", "own", "-m"]
    words = {
        "before": [*given, "model=mine", "seed=1,2", "dry_run=true"],
        "between": ["model=mine", *given, "seed=1,2", "dry_run=true"],
        "after": ["model=mine", "seed=1,2", "dry_run=true", *given],
    }[options]
    ended = run_command(home, "train", *words)
    assert ended.code == 0, ended.err
    assert ended.line["runs"] == [None, None]


def test_a_dry_run_says_what_would_be_run_and_leaves_no_store(new_home, run_command):
    plain = run_command(new_home, "train", "seed=3", "dry_run=true")
    sweep = run_command(new_home, "train", "-m", "model=dummy,random_forest", "dry_run=true")
    assert (plain.code, plain.line) == (0, {"command": "train", "run_id": None, "dry_run": True})
    assert "would be run" in plain.err or "would run: churnlab train seed=3" in plain.err
    assert (sweep.code, sweep.line) == (
        0,
        {"command": "train", "run_id": None, "runs": [None, None]},
    )
    assert re.findall(r"would run: churnlab train model=(\S+)", sweep.err) == [
        "dummy",
        "random_forest",
    ]
    assert not (new_home / "mlflow.db").exists()


def test_what_a_dry_run_shows_can_be_pasted(home, run_command, tmp_path):
    own = tmp_path / "my conf"
    (own / "model").mkdir(parents=True)
    (own / "model/mine.yaml").write_text("defaults: [dummy, _self_]\nname: mine\n")
    words = ("--config-dir", str(own), "model=mine", "dataset=gym", "dataset.path=a b's, c.csv")
    seen = run_command(home, "train", *words, "dry_run=true")
    (line,) = re.findall("would run: (.*)", seen.err)
    pasted = shlex.split(line)
    assert pasted == ["churnlab", "train", *words]
    swept = run_command(home, "train", "-m", *words[:3], "seed=1,2", "dry_run=true")
    assert [shlex.split(found) for found in re.findall("would run: (.*)", swept.err)] == [
        ["churnlab", "train", *words[:3], f"seed={seed}"] for seed in (1, 2)
    ]
    again = run_command(home, *pasted[1:], "dry_run=true")
    assert re.findall("would run: (.*)", again.err) == [line]


@pytest.mark.parametrize(
    ("command", "word", "message"),
    [
        (
            "doctor",
            "dataset=gym",
            "churnlab doctor takes no dataset=: it works on the whole store; leave it out. Its ",
        ),
        ("explore", "model=dummy", "churnlab explore takes no model=: leave it out. Its keys: "),
        ("compare", "run=a", "There is no key run. Did you mean runs?"),
    ],
)
def test_a_key_of_other_commands_is_refused_with_what_to_do(
    home, run_command, command, word, message
):
    ended = run_command(home, command, word)
    assert ended.code == 2
    assert ended.err.startswith(message)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_shows_why_its_keys_its_choices_and_three_examples(helped, command):
    answer = helped[command]
    assert answer.code == 0
    assert answer.err == ""
    about, _, keys = answer.out.partition("Keys and their defaults:")
    assert len(re.findall(rf"^    .*churnlab {command}\b", about, re.MULTILINE)) >= 3
    assert re.search(r"^Why: ", about, re.MULTILINE)
    assert re.search(r"^  seed=0", keys, re.MULTILINE)
    assert re.search(r"^  tracking=local\|server$", about, re.MULTILINE)
    if command == "train":
        assert re.search(
            r"^  model=logistic_regression\|dummy\|(.+\|)?random_forest", about, re.MULTILINE
        )
        assert re.search(r"^  evaluation\.test_size=0\.2", keys, re.MULTILINE)


def test_the_version_is_the_packages(home, run_command):
    from importlib.metadata import version

    answer = run_command(home, "--version")
    assert (answer.code, answer.out) == (0, version("churnlab") + "\n")


@pytest.mark.slow
def test_a_successful_run_says_its_result_on_the_last_line_and_nothing_else(
    home, run_command, client_at
):
    ended = run_command(home, "train", *SMALL, "run_name=baseline")
    assert ended.code == 0
    assert len(ended.out.splitlines()) == 1
    run = client_at(home).get_run(ended.line["run_id"])
    scores = {key: value for key, value in scores_of(run).items() if not key.startswith("fold_")}
    assert ended.line == {"command": "train", "run_id": run.info.run_id, "warnings": 0} | scores
    assert (run.info.run_name, run.info.status) == ("baseline", "FINISHED")
    assert "arning" not in ended.err
    assert [line.split(":")[0] for line in ended.err.splitlines()] == ["logistic_regression raw"]


@pytest.mark.slow
def test_an_interrupt_ends_a_training_as_killed(home, runs_at, tmp_path):
    words = ["train", *own_model(tmp_path, "sleeper", {"x": (0.0, 1.0)}, seconds=60)]
    process = start(home, *words, settings={"PYTHONPATH": str(SUPPORT)})
    until(lambda: notes(tmp_path, "sleeper"), "the first fit")
    process.send_signal(signal.SIGINT)
    ended = wait(process, timeout=30)
    assert (ended.code, ended.out) == (130, "")
    assert "Traceback" not in ended.err
    assert "churnlab train --config-dir own model=sleeper dataset.rows=200" in ended.err
    assert [run.info.status for run in runs_at(home)] == ["KILLED"]


DEAF = """
import os, signal, time

class Deaf:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)  # the exception is raised in here, and Python drops it

def members(n, seed):
    Deaf()
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_signal_that_comes_inside_a_destructor_is_not_lost(home, run_command, tmp_path):
    (tmp_path / "deaf.py").write_text(DEAF)
    started = time.monotonic()
    ended = run_command(home, "train", "dataset.generator._target_=deaf.members")
    assert (ended.code, ended.out) == (143, "")
    assert time.monotonic() - started < 50
    assert "Traceback" not in ended.err


CLUMSY = """
import os, signal, time
from sklearn.linear_model import LogisticRegression

class Clumsy(LogisticRegression):
    def fit(self, X, y):
        if len(X) < 50:  # the check of the model before the run
            return super().fit(X, y)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            raise RuntimeError("what was interrupted cannot be repaired")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("train",), ("train", "-m", "seed=1,2"), ("tune", "tune.n_trials=2")]
)
def test_a_signal_is_not_lost_when_what_it_interrupts_fails_over_it(
    home, run_command, runs_at, tmp_path, words
):
    (tmp_path / "clumsy.py").write_text(CLUMSY)
    model = ("model.estimator._target_=clumsy.Clumsy", "model.trusted=[clumsy.Clumsy]")
    ended = run_command(home, *words, *SMALL, *model)
    assert (ended.code, ended.out) == (143, ""), ended.err
    assert "Traceback" not in ended.err
    assert "cannot be repaired" not in ended.err
    assert ended.err.splitlines()[-1].startswith("Stopped. To run it again: churnlab ")
    assert {run.info.status for run in runs_at(home)} == {"KILLED"}
    assert len(runs_at(home, command="train")) <= 1
