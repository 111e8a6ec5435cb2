"""Complete command lines, also in real shells on a terminal."""

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from churnlab.cli import help
from churnlab.cli.completion import candidates
from churnlab.config import validation
from churnlab.config.shipped import ROOT
from support.running import environment
from support.terminals import read

SHELLS = {
    "bash": (["bash", "--norc", "-i"], 'eval "$(churnlab completion bash)"'),
    "zsh": (
        ["zsh", "-f", "-i"],
        'autoload -Uz compinit; compinit -D; eval "$(churnlab completion zsh)"',
    ),
    "fish": (["fish", "--no-config", "-i"], "churnlab completion fish | source"),
}
"""How each shell is started without the user's settings, and given the completion."""


def complete(line):
    return candidates(line, root=ROOT)


def test_commands_are_completed():
    assert complete("churnlab tr") == ["train"]
    assert {*help.commands(), "completion", "--help"} <= {*complete("churnlab ")}


def test_choices_of_groups_are_completed():
    files = {path.stem for path in (ROOT / "conf/model").glob("[!_]*.yaml")}
    assert {word.removeprefix("model=") for word in complete("churnlab train model=")} == files
    assert complete("churnlab train -m model=dummy,log") == ["model=dummy,logistic_regression"]
    assert "segments=_effort" not in complete("churnlab segment segments=")


def test_own_choices_are_completed(tmp_path):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/bank.yaml").write_text("name: bank\nlate: []\n", encoding="utf-8")
    for words in (f"--config-dir {tmp_path}", f"--config-dir={tmp_path}", f"-cd {tmp_path}"):
        assert complete(f"churnlab train {words} dataset=b") == ["dataset=bank"]
    assert complete(f"churnlab train --config-dir {tmp_path} dataset=bank dataset.l") == [
        "dataset.late="
    ]


def test_keys_are_completed_once():
    assert "evaluation.folds=" in complete("churnlab train evaluation.")
    assert "evaluation.folds=" not in complete("churnlab train evaluation.folds=3 evaluation.")
    assert complete("churnlab doctor fi") == ["fix="]


def test_parameters_of_a_model_are_completed_whether_its_yaml_sets_or_tunes_them(tmp_path):
    assert {*complete("churnlab train model.estimator.")} == {
        f"model.estimator.{name}=" for name in ("C", "max_iter", "random_state")
    }
    (tmp_path / "model").mkdir()
    (tmp_path / "model/mine.yaml").write_text(
        "name: mine\nestimator: {_target_: a.B, depth: 3}\nspace: {rate: [1, 2]}\n"
    )
    words = f"--config-dir {tmp_path} model=mine"
    assert complete(f"churnlab tune {words} model.estimator.r") == ["model.estimator.rate="]
    assert complete(f"churnlab tune {words} model.estimator.d") == ["model.estimator.depth="]
    assert complete("churnlab segment model.") == []


def test_values_are_completed():
    assert complete("churnlab train evaluation.stratify=") == [
        "evaluation.stratify=true",
        "evaluation.stratify=false",
    ]
    assert "metric=roc_auc" in complete("churnlab train metric=r")
    assert {*complete("churnlab promote require=")} == {"require=not_worse", "require=better"}


def test_experiments_are_those_of_the_command():
    assert "experiment=forest_size" in complete("churnlab train experiment=")
    assert "experiment=forest_size" not in complete("churnlab segment experiment=")


def test_flags_are_completed():
    assert complete("churnlab train --mu") == ["--multirun"]
    assert complete("churnlab --quiet train --js") == ["--json"]


@pytest.mark.parametrize("command", help.commands())
def test_every_key_that_is_completed_is_accepted(command):
    found = [word.removesuffix("=") for word in complete(f"churnlab {command} ") if "=" in word]
    assert "seed" in found
    for key in {*found} - {"experiment"}:
        validation.check_key(command, key.split("."))


@given(st.text(alphabet=st.sampled_from("churnlab train=,.-'\"\\ \n{[_@$é0"), max_size=60))
def test_any_line_has_an_answer(text):
    for line in (text, f"churnlab {text}", f"churnlab train {text}"):
        assert all(isinstance(word, str) for word in complete(line))


def test_a_damaged_yaml_does_not_stop_the_completion(tmp_path):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/bad.yaml").write_text("columns: [", encoding="utf-8")
    line = f"churnlab train --config-dir {tmp_path} dataset=bad eval"
    assert "evaluation.folds=" in complete(line)


def test_a_completion_takes_less_than_three_tenths_of_a_second(home):
    words = [sys.executable, "-m", "churnlab", "completion", "candidates", "churnlab train metric="]
    seconds = []
    for _ in range(3):
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, env=environment(home)) as process:
            _, _, used = os.wait4(process.pid, 0)
            process.returncode = 0
        seconds.append(used.ru_utime + used.ru_stime)
    assert min(seconds) < 0.3


def test_an_unknown_shell_is_refused_with_how_to_use_the_others(home, run_command):
    for words in ((), ("powershell",), ("bash", "zsh")):
        ended = run_command(home, "completion", *words)
        assert ended.code == 2
        assert "source <(churnlab completion bash)" in ended.err


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("churnlab expl", "churnlab explore"),
        ("churnlab train model=logi", "model=logistic_regression"),
        ("churnlab train --config-dir mine dataset=b", "dataset=bank"),
        ("churnlab init path=cl", "path=clients.csv"),
        ("churnlab train --mul", "--multirun"),
    ],
)
def test_real_shells_complete(tmp_path, shell, line, completed):
    argv, setup = SHELLS[shell]
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "mine/dataset").mkdir(parents=True)
    (tmp_path / "mine/dataset/bank.yaml").write_text("name: bank\n", encoding="utf-8")
    (tmp_path / "clients.csv").touch()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = environment(tmp_path / "home", PATH=path, TERM="xterm", PS1="$ ", HOME=str(tmp_path))
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execvpe(argv[0], argv, env)
    try:
        os.write(terminal, f"{setup}; echo rea''dy\n".encode())
        assert "ready" in read(terminal, seconds=30, until="ready\r\n")
        read(terminal, seconds=0.5)
        os.write(terminal, f"{line}\t".encode())
        ending = completed[len(line.split()[-1]) - 3 :]
        assert ending in read(terminal, seconds=30, until=ending)
    finally:
        psutil.Process(pid).kill()
        os.close(terminal)
        os.waitpid(pid, 0)
