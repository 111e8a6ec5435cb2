"""What is compared: ``python contenders.py ROLE HOME`` is a fresh process that ends with one JSON
line on stdout.

HOME/task.joblib is the same for everybody: churnlab's pipeline, members and folds. The line has the
wall and CPU seconds of the trials' loop alone: imports, reading and the creation of stores come
before the clock.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.base import clone
from sklearn.metrics import log_loss, make_scorer
from sklearn.model_selection import cross_val_score

Values = dict[str, Any]


@contextmanager
def clock() -> Iterator[Values]:
    """Wall and CPU seconds of what is done inside."""
    times: Values = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield times
    times |= {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def clipped_log_loss(y: np.ndarray, probability: np.ndarray) -> float:
    """scikit-learn's log_loss, clipped as churnlab's is: else a forest's zeros alone would decide
    which is best."""
    return log_loss(y, np.clip(probability, 0.001, 0.999))


SCORING = make_scorer(clipped_log_loss, response_method="predict_proba", greater_is_better=False)


def scores(task: Values, params: Values) -> np.ndarray:
    """What everybody but churnlab calls: scikit-learn's own cross-validation of churnlab's
    pipeline."""
    candidate = clone(task["pipeline"]).set_params(
        **{f"estimator__{key}": value for key, value in params.items()}
    )
    return -cross_val_score(candidate, task["X"], task["y"], cv=task["folds"], scoring=SCORING)


def figures(found: np.ndarray) -> dict[str, float]:
    """What naive tracking logs of a trial: mean, spread and the folds."""
    folds = {f"fold_{number}": value for number, value in enumerate(found)}
    return {"cv_log_loss": found.mean(), "cv_log_loss_std": found.std(), **folds}


def plain(home: Path, task: Values) -> Values:
    """The untracked loop over the parameters that churnlab had chosen."""
    chosen = json.loads((home / "params.json").read_text(encoding="utf-8"))
    with clock() as times:
        best = min(scores(task, params).mean() for params in chosen)
    return times | {"best": best}


def naive(home: Path, task: Values) -> Values:
    """Optuna in sqlite and a nested run a trial, as tutorials write it; it draws its own
    parameters."""
    import mlflow
    import optuna

    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    mlflow.set_experiment("naive")
    sampler = optuna.samplers.TPESampler(seed=0)
    study = optuna.create_study(
        storage=f"sqlite:///{home}/optuna.db", study_name="naive", sampler=sampler
    )

    def objective(trial: optuna.Trial) -> float:
        with mlflow.start_run(nested=True):
            found = scores(task, {"C": trial.suggest_float("C", 1e-3, 1e2, log=True)})
            mlflow.log_params(trial.params)
            mlflow.log_metrics(figures(found))
        return float(found.mean())

    with mlflow.start_run(), clock() as times:
        study.optimize(objective, n_trials=task["n_trials"])
    return times | {"best": study.best_value}


def inline(home: Path, task: Values) -> Values:
    """``churnlab tune`` in one process; the clocks run around its worker and inside."""
    from churnlab.tuning import trials

    original, times, parts = trials.work, {}, time_parts(type(task["pipeline"][-1]))

    def work(*arguments: Any) -> Iterator[None]:
        parts.clear()
        with clock() as seconds:
            yield from original(*arguments)
        times.update(seconds | parts)

    trials.work = work
    return _tune(home, task) | times


def processes(home: Path, task: Values) -> Values:
    """``churnlab tune`` with two workers, from the moment both are in trials to the end of the last
    trial."""
    times = _tune(home, task, "engine=processes", "engine.workers=2")
    up = max(
        min(start for slot, start, _ in times["runs"] if slot == worker)
        for worker in ("0.0", "1.0")
    )
    last = max(end for _, _, end in times["runs"])
    counted = sum(
        max(0, end - max(start, up)) / max(1, end - start) for _, start, end in times["runs"]
    )
    return times | {"wall": (last - up) / 1000 / counted * len(times["runs"]), "counted": counted}


def _tune(home: Path, task: Values, *words: str) -> Values:
    """Run the command: its trials' parameters and runs (worker, start and end in ms), and the whole
    command's time."""
    os.environ |= {"CHURNLAB_HOME": str(home), "CHURNLAB_LOG": "ERROR"}
    import mlflow
    import optuna

    from churnlab.__main__ import main
    from churnlab.tuning.studies import Local

    with clock() as whole:
        code = main(["tune", *task["words"], *words])
    assert code == 0, f"churnlab tune ended with {code}"
    (journal,) = (home / "studies").glob("*.log")
    study = optuna.load_study(
        study_name=journal.stem, storage=Local(str(home / "studies")).open(journal.stem)
    )
    runs = []
    for trial in study.trials:
        about = mlflow.get_run(trial.user_attrs["run_id"]).info
        runs.append((trial.user_attrs["worker"], about.start_time, about.end_time))
    params = [trial.params for trial in study.trials]
    return {"best": study.best_value, "params": params, "runs": runs, "whole": whole["wall"]}


def time_parts(estimator: type) -> Counter[str]:
    """Time the parts of what a worker calls: seconds by part, nested calls counted once."""
    import mlflow
    import optuna

    from churnlab.evaluation import cross_validation
    from churnlab.tuning import trials

    seconds: Counter[str] = Counter()
    open_parts: list[str] = []

    def timed(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def with_clock(*arguments: Any, **options: Any) -> Any:
            if open_parts:
                return call(*arguments, **options)
            open_parts.append(part)
            try:
                with clock() as times:
                    answer = call(*arguments, **options)
            finally:  # a call that raises must not stop the clocks
                open_parts.clear()
            seconds.update({f"{part} {kind}": value for kind, value in times.items()})
            return answer

        return with_clock

    client = [
        name
        for name, value in vars(mlflow.MlflowClient).items()
        if name[0] != "_" and callable(value)
    ]
    for part, owner, names in [
        ("fits", estimator, ["fit", "predict_proba"]),
        ("metrics", cross_validation, ["classification_metrics"]),
        ("metrics", trials, ["cv_metrics"]),
        ("MLflow", mlflow.MlflowClient, client),
        ("Optuna", optuna.Study, ["ask", "tell", "get_trials"]),
        ("Optuna", optuna.Trial, ["set_user_attr"]),
    ]:
        for name in names:
            setattr(owner, name, timed(part, getattr(owner, name)))
    return seconds


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable()
    role, folder = sys.argv[1], Path(sys.argv[2])
    print(json.dumps(globals()[role](folder, joblib.load(folder / "task.joblib"))))
