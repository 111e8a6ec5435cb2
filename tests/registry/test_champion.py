"""Champions: how they are found, replaced and recorded, in a real registry without files."""

import mlflow
import pytest

from churnlab.errors import InputError, JobError
from churnlab.registry.champion import (
    champion_changes,
    find_champion,
    find_model,
    find_version,
    former_champions,
    refusal,
    registered_model,
    resolve,
    undo_stack,
)
from support.champions import change, registered, store_at


@pytest.fixture(scope="module", autouse=True)
def at(shared_home):
    """The store, open in this process."""
    with store_at(shared_home) as home:
        yield home


@pytest.fixture
def model():
    """A registered model with four versions; the name of its dataset."""
    with registered("shop") as dataset:
        yield dataset


def aliases(dataset: str) -> dict[str, str]:
    found = mlflow.MlflowClient().get_registered_model(f"{dataset}-churn").aliases
    return {alias: str(version) for alias, version in found.items()}


def completed(dataset: str) -> list[tuple[str | None, str]]:
    changes = champion_changes(registered_model(f"{dataset}-churn"))
    return [(entry["from"], entry["to"]) for entry in changes]


def test_a_model_whose_champion_was_deleted_is_still_found_without_a_name(model):
    change(model, None, "1")
    change(model, "1", "2")
    mlflow.MlflowClient().delete_model_version("shop-churn", "2")
    found = find_model(None)
    assert found is not None
    assert (found.name, "champion" in found.aliases) == ("shop-churn", False)


def test_an_alias_is_resolved_to_the_number_that_it_has_at_that_moment(model):
    change(model, None, "2")
    assert resolve("models:/shop-churn@champion") == ("models:/shop-churn/2", "2")
    change(model, "2", "3")
    assert resolve("models:/shop-churn@champion") == ("models:/shop-churn/3", "3")
    assert resolve("models:/shop-churn@previous") == ("models:/shop-churn/2", "2")


@pytest.mark.parametrize(("given", "number"), [("1", "1"), ("4", "4"), ("latest", "4")])
def test_a_number_and_latest_are_resolved_to_the_number(model, given, number):
    assert resolve(f"models:/shop-churn/{given}") == (f"models:/shop-churn/{number}", number)


@pytest.mark.parametrize("uri", ["models:/m-0123", "runs:/0123/bundle", "a/folder", "file:///x"])
def test_a_model_outside_the_registry_keeps_its_address_and_has_no_version(uri):
    assert resolve(uri) == (uri, None)


@pytest.mark.parametrize(
    "uri",
    [
        "models:/shop-churn@champion",
        "models:/shop-churn/5",
        "models:/shop-churn/Production",
        "models:/other-churn/1",
        "models:/",
    ],
)
def test_what_is_not_in_the_registry_is_the_users_mistake(model, uri):
    known = "dataset=shop model_uri=models:/shop-churn/"
    client = mlflow.MlflowClient()
    with pytest.raises(
        InputError, match=f"There is no model {uri} .* run churnlab promote first.$"
    ):
        resolve(uri)
    for number, verdict in enumerate(("refused", "passed", "forced", "undecided"), 1):
        client.set_model_version_tag("shop-churn", str(number), "churnlab.gate", verdict)
    with pytest.raises(InputError, match=f"passed the gate .*: {known}3, {known}2.$"):
        resolve(uri)


def train_run(**tags: str):
    """A run with the fingerprints that a training has."""
    with mlflow.start_run(tags={f"churnlab.{tag}": value for tag, value in tags.items()}) as run:
        return mlflow.get_run(run.info.run_id)


def test_a_refusal_is_that_of_the_twins_of_a_run_and_of_no_other_run(model):
    client, name = mlflow.MlflowClient(), "shop-churn"
    first, twin = (train_run(config_sha256="a", data_sha256="x") for _ in range(2))
    others = [train_run(config_sha256=c, data_sha256=d) for c, d in ("ay", "bx")]
    judged = {"1": (first, "passed"), "2": (first, "refused"), "3": (others[0], "passed")}
    for number, (run, verdict) in judged.items():
        tags = {"churnlab.churn_run_id": run.info.run_id, "churnlab.gate": verdict}
        for tag, value in tags.items():
            client.set_model_version_tag(name, number, tag, value)
    for run in (first, twin):
        assert refusal(name, run) == {"version": "2", "verdict": "refused"}
    assert [refusal(name, run) for run in (*others, None)] == [None] * 3
    client.set_model_version_tag(name, "4", "churnlab.churn_run_id", twin.info.run_id)
    client.set_model_version_tag(name, "4", "churnlab.gate", "passed")
    assert refusal(name, first) is None, "the gate let its twin pass later"


def test_what_is_not_there_is_none(model):
    assert find_champion("shop-churn") is None
    assert find_champion("other-churn") is None
    assert find_version("shop-churn", "5") is None
    assert registered_model("other-churn") is None


def test_a_recorded_change_that_never_took_effect_is_left_out_and_overwritten_by_the_next(
    model,
):
    client, name = mlflow.MlflowClient(), f"{model}-churn"
    change(model, None, "1")
    client.set_registered_model_tag(
        name, "churnlab.move.000002", '{"from": "1", "to": "2", "command": "promote"}'
    )
    assert completed(model) == [(None, "1")]
    change(model, "1", "3")
    assert completed(model) == [(None, "1"), ("1", "3")]
    assert sorted(client.get_registered_model(name).tags) == [
        "churnlab.move.000001",
        "churnlab.move.000002",
    ]
    assert aliases(model) == {"champion": "3", "previous": "1"}


def test_a_champion_that_was_deleted_stays_in_the_history(model):
    change(model, None, "1")
    change(model, "1", "2")
    mlflow.MlflowClient().delete_model_version(f"{model}-churn", "2")
    assert aliases(model) == {"previous": "1"}
    assert completed(model) == [(None, "1"), ("1", "2")]
    change(model, None, "3", previous="1")
    assert completed(model) == [(None, "1"), ("1", "2"), (None, "3")]


def test_the_only_champion_that_was_deleted_stays_in_the_history(model):
    change(model, None, "1")
    mlflow.MlflowClient().delete_model_version(f"{model}-churn", "1")
    assert completed(model) == [(None, "1")]


def test_nothing_changes_when_another_machine_has_replaced_the_champion_meanwhile(model):
    change(model, None, "1")
    change(model, "1", "2")
    with pytest.raises(
        JobError, match=r"\(before: 1, now: 2\). Nothing was replaced; run the command again"
    ):
        change(model, "1", "3")
    assert aliases(model) == {"champion": "2", "previous": "1"}
    assert completed(model) == [(None, "1"), ("1", "2")]


def test_more_than_nine_changes_keep_their_order(model):
    change(model, None, "1")
    for number in range(11):
        change(model, str(1 + number % 2), str(2 - number % 2))
    assert completed(model) == [(None, "1"), *[(str(1 + n % 2), str(2 - n % 2)) for n in range(11)]]


@pytest.mark.parametrize(
    ("story", "stack"),
    [
        ("", []),
        ("+1", []),
        ("+1 +2 +3", ["1", "2"]),
        ("+1 +2 +3 -2", ["1"]),
        ("+1 +2 +3 -2 -1", []),
        ("+1 +2 -1 +3", ["1"]),
        ("+1 +2 -1 +3 +4 -3 +5", ["1", "3"]),
        ("+1 +2 +3 +4 -1", []),  # 3 and 2 were skipped
    ],
)
def test_promotions_push_the_champion_they_replace_and_rollbacks_pop(story, stack):
    changes, now = [], None
    for word in story.split():
        changes.append(
            {"from": now, "to": word[1:], "command": "promote" if word[0] == "+" else "rollback"}
        )
        now = word[1:]
    assert undo_stack(changes) == stack


def test_former_champions_are_the_last_few_back_to_one_that_was_promoted_by_force(model):
    def former(promotions: int) -> list[str]:
        found = former_champions("shop-churn", promotions)
        return [str(version.version) for version in found]

    assert former(5) == []
    change(model, None, "1")
    assert former(5) == []
    for before, after in (("1", "2"), ("2", "3"), ("3", "4")):
        change(model, before, after)
    assert (former(5), former(2)) == (["1", "2", "3"], ["2", "3"])
    client = mlflow.MlflowClient()
    client.set_model_version_tag("shop-churn", "2", "churnlab.gate", "forced")
    assert former(5) == ["2", "3"]
    client.delete_model_version("shop-churn", "3")
    assert former(5) == ["2"]
    client.set_model_version_tag("shop-churn", "4", "churnlab.gate", "forced")
    assert former(5) == []
