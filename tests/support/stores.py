"""Write single runs, studies and versions into a store, as commands leave them or as crashes do."""

import json
import os
from pathlib import Path
from typing import Any

import optuna
from mlflow import MlflowClient
from optuna.distributions import FloatDistribution

from churnlab.tracking import store
from churnlab.tracking.names import KEPT
from churnlab.tuning import studies
from support.running import folder

SPACE = {"x": {"_target_": "optuna.distributions.FloatDistribution", "low": 0, "high": 1}}
CHANGE = {
    "when": "2026-11-01T00:00:00+00:00",
    "who": "me",
    "why": "",
    "command": "promote",
    "run_id": None,
}


def write_run(
    client: MlflowClient, command: str, *, process: str = "", status: str | None = None, **tags: str
) -> str:
    """Write a run with churnlab's tags and empty files, RUNNING without a ``status``; return its
    id."""
    ours = {f"churnlab.{key}": value for key, value in tags.items() if key != "parent"}
    ours |= {"churnlab.command": command} | ({"churnlab.process": process} if process else {})
    ours |= {"mlflow.parentRunId": tags["parent"]} if "parent" in tags else {}
    info = client.create_run(store.experiment_id("demo-churn"), tags=ours).info
    run_id = info.run_id
    for file in KEPT.get(command, ()):
        path = folder(info.artifact_uri) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if "study" in tags:
        journal = Path(os.environ["CHURNLAB_STORE"]) / "studies" / f"{tags['study']}.log"
        journal.parent.mkdir(exist_ok=True)
        journal.touch()
    if status is not None:
        client.set_terminated(run_id, status)
    return run_id


def status(client: MlflowClient, run_id: str) -> str:
    return client.get_run(run_id).info.status


def write_study(
    storage: studies.Local, client: MlflowClient, **tags: Any
) -> tuple[optuna.Study, str]:
    """Write a study with one RUNNING trial, and its run; return the study and the run's id."""
    question = {"search space": SPACE}
    study = studies.open_study(storage.open("s"), "s", question, direction="minimize")
    run_id = write_run(client, "tune", study="s", study_id=study.user_attrs["id"], **tags)
    client.set_tag(run_id, "tune.n_trials", "5")
    study.ask({"x": FloatDistribution(0, 1)})
    return study, run_id


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials()]


def write_version(
    client: MlflowClient,
    home: Path,
    *,
    name: str = "demo-churn",
    run_id: str | None = None,
    **tags: str,
) -> str:
    """Write a version with one file, as promote does; return its number."""
    if not [model for model in client.search_registered_models() if model.name == name]:
        client.create_registered_model(name)
    files = home / "versions" / f"{name}-{len(client.search_model_versions())}"
    (files / "artifacts").mkdir(parents=True)
    (files / "artifacts/served.json").write_text("{}")
    model = "flavors: {python_function: {artifacts: {served: {path: artifacts/served.json}}}}"
    (files / "MLmodel").write_text(model)
    ours = {f"churnlab.{key}": value for key, value in tags.items()}
    made = client.create_model_version(name, files.as_uri(), run_id=run_id, tags=ours)
    return str(made.version)


def record_change(
    client: MlflowClient, number: int, before: str | None, after: str, **keys: str
) -> None:
    """Record a change of champion, as promote does before it moves the aliases."""
    record = json.dumps(CHANGE | {"from": before, "to": after} | keys)
    client.set_registered_model_tag("demo-churn", f"churnlab.move.{number:06d}", record)


def aliases(client: MlflowClient) -> dict[str, str]:
    model = client.get_registered_model("demo-churn")
    return {alias: str(number) for alias, number in model.aliases.items()}
