"""What doctor finds in the registry, one fault at a time, and what it repairs."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from churnlab.registry.champion import promotion_lock
from support.stores import aliases, record_change, write_version


def test_a_champion_with_gate_files_and_history_has_no_problems(champion, problems):
    assert problems() == []


def test_a_version_without_files_is_reported_and_left_alone(champion, client, problems, here):
    (here / "versions/demo-churn-0/artifacts/served.json").unlink()
    shutil.rmtree(here / "versions/demo-churn-1")
    found = problems(fix=True)
    assert [problem.kind for problem in found] == ["version without files"] * 2
    assert {(problem.where, problem.what.rpartition(": ")[2]) for problem in found} == {
        ("demo-churn/1", "artifacts/served.json"),
        ("demo-churn/2", "MLmodel"),
    }
    assert len(client.search_model_versions()) == 2


@pytest.mark.parametrize("verdict", [{}, {"gate": "refused"}], ids=["not run", "refused"])
def test_a_champion_that_did_not_pass_the_gate_is_reported(client, kinds, here, verdict):
    version = write_version(client, here, churn_run_id="x", **verdict)
    client.set_registered_model_alias("demo-churn", "champion", version)
    assert kinds(fix=True) == ["champion that did not pass the gate"]


def test_an_interrupted_champion_change_is_undone_with_its_alias(
    champion, client, problems, kinds, here
):
    third = write_version(client, here, gate="passed")
    record_change(client, 3, "2", third)
    client.set_registered_model_alias("demo-churn", "previous", "2")
    assert kinds() == ["interrupted champion change"]
    assert problems(fix=True) == []
    assert aliases(client) == {"champion": "2", "previous": "1"}
    assert sorted(client.get_registered_model("demo-churn").tags) == [
        "churnlab.move.000001",
        "churnlab.move.000002",
    ]


def test_an_interrupted_first_champion_change_is_undone_too(client, problems, kinds, here):
    first = write_version(client, here, gate="passed")
    record_change(client, 1, None, first)
    assert kinds() == ["interrupted champion change"]
    assert problems(fix=True) == []
    assert aliases(client) == {}


def test_a_running_promotion_is_left_alone_and_one_that_finishes_in_the_meantime_stays(
    champion, client, problems, here
):
    third = write_version(client, here, gate="passed")
    record_change(client, 3, "2", third)
    with promotion_lock():
        assert problems() == []
    (problem,) = problems()
    client.set_registered_model_alias("demo-churn", "champion", third)  # it was slow, not dead
    problem.repair()
    assert "churnlab.move.000003" in client.get_registered_model("demo-churn").tags


def test_a_deleted_version_is_reported_and_a_deleted_champion_too(champion, client, problems):
    client.delete_model_version("demo-churn", "1")
    (problem,) = problems(fix=True)
    assert (problem.kind, problem.where) == ("deleted version", "demo-churn")
    client.delete_model_version("demo-churn", "2")
    (problem,) = problems(fix=True)
    assert "including the champion" in problem.what


def test_a_champion_that_was_changed_by_hand_is_reported(champion, client, kinds, here):
    third = write_version(client, here, gate="passed")
    client.set_registered_model_alias("demo-churn", "champion", third)
    assert kinds(fix=True) == ["champion changed by hand"]


def test_a_dangling_alias_is_removed(champion, client, problems, kinds, here):
    # MLflow itself removes aliases together with their version.
    with closing(sqlite3.connect(here / "mlflow.db")) as database, database:
        database.execute("UPDATE registered_model_aliases SET version = 7 WHERE alias = 'previous'")
    assert kinds() == ["dangling alias"]
    assert problems(fix=True) == []
    assert aliases(client) == {"champion": "2"}
