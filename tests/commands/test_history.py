"""The journal of the champion's moves, and the command that tells it: a real registry, versions
without files."""

import mlflow
import pytest

from churnlab.errors import JobError
from churnlab.registry import champion as registry
from churnlab.tracking import store
from support.running import opened, tracked_at


@pytest.fixture(scope="module")
def at(shared_home):
    """The store, open in this process."""
    with tracked_at(shared_home):
        store.open_store(f"sqlite:///{shared_home}/mlflow.db", home=shared_home)
        yield shared_home


@pytest.fixture
def model(at, request):
    """A registered model of its own with four versions; the name of its dataset."""
    dataset = f"shop{abs(hash(request.node.name)) % 10**8}"
    client = mlflow.MlflowClient()
    client.create_registered_model(f"{dataset}-churn")
    for _ in range(4):
        client.create_model_version(f"{dataset}-churn", "file:///nowhere")
    yield dataset
    client.delete_registered_model(f"{dataset}-churn")


@pytest.fixture(scope="module")
def ask(at):
    with opened(at) as churnlab:
        yield churnlab


def move(
    dataset: str, after: str | None, to: str, command: str = "promote", previous: str | None = None
) -> None:
    registry.move_champion(
        *(f"{dataset}-churn",),
        **{
            "after": after,
            "to": to,
            "previous": previous or after,
            "why": f"to {to}",
            "command": command,
        },
        run_id="r",
    )


def aliases(dataset: str) -> dict[str, str]:
    found = mlflow.MlflowClient().get_registered_model(f"{dataset}-churn").aliases
    return {alias: str(version) for alias, version in found.items()}


def told(dataset: str) -> list[tuple[str | None, str]]:
    return [
        (entry["from"], entry["to"])
        for entry in registry.moves(registry.registered(f"{dataset}-churn"))
    ]


@pytest.mark.slow
def test_history_tells_who_replaced_whom_when_why_and_how_the_oldest_first_and_records_nothing(
    model, ask, runs_at, at
):
    move(model, None, "1")
    move(model, "1", "2")
    move(model, "2", "1", command="rollback")
    ended = ask("history")
    assert ended.code == 0, ended.err
    assert set(ended.line) == {"command", "run_id", "entries"}
    assert ended.line["run_id"] is None
    entries = ended.line["entries"]
    assert all(set(entry) == {"from", "to", "when", "who", "why", "command"} for entry in entries)
    assert [(entry["from"], entry["to"], entry["why"], entry["command"]) for entry in entries] == [
        (None, "1", "to 1", "promote"),
        ("1", "2", "to 2", "promote"),
        ("2", "1", "to 1", "rollback"),
    ]
    assert f"The champion of {model}-churn is version 1." in ended.err
    assert runs_at(at) == []


@pytest.mark.slow
def test_without_a_dataset_the_one_model_with_a_champion_is_meant(model, ask):
    nothing = ask("history")
    assert (nothing.code, nothing.line["entries"]) == (3, [])
    assert "no registered model with a champion; run churnlab promote" in nothing.err
    client = mlflow.MlflowClient()
    client.create_registered_model("gym-churn")
    client.create_model_version("gym-churn", "file:///nowhere")
    client.create_registered_model("somebody-elses")
    client.create_model_version("somebody-elses", "file:///nowhere")
    client.set_registered_model_alias("somebody-elses", "champion", "1")
    move(model, None, "1")
    assert ask("history").line["entries"][0]["to"] == "1"
    move("gym", None, "1")
    for command in ("history", "rollback"):
        several = ask(command)
        assert (several.code, several.out) == (2, "")
        assert (
            f"Several registered models have a champion: gym-churn, {model}-churn." in several.err
        )
    assert len(ask("history", "dataset=gym").line["entries"]) == 1, (
        "a dataset without its path is enough"
    )
    assert ask("history", "dataset=demo").code == 3
    looks = ask("history", "-m", "seed=0,1")
    assert looks.code == 1
    assert "Several registered models have a champion" in looks.err
    sweep = ask("rollback", "-m", "seed=0,1")
    assert sweep.code == 1
    assert "needs a dataset" in sweep.err
    for name in ("gym-churn", "somebody-elses"):
        client.delete_registered_model(name)


def test_a_move_that_was_told_and_did_not_happen_is_left_out_and_the_next_one_takes_its_place(
    model,
):
    client, name = mlflow.MlflowClient(), f"{model}-churn"
    move(model, None, "1")
    client.set_registered_model_tag(
        name, "churnlab.move.000002", '{"from": "1", "to": "2", "command": "promote"}'
    )
    assert told(model) == [(None, "1")]
    move(model, "1", "3")
    assert told(model) == [(None, "1"), ("1", "3")]
    assert sorted(client.get_registered_model(name).tags) == [
        "churnlab.move.000001",
        "churnlab.move.000002",
    ]
    assert aliases(model) == {"champion": "3", "previous": "1"}


def test_a_champion_that_was_deleted_stays_in_the_history(model):
    move(model, None, "1")
    move(model, "1", "2")
    mlflow.MlflowClient().delete_model_version(f"{model}-churn", "2")
    assert aliases(model) == {"previous": "1"}
    assert told(model) == [(None, "1"), ("1", "2")]
    move(model, None, "3", previous="1")
    assert told(model) == [(None, "1"), ("1", "2"), (None, "3")]


def test_the_only_champion_that_was_deleted_stays_in_the_history(model):
    move(model, None, "1")
    mlflow.MlflowClient().delete_model_version(f"{model}-churn", "1")
    assert told(model) == [(None, "1")]


def test_nothing_moves_when_another_machine_has_moved_the_champion_meanwhile(model):
    move(model, None, "1")
    move(model, "1", "2")
    with pytest.raises(
        JobError, match="was 1 when the gate was asked and is 2 now; nothing was moved"
    ):
        move(model, "1", "3")
    assert aliases(model) == {"champion": "2", "previous": "1"}
    assert told(model) == [(None, "1"), ("1", "2")]


def test_more_than_nine_moves_keep_their_order(model):
    move(model, None, "1")
    for number in range(11):
        move(model, str(1 + number % 2), str(2 - number % 2))
    assert told(model) == [(None, "1"), *[(str(1 + n % 2), str(2 - n % 2)) for n in range(11)]]


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
        ("+1 +2 +3 +4 -1", []),  # 3 and 2 were passed over
    ],
)
def test_promotions_push_the_champion_they_replace_and_rollbacks_pop(story, stack):
    moves, now = [], None
    for word in story.split():
        moves.append(
            {"from": now, "to": word[1:], "command": "promote" if word[0] == "+" else "rollback"}
        )
        now = word[1:]
    assert registry.undo_stack(moves) == stack
