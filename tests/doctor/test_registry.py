"""What doctor finds in the registry, one fault at a time, and what it repairs."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from churnlab.errors import InputError
from churnlab.registry.champion import promotion_lock
from support.running import folder
from support.stores import aliases, record_change, write_run, write_study, write_version


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


def test_a_deleted_champion_is_reported_but_not_a_version_that_rollback_skips_anyway(
    champion, client, problems
):
    client.delete_model_version("demo-churn", "1")
    assert problems() == []
    client.delete_model_version("demo-churn", "2")
    (problem,) = problems(fix=True)
    assert (problem.kind, problem.where) == ("deleted version", "demo-churn")
    assert problem.what == "demo-churn: version 2, the champion, was deleted"
    assert problem.fix == "churnlab rollback dataset=demo, or churnlab promote"


def test_the_command_that_replaces_a_version_without_files_has_the_keys_of_its_promotion(
    client, problems, here
):
    keys = {"dataset.name": "demo", "dataset.path": "None", "dataset.rows": "400", "seed": "3"}
    for number in ("1", "2"):
        run_id = write_run(client, "promote", status="FINISHED")
        for key, value in (keys | {"metric": "roc_auc"}).items():
            client.log_param(run_id, key, value)
        runs = {"churn_run_id": f"a{number}", "segment_run_id": f"b{number}"}
        write_version(client, here, gate="passed", run_id=run_id, **runs)
        shutil.rmtree(here / f"versions/demo-churn-{int(number) - 1}")
    words = "churnlab promote dataset=demo seed=3 dataset.rows=400"
    fixes = {problem.where: problem.fix.rpartition(": ")[2] for problem in problems()}
    assert fixes == {
        f"demo-churn/{number}": f"{words} churn_run=a{number} segment_run=b{number}"
        for number in (1, 2)
    }
    client.set_registered_model_alias("demo-churn", "champion", "2")
    fixes = {problem.where: problem.fix.rpartition(": ")[2] for problem in problems()}
    assert fixes["demo-churn/2"] == (
        f"{words} churn_run=a2 segment_run=b2 force=true 'reason=version 2 lost its files'"
    )


def test_the_command_that_replaces_a_version_names_no_run_that_has_lost_its_files_too(
    client, problems, here
):
    lost = write_run(client, "train", status="FINISHED")
    shutil.rmtree(folder(client.get_run(lost).info.artifact_uri))
    run_id = write_run(client, "promote", status="FINISHED")
    for key, value in {"dataset.name": "demo", "dataset.path": "None"}.items():
        client.log_param(run_id, key, value)
    write_version(
        client, here, gate="passed", run_id=run_id, churn_run_id=lost, segment_run_id="none"
    )
    shutil.rmtree(here / "versions/demo-churn-0")
    fixes = {problem.kind: problem.fix for problem in problems()}
    assert fixes["version without files"].endswith("churnlab promote dataset=demo segment_run=none")


@pytest.mark.parametrize("gate", ["passed", "refused"])
def test_a_version_without_files_that_is_not_the_champion_is_deleted_and_not_made_again(
    champion, client, problems, here, gate
):
    third = write_version(client, here, gate=gate, churn_run_id="a", segment_run_id="b")
    shutil.rmtree(here / f"versions/demo-churn-{int(third) - 1}")
    (problem,) = problems()
    assert problem.where == f"demo-churn/{third}"
    assert problem.fix == (
        "delete it in the MLflow UI; the champion is version 2, and rollback skips what was deleted"
    )


def test_the_command_for_a_dataset_of_the_user_names_no_key_that_was_not_set(
    client, problems, here
):
    run_id = write_run(client, "promote", status="FINISHED")
    keys = {"dataset.name": "club", "dataset.path": "None", "dataset.rows": "None", "seed": "3"}
    for key, value in keys.items():
        client.log_param(run_id, key, value)
    runs = {"churn_run_id": "a", "segment_run_id": "b"}
    write_version(client, here, gate="refused", run_id=run_id, **runs)
    shutil.rmtree(here / "versions/demo-churn-0")
    assert [problem.fix for problem in problems()] == [
        "delete it in the MLflow UI after this command has replaced it (with the --config-dir of "
        "its dataset): churnlab promote dataset=club seed=3 churn_run=a segment_run=b"
    ]


def test_a_store_that_cannot_be_locked_is_examined_all_the_same(
    champion, client, problems, storage, here
):
    record_change(client, 3, "2", write_version(client, here, gate="passed"))
    write_study(storage, client, status="KILLED")
    for lock in (".promotion.lock", ".store.lock", "studies/s.lock"):
        shutil.rmtree(here / lock) if (here / lock).is_dir() else (here / lock).unlink(True)
        (here / lock).mkdir()
    assert [problem.kind for problem in problems()] == [
        "interrupted champion change",
        "orphaned trials",
    ]
    with pytest.raises(InputError, match="Nothing can be written to .*promotion.lock"):
        promotion_lock().__enter__()


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
