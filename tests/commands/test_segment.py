"""The artifacts of a segmentation, whether they are true, and the segments of the real table."""

import json

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import silhouette_score
from sklearn.preprocessing import StandardScaler

from churnlab.data.demo import members
from churnlab.segments.choose_k import STABLE
from churnlab.segments.portraits import on_page
from support.running import SMALL_SEGMENTS, artifact, files, model_uri, tracked_at

pytestmark = pytest.mark.slow

ROWS = 500
PER_K = (
    *(
        "inertia",
        "silhouette",
        "calinski_harabasz",
        "davies_bouldin",
        "gap",
        "ward_height",
        "ward_height_gap",
    ),
    *(
        "bootstrap_ari",
        "bootstrap_ari_min",
        "prediction_strength",
        "min_share",
        "ward_agreement",
        "heldout_churn_auc",
    ),
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
    return {
        metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, name)
    }


def test_the_segments_of_the_result_are_numbered_by_size_and_have_their_churn_and_action(
    line, labels
):
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
    assert run.data.tags["churnlab.k_reason"].startswith("k=4 was set by hand, and the rule ")
    assert run.data.params["segments.n_init"] == "2"
    assert run.data.metrics["k"] == 4
    pictures = {"dendrogram", "stability", "criteria", "profile", "churn_by_segment", "members"}
    tables = {
        "config.yaml",
        "data_report.json",
        "evidence.csv",
        "segments.csv",
        "segments/members.parquet",
        "portraits.json",
        "actions.csv",
    }
    assert files(run) == tables | {"segmentation.json"} | {
        f"figures/{name}.png" for name in pictures
    }
    for name in pictures:
        assert artifact(run, f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
    portraits = json.loads(artifact(run, "portraits.json").read_text())
    shown = [
        {key: portrait[key] for key in segment}
        for portrait, segment in zip(portraits, line["segments"], strict=True)
    ]
    assert shown == line["segments"]


def test_each_number_of_segments_has_its_evidence_as_metrics_over_k(run, shared_home, client_at):
    client = client_at(shared_home)
    evidence = pd.read_csv(artifact(run, "evidence.csv")).set_index("k")
    assert list(evidence.index) == [1, 2, 3, 4]
    of_one = evidence.drop(columns="chosen_by").loc[1]
    assert of_one.dropna().index.tolist() == ["gap", "gap_s"]
    for name in PER_K:
        assert by_k(client, run, name) == evidence[name].dropna().to_dict(), name
    assert evidence["inertia"].dropna().is_monotonic_decreasing
    heights = evidence["ward_height"]
    assert (heights[2] - heights[3], heights[3] - heights[4]) == pytest.approx(
        (evidence["ward_height_gap"][2], evidence["ward_height_gap"][3])
    )
    assert evidence["ward_height_gap"].idxmax() == run.data.metrics["k_dendrogram"]


def test_a_run_says_whether_its_segments_are_groups_and_how_well_each_comes_back(run):
    groups, p = run.data.tags["churnlab.groups"], run.data.metrics["null_p"]
    assert groups.startswith("shown to be groups (p = ") is (p < 0.05)
    assert f"(p = {p:.2g})" in groups
    assert run.data.tags["churnlab.k_reason"].endswith(f"; {groups}")
    assert f"They are {groups}." in run.data.tags["mlflow.note.content"]
    portraits = json.loads(artifact(run, "portraits.json").read_text())
    table = pd.read_csv(artifact(run, "segments.csv"))
    evidence = pd.read_csv(artifact(run, "evidence.csv")).set_index("k")
    assert table["jaccard"].tolist() == [portrait["jaccard"] for portrait in portraits]
    assert table["jaccard"].min() == evidence["jaccard_min"][4]
    assert table["jaccard"].between(0, 1).all()
    for portrait in portraits:
        assert (portrait["null_p"], portrait["groups"]) == (p, groups)
        assert "is by construction and no finding" in portrait["notes"][-1]
        assert "Age" not in portrait["by_construction"]


def test_the_labels_are_those_of_the_evidence_and_of_the_logged_model(
    run, labels, clustered, shared_home
):
    Z = StandardScaler().fit_transform(clustered)
    inertia = sum(((Z[labels == k] - Z[labels == k].mean(axis=0)) ** 2).sum() for k in range(4))
    evidence = pd.read_csv(artifact(run, "evidence.csv")).set_index("k").loc[4]
    assert evidence["inertia"] == pytest.approx(inertia, rel=1e-3)
    assert evidence["silhouette"] == pytest.approx(silhouette_score(Z, labels), abs=0.01)
    assert evidence["min_share"] == pytest.approx(np.bincount(labels).min() / ROWS, abs=0.005)
    with tracked_at(shared_home):
        loaded = mlflow.pyfunc.load_model(model_uri(run))
    assert np.array_equal(loaded.predict(clustered), labels)
    assert list(loaded.input_example) == list(clustered)
    assert loaded.predict(loaded.input_example)[0] in labels


def test_the_logged_model_carries_the_name_of_its_run_and_the_criteria_of_the_chosen_k(
    run, shared_home, client_at
):
    logged = client_at(shared_home).get_logged_model(model_uri(run).rpartition("/")[2])
    assert logged.name == run.info.run_name == "segments behaviour"
    evidence = pd.read_csv(artifact(run, "evidence.csv")).set_index("k").loc[4]
    found = {metric.key: metric.value for metric in logged.metrics}
    assert set(found) == set(run.data.metrics) >= {*PER_K, "k", "k_dendrogram", "null_p"}
    assert (found["k"], found["silhouette"]) == (4, pytest.approx(evidence["silhouette"]))
    assert {metric.dataset_name for metric in logged.metrics} == {"demo"}


def test_the_profile_is_that_of_the_members(run, labels):
    frame = members(ROWS, seed=0)
    profile = pd.read_csv(artifact(run, "segments.csv")).set_index("segment")
    assert profile["size"].tolist() == np.bincount(labels).tolist()
    for name in ("Lifetime", "Age", "Near_Location"):
        assert profile[f"mean_{name}"].to_numpy() == pytest.approx(
            frame[name].groupby(labels).mean().to_numpy()
        )
    left = frame["Churn"].groupby(labels).mean()
    assert profile["churn_rate"].to_numpy() == pytest.approx(left.to_numpy())
    assert (profile["churn_low"] < left).all()
    assert (left < profile["churn_high"]).all()


def test_a_segmentation_never_sees_who_left_and_uses_the_chosen_language(
    shared_home, succeed, client_at, labels, run, tmp_path
):
    """The same members with permuted churn fall into the same segments."""
    frame = members(ROWS, seed=0)
    frame["Churn"] = np.random.default_rng(5).permutation(frame["Churn"])
    frame.to_csv(tmp_path / "dealt.csv", index=False)
    words = [
        "dataset=gym",
        f"dataset.path={tmp_path}/dealt.csv",
        "segments.k=4",
        "playbook.language=ru",
    ]
    line = succeed(shared_home, "segment", *words, *SMALL_SEGMENTS)
    dealt = client_at(shared_home).get_run(line["run_id"])
    assert np.array_equal(
        pd.read_parquet(artifact(dealt, "segments/members.parquet"))["segment"], labels
    )
    ours, theirs = (pd.read_csv(artifact(one, "evidence.csv")) for one in (run, dealt))
    assert not np.array_equal(ours["heldout_churn_auc"], theirs["heldout_churn_auc"])
    target = ["heldout_churn_auc"]
    pd.testing.assert_frame_equal(ours.drop(columns=target), theirs.drop(columns=target))
    assert dealt.data.tags["churnlab.k_alone"] == run.data.tags["churnlab.k_alone"]
    assert any(
        "\u0430" <= letter <= "\u044f" for letter in line["segments"][0]["recommended_action"]
    )
    for portrait in json.loads(artifact(dealt, "portraits.json").read_text(encoding="utf-8")):
        page = on_page(portrait)  # what the terminal, the figures and the report show
        assert not portrait["name"].isascii()
        assert page["name"].isascii()
        assert all(planned["sentence"].isascii() for planned in page["plans"])
    made_of = json.loads(artifact(dealt, "segmentation.json").read_text(encoding="utf-8"))
    assert "".join(made_of["for_everyone"]).isascii()
    assert not made_of["everyone"][0]["text"].isascii()


def test_a_run_says_what_each_criterion_alone_would_have_chosen(run):
    alone = json.loads(run.data.tags["churnlab.k_alone"])
    evidence = pd.read_csv(artifact(run, "evidence.csv")).set_index("k")
    assert alone["silhouette"] == evidence["silhouette"].idxmax()
    assert alone["davies_bouldin"] == evidence["davies_bouldin"].idxmin()
    assert "heldout_churn_auc" not in alone
    for k, names in evidence["chosen_by"].fillna("").items():
        assert set(names.split()) == {name for name, number in alone.items() if number == k}
    assert "Each criterion alone would choose" in run.data.tags["mlflow.note.content"]


def test_late_columns_are_named_and_the_result_without_them_is_logged(run):
    caveat = run.data.tags["churnlab.late"]
    assert "Avg_class_frequency_current_month" in caveat
    assert caveat in run.data.tags["mlflow.note.content"]
    assert caveat in json.loads(artifact(run, "portraits.json").read_text())[0]["notes"]
    early = json.loads(artifact(run, "segmentation.json").read_text())["without_late"]
    assert list(early["columns"]) == ["lifetime_log", "visits_total", "contract_log", "near"]
    assert sum(segment["size"] for segment in early["segments"]) == ROWS
    assert 0 < early["agreement"] < 1
    assert 0.5 < early["heldout_churn_auc"] < 1


def test_a_stable_and_an_unstable_run_carry_their_mark_everywhere(
    shared_home, run_command, client_at, run
):
    words = [f"dataset.rows={ROWS}", "segments=course", "segments.k=8", *SMALL_SEGMENTS]
    ended = run_command(shared_home, "segment", *words)
    assert ended.code == 0, ended.err
    unstable = client_at(shared_home).get_run(ended.line["run_id"])
    for one in (run, unstable):
        evidence = (
            pd.read_csv(artifact(one, "evidence.csv")).set_index("k").loc[one.data.metrics["k"]]
        )
        stable = all(evidence[name] >= limit for name, limit in STABLE.items())
        assert one.data.tags["churnlab.stable"] == str(stable).lower()
        assert ("churnlab.unstable" in one.data.tags) is not stable
        portraits = json.loads(artifact(one, "portraits.json").read_text())
        assert {portrait["stable"] for portrait in portraits} == {stable}
    assert unstable.data.tags["churnlab.stable"] == "false"
    reason = unstable.data.tags["churnlab.unstable"]
    assert "(required: " in reason
    assert f"warning: {reason}" in ended.err
    assert reason in portraits[0]["notes"]
    assert reason in unstable.data.tags["mlflow.note.content"]


def test_collinear_columns_are_named(shared_home, run_command, client_at):
    words = [f"dataset.rows={ROWS}", "segments=seed002", "segments.k=2", *SMALL_SEGMENTS]
    ended = run_command(shared_home, "segment", *words)
    caveat = client_at(shared_home).get_run(ended.line["run_id"]).data.tags["churnlab.collinear"]
    assert "Contract_period and Month_to_end_contract (r = 0.9" in caveat
    assert "Avg_class_frequency_total and Avg_class_frequency_current_month (r = 0.9" in caveat
    assert caveat in ended.err


def test_every_action_is_in_one_table_with_its_reach_and_what_it_costs_and_is_worth(run):
    actions = pd.read_csv(artifact(run, "actions.csv"))
    assert set(actions["segment"].dropna()) == {0, 1, 2, 3}
    everyone = actions[actions["name"] == "everyone"]
    assert len(everyone) == 8
    made_of = json.loads(artifact(run, "segmentation.json").read_text())
    assert everyone["text"].tolist() == made_of["for_everyone"]
    assert [planned["action"] for planned in made_of["everyone"]] == everyone["action"].tolist()
    columns = {
        *("gone", "keeps_low", "keeps_high", "worth_low", "worth_high", "together"),
        "lever",
        "reach",
        "cost",
        "worth",
        "break_even",
        "per_arm",
        "smallest_cut",
        "too_small",
        "sentence",
    }
    assert columns <= set(actions.columns)
    inside = actions.dropna(subset="segment")
    sizes = pd.read_csv(artifact(run, "segments.csv")).set_index("segment")["size"]
    of = sizes[inside["segment"]].to_numpy()
    assert (inside["reach"].to_numpy() + inside["gone"].to_numpy() <= of).all()


def test_a_sweep_compares_column_sets(home, succeed, client_at):
    words = [
        "dataset.rows=300",
        *SMALL_SEGMENTS,
        "segments=behaviour,seed002",
        "segments.k=auto",
    ]
    line = succeed(home, "segment", "-m", *words)
    runs = [client_at(home).get_run(run_id) for run_id in line["runs"]]
    assert [run.data.params["segments.name"] for run in runs] == ["behaviour", "seed002"]
    assert all(
        run.data.tags["churnlab.k_reason"].startswith(f"k={run.data.metrics['k']:.0f} ")
        for run in runs
    )


def test_a_large_table_is_examined_on_a_sample_that_is_stated(home, succeed, client_at):
    line = succeed(
        home,
        "segment",
        "dataset.rows=3000",
        "segments.sample_rows=1000",
        "segments.k=2",
        *SMALL_SEGMENTS,
    )
    run = client_at(home).get_run(line["run_id"])
    assert "a sample of 1,000 out of 3,000 members" in run.data.tags["churnlab.sampled"]
    assert len(pd.read_parquet(artifact(run, "segments/members.parquet"))) == 3000


def test_a_language_that_the_playbook_lacks_is_refused_before_the_evidence_is_gathered(
    home, run_command, runs_at
):
    ended = run_command(
        home, "segment", "playbook.language=fr", "segments.n_init=1000000"
    )  # hours of work
    assert (ended.code, ended.out) == (2, "")
    assert "no text in 'fr'" in ended.err
    assert "Traceback" not in ended.err
    assert runs_at(home) == []


# The real table


def segmented(home, gym_csv, succeed, client_at, *words: str):
    line = succeed(home, "segment", "dataset=gym", f"dataset.path={gym_csv}", *words)
    return line, client_at(home).get_run(line["run_id"])


def test_a_number_set_by_hand_needs_rows_for_itself_alone(home, run_command):
    """A table of 28 rows has enough for 2 segments, and not for the 8 of the range."""
    words = ("segment", "dataset.rows=28", "segments=all", "playbook=any")
    by_hand = run_command(home, *words, "segments.k=2")
    assert by_hand.code == 0, by_hand.err
    assert by_hand.line["k"] == 2
    for more in ((), ("segments.k=3",)):
        ended = run_command(home, *words, *more)
        assert ended.code == 2
        assert "At most 2 are possible: segments.k=2 'segments.range=[2,2]'." in ended.err


def test_the_groups_of_seed_002_come_out_with_their_churn_and_their_actions(
    gym_csv, home, succeed, client_at
):
    effort = [
        "segments.bootstraps=2",
        "segments.refit_n_init=1",
        "segments.splits=2",
        "segments.references=2",
    ]
    line, _ = segmented(
        home, gym_csv, succeed, client_at, "segments=seed002", "segments.range=[4,4]", *effort
    )
    assert line["k"] == 4
    published = [
        (
            1361,
            0.527,
            "PRIORITY: many of them leave, the most attention (only a test shows whom it keeps); "
            "discount on a 6- or 12-month",
        ),
        (1128, 0.027, "offer extra services; renewal reminder 1-2 months before the contract ends"),
        (
            957,
            0.071,
            "discount on a 6- or 12-month contract; bring-a-friend offer; "
            "extra discount for employees",
        ),
        (554, 0.442, "no retention budget by default, cheap e-mail only"),
    ]
    for segment, (size, churn_rate, action) in zip(line["segments"], published, strict=True):
        assert segment["size"] == pytest.approx(size, rel=0.01)
        assert segment["churn_rate"] == pytest.approx(churn_rate, abs=0.01)
        assert segment["recommended_action"].startswith(action)


def test_the_behaviour_segments_choose_four_by_themselves(gym_csv, home, succeed, client_at):
    effort = [
        "segments.n_init=10",
        "segments.bootstraps=8",
        "segments.splits=6",
        "segments.references=2",
    ]
    line, run = segmented(home, gym_csv, succeed, client_at, "segments.range=[2,6]", *effort)
    assert line["k"] == 4
    assert run.data.metrics["k_dendrogram"] == 4
    assert run.data.tags["churnlab.k_reason"].startswith("k=4 has ")
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


def test_the_courses_five_groups_are_unstable_and_tell_the_story_of_seed_001(
    gym_csv, home, succeed, client_at
):
    effort = ["segments.bootstraps=8", "segments.splits=6", "segments.references=2"]
    words = ["segments=course", "segments.range=[5,5]", *effort]
    _, run = segmented(home, gym_csv, succeed, client_at, *words)
    evidence = pd.read_csv(artifact(run, "evidence.csv")).set_index("k")
    assert evidence.loc[5, "inertia"] == pytest.approx(34685.9, rel=0.001)
    assert run.data.tags["churnlab.stable"] == "false"
    assert "prediction strength 0." in run.data.tags["churnlab.unstable"]
    table = pd.read_csv(artifact(run, "segments.csv")).sort_values("churn_rate")
    now, left = table["mean_Avg_class_frequency_current_month"], table["mean_Month_to_end_contract"]
    best, worst = table.iloc[:2], table.iloc[-1]
    assert (best["mean_Near_Location"] > 0.9).all()
    assert best["mean_Contract_period"].iloc[0] == table["mean_Contract_period"].max() > 10
    assert best["mean_Avg_class_frequency_current_month"].iloc[1] == now.max() > 2.5
    assert worst["mean_Avg_class_frequency_current_month"] == now.min()
    assert worst["mean_Month_to_end_contract"] == left.min()


def test_wards_tree_of_the_thirteen_columns_has_its_heights_and_proposes_four(
    gym_csv, home, succeed, client_at
):
    effort = [
        "segments.n_init=2",
        "segments.bootstraps=2",
        "segments.refit_n_init=1",
        "segments.splits=2",
    ]
    words = ["segments=course", "segments.range=[2,7]", "segments.references=2", *effort]
    line, run = segmented(home, gym_csv, succeed, client_at, *words)
    heights = by_k(client_at(home), run, "ward_height")
    assert [heights[k] for k in range(2, 8)] == pytest.approx(
        [104.6, 89.0, 83.9, 66.6, 59.9, 48.7], abs=0.1
    )
    assert run.data.metrics["k_dendrogram"] == 4
    assert line["k"] == 5
    assert "set by hand" in run.data.tags["churnlab.k_reason"]
    assert "figures/dendrogram.png" in files(run)
