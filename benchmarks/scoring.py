"""Measure scoring a CSV file to Parquet with logistic regression: the pandas way, pyarrow's stream
into the same pipeline, and churnlab score.

    python benchmarks/scoring.py                 1,000,000 rows, five rounds
    python benchmarks/scoring.py --rows 200000   fewer
    python benchmarks/scoring.py --short         20,000 rows, one round: does it run?
    python benchmarks/scoring.py --peer PYTHON   also Polars with ONNX Runtime, by the Python of an
                                                 environment with polars, onnxruntime and skl2onnx

Each contender runs once a round in a process of its own, the rounds interleave them, and medians
are compared: CPU seconds from the first byte read (start-up apart) of the process and its children,
and the peak of its memory above what it had when the model was loaded. What churnlab needs before
it reads, for its configuration and the version once more, is counted. It asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

POLARS = "Polars, ONNX Runtime"

TRAINED = ("dataset.rows=4000", "evaluation.folds=2", "segments.k=4", "segments.n_init=2")
FEW = ("segments.bootstraps=2", "segments.refit_n_init=1", "segments.splits=2")
FEW_MORE = ("segments.references=2", "segments.range=[2,4]")


def main() -> None:
    """Measure and report; with a role, be one contender."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="20,000 rows, one round")
    parser.add_argument("--peer", metavar="PYTHON")
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        print(json.dumps(measured(options.role)))
        return
    rows, rounds = (20_000, 1) if options.short else (options.rows, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["CHURNLAB_HOME"] = str(Path(folder) / "home")
        prepare(rows)
        roles = [role for role in ROLES if options.peer or role != POLARS]
        found: dict[str, list[dict[str, float]]] = {role: [] for role in roles}
        for _ in range(rounds):
            for role in roles:
                found[role].append(one(role, options.peer if role == POLARS else sys.executable))
    report(found, rows)


def prepare(rows: int) -> None:
    """Write the members, promote a version, and keep its pipeline for the others."""
    from churnlab.data.demo import members

    block = members(min(rows, 100_000), seed=1).drop(columns="Churn")
    for start in range(0, rows, len(block)):
        part = block.iloc[: rows - start]
        part.to_csv("members.csv", mode="a", header=start == 0, index=False)
    run("train", *TRAINED[:2])
    run("segment", TRAINED[0], *TRAINED[2:], *FEW, *FEW_MORE)
    run("promote", *TRAINED[:2], "force=true", "reason=benchmark")
    scaler, regression = pipeline()
    weights = (scaler.mean_, scaler.scale_, regression.coef_, regression.intercept_)
    Path("weights.json").write_text(json.dumps([one.tolist() for one in weights]))


def run(*words: str) -> None:
    """Run a churnlab command, quietly."""
    command = [sys.executable, "-m", "churnlab", *words]
    subprocess.run(command, check=True, capture_output=True)


def one(role: str, python: str) -> dict[str, float]:
    """Run a contender in a process of its own."""
    command = [python, __file__, "--role", role]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measured(role: str) -> dict[str, float]:
    """Return CPU seconds, and MiB above the loaded model."""
    work = ROLES[role]()
    before, peak = cpu(), resident()
    work()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu": cpu() - before, "peak": most - peak}


def cpu() -> float:
    """Return the CPU seconds of this process and its children."""
    return sum(os.times()[:4])


def resident() -> float:
    """Return the MiB that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def pipeline() -> Any:
    """Return the pipeline of the version, as everybody loads it."""
    import mlflow
    import skops.io

    mlflow.set_tracking_uri(f"sqlite:///{os.environ['CHURNLAB_HOME']}/mlflow.db")
    files = mlflow.artifacts.download_artifacts("models:/demo-churn@champion", dst_path="version")
    found = next(Path(files).rglob("churn.skops"), None) or next(Path(files).rglob("*.skops"))
    return skops.io.load(found, trusted=skops.io.get_untrusted_types(file=found))


def pandas_way() -> Any:
    """Read all, predict, write all."""
    import pandas as pd

    model = pipeline()

    def work() -> None:
        table = pd.read_csv("members.csv").astype("float64")
        table["churn_probability"] = model.predict_proba(table)[:, 1]
        table.to_csv("pandas.csv", index=False)

    return work


def pyarrow_stream() -> Any:
    """Stream batches through the same pipeline into Parquet."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    model = pipeline()

    def work() -> None:
        writer = None
        for batch in pa.csv.open_csv("members.csv"):
            found = model.predict_proba(batch.to_pandas().astype("float64"))[:, 1]
            batch = batch.append_column("churn_probability", pa.array(found))
            writer = writer or pq.ParquetWriter("stream.parquet", batch.schema)
            writer.write_batch(batch)
        if writer:
            writer.close()

    return work


def polars_stream() -> Any:
    """Stream through Polars, and the pipeline as ONNX in double precision, into Parquet."""
    import numpy as np
    import onnxruntime
    import polars as pl
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    weights = map(np.array, json.loads(Path("weights.json").read_text()))
    scaler, regression = StandardScaler(), LogisticRegression()
    scaler.mean_, scaler.scale_, regression.coef_, regression.intercept_ = weights
    scaler.n_features_in_ = regression.n_features_in_ = len(scaler.mean_)
    regression.classes_ = np.array([0, 1])
    made = to_onnx(
        make_pipeline(scaler, regression),
        initial_types=[("X", DoubleTensorType([None, len(scaler.mean_)]))],
        options={"zipmap": False},
    )
    session = onnxruntime.InferenceSession(made.SerializeToString())

    def scored(part: pl.DataFrame) -> pl.DataFrame:
        found = session.run(None, {"X": part.cast(pl.Float64).to_numpy()})[1][:, 1]
        return part.with_columns(pl.Series("churn_probability", found, dtype=pl.Float64))

    def work() -> None:
        members = pl.scan_csv("members.csv")
        schema = members.collect_schema() | {"churn_probability": pl.Float64}
        members.map_batches(scored, streamable=True, schema=schema).sink_parquet("polars.parquet")

    return work


def ours(*words: str) -> Any:
    """Score with the version loaded beforehand, in this process."""
    from churnlab.__main__ import main as churnlab
    from churnlab.data.demo import members

    members(300, seed=1).drop(columns="Churn").to_csv("few.csv", index=False)
    command = ("score", *words)
    churnlab([*command, "input=few.csv", "output=few.parquet"])

    def work() -> None:
        if churnlab([*command, "input=members.csv", f"output=ours{len(words)}.parquet"]):
            raise SystemExit("churnlab score failed")

    return work


ROLES = {
    "pandas way": pandas_way,
    "pyarrow stream": pyarrow_stream,
    POLARS: polars_stream,
    "churnlab score": ours,
    "churnlab score, reasons": lambda: ours("score.reasons=true"),
}


def report(found: dict[str, list[dict[str, float]]], rows: int) -> None:
    """Print medians, and each as a share of the pandas way in the same round."""
    print(f"{rows:,} rows, CSV to Parquet")
    for role, rounds in found.items():
        share = median(
            mine["cpu"] / theirs["cpu"]
            for mine, theirs in zip(rounds, found["pandas way"], strict=True)
        )
        seconds, peak = (median(one[key] for one in rounds) for key in ("cpu", "peak"))
        print(f"{role:26} {seconds:8.2f} s CPU  {share:6.2f} of pandas  {peak:8.0f} MiB above")


if __name__ == "__main__":
    main()
