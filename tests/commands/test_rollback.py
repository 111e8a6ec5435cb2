"""Rollbacks to earlier champions, repeated, and past versions that were deleted or damaged."""

import shlex
import shutil

import pytest

from support.running import PROMOTED_ROWS, churnlab_at, version_folder

pytestmark = pytest.mark.slow

TRAINED = (*PROMOTED_ROWS, "evaluation.folds=3")
NAME = "demo-churn"


@pytest.fixture(scope="module")
def story(promoted, shared_home, client_at):
    """Promotions and rollbacks after the first one, in order: name -> how it ended, and the aliases
    after it."""
    ended_as = {"nothing there": churnlab_at(shared_home.parent / "empty")("rollback")}
    shutil.copytree(promoted.kept, shared_home, dirs_exist_ok=True)
    client = client_at(shared_home)
    churnlab = churnlab_at(shared_home)
    assert churnlab("history").code == 0  # which finds the files of a store that was moved

    def step(name: str, *words: str) -> None:
        ended = churnlab(*words)
        found = client.get_registered_model(NAME).aliases
        aliases = {alias: str(version) for alias, version in found.items() if alias != "challenger"}
        ended_as[name] = (ended, aliases)

    def promote(version: str, *words: str) -> None:
        step(
            f"promote {version}",
            "promote",
            *TRAINED,
            *words,
            "require=not_worse",
            "force=true",  # the runs are those of the champion
            f"reason=number {version}",
        )
        ended = ended_as[f"promote {version}"][0]
        assert (ended.code, ended.line["version"]) == (0, version), ended.err

    step("only one", "rollback")
    promote("2", "gate.minimum.roc_auc=1")
    promote("3")
    step("tried", "rollback", "dry_run=true")
    step("back to 2", "rollback", "dataset=demo", 'reason="3 is doubted"')
    step("back to 1", "rollback")
    step("no further", "rollback")
    ended_as["another dataset"] = churnlab("rollback", "dataset=gym")
    promote("4")
    promote("5")
    promote("6")
    client.delete_model_version(NAME, "5")
    (version_folder(client, NAME, "4") / "artifacts" / "churn.skops").unlink()
    step("past 5 and 4", "rollback")
    ended_as["history"] = churnlab("history")
    (version_folder(client, NAME, "1") / "artifacts" / "churn.skops").unlink()
    ended_as["without files"] = churnlab("doctor")
    fix = ended_as["without files"].line["problems"][-1]["fix"]
    ended_as["pasted"] = churnlab(*shlex.split(fix.rpartition(": ")[2])[1:])
    return ended_as


@pytest.mark.parametrize(
    ("name", "code", "aliases"),
    [
        ("only one", 3, {"champion": "1"}),
        ("tried", 0, {"champion": "3", "previous": "2"}),
        ("back to 2", 0, {"champion": "2", "previous": "1"}),
        ("back to 1", 0, {"champion": "1"}),
        ("no further", 3, {"champion": "1"}),
        ("promote 4", 0, {"champion": "4", "previous": "1"}),
        ("promote 6", 0, {"champion": "6", "previous": "5"}),
        ("past 5 and 4", 0, {"champion": "1"}),
    ],
)
def test_each_rollback_restores_the_champion_before_and_previous_points_to_the_next_one_down(
    story, name, code, aliases
):
    ended, found = story[name]
    assert (ended.code, found) == (code, aliases), ended.err
    if not name.startswith("promote") and name != "tried":
        assert ended.line["version"] == aliases["champion"]


def test_a_dry_run_names_the_two_versions_and_changes_nothing(story):
    ended, _ = story["tried"]
    assert ended.line == {"command": "rollback", "run_id": None, "dry_run": True}
    assert "would change the champion of demo-churn from version 3 to 2" in ended.err


def test_a_version_that_was_promoted_by_force_is_named_as_such(story):
    for name in ("tried", "back to 2"):
        ended, _ = story[name]
        assert "; it failed the gate and was promoted by force (number 2)" in ended.err
    assert "by force" not in story["back to 1"][0].err


def test_a_rollback_is_a_run_of_its_own_with_its_reason(story, shared_home, client_at):
    ended, _ = story["back to 2"]
    assert set(ended.line) == {"command", "run_id", "version", "warnings"}
    client = client_at(shared_home)
    run = client.get_run(ended.line["run_id"])
    assert (run.info.status, run.data.tags["churnlab.command"]) == ("FINISHED", "rollback")
    assert run.data.params["reason"] == "3 is doubted"
    assert client.get_experiment(run.info.experiment_id).name == "demo-promotions"
    assert (
        "version 2 is the champion again and replaces version 3"
        in (run.data.tags["mlflow.note.content"])
    )
    assert run.data.tags["churnlab.version"] == ended.line["version"] == "2"


def test_a_rollback_with_nothing_to_go_back_to_changes_nothing_and_says_so(story):
    for name, message in {
        "only one": "demo-churn has no earlier champion to go back to: version 1 stays.",
        "no further": "demo-churn has no earlier champion to go back to: version 1 stays.",
    }.items():
        assert message in story[name][0].err
    for name in ("nothing there", "another dataset"):
        assert (story[name].code, story[name].line["version"]) == (3, None)
        assert "no registered model" in story[name].err.lower()
        assert "run churnlab promote first" in story[name].err
    other = story["another dataset"].err
    assert "choose a dataset that has one: dataset=demo." in other


def test_the_command_that_doctor_prints_for_a_champion_without_files_works_when_it_is_pasted(story):
    problems = story["without files"].line["problems"]
    assert [problem["where"] for problem in problems] == ["demo-churn/4", "demo-churn/1"]
    ended = story["pasted"]
    assert (ended.code, ended.line["promoted"]) == (0, True), ended.err
    assert "by force: version 1 lost its files" in ended.err


def test_versions_that_were_deleted_or_damaged_are_skipped_and_named(story):
    ended, _ = story["past 5 and 4"]
    assert "Version 5 of demo-churn was deleted: skipped." in ended.err
    assert "Version 4 of demo-churn is skipped: it has lost its files: " in ended.err


def test_the_history_lists_every_change_and_nothing_else(story):
    entries = story["history"].line["entries"]
    assert [(entry["from"], entry["to"], entry["why"], entry["command"]) for entry in entries] == [
        (None, "1", "the first one", "promote"),
        ("1", "2", "number 2", "promote"),
        ("2", "3", "number 3", "promote"),
        ("3", "2", "3 is doubted", "rollback"),
        ("2", "1", "", "rollback"),
        ("1", "4", "number 4", "promote"),
        ("4", "5", "number 5", "promote"),
        ("5", "6", "number 6", "promote"),
        ("6", "1", "", "rollback"),
    ]
