"""What a promotion leaves in the registry, and when it is refused."""

import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

import churnlab
from churnlab.data import demo
from support.killing import Command
from support.running import (
    SMALL_SEGMENTS,
    THREE_SEGMENTS,
    artifact,
    churnlab_at,
    version_folder,
)

ROWS = ("dataset.rows=600",)
TRAINED = (*ROWS, "evaluation.folds=2")
PAIR = ("dataset.name=pair",)
STRICT = (
    *(
        "require=not_worse",
        "gate.margin=0",
        "gate.minimum.roc_auc=0.9999",
        "gate.minimum.recall=0.9999",
        "+gate.minimum.f1=0.9999",
        "gate.ece=0",
    ),
    *(
        "gate.slope=[7,8]",
        "ceiling.test_roc_auc=0.6",
        "ceiling.cv_roc_auc=0.6",
        "ceiling.test_f1=0.1",
    ),
    *(
        "gate.megabytes=0.001",
        "gate.batch_ms=0.00001",
        "gate.one_ms=0.00001",
        "gate.members=500",
        "gate.same=0",
    ),
)
"""Limits that no honest model keeps."""
NOT_KEPT = "not kept: it holds types that bundle/skops_types.py does not list"
NAME = "demo-churn"
AGAIN = ("segment_run=none", "require=not_worse", "force=true", "reason=both at once")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def story(shared_home, client_at):
    """Runs to promote from, and then one promotion after another: name -> how it ended (and aliases
    after it)."""

    def aliases() -> dict[str, str]:
        return {
            alias: str(version)
            for alias, version in client_at(shared_home).get_registered_model(NAME).aliases.items()
        }

    shared_home.parent.mkdir(exist_ok=True)
    for name in (
        "uv.lock",
        "pyproject.toml",
    ):  # MLflow would put them into every model that is logged from here
        (shared_home.parent / name).write_text("version = 1\n", encoding="utf-8")
    ask = churnlab_at(shared_home)
    ended = {
        "good": ask("train", *TRAINED),
        "dummy": ask("train", *TRAINED, "model=dummy"),
        "other seed": ask("train", *TRAINED, "seed=1"),
    }
    ended["promote without segments"] = ask("promote", *TRAINED)
    ended["unstable"] = ask("segment", *ROWS, *SMALL_SEGMENTS)
    ended["segments"] = ask("segment", *ROWS, *THREE_SEGMENTS)
    run = {name: end.line["run_id"] for name, end in ended.items() if end.code == 0}
    ended["segmented unstably"] = ended["unstable"]
    promotions = {
        "first": [],
        "champion": [],
        "again": ["churn_run=best"],
        "not worse": ["require=not_worse"],
        "worse": [f"churn_run={run['dummy']}", "require=not_worse"],
        "unseen": [f"churn_run={run['other seed']}", "metric=roc_auc"],
        "few": [f"churn_run={run['other seed']}", "gate.members=20"],
        "strict": [f"churn_run={run['good']}", *STRICT],
        "unstable": ["require=not_worse", f"segment_run={run['unstable']}"],
        "forced": [f"churn_run={run['dummy']}", "force=true"],
    }
    for name, words in promotions.items():
        if name == "again":  # the same model in another run, which is the newest of its config
            ended["twin"] = ask("train", *TRAINED)
        ended[name] = ask("promote", *TRAINED, *words, f"reason=the {name}")
        ended[f"aliases after {name}"] = aliases()
    twin = ended["twin"].line["run_id"]
    # As runs of unreviewed types had it when such models were still trained.
    client_at(shared_home).set_tag(twin, "churnlab.model", NOT_KEPT)
    for name in ("other seed", "unstable"):
        client_at(shared_home).set_tag(run[name], "churnlab.data_sha256", "0" * 64)
    ended |= {
        "run of another table": ask("promote", *TRAINED, f"churn_run={run['other seed']}"),
        "segments not of this table": ask("promote", *TRAINED, f"segment_run={run['unstable']}"),
        "run without a model": ask("promote", *TRAINED, f"churn_run={twin}"),
        "unknown run": ask("promote", *TRAINED, "churn_run=0123456789abcdef"),
        "run of another command": ask("promote", *TRAINED, f"churn_run={run['segments']}"),
        "force without a reason": ask("promote", *TRAINED, "force=true"),
        "no train run": ask("promote", *ROWS, "evaluation.folds=2", "seed=77"),
    }
    ended["aliases in the end"] = aliases()
    ask("train", *TRAINED, *PAIR)
    return ended


@pytest.fixture(scope="module")
def ask(story, shared_home):
    """Return what runs more commands."""
    return churnlab_at(shared_home)


@pytest.fixture
def client(story, shared_home, client_at):
    return client_at(shared_home)


def checks(ended) -> dict[str, dict]:
    return {check["name"]: check for check in ended.line["checks"]}


def failed(ended) -> set[str]:
    return {name for name, check in checks(ended).items() if not check["passed"]}


def kept(client, version: str) -> dict:
    """What the promotion of a version has kept of its gate."""
    run = client.get_run(client.get_model_version(NAME, version).run_id)
    assert run.info.status == "FINISHED"
    return json.loads(artifact(run, "gate.json").read_text(encoding="utf-8"))


OF_THE_FIRST = {
    *(
        "served_equals_trained",
        "held_out_members",
        "log_loss_against_dummy",
        "roc_auc_against_dummy",
    ),
    *("calibration_slope", "calibration_ece", "minimum_roc_auc", "minimum_recall"),
    *("ceiling_cv_roc_auc", "ceiling_test_roc_auc", "ceiling_test_f1"),
    *("batch_ms", "one_ms", "stable_segmentation", "megabytes"),
}


def test_the_first_promotion_makes_a_champion(story):
    line = story["first"].line
    assert story["first"].code == 0, story["first"].err
    assert (line["command"], line["version"], line["promoted"]) == ("promote", "1", True)
    assert all(set(check) == {"name", "value", "limit", "passed"} for check in line["checks"])
    assert set(checks(story["first"])) == OF_THE_FIRST
    assert line["checks"][0]["name"] == "served_equals_trained"
    assert line["checks"][0]["value"] <= 1e-9
    assert checks(story["first"])["held_out_members"]["value"] == 120
    assert story["aliases after first"] == {"champion": "1"}


def test_every_promotion_names_its_version_in_the_run_also_when_it_is_refused(story, client):
    for name, version in (("first", "1"), ("again", "2"), ("not worse", "3"), ("worse", "4")):
        run = client.get_run(story[name].line["run_id"])
        assert run.data.tags["churnlab.version"] == story[name].line["version"] == version


def test_promote_and_pipeline_take_the_limits_of_a_gate_of_ones_own(ask, shared_home):
    own = shared_home.parent / "own"
    (own / "gate").mkdir(parents=True)
    (own / "gate" / "strict.yaml").write_text("defaults: [default]\nmembers: 1\n", encoding="utf-8")
    for command in ("promote", "pipeline"):
        ended = ask(command, "--config-dir", str(own), "gate=strict", "dry_run=true")
        assert ended.code == 2, ended.err
        assert "gate.members=1" in ended.err
        assert ask(command, "--config-dir", str(own), "gate=default", "dry_run=true").code == 0


def test_the_gate_is_kept_with_the_run_and_with_the_version(story, client):
    for name, version, against in (("first", "1", None), ("not worse", "3", "1")):
        gate, tags = kept(client, version), client.get_model_version(NAME, version).tags
        assert (gate["version"], gate["against"], gate["gate"]) == (version, against, "passed")
        recorded = [
            {key: check[key] for key in ("name", "value", "limit", "passed")}
            for check in gate["checks"]
        ]
        assert recorded == story[name].line["checks"]
        assert all(check["message"] for check in gate["checks"])
        assert [key for key in tags if key.startswith("churnlab.gate")] == ["churnlab.gate"]
        assert tags["churnlab.command"] == "promote"


def test_a_version_records_who_made_it_when_why_and_from_which_runs(story, client):
    tags = client.get_model_version(NAME, "1").tags
    assert tags["churnlab.gate"] == "passed"
    assert tags["churnlab.churn_run_id"] == story["good"].line["run_id"]
    assert tags["churnlab.segment_run_id"] == story["segments"].line["run_id"]
    assert tags["churnlab.reason"] == "the first"
    assert tags["churnlab.replaced"] == ""
    assert tags["churnlab.who"]
    assert abs(pd.Timestamp(tags["churnlab.when"]) - pd.Timestamp.now("UTC")) < pd.Timedelta("1h")


def test_the_segmentation_can_be_read_from_a_version_without_its_code(story, client):
    shown = version_folder(client, NAME, "1") / "artifacts" / "segmentation"
    portraits = json.loads((shown / "portraits.json").read_text(encoding="utf-8"))
    table = pd.read_csv(shown / "segments.csv")
    segments = story["segments"].line["segments"]
    assert [portrait["name"] for portrait in portraits] == [segment["name"] for segment in segments]
    assert table["size"].sum() == 600
    assert (
        (shown / "k_reason.txt")
        .read_text(encoding="utf-8")
        .startswith(f"k={story['segments'].line['k']}")
    )
    assert (shown / "dendrogram.png").read_bytes().startswith(b"\x89PNG")


def test_the_champions_own_runs_are_not_judged_again(story, client):
    ended = story["champion"]
    assert ended.code == 0, ended.err
    assert ended.line == {
        **{"command": "promote", "run_id": None, "version": "1", "promoted": False},
        **{"verdict": "champion", "checks": [], "warnings": ended.line["warnings"]},
    }
    assert "demo-churn version 1, the champion, is made of these two runs already" in ended.err
    assert story["aliases after champion"] == {"champion": "1"}
    assert client.get_model_version(NAME, "2").tags["churnlab.reason"] == "the again"
    assert kept(client, "2")["holdout_looks"] == 1, "only the first promotion has looked"


def test_the_same_model_again_is_promoted_only_with_require_not_worse(story, client):
    again, not_worse = story["again"], story["not worse"]
    assert story["twin"].code == 0, story["twin"].err
    assert (again.code, again.line["promoted"], again.line["version"]) == (3, False, "2")
    assert failed(again) == {"log_loss_against_champion"}
    assert checks(again)["log_loss_against_champion"]["value"] == 0
    assert "require=not_worse" in again.err
    assert story["aliases after again"] == {"champion": "1", "challenger": "2"}
    assert (not_worse.code, not_worse.line["promoted"], not_worse.line["version"]) == (0, True, "3")
    gate = checks(not_worse)["log_loss_against_champion"]
    assert (gate["value"], gate["limit"]) == (0, -0.01)
    assert client.get_model_version(NAME, "3").tags["churnlab.replaced"] == "1"
    assert story["aliases after not worse"] == {"champion": "3", "previous": "1", "challenger": "2"}


def test_a_worse_candidate_is_refused_and_the_champion_stays(story, client):
    line = story["worse"].line
    assert (story["worse"].code, line["promoted"], line["version"]) == (3, False, "4")
    assert failed(story["worse"]) == {
        *(
            "log_loss_against_champion",
            "log_loss_against_ancestor",
            "log_loss_against_dummy",
            "roc_auc_against_dummy",
            "minimum_roc_auc",
            "minimum_recall",
        ),
    }
    assert line["verdict"] == "refused"
    assert "against the former champion version 1's" in story["worse"].err
    gate = checks(story["worse"])["log_loss_against_champion"]
    assert gate["value"] < gate["limit"]
    tags = client.get_model_version(NAME, "4").tags
    assert (tags["churnlab.gate"], tags["churnlab.replaced"]) == ("refused", "")
    assert story["aliases after worse"] == {"champion": "3", "previous": "1", "challenger": "4"}


@pytest.fixture
def common(story, shared_home, runs_at) -> pd.DataFrame:
    """The members held out of both models: y, probability, probability_champion."""
    runs = {run.info.run_id: run for run in runs_at(shared_home, command="train")}
    good, other = (
        pd.read_parquet(artifact(runs[story[name].line["run_id"]], "predictions/test.parquet"))
        for name in ("good", "other seed")
    )
    return other.merge(good, on="row", suffixes=("", "_champion"))


def test_a_model_trained_on_the_hold_out_is_refused_with_the_reason(story, common):
    assert 5 < len(common) < 50
    check = checks(story["unseen"])["held_out_members"]
    assert (story["unseen"].code, check["passed"], check["value"], check["limit"]) == (
        3,
        False,
        len(common),
        50,
    )
    reason = (
        f"{len(common)} of 120 held-out members can be used, at least 50 are needed; "
        f"left out: {120 - len(common)} in the candidate's training part"
    )
    assert reason in story["unseen"].err


def test_only_members_that_neither_was_trained_on_judge(story, common):
    check = checks(story["few"])["log_loss_against_champion"]
    message = re.search(
        r"log loss (\S+) against the champion's (\S+), a gain of ", story["few"].err
    )
    assert message is not None
    shown = [float(message[1]), float(message[2])]
    assert shown == pytest.approx(
        [
            log_loss(common["y"], common[name].clip(0.001, 0.999))
            for name in ("probability", "probability_champion")
        ],
        abs=1e-4,
    )
    assert f"on {len(common)} members" in story["few"].err
    assert "undecided: log loss" in story["few"].err
    assert check["value"] < shown[1] - shown[0], "no better end of an interval is shown"


def test_every_check_is_run_and_shown_even_when_all_fail(story):
    assert story["strict"].code == 3
    passed = set(checks(story["strict"])) - failed(story["strict"])
    assert set(checks(story["strict"])) == OF_THE_FIRST | {
        *("champion_known", "log_loss_against_champion", "compatible_signature", "minimum_f1"),
        "log_loss_against_ancestor",
    }
    same = (
        {"served_equals_trained"}
        if checks(story["strict"])["served_equals_trained"]["value"] == 0
        else set()
    )
    assert passed - same == {
        *(
            "champion_known",
            "compatible_signature",
            "stable_segmentation",
            "log_loss_against_champion",
            "log_loss_against_ancestor",
            "calibration_ece",  # without its noise the error may be 0
        ),
        *("log_loss_against_dummy", "roc_auc_against_dummy"),
    }
    for name in failed(story["strict"]):
        assert name in story["strict"].err
    assert "leakage is suspected, a column may know the outcome" in story["strict"].err


def test_unstable_segments_are_refused_unless_their_number_was_set_by_hand(story, client):
    assert story["unstable"].code == 3
    assert failed(story["unstable"]) == {"stable_segmentation"}
    advice = "churnlab promote refuses segments that are not stable"
    assert advice in story["segmented unstably"].err
    assert advice not in story["segments"].err
    assert checks(story["first"])["stable_segmentation"]["passed"]
    assert "warning: the segmentation is not stable" in story["first"].err
    assert client.get_model_version(NAME, "1").tags["churnlab.stable"] == "false"


def test_force_overrules_a_failed_check_and_is_recorded(story, client, ask):
    forced = story["forced"]
    assert (forced.code, forced.line["promoted"]) == (0, True)
    assert "log_loss_against_champion" in failed(forced)
    version = forced.line["version"]
    tags = client.get_model_version(NAME, version).tags
    assert (tags["churnlab.gate"], tags["churnlab.reason"]) == ("forced", "the forced")
    assert kept(client, version)["gate"] == "forced"
    assert story["aliases after forced"]["champion"] == version
    entries = ask("history", "dataset=demo").line["entries"]
    assert [(entry["from"], entry["to"], entry["why"]) for entry in entries] == [
        (None, "1", "the first"),
        ("1", "3", "the not worse"),
        ("3", version, "the forced"),
    ]


def test_uses_of_a_hold_out_are_counted_and_from_the_fifth_on_new_members_are_advised(
    story, client
):
    decided = [
        "first",
        "again",
        "not worse",
        "worse",
        "unseen",
        "few",
        "strict",
        "unstable",
        "forced",
    ]
    for name in decided:
        version = story[name].line["version"]
        looks = kept(client, version)["holdout_looks"]
        assert looks == int(version) - 1, "every promotion of this file looks at one hold-out"
        assert client.get_run(story[name].line["run_id"]).data.metrics["holdout_looks"] == looks
        assert ("are no longer new to the models" in story[name].err) == (looks >= 4)
        warned = {line for line in story[name].err.splitlines() if line.startswith("warning: ")}
        assert story[name].line["warnings"] == len(warned), "the result line counts all of them"


@pytest.fixture(scope="module")
def tables(shared_home, story) -> Path:
    """Tables like the generated one: its outcomes shuffled; its first members, and all with some
    more."""
    members = demo.members(700, seed=5)
    shuffled = np.random.default_rng(0).permutation(members["Churn"].to_numpy())
    for name, table in {
        "shuffled": members.assign(Churn=shuffled),
        "early": members.iloc[:500],
        "whole": members.sample(frac=1, random_state=1),
    }.items():
        table.to_csv(shared_home.parent / f"{name}.csv", index=False)
    return shared_home.parent


def on(table: str, name: str) -> tuple[str, ...]:
    return ("dataset=gym", f"dataset.path={table}.csv", f"dataset.name={name}")


NOISE = (*on("shuffled", "noise"), "evaluation.folds=2")


@pytest.fixture(scope="module")
def noise(tables, ask):
    """How the promotion of a model of shuffled outcomes ended."""
    assert ask("train", *NOISE).code == 0
    return ask("promote", *NOISE, "segment_run=none", "require=not_worse")


def test_a_model_of_shuffled_outcomes_is_never_promoted(noise, client):
    assert noise.code == 3
    assert {"log_loss_against_dummy", "roc_auc_against_dummy", "minimum_roc_auc"} <= failed(noise)
    assert "champion" not in client.get_registered_model("noise-churn").aliases


def test_the_champions_training_members_are_recognized_in_another_table(tables, ask):
    for table, enough in (("early", 50), ("whole", 140)):
        words = (*on(table, "grown"), "evaluation.folds=2")
        assert ask("train", *words).code == 0
        words += ("segment_run=none", "require=not_worse", f"gate.members={enough}")
        ended = ask("promote", *words)
        assert ended.code == (0 if table == "early" else 3), ended.err
    early, whole = (pd.read_csv(tables / f"{name}.csv") for name in ("early", "whole"))
    (trained, _), (_, held_out) = (
        train_test_split(table, test_size=0.2, stratify=table["Churn"], random_state=0)
        for table in (early, whole)
    )
    known = held_out.merge(trained.drop_duplicates(), how="inner")
    assert 60 < len(known) < 120
    assert checks(ended)["held_out_members"]["value"] == 140 - len(known)
    assert f"left out: {len(known)} more in the champion's training part" in ended.err


def test_a_champion_set_by_hand_is_no_traceback_but_a_refusal_that_force_overrules(
    noise, ask, client
):
    name, made = "noise-churn", client.get_model_version(NAME, "1")
    client.create_model_version(
        name, client.get_model_version_download_uri(NAME, "1"), run_id=made.run_id
    )
    client.set_registered_model_alias(name, "champion", "2")
    refused, forced = (
        ask("promote", *NOISE, "segment_run=none"),
        ask("promote", *NOISE, "segment_run=none", "force=true", "reason=ours from here on"),
    )
    assert refused.code == 3, refused.err
    assert "champion_known" in failed(refused)
    assert (
        "no comparison with the champion, version 2: it has no train run, so it was" in refused.err
    )
    assert "force=true reason=" in refused.err
    assert "Traceback" not in refused.err
    assert (forced.code, forced.line["version"]) == (0, "4")
    aliases = {
        alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()
    }
    assert aliases == {"champion": "4", "previous": "2", "challenger": "3"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("promote without segments", "run churnlab segment first"),
        ("run of another table", "used another table than"),
        ("segments not of this table", "used another table than"),
        (
            "run without a model",
            "has no model (not kept: it holds types that bundle/skops_types.py does not list)",
        ),
        ("unknown run", "There is no run 0123456789abcdef"),
        ("run of another command", "name a FINISHED train run"),
        ("no train run", "run churnlab train"),
        (
            "force without a reason",
            'force=true promotes in spite of failed checks and needs a reason: reason="..."',
        ),
    ],
)
def test_what_cannot_be_promoted_is_the_users_mistake_and_says_what_to_do(story, name, message):
    assert story["aliases in the end"] == story["aliases after forced"]
    assert story[name].code == 2
    assert story[name].out == ""
    assert message in story[name].err
    assert "Traceback" not in story[name].err


def test_two_promotions_at_once_come_one_after_the_other(story, shared_home, client):
    words = ("promote", *TRAINED, *PAIR, *AGAIN)
    with Command(shared_home, *words) as one, Command(shared_home, *words) as other:
        both = [one.ended(), other.ended()]
    assert [ended.code for ended in both] == [0, 0], [ended.err for ended in both]
    first, second = sorted((ended.line for ended in both), key=lambda line: int(line["version"]))
    assert (first["version"], second["version"]) == ("1", "2")
    gated = [{check["name"] for check in line["checks"]} for line in (first, second)]
    assert gated[0] == OF_THE_FIRST
    assert "log_loss_against_champion" in gated[1], "the second was not compared with the first"
    assert client.get_model_version("pair-churn", "2").tags["churnlab.replaced"] == "1"
    aliases = client.get_registered_model("pair-churn").aliases
    assert {name: str(version) for name, version in aliases.items()} == {
        "champion": "2",
        "previous": "1",
    }


READABLE = {".csv", ".json", ".parquet", ".png", ".py", ".skops", ".txt", ".yaml"}


def test_no_artifact_of_any_run_or_version_is_a_pickle(story, shared_home):
    paths = [path for path in (shared_home / "mlartifacts").rglob("*") if path.is_file()]
    assert {"served_model.py", "churn.skops", "model.skops", "MLmodel"} <= {
        path.name for path in paths
    }
    for path in paths:
        assert path.suffix in READABLE or path.name in ("MLmodel", "registered_model_meta"), path
        assert not looks_pickled(path.read_bytes()), path
        if path.suffix == ".skops":
            with zipfile.ZipFile(path) as parts:
                for part in parts.namelist():
                    content = parts.read(part)
                    assert part.endswith((".json", ".npy")), f"{part} in {path}"
                    assert not looks_pickled(content), f"{part} in {path}"
                    if part.endswith(".npy"):
                        np.load(io.BytesIO(content), allow_pickle=False)


def looks_pickled(content: bytes) -> bool:
    """A pickle of protocol 2 or later opens with its opcode and number, and ends with a stop."""
    return content[:1] == b"\x80" and content[1:2] in b"\x02\x03\x04\x05" and content[-1:] == b"."


def test_a_version_does_not_reveal_where_on_this_machine_it_was_made(story, client):
    files = version_folder(client, NAME, "1")
    described = (files / "MLmodel").read_text(encoding="utf-8")
    outside = [
        line for line in described.splitlines() if "artifact_path: file://" not in line
    ]  # the store's own address
    assert str(Path(churnlab.__file__).parents[2]) not in "\n".join(outside)
    for path in ("artifacts/served.json", "requirements.txt", "conda.yaml", "python_env.yaml"):
        assert str(files.parents[2]) not in (files / path).read_text(encoding="utf-8")


def test_a_version_needs_only_packages_of_a_fixed_version(story, client):
    needed = (
        (version_folder(client, NAME, "1") / "requirements.txt").read_text(encoding="utf-8").split()
    )
    assert {line.split("==")[0] for line in needed} >= {
        "mlflow",
        "scikit-learn",
        "skops",
        "pandas",
        "numpy",
    }
    assert all("==" in line for line in needed)
    assert not any(line.startswith("churnlab") for line in needed)


def test_a_run_that_is_too_good_to_be_true_is_left_out_unless_it_is_named(home, client_at):
    churnlab = churnlab_at(home)
    best, other = (
        churnlab("train", *TRAINED, f"model={model}").line["run_id"]
        for model in ("logistic_regression", "dummy")
    )
    words = ("promote", *TRAINED, "segment_run=none", "ceiling.cv_roc_auc=0.7")
    ended = churnlab(*words)
    named = churnlab(*words, f"churn_run={best}")
    assert "cv_roc_auc" in ended.err
    assert f"To let the gate judge it: churn_run={best}" in ended.err
    versions = client_at(home).search_model_versions(f"name = '{NAME}'")
    runs = {str(version.version): version.tags["churnlab.churn_run_id"] for version in versions}
    assert (runs[ended.line["version"]], runs[named.line["version"]]) == (other, best)
    assert "Left out the best run" not in named.err
