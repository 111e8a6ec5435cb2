"""What a segmentation carries, that it is true, and the segments of the real table."""

import json

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import silhouette_score
from sklearn.preprocessing import StandardScaler

from churnlab.demo import members
from conftest import SMALL_SEGMENTS, artifact, files

pytestmark = pytest.mark.slow

ROWS = 500
PER_K = (
    *("inertia", "silhouette", "calinski_harabasz", "davies_bouldin", "gap", "ward_height", "ward_height_gap"),
    *("bootstrap_ari", "bootstrap_ari_min", "prediction_strength", "min_share", "ward_agreement", "heldout_churn_auc"),
)


@pytest.fixture(scope="module")
def line(shared_home, succeed):
    return succeed(shared_home, "segment", f"dataset.rows={ROWS}", "segments.k=4", *SMALL_SEGMENTS)


@pytest.fixture
def run(line, shared_home, client_at):
    return client_at(shared_home).get_run(line["run_id"])


@pytest.fixture
def labels(run):
    table = pd.read_parquet(artifact(run, "segments/members.parquet"))
    assert table["row"].tolist() == list(range(ROWS))
    return table["segment"].to_numpy()


@pytest.fixture
def clustered() -> pd.DataFrame:
    """The five columns of segments=behaviour, in its order."""
    frame = members(ROWS, seed=0)
    now, total = frame["Avg_class_frequency_current_month"], frame["Avg_class_frequency_total"]
    return pd.DataFrame(
        {
            "lifetime_log": np.log1p(frame["Lifetime"]),
            "visits_now": now,
            "visits_change": now - total,
            "contract_log": np.log2(frame["Contract_period"]),
            "near": frame["Near_Location"].astype("float64"),
        }
    )


def by_k(client, run, name: str) -> dict[int, float]:
    return {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, name)}


def test_the_segments_of_the_result_are_numbered_by_size_and_have_their_churn_and_action(line, labels):
    assert (line["command"], line["k"]) == ("segment", 4)
    y = members(ROWS, seed=0)["Churn"].to_numpy()
    assert [segment["id"] for segment in line["segments"]] == [0, 1, 2, 3]
    sizes = [segment["size"] for segment in line["segments"]]
    assert sizes == sorted(sizes, reverse=True) == np.bincount(labels).tolist()
    for segment in line["segments"]:
        assert set(segment) == {"id", "name", "size", "churn_rate", "recommended_action"}
        assert segment["churn_rate"] == pytest.approx(y[labels == segment["id"]].mean())
        assert segment["name"]
        assert segment["recommended_action"]
    assert len({segment["name"] for segment in line["segments"]}) == 4


def test_a_run_has_its_place_its_tags_and_its_artifacts(run, line, shared_home, client_at):
    assert client_at(shared_home).get_experiment(run.info.experiment_id).name == "demo-segments"
    assert run.data.tags["churnlab.command"] == "segment"
    assert len(run.data.tags["churnlab.data_sha256"]) == 64
    assert run.data.tags["churnlab.k_reason"].startswith("k=4: set by hand, the rule ")
    assert run.data.params["segments.n_init"] == "2"
    assert run.data.metrics["k"] == 4
    pictures = {"dendrogram", "stability", "criteria", "profile", "churn_by_segment"}
    tables = {
        "config.yaml",
        "data_report.json",
        "evidence.csv",
        "segments.csv",
        "segments/members.parquet",
        "portraits.json",
    }
    assert files(run) == tables | {"segmentation.json"} | {f"figures/{name}.png" for name in pictures}
    for name in pictures:
        assert artifact(run, f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
    portraits = json.loads(artifact(run, "portraits.json").read_text())
    told = [
        {key: portrait[key] for key in segment} for portrait, segment in zip(portraits, line["segments"], strict=True)
    ]
    assert told == line["segments"]


def test_each_number_of_segments_has_its_evidence_as_metrics_over_k(run, shared_home, client_at):
    client = client_at(shared_home)
    evidence = pd.read_csv(artifact(run, "evidence.csv")).set_index("k")
    assert list(evidence.index) == [2, 3, 4]
    for name in PER_K:
        assert by_k(client, run, name) == evidence[name].to_dict(), name
    assert evidence["inertia"].is_monotonic_decreasing
    heights = evidence["ward_height"]
    assert (heights[2] - heights[3], heights[3] - heights[4]) == pytest.approx(
        (evidence["ward_height_gap"][2], evidence["ward_height_gap"][3])
    )
    assert evidence["ward_height_gap"].idxmax() == run.data.metrics["k_dendrogram"]


def test_the_labels_are_those_of_the_evidence_and_of_the_logged_model(run, labels, clustered, shared_home):
    Z = StandardScaler().fit_transform(clustered)
    inertia = sum(((Z[labels == k] - Z[labels == k].mean(axis=0)) ** 2).sum() for k in range(4))
    evidence = pd.read_csv(artifact(run, "evidence.csv")).set_index("k").loc[4]
    assert evidence["inertia"] == pytest.approx(inertia, rel=1e-3)
    assert evidence["silhouette"] == pytest.approx(silhouette_score(Z, labels), abs=0.01)
    assert evidence["min_share"] == pytest.approx(np.bincount(labels).min() / ROWS, abs=0.005)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{shared_home}/mlflow.db")
    try:
        again = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model").predict(clustered)
    finally:
        mlflow.set_tracking_uri(before)
    assert np.array_equal(again, labels)


def test_the_profile_is_that_of_the_members(run, labels):
    frame = members(ROWS, seed=0)
    profile = pd.read_csv(artifact(run, "segments.csv")).set_index("segment")
    assert profile["size"].tolist() == np.bincount(labels).tolist()
    for name in ("Lifetime", "Age", "Near_Location"):
        assert profile[f"mean_{name}"].to_numpy() == pytest.approx(frame[name].groupby(labels).mean().to_numpy())
    left = frame["Churn"].groupby(labels).mean()
    assert profile["churn_rate"].to_numpy() == pytest.approx(left.to_numpy())
    assert (profile["churn_low"] < left).all()
    assert (left < profile["churn_high"]).all()


def test_a_segmentation_never_sees_who_left_and_speaks_the_language_asked_for(
    shared_home, succeed, client_at, labels, tmp_path
):
    """The same members with everybody's outcome turned round fall into the same segments."""
    frame = members(ROWS, seed=0)
    frame["Churn"] = 1 - frame["Churn"]
    frame.to_csv(tmp_path / "turned.csv", index=False)
    words = ["dataset=gym", f"dataset.path={tmp_path}/turned.csv", "segments.k=4", "playbook.language=ru"]
    line = succeed(shared_home, "segment", *words, *SMALL_SEGMENTS)
    turned = client_at(shared_home).get_run(line["run_id"])
    assert np.array_equal(pd.read_parquet(artifact(turned, "segments/members.parquet"))["segment"], labels)
    assert any("\u0430" <= letter <= "\u044f" for letter in line["segments"][0]["recommended_action"])


def test_a_language_that_the_playbook_lacks_is_told_before_the_evidence_is_gathered(home, run_command, runs_at):
    ended = run_command(home, "segment", "playbook.language=fr", "segments.n_init=1000000")  # hours of work
    assert (ended.code, ended.out) == (2, "")
    assert "no text in 'fr'" in ended.err
    assert "Traceback" not in ended.err
    assert runs_at(home) == []


# The real table


def segmented(home, gym_csv, succeed, client_at, *words: str):
    line = succeed(home, "segment", "dataset=gym", f"dataset.path={gym_csv}", *words)
    return line, client_at(home).get_run(line["run_id"])


def test_the_groups_of_seed_002_come_out_with_their_churn_and_their_actions(gym_csv, home, succeed, client_at):
    effort = ["segments.bootstraps=2", "segments.refit_n_init=1", "segments.splits=2", "segments.references=2"]
    line, _ = segmented(home, gym_csv, succeed, client_at, "segments=seed002", "segments.range=[4,4]", *effort)
    assert line["k"] == 4
    published = [
        (
            1361,
            0.527,
            "PRIORITY: the greatest potential for retention, the most attention; discount on a 6- or 12-month",
        ),
        (1128, 0.027, "offer extra services; renewal reminder 1-2 months before the contract ends"),
        (957, 0.071, "discount on a 6- or 12-month contract; bring-a-friend offer; extra discount for employees"),
        (554, 0.442, "no retention budget by default, cheap e-mail only"),
    ]
    for segment, (size, churn_rate, action) in zip(line["segments"], published, strict=True):
        assert segment["size"] == pytest.approx(size, rel=0.01)
        assert segment["churn_rate"] == pytest.approx(churn_rate, abs=0.01)
        assert segment["recommended_action"].startswith(action)


def test_the_behaviour_segments_choose_four_by_themselves(gym_csv, home, succeed, client_at):
    effort = ["segments.n_init=10", "segments.bootstraps=8", "segments.splits=6", "segments.references=2"]
    line, run = segmented(home, gym_csv, succeed, client_at, "segments.range=[2,6]", *effort)
    assert line["k"] == 4
    assert run.data.metrics["k_dendrogram"] == 4
    assert run.data.tags["churnlab.k_reason"].startswith("k=4: ")
    assert "Ward gap (30.3)" in run.data.tags["churnlab.k_reason"]
    evidence = pd.read_csv(artifact(run, "evidence.csv")).set_index("k")
    assert evidence.loc[4, "inertia"] == pytest.approx(9173.9, rel=0.001)
    assert evidence.loc[4, "bootstrap_ari"] >= 0.95
    assert evidence.loc[4, "prediction_strength"] >= 0.9
    assert 0.88 <= evidence.loc[4, "heldout_churn_auc"] <= 0.9
    published = {1544: 0.025, 1282: 0.177, 609: 0.990, 565: 0.340}
    for segment, (size, churn_rate) in zip(line["segments"], published.items(), strict=True):
        assert segment["size"] == pytest.approx(size, rel=0.01)
        assert segment["churn_rate"] == pytest.approx(churn_rate, abs=0.01)


def test_wards_tree_of_the_thirteen_columns_has_its_heights_and_proposes_four(gym_csv, home, succeed, client_at):
    effort = ["segments.n_init=2", "segments.bootstraps=2", "segments.refit_n_init=1", "segments.splits=2"]
    words = ["segments=course", "segments.range=[2,7]", "segments.references=2", *effort]
    line, run = segmented(home, gym_csv, succeed, client_at, *words)
    heights = by_k(client_at(home), run, "ward_height")
    assert [heights[k] for k in range(2, 8)] == pytest.approx([104.6, 89.0, 83.9, 66.6, 59.9, 48.7], abs=0.1)
    assert run.data.metrics["k_dendrogram"] == 4
    assert line["k"] == 5
    assert "set by hand" in run.data.tags["churnlab.k_reason"]
    assert "figures/dendrogram.png" in files(run)
