"""One member, one answer: from both servers, score and a notebook, alone and in any batch."""

import json
from itertools import chain, cycle, islice

import mlflow
import pandas as pd
import pyarrow.parquet as pq
import pytest

from support.club import CLUB, club_members
from support.running import THREE_SEGMENTS, churnlab_at, tracked_at
from support.servers import churnlab_serve, post, serving
from support.soak import SOAK

pytestmark = pytest.mark.slow

ROWS = 2_100 if SOAK else 140
BATCHES = (1, 7, 1000, 131_072 if SOAK else 5000)

REPEATED = f"{CLUB}repeated_ids: true\n"

MODELS = {
    "1": ("model=logistic_regression",),
    "2": ("model=random_forest", "model.estimator.n_estimators=30"),
}
"""The model of each version."""


def dataset(place):
    return ("--config-dir", f"{place}/conf", "dataset=club")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A store with a version of each model, trained on a table with gaps."""
    place = tmp_path_factory.mktemp("same")
    (place / "conf" / "dataset").mkdir(parents=True)
    (place / "conf" / "dataset" / "club.yaml").write_text(REPEATED, encoding="utf-8")
    club_members(400, seed=0).to_csv(place / "club.csv", index=False)
    table = (*dataset(place), f"dataset.path={place}/club.csv")
    churnlab = churnlab_at(place / "home")
    ended = [churnlab("segment", *table, "segments=all", "playbook=any", *THREE_SEGMENTS)]
    for model in MODELS.values():
        train = churnlab("train", *table, *model, "features=raw", "evaluation.folds=2")
        run = f"churn_run={train.line['run_id']}"
        forced = ("evaluation.folds=2", "force=true", "reason=a test")
        ended += [train, churnlab("promote", *table, run, *forced)]
    assert {end.code for end in ended} == {0}, [end.err for end in ended]
    return place / "home"


@pytest.fixture(scope="module")
def members():
    """Members whose gaps are in two columns, and of whom some live in a city that is not known."""
    table = club_members(ROWS, seed=1).drop(columns="left")
    table["city"] = [city if row % 9 else "Oslo" for row, city in enumerate(table["city"])]
    assert (table["city"] == "").any()
    assert (table["score"] == 999).any()
    return table


def as_records(members):
    """Return members as JSON has them."""
    found = json.loads(members.to_json(orient="records", double_precision=15))
    return [{key: None if cell == "" else cell for key, cell in one.items()} for one in found]


@pytest.fixture
def notebook(home, monkeypatch):
    """A function that loads a version as a notebook does, and returns what asks it."""
    monkeypatch.setattr("sys.dont_write_bytecode", True)  # leave the version as it is

    def load(version):
        with tracked_at(home):
            model = mlflow.pyfunc.load_model(f"models:/club-churn/{version}")
        return lambda rows: model.predict(pd.DataFrame(rows, dtype=object))

    return load


def over_http(address):
    """Return what asks a server."""

    def ask(rows):
        status, answer = post(address, {"dataframe_records": rows})
        assert status == 200, answer
        return answer["predictions"]

    return ask


@pytest.mark.parametrize("version", MODELS)
def test_a_member_gets_the_same_bits_from_servers_and_notebooks_alone_and_in_any_batch(
    home, members, notebook, version
):
    rows, ask, uri = as_records(members), notebook(version), f"models:/club-churn/{version}"
    alone = [*chain.from_iterable(ask([row]) for row in rows)]
    limits = (f"serve.most_rows={max(BATCHES)}", "serve.most_bytes=99000000", "serve.seconds=60")
    with serving(home, uri) as theirs, churnlab_serve(home, f"model_uri={uri}", *limits) as ours:
        for asked in (ask, over_http(theirs), over_http(ours.address)):
            for batch in BATCHES:
                many = [*islice(cycle(rows), max(ROWS, batch))]
                parts = (many[start : start + batch] for start in range(0, len(many), batch))
                found = [*chain.from_iterable(map(asked, parts))]
                assert found == [*islice(cycle(alone), len(many))]


@pytest.mark.parametrize("version", MODELS)
def test_a_scored_file_of_any_length_has_the_bits_of_a_notebook(
    home, members, notebook, version, tmp_path
):
    answers = notebook(version)(as_records(members))
    expected = [{**answer, "reasons": "; ".join(answer["reasons"])} for answer in answers]
    uri = f"model_uri=models:/club-churn/{version}"
    chosen = (*dataset(home.parent), uri)
    churnlab = churnlab_at(home)
    for rows in BATCHES:
        places = [place % ROWS for place in range(rows)]
        members.iloc[places].to_csv(tmp_path / "in.csv", index=False)
        output = tmp_path / f"{rows}.parquet"
        words = ("score", f"input={tmp_path}/in.csv", f"output={output}", *chosen)
        ended = churnlab(*words, "score.reasons=true")
        assert ended.code == 0, ended.err
        scored = pq.read_table(output, columns=[*expected[0]]).to_pylist()
        assert scored == [*islice(cycle(expected), rows)]
