"""Measure tracked, resumable tuning against the plain loop, naive tracking and the official
sweeper.

    python benchmarks/tuning.py                        about an hour on two idle cores
    python benchmarks/tuning.py --only lr              logistic regression alone: half of it
    python benchmarks/tuning.py --quick                a few minutes: does it run?
    CHURNLAB_GYM=FILE python benchmarks/tuning.py      on a table instead of generated members

Each contender runs once a round in a process of its own, the rounds interleave them, and medians
are compared. It reports and asserts nothing: the exit code is 0.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import joblib

HERE = Path(__file__).parent
WORKLOADS = {
    "lr": ["model=logistic_regression", "tune.n_trials=50"],
    "rf": ["model=random_forest", "tune.n_trials=30", "model.estimator.n_estimators=300"],
}
QUICK = {
    "lr": ["model=logistic_regression", "tune.n_trials=12"],
    "rf": ["model=random_forest", "tune.n_trials=6", "model.estimator.n_estimators=50"],
}
ROUNDS = {"lr": 5, "rf": 3}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SWEEPER = ("hydra-optuna-sweeper==1.4.0rc3", "hydra-core==1.4.0rc3")
SHARED = (
    "optuna",
    "mlflow",
    "scikit-learn",
    "numpy",
    "scipy",
    "pandas",
    "joblib",
    "threadpoolctl",
)
"""Packages that the official sweeper's environment has in the same versions as this one."""

PLAIN, PLAIN_THREADS = "plain loop, BLAS with one thread", "plain loop, BLAS as it comes"
ONE, TWO, OF_TWO = (
    "churnlab, one process",
    "churnlab, two workers",
    " (parameters of the two workers)",
)
PARTS = ("fits", "metrics", "MLflow", "Optuna")

Values = dict[str, Any]
Measured = dict[str, list[Values]]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer and smaller trials, one round, no official sweeper",
    )
    parser.add_argument("--only", choices=WORKLOADS, help="one of the two workloads")
    parser.add_argument("--rounds", type=int, help=f"instead of {ROUNDS}")
    parser.add_argument(
        "--official",
        action=argparse.BooleanOptionalAction,
        help="with the official sweeper, or not",
    )
    options = parser.parse_args()
    wanted = not options.quick if options.official is None else options.official
    official = official_python() if wanted and options.only != "rf" else None
    for workload, words in (QUICK if options.quick else WORKLOADS).items():
        if options.only in (None, workload):
            rounds = options.rounds or (1 if options.quick else ROUNDS[workload])
            with tempfile.TemporaryDirectory(prefix="churnlab-bench-") as folder:
                report(words, measure(words, rounds, Path(folder), official))


def measure(words: list[str], rounds: int, folder: Path, official: str | None) -> Measured:
    """What each contender times, round by round."""
    prepare(folder, words)
    linear = words[0] == WORKLOADS["lr"][0]
    measured: Measured = {}

    def run(name: str, role: str, **options: Any) -> list[Values]:
        times = contend(role, folder, **options)
        print(f"{name}: {times['wall']:.2f} s", file=sys.stderr)
        measured.setdefault(name, []).append(times)
        return times.get("params", [])

    for _ in range(rounds):
        for name, role, of in ((ONE, "inline", ""), (TWO, "processes", OF_TWO)):
            params = run(
                name, role
            )  # two workers draw others than one, and have plain loops of their own
            run(PLAIN + of, "plain", params=params, environment=ONE_THREAD)
            if linear:  # forests have no use for BLAS
                run(PLAIN_THREADS + of, "plain", params=params)
        if linear:
            run("naive Optuna and nested runs", "naive", environment=ONE_THREAD)
        if linear and official:
            run("official sweeper", "official", environment=ONE_THREAD, python=official)
    return measured


def prepare(folder: Path, words: list[str]) -> None:
    """Put what every contender works on into ``folder``: the pipeline, the members and the folds of
    churnlab tune."""
    import hydra

    from churnlab.cli import hydra_compose
    from churnlab.config import validation
    from churnlab.config.build import build_pipeline, load_dataset
    from churnlab.models.splits import make_split

    if table := os.environ.get("CHURNLAB_GYM"):
        words = [*words, "dataset=gym", f"dataset.path={Path(table).resolve()}"]
    os.environ["CHURNLAB_HOME"] = str(folder)
    with hydra.initialize_config_dir(str(HERE.parent / "conf"), version_base="1.3"):
        settings = validation.read(
            "tune", hydra_compose.plain(hydra.compose("tune", overrides=words))
        )
    dataset = load_dataset(settings.dataset)
    question = make_split(dataset, **settings.evaluation.split, seed=settings.seed)
    task = {
        "words": words,
        "n_trials": settings.tune.n_trials,
        "pipeline": build_pipeline(settings.model, dataset, features=settings.features),
        "X": dataset.X.iloc[question.train],
        "y": dataset.y[question.train],
        "folds": [(fold.train, fold.validation) for fold in question.folds],
    }
    joblib.dump(task, folder / "task.joblib")


def contend(role: str, folder: Path, *, python: str = sys.executable, **given: Any) -> Values:
    """One contender in a process and a folder of its own, given params and environment; returns its
    JSON line."""
    script = [HERE / "official.py"] if role == "official" else [HERE / "contenders.py", role]
    ours = ("MLFLOW_", "CHURNLAB_", "PYTHONDONTWRITEBYTECODE", *ONE_THREAD)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    settings = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": str(HERE.parent / "src"),
        **given.get("environment", {}),
    }
    with tempfile.TemporaryDirectory(dir=folder) as home:
        shutil.copy(folder / "task.joblib", home)
        (Path(home) / "params.json").write_text(json.dumps(given.get("params")), encoding="utf-8")
        done = subprocess.run(
            [python, *script, home],
            env=inherited | settings,
            cwd=home,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise SystemExit(f"{role} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def official_python() -> str | None:
    """The interpreter of the official sweeper's environment, made when it is new; None when it
    cannot be made."""
    folder = HERE.parent / ".venv-sweeper"
    wanted = "\n".join([*SWEEPER, *(f"{name}=={version(name)}" for name in SHARED)])
    made, python = folder / "made", folder / "bin" / "python"
    if made.exists() and made.read_text(encoding="utf-8") == wanted:
        return str(python)
    print(f"making the official sweeper's environment in {folder}", file=sys.stderr)
    install = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--retries",
        "1",
        "pydantic",
        *wanted.split(),
    ]
    try:
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run(install, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        print(f"The official sweeper is left out: its environment cannot be made here ({reason}).")
        return None
    made.write_text(wanted, encoding="utf-8")
    return str(python)


def report(words: list[str], measured: Measured) -> None:
    """Print the table, where churnlab spends its time, and the targets."""
    one, two, rows = measured[ONE], measured[TWO], []
    for name, times in measured.items():
        wall, cpu = ratios(measured, name, "wall"), ratios(measured, name, "cpu")
        rows.append(
            [
                name,
                f"{middle(times, 'wall'):.2f}",
                f"{median(wall):.2f} ({min(wall):.2f} to {max(wall):.2f})",
            ]
        )
        rows[-1] += [f"{middle(times, 'cpu'):.2f}", f"{median(cpu):.2f}"] if cpu else ["", ""]
        rows[-1].append(f"{middle(times, 'best'):.4f}")
    print(f"\n{' '.join(words)}: rounds: {len(one)}, cores: {os.cpu_count()}\n")
    print(
        "| contender | wall s | wall / plain, median (min to max) | CPU s | CPU / plain | best log "
        "loss |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))
    for kind in ("wall", "cpu"):
        parts = {part: per_trial(one, f"{part} {kind}") for part in PARTS}
        parts["the rest"] = per_trial(one, kind) - sum(parts.values())
        print(
            f"\nA trial in one process, ms {kind}:",
            ", ".join(f"{part} {ms:.1f}" for part, ms in parts.items()),
        )
    print(
        "\nThe whole command, training the best included: "
        f"{middle(one, 'whole'):.0f} s in one process, {middle(two, 'whole'):.0f} s with two "
        f"workers, of whose trials {middle(two, 'counted'):.0f} count.\n"
    )
    if any("random_forest" in word for word in words):
        untracked = per_trial(one, "fits cpu") + per_trial(one, "metrics cpu")
        verdict("one process, CPU / plain", median(ratios(measured, ONE, "cpu")), 1.01)
        verdict(
            "one process, CPU outside fits and metrics / inside",
            per_trial(one, "cpu") / untracked - 1,
            0.01,
        )
    else:
        verdict("one process, wall / plain", median(ratios(measured, ONE, "wall")), 1.0)
        verdict("MLflow, CPU ms a trial", per_trial(one, "MLflow cpu"), 16)
    verdict(
        "two workers once they are up, wall / plain", median(ratios(measured, TWO, "wall")), 0.60
    )
    for name, loop in ((ONE, PLAIN), (TWO, PLAIN + OF_TWO)):
        apart = [
            abs(ours["best"] - plain["best"])
            for ours, plain in zip(measured[name], measured[loop], strict=True)
        ]
        verdict(f"{name}: best score minus the plain loop's", max(apart), 0.0005)


def verdict(what: str, value: float, limit: float) -> None:
    """Print one line: the measured value and the target."""
    print(
        f"- {what}: {value:.3g}, target at most {limit:g}: {'met' if value <= limit else 'NOT MET'}"
    )


def ratios(measured: Measured, name: str, key: str) -> list[float]:
    """Round by round, over the plain loop that was faster; naive and official draw parameters like
    churnlab's."""
    if key not in measured[name][0]:
        return []
    of = OF_TWO if name == TWO or name.endswith(OF_TWO) else ""
    loops = [measured[loop + of] for loop in (PLAIN, PLAIN_THREADS) if loop + of in measured]
    fastest = min(loops, key=lambda times: middle(times, key))
    return [times[key] / plain[key] for times, plain in zip(measured[name], fastest, strict=True)]


def per_trial(times: list[Values], key: str) -> float:
    """Milliseconds a trial, the median of the rounds."""
    return median(1000 * line[key] / len(line["params"]) for line in times)


def middle(times: list[Values], key: str) -> float:
    """The median of the rounds."""
    return median(line[key] for line in times)


if __name__ == "__main__":
    main()
