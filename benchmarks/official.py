"""The official Hydra-Optuna sweeper with a run a trial: ``python official.py HOME``, in an
environment of its own.

With its defaults: the study in memory, TPE, one process; batches of one trial, since the basic
launcher runs the jobs of a batch one after another. The job is contenders.scores inside a run; the
clock runs around the sweeper's own loop.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import hydra
import joblib
import mlflow
from hydra.core.config_store import ConfigStore
from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl
from omegaconf import DictConfig

from contenders import clock, figures, scores

HOME = Path(sys.argv.pop())
TASK = joblib.load(HOME / "task.joblib")
TIMES: dict[str, Any] = {}


@hydra.main(config_path=None, config_name="official")
def job(config: DictConfig) -> float:
    """One trial: cross-validation in a run."""
    with mlflow.start_run():
        found = scores(TASK, {"C": config.C})
        mlflow.log_params({"C": config.C})
        mlflow.log_metrics(figures(found))
    TIMES["best"] = min(TIMES.get("best", float("inf")), float(found.mean()))
    return float(found.mean())


def sweep(
    self: OptunaSweeperImpl, arguments: list[str], original: Any = OptunaSweeperImpl.sweep
) -> None:
    """The sweeper's loop with a clock around it."""
    with clock() as times:
        original(self, arguments)
    TIMES.update(times)


if __name__ == "__main__":
    OptunaSweeperImpl.sweep = sweep
    sweeper = {
        "n_trials": TASK["n_trials"],
        "n_jobs": 1,
        "direction": "minimize",
        "sampler": {"seed": 0},
    }
    space = {"params": {"C": "tag(log, interval(0.001, 100))"}}
    config = {
        "defaults": [
            {"override hydra/sweeper": "optuna"},
            {"override hydra/sweeper/sampler": "tpe"},
            "_self_",
        ],
        "C": 1.0,
        "hydra": {
            "mode": "MULTIRUN",
            "sweep": {"dir": str(HOME / "multirun")},
            "sweeper": sweeper | space,
        },
    }
    ConfigStore.instance().store(name="official", node=config)
    mlflow.set_tracking_uri(f"sqlite:///{HOME}/mlflow.db")
    mlflow.set_experiment("official")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    job()
    print(json.dumps(TIMES))
