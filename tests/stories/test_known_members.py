"""Members are known again: in another split, in next month's table, and in several rows."""

import json

import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from churnlab.data.demo import members
from support.running import THREE_SEGMENTS, artifact, churnlab_beside

pytestmark = pytest.mark.slow

FOLDS = ("evaluation.folds=2",)


def month(first: int, size: int, seed: int) -> pd.DataFrame:
    """Return a month's table of the clients from ``first`` on, with values of that month."""
    clients = [f"client {number}" for number in range(first, first + size)]
    return members(size, seed=seed).assign(Client=clients)


TABLES = {"june": month(0, 500, seed=1), "july": month(100, 700, seed=2)}
TABLES["visits"] = pd.concat([TABLES["june"], TABLES["june"].assign(Age=30)], ignore_index=True)


@pytest.fixture(scope="module")
def churnlab(shared_home):
    """One process, in the folder of the tables; the champion is that of June."""
    run = churnlab_beside(shared_home, TABLES)

    def run_on(command, table, *words, name="club"):
        here = (f"dataset.path={table}.csv", "dataset.id=Client", f"dataset.name={name}")
        return run(command, "dataset=gym", *here, *words)

    return run_on


@pytest.fixture(scope="module")
def june(churnlab):
    """How June's promotion ended."""
    assert churnlab("train", "june", *FOLDS).code == 0
    assert churnlab("segment", "june", *THREE_SEGMENTS).code == 0
    ended = churnlab("promote", "june", *FOLDS)
    assert ended.code == 0, ended.err
    return ended


def parts(name: str, seed: int = 0) -> tuple[set[str], set[str]]:
    """Return the clients of the training part and of the hold-out."""
    table = TABLES[name]
    train, test = train_test_split(table, test_size=0.2, stratify=table["Churn"], random_state=seed)
    return set(train["Client"]), set(test["Client"])


def looks(client, ended) -> tuple[float, float]:
    found = client.get_run(ended.line["run_id"]).data.metrics
    return found["holdout_looks"], found["holdout_looks_mean"]


def test_another_seed_does_not_make_worn_members_new(churnlab, june, shared_home, client_at):
    assert looks(client_at(shared_home), june) == (0, 0)
    assert "No model has been compared on these held-out members before" in june.err
    assert churnlab("train", "june", *FOLDS, "seed=1").code == 0
    ended = churnlab("promote", "june", *FOLDS, "seed=1", "gate.members=2", "gate.looks=2")
    judges = parts("june")[1] & parts("june", seed=1)[1]
    assert f"{len(judges)} of 100 held-out members can be used" in gate_of(
        ended, shared_home, client_at
    )
    assert looks(client_at(shared_home), ended) == (1, 1)
    assert "on these held-out members 1 time. Members that decide again" in ended.err
    assert "promote on members who were not in the table before" in ended.err
    assert churnlab("compare", "june", *FOLDS).code == 0
    assert churnlab("train", "june", *FOLDS).code == 0  # the champion's own run is not judged again
    again = churnlab("promote", "june", *FOLDS)
    assert looks(client_at(shared_home), again) == (3, 2 + len(judges) / 100)


def gate_of(ended, home, client_at) -> str:
    run = client_at(home).get_run(ended.line["run_id"])
    found = json.loads(artifact(run, "gate.json").read_text(encoding="utf-8"))
    return "\n".join(check["message"] for check in found["checks"])


def test_next_month_the_same_ids_are_known_again_whatever_their_values(
    churnlab, june, shared_home, client_at
):
    assert churnlab("train", "july", *FOLDS).code == 0
    assert churnlab("segment", "july", *THREE_SEGMENTS).code == 0
    words = (*FOLDS, "require=not_worse", "gate.members=30", "gate.margin={log_loss:0.02}")
    ended = churnlab("promote", "july", *words, "gate.slices=[segment,Age,gender]")
    checks = {check["name"]: check for check in ended.line["checks"]}
    assert checks["log_loss_against_champion"]["limit"] == -0.02
    assert checks["slices_against_champion"]["value"] == 0
    unknown = churnlab("promote", "july", *words, "gate.slices=[Client]")
    assert unknown.code == 2
    assert "gate.slices names Client; give columns of the dataset" in unknown.err
    trained, test = parts("june")[0], parts("july")[1]
    known = len(trained & test)
    assert 30 < known < 100
    assert checks["held_out_members"]["value"] == 140 - known
    assert f"{known} more in the champion's training part" in gate_of(ended, shared_home, client_at)
    most, mean = looks(client_at(shared_home), ended)
    assert most >= 1, "some of them were held out in June"
    assert 0 < mean < most
    assert "by the content" not in ended.err


def test_a_champion_of_before_members_were_matched_by_id_is_compared_by_content_and_says_so(
    churnlab, june, shared_home, client_at
):
    client = client_at(shared_home)
    champion = client.get_model_version_by_alias("club-churn", "champion")
    gate = artifact(client.get_run(champion.run_id), "gate.json")
    before = gate.read_text(encoding="utf-8")
    columns = sorted(set(TABLES["june"]) - {"Churn", "Client"})
    champions = client.get_run(champion.tags["churnlab.churn_run_id"])
    other = "june" if "july.csv" in champions.data.params["dataset.path"] else "july"
    try:
        for known, message in (
            (["id Client", *columns], "by the content of all columns"),
            (["id Number"], "it was trained on a table with another id"),
        ):
            record = json.loads(before) | {"identifying_columns": known}
            gate.write_text(json.dumps(record), encoding="utf-8")
            ended = churnlab("promote", other, *FOLDS, "require=not_worse", "gate.members=20")
            assert message in ended.err
    finally:
        gate.write_text(before, encoding="utf-8")


def test_all_rows_of_a_member_stay_on_one_side_of_every_split(churnlab, shared_home, client_at):
    refused = churnlab("train", "visits", *FOLDS, name="visits")
    assert refused.code == 2
    assert "set dataset.repeated_ids=true, which keeps all rows of one member on one" in refused.err
    assert "dataset.id=null" not in refused.err
    trained = churnlab("train", "visits", "dataset.repeated_ids=true", *FOLDS, name="visits")
    assert trained.code == 0, trained.err
    assert "500 of 1,000 rows are of a member with another row" in trained.err
    run = client_at(shared_home).get_run(trained.line["run_id"])
    oof, test = (
        pd.read_parquet(artifact(run, f"predictions/{name}.parquet")) for name in ("oof", "test")
    )
    clients = TABLES["visits"]["Client"].to_numpy()
    assert not set(clients[oof["row"]]) & set(clients[test["row"]])
    assert len(test) == 200
    assert oof.assign(client=clients[oof["row"]]).groupby("client")["fold"].nunique().max() == 1
    assert churnlab("train", "visits", "dataset.id=null", "dataset.repeated_ids=true").code == 2
