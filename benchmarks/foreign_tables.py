"""Compare churnlab's shipped models with AutoGluon's medium preset on look-alikes of public tables.

    python benchmarks/foreign_tables.py --peer PYTHON           all nine, about an hour
    python benchmarks/foreign_tables.py --peer PYTHON --only telco

PYTHON has autogluon.tabular with lightgbm, catboost and xgboost, in an environment of its own. Both
learn from the same members and columns, and are judged on the same new members: log loss, and the
ratio with a 95% interval over the new members (bootstrap of pairs). churnlab drafts the dataset,
tunes every shipped model and promotes the one with the best cross-validated log loss.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from support.lookalikes import LOOK_ALIKES, LookAlike, look_alike  # noqa: E402

MODELS = "logistic_regression,spline_logistic_regression,random_forest,hist_gradient_boosting"
STATUSES = {"maven": ("Churned", "Stayed")}
"""The values that take part, where the target has more than two."""


def run(words: list[str], folder: Path) -> str:
    """Run a command in a folder that is its store as well; return its standard output."""
    environment = os.environ | {"CHURNLAB_HOME": str(folder / "home")}
    ended = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    if ended.returncode not in (0, 1):
        sys.exit(f"{' '.join(words)}\n{ended.stderr}")
    return ended.stdout


def churnlab(name: str, made: LookAlike, folder: Path, trials: int) -> float:
    """Draft, tune, promote and score as a user would; return the seconds."""
    command = [sys.executable, "-m", "churnlab"]
    own = ["--config-dir", "my_conf", f"dataset={name}"]
    started = time.perf_counter()
    run([*command, "init", f"path={name}.csv", f"target={made.target}"], folder)
    run([*command, "tune", "-m", *own, f"model={MODELS}", f"tune.n_trials={trials}"], folder)
    run([*command, "promote", *own, "segment_run=none"], folder)
    run([*command, "score", *own, "input=new.csv", "output=scored.csv"], folder)
    return time.perf_counter() - started


def compare(name: str, *, rows: int, new: int, trials: int, peer: str) -> str:
    """Return a row of the report for one look-alike."""
    made = look_alike(name, n=rows + new)
    takes_part = made.table[made.target].isin(STATUSES.get(name, made.table[made.target].unique()))
    train, judges = made.table[:rows], made.table[rows:][takes_part[rows:]]
    with tempfile.TemporaryDirectory() as made_in:
        folder = Path(made_in)
        made._replace(table=train).write(folder, name)
        made._replace(table=judges).write(folder, "new")
        seconds = churnlab(name, made, folder, trials)
        reads = {"sep": made.separator, "decimal": made.decimal}
        ours = pd.read_csv(folder / "scored.csv", **reads)["churn_probability"].to_numpy()
        columns = [*learned_from(folder / "my_conf" / "dataset" / f"{name}.yaml"), made.target]
        named = train.rename(columns=str.strip)[columns]
        named[takes_part[:rows]].to_csv(folder / "train.csv", index=False)
        judges.rename(columns=str.strip)[columns].to_csv(folder / "peer.csv", index=False)
        words = ["train.csv", "peer.csv", made.target, str(made.positive)]
        spent = json.loads(run([peer, str(HERE / "automl.py"), *words], folder).splitlines()[-1])
        theirs = pd.read_csv(folder / "automl.csv").iloc[:, 0].to_numpy()
    left = (judges[made.target] == made.positive).to_numpy()
    low, ratio, high = loss_ratio(losses(left, ours), losses(left, theirs))
    return (
        f"| {name} | {losses(left, ours).mean():.4f} | {losses(left, theirs).mean():.4f} | "
        f"{ratio:.3f} ({low:.3f} to {high:.3f}) | {seconds:.0f} | {spent['seconds']:.0f} |"
    )


def learned_from(dataset: Path) -> list[str]:
    """Return the columns of a drafted dataset by their names in the file."""
    drafted = yaml.safe_load(dataset.read_text(encoding="utf-8"))
    names = {new: old for old, new in drafted.get("rename", {}).items()}
    return [names.get(name, name) for name in drafted["columns"]]


def losses(left: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return each member's log loss, clipped as churnlab's is."""
    clipped = np.clip(probability, 0.001, 0.999)
    return -np.log(np.where(left, clipped, 1 - clipped))


def loss_ratio(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """Return low, point and high of the ratio of mean losses."""
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, len(ours), len(ours)) for _ in range(1000)]
    low, high = np.quantile(
        [ours[rows].mean() / theirs[rows].mean() for rows in drawn], [0.025, 0.975]
    )
    return float(low), float(ours.mean() / theirs.mean()), float(high)


def main() -> None:
    """Print a row per table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", required=True, help="a Python with autogluon.tabular")
    parser.add_argument("--only", choices=LOOK_ALIKES, nargs="+", default=list(LOOK_ALIKES))
    parser.add_argument("--rows", type=int, default=3000, help="members to learn from")
    parser.add_argument("--new", type=int, default=20_000, help="members to be judged on")
    parser.add_argument("--trials", type=int, default=20, help="of each model")
    given = parser.parse_args()
    print("| table | churnlab | AutoGluon | ratio (95% CI) | s | AutoGluon s |")
    print("|---|---|---|---|---|---|")
    sizes = {"rows": given.rows, "new": given.new, "trials": given.trials}
    for name in given.only:
        print(compare(name, **sizes, peer=given.peer), flush=True)


if __name__ == "__main__":
    main()
