"""A store that loses a folder: every command names what is damaged and goes on, or says how to."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from churnlab.data import demo
from support.running import (
    SMALL_CLAIMS,
    THREE_SEGMENTS,
    Ended,
    artifact,
    churnlab_at,
    version_folder,
)
from support.soak import SOAK

ROWS = ("dataset.rows=600",)
FOLDS = (*ROWS, "evaluation.folds=2")
TUNE = ("tune", *FOLDS, f"tune.n_trials={2 if SOAK else 1}")
CLAIMS = ("claims", *ROWS, *SMALL_CLAIMS)
FORCED = ("promote", *FOLDS, "force=true", "reason=the second one")

MADE = {
    "explore": ("explore", *ROWS),
    "train": ("train", *FOLDS, "model=dummy"),
    "segment": ("segment", *ROWS, *THREE_SEGMENTS),
    "claims": CLAIMS,
    "tune": TUNE,
    "promote": ("promote", *FOLDS, "reason=the first one"),
    "compare": ("compare", *FOLDS),
    "second": FORCED,
}
"""The commands that make the store, by the name under which the tests call their runs."""


class Store(NamedTuple):
    """A home with a run of each command and two versions; ``runs`` are the ids by name."""

    home: Path
    runs: dict[str, str]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return the store that the tests copy."""
    home, runs = tmp_path_factory.mktemp("store") / "home", {}
    churnlab = churnlab_at(home)
    for name, words in MADE.items():
        ended = churnlab(*words)
        assert ended.code == 0, ended.err
        runs[name] = ended.line["run_id"]
        if name == "tune":
            runs["best"] = ended.line["best_run_id"]
    assert churnlab("doctor").line["problems"] == []
    demo.members(5, seed=1).drop(columns="Churn").to_csv(home / "members.csv", index=False)
    return Store(home, runs)


def commands(store: Store, home: Path) -> dict[str, tuple[str, ...]]:
    """Return every command, by the name under which a test expects something of it.

    What replaces the champion, or makes again what is lost, comes after what only reads.
    """
    files = (f"input={home / 'members.csv'}", f"output={home / 'scored.csv'}")
    return {
        "doctor": ("doctor",),
        "explore": ("explore", *ROWS),
        "history": ("history",),
        "claims": CLAIMS,
        "compare": ("compare", *FOLDS),
        "score": ("score", "dataset=demo", *files),
        "report": ("report", *FOLDS),
        "rollback": ("rollback", "dry_run=true"),
        "reproduce tune": ("reproduce", store.runs["tune"]),
        "train": ("train", *FOLDS, "model=dummy"),
        "tune": TUNE,
        "promote": (*FORCED, f"segment_run={store.runs['segment']}"),
        "promote best": FORCED,
        "reproduce train": ("reproduce", store.runs["best"]),
        "reproduce segment": ("reproduce", store.runs["segment"]),
        "segment": ("segment", *ROWS, *THREE_SEGMENTS),
        "pipeline": ("pipeline", *FOLDS, "tune.n_trials=1", *THREE_SEGMENTS),
    }


class Loss(NamedTuple):
    """What is deleted, the words by which commands name it, and the commands that need it.

    ``stops`` are the commands that cannot go on (exit code 2); ``warns`` those that go on without.
    """

    find: Callable[[Store, Path, Any], Path]
    names: str
    warns: tuple[str, ...]
    stops: tuple[str, ...] = ()


def of_run(name: str) -> Callable[[Store, Path, Any], Path]:
    return lambda store, home, client: artifact(client.get_run(store.runs[name]))


def model_of(name: str) -> Callable[[Store, Path, Any], Path]:
    def find(store: Store, home: Path, client: Any) -> Path:
        (model,) = client.get_run(store.runs[name]).outputs.model_outputs
        return home / "mlartifacts/models" / model.model_id

    return find


RANKED = ("compare", "report", "promote", "promote best", "pipeline")

LOSSES = {
    "explore": Loss(of_run("explore"), "{explore}", ("report",)),
    "claims": Loss(of_run("claims"), "{claims}", ("report",)),
    "compare": Loss(of_run("compare"), "{compare}", ("promote", "promote best", "pipeline")),
    "a train run": Loss(of_run("train"), "{train}", RANKED),
    "the best run": Loss(of_run("best"), "{best}", (*RANKED, "tune"), ("reproduce train",)),
    "the model of the best run": Loss(model_of("best"), "{best}", (*RANKED, "tune")),
    "a study's run": Loss(of_run("tune"), "{tune}", ("tune",), ("reproduce tune",)),
    "a segment run": Loss(
        of_run("segment"),
        "{segment}",
        ("report",),
        ("reproduce segment", "promote", "promote best"),
    ),
    "the model of a segment run": Loss(
        model_of("segment"), "{segment}", ("report",), ("promote", "promote best")
    ),
    "a promotion": Loss(of_run("second"), "{second}", ("report", "promote")),
    "the champion": Loss(
        lambda store, home, client: version_folder(client, "demo-churn", "2"),
        r"demo-churn",
        ("explore", "report", "train", "promote", "pipeline"),
        ("score",),
    ),
    "the version before": Loss(
        lambda store, home, client: version_folder(client, "demo-churn", "1"),
        r"[Vv]ersion 1 of demo-churn|demo-churn version 1",
        ("rollback",),
    ),
    "a study": Loss(
        lambda store, home, client: next(home.glob("studies/demo-*[!k].log")), "{tune}", ("tune",)
    ),
    "all studies": Loss(lambda store, home, client: home / "studies", "{tune}", ("tune",)),
}

RAW = re.compile(r"Traceback|Exception|Errno|ArrowInvalid|No such file|No such artifact")
"""What no user may see: words of the libraries."""


def lose(store: Store, tmp_path: Path, client_at: Any, kind: str) -> tuple[Path, str]:
    """Copy the store and delete something in the copy; return the copy and the name of the loss."""
    home, loss = tmp_path / "copy", LOSSES[kind]
    shutil.copytree(store.home, home)
    churnlab = churnlab_at(home)
    assert churnlab("history").code == 0  # the addresses in the database are those of the copy
    place = loss.find(store, home, client_at(home))
    assert place.is_relative_to(home)
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    return home, loss.names.format(**store.runs)


def concerns(command: str, loss: Loss) -> bool:
    """Return whether to run a command: in ``make soak`` all, in the suite a few that need what is
    lost."""
    if SOAK:  # the commands of which a pipeline consists are run anyway
        return command != "pipeline" or command in loss.warns
    return command in ("doctor", loss.warns[0], *loss.stops)


def check(ended: Ended, command: str, loss: Loss, name: str) -> None:
    """Check one command: its exit code, plain words, and that it names what it lacks."""
    assert not RAW.search(ended.err), ended.err
    if command in loss.stops:
        assert (ended.code, ended.out) == (2, ""), (command, ended.err)
        assert re.search(name, ended.err), (command, ended.err)
        return
    assert ended.code in (0, 3), (command, ended.code, ended.err)
    if command in loss.warns:
        assert re.search(name, ended.err), (command, ended.err)


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOSSES)
def test_every_command_names_what_it_lacks_and_goes_on_or_says_how_to(
    store, tmp_path, client_at, kind
):
    home, name = lose(store, tmp_path, client_at, kind)
    churnlab = churnlab_at(home)
    for command, words in commands(store, home).items():
        if not concerns(command, LOSSES[kind]):
            continue
        ended = churnlab(*words)
        check(ended, command, LOSSES[kind], name)
        if command == "doctor":
            found = [f"{each['what']} {each['where']}" for each in ended.line["problems"]]
            assert any(re.search(name, text) for text in found), ended.err


@pytest.mark.slow
def test_the_command_that_leaves_a_damaged_run_out_works_as_pasted(
    store, tmp_path, client_at, run_command
):
    home, name = lose(store, tmp_path, client_at, "a train run")
    (problem,) = run_command(home, "doctor").line["problems"]
    command = problem["fix"].partition("delete this run: ")[2].rpartition(" (")[0]
    tools = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", "-c", f"PATH={shlex.quote(str(tools))}:$PATH; {command}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert run_command(home, "doctor").line["problems"] == []
    ended = run_command(home, "compare", *FOLDS)
    assert ended.code == 0
    assert name not in ended.err


@pytest.mark.slow
def test_the_command_that_replaces_a_lost_model_works_as_pasted(
    store, tmp_path, client_at, run_command
):
    home, name = lose(store, tmp_path, client_at, "the model of the best run")
    warned = run_command(home, "compare", *FOLDS)
    command = re.search(rf"churnlab (reproduce run={name}) replaces it", warned.err)
    assert command is not None, warned.err
    made = run_command(home, *command[1].split())
    assert made.code == 0, made.err
    assert made.line["run_id"] in run_command(home, "compare", *FOLDS).err
