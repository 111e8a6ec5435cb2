"""Measure the evidence for a number of segments against the plain way with scikit-learn and
SciPy.

    python benchmarks/segmenting.py                    about a quarter of an hour on two idle cores
    python benchmarks/segmenting.py --quick            a minute: does it run?
    CHURNLAB_GYM=FILE python benchmarks/segmenting.py  on a table instead of generated members

Each contender runs once a round in a process of its own, the rounds interleave them, and medians
are compared. It reports and asserts nothing: the exit code is 0.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
KS, KS_OF_CURVE = range(2, 11), range(2, 9)
N_INIT, REFIT_N_INIT, BOOTSTRAPS = 50, 10, 20
"""The effort of conf/segments/behaviour.yaml, the same for everybody."""

SIZES, PLAIN_ENDS = (1_000, 10_000, 100_000), 10_000
"""The plain way keeps the distances of all pairs: 100,000 members would take 80 GB."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
WHOLE, EVIDENCE = "churnlab segment, all of it", "churnlab, evidence alone"
WHOLE_ON_ONE = "churnlab segment, all of it, on one core"
PLAIN, PLAIN_THREADS = "plain loop, one thread on one core", "plain loop, threads as they come"

Values = dict[str, float]


def main() -> None:
    """Measure and report; with a role, be one contender."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="1,000 members, k up to 4, one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--threads",
        action="store_true",
        help="the plain loop with threads as they come, too: slower",
    )
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--last", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--cores", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
        print(json.dumps(timed(ROLES[options.role], options.rows, range(2, options.last + 1))))
        return
    rows, last = (1_000, 4) if options.quick else (4_000, KS[-1])
    compare(rows, last, 1 if options.quick else options.rounds, threads=options.threads)
    curve(SIZES[:1] if options.quick else SIZES, last if options.quick else KS_OF_CURVE[-1])


def compare(rows: int, last: int, rounds: int, *, threads: bool) -> None:
    """Compare the whole experiment with a plain loop of k-means, silhouette and bootstraps."""
    contenders: dict[str, tuple[str, dict[str, str], int | None]] = {
        WHOLE: ("whole", {}, None),
        WHOLE_ON_ONE: ("whole", {}, 1),
        EVIDENCE: ("evidence", {}, None),
        PLAIN: ("plain", ONE_THREAD, 1),
    }
    if threads:
        contenders[PLAIN_THREADS] = ("plain", {}, None)
    measured: dict[str, list[Values]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, (role, environment, cores) in contenders.items():
            measured[name].append(contend(role, rows, last, environment, cores=cores))
            print(f"{name}: {measured[name][-1]['wall']:.1f} s", file=sys.stderr)
    print(f"\n{rows:,} members, k = 2..{last}, rounds: {rounds}, cores: {os.cpu_count()}\n")
    print(
        "| contender | wall s | wall / plain, median (min to max) | CPU s | CPU / plain | peak MiB "
        "|"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for name, times in measured.items():
        wall, cpu = (
            [ours[key] / plain[key] for ours, plain in zip(times, measured[PLAIN], strict=True)]
            for key in ("wall", "cpu")
        )
        print(
            f"| {name} | {middle(times, 'wall'):.1f} | {median(wall):.2f} ({min(wall):.2f} to "
            f"{max(wall):.2f}) | {middle(times, 'cpu'):.1f} | {median(cpu):.2f} | "
            f"{middle(times, 'peak'):.0f} |"
        )
    for name in (WHOLE, WHOLE_ON_ONE):
        pairs = zip(measured[name], measured[PLAIN], strict=True)
        ratio = median(ours["wall"] / plain["wall"] for ours, plain in pairs)
        verdict(f"{name}, wall / plain loop", ratio, 1.0)


def curve(sizes: tuple[int, ...], last: int) -> None:
    """How cost grows with the members, next to the plain way with silhouette and Ward's tree of all
    pairs."""
    print(f"\nk = 2..{last}, once each\n")
    print("| members | churnlab wall s | CPU s | peak MiB | plain wall s | CPU s | peak MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for rows in sizes:
        ours = contend("whole", rows, last, {})
        cells = [f"{ours[key]:.0f}" for key in ("wall", "cpu", "peak")]
        if rows <= PLAIN_ENDS:
            plain = contend("plain_with_tree", rows, last, ONE_THREAD)
            cells += [f"{plain[key]:.0f}" for key in ("wall", "cpu", "peak")]
        else:
            cells += ["not possible", "", f"{8 * rows**2 / 2**20:,.0f} for the distances alone"]
        print(f"| {rows:,} | {' | '.join(cells)} |", flush=True)
    verdict(f"{sizes[-1]:,} members, wall seconds", ours["wall"], 60)
    verdict(f"{sizes[-1]:,} members, peak MiB", ours["peak"], 3 * 1024)


def contend(
    role: str, rows: int, last: int, environment: dict[str, str], *, cores: int | None = None
) -> Values:
    """One contender in a process and a store of its own, on so many cores (None: all); returns its
    JSON line."""
    ours = ("MLFLOW_", "CHURNLAB_HOME", *ONE_THREAD)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    words = [sys.executable, __file__, "--role", role, "--rows", str(rows), "--last", str(last)]
    words += ["--cores", str(cores)] if cores else []
    with tempfile.TemporaryDirectory(prefix="churnlab-bench-") as home:
        settings = {"CHURNLAB_HOME": home, "MLFLOW_DISABLE_TELEMETRY": "true", **environment}
        done = subprocess.run(
            words, env=inherited | settings, cwd=home, capture_output=True, text=True
        )
    if done.returncode:
        raise SystemExit(f"{role} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def timed(role: Callable[[Any, range], Callable[[], object]], rows: int, ks: range) -> Values:
    """Wall and CPU seconds and peak memory of a contender; imports, the table and the store come
    before the clock."""
    work = role(prepared(rows, ks), ks)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "wall": wall,
        "cpu": cpu,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def prepared(rows: int, ks: range) -> Any:
    """The checked keys of churnlab segment and its table."""
    import hydra

    from churnlab.cli import hydra_compose
    from churnlab.config import validation
    from churnlab.config.build import load_dataset

    table = os.environ.get("CHURNLAB_GYM")
    words = (
        ["dataset=gym", f"dataset.path={Path(table).resolve()}"] if table and rows == 4_000 else []
    )
    words = words or [f"dataset.rows={rows}"]
    with hydra.initialize_config_dir(str(HERE.parent / "conf"), version_base="1.3"):
        composed = hydra.compose(
            "segment", overrides=[*words, f"segments.range=[{ks[0]},{ks[-1]}]"]
        )
        settings = validation.read("segment", hydra_compose.plain(composed))
    return settings, load_dataset(settings.dataset)


def whole(prepared: Any, ks: range) -> Callable[[], object]:
    """Churnlab segment: every criterion, tree, portraits, figures, tables, model and MLflow."""
    import mlflow.sklearn
    import skops.io

    from churnlab.commands import segment
    from churnlab.tracking import store

    assert mlflow.sklearn
    assert skops.io  # both are otherwise imported where the model is logged, with the clock running
    settings, dataset = prepared
    store.open_store(settings.tracking.uri, home=Path(os.environ["CHURNLAB_HOME"]))
    return lambda: segment.run(settings, dataset)


def evidence(prepared: Any, ks: range) -> Callable[[], object]:
    """Tree, k-means and every criterion of churnlab segment, without figures and MLflow."""
    from churnlab.segments.choose_k import evidence_per_k
    from churnlab.segments.dendrogram import ward_tree
    from churnlab.segments.kmeans import fit_kmeans, segment_frame, standardized

    settings, dataset = prepared
    keys, frame = settings.segments, segment_frame(dataset.X, settings.segments.columns)

    def work() -> object:
        Z = standardized(frame)
        tree, fits = ward_tree(Z, random_state=0), fit_kmeans(Z, ks, **keys.starts)
        return evidence_per_k(
            frame, tree, fits, y=dataset.y, references=keys.references, **keys.effort
        )

    return work


def plain(prepared: Any, ks: range, *, tree: bool = False) -> Callable[[], object]:
    """What a notebook does: for each k scikit-learn's k-means, its silhouette, and its fits on
    bootstraps."""
    import numpy as np
    from scipy.cluster.hierarchy import linkage
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, silhouette_score

    from churnlab.segments.kmeans import segment_frame, standardized

    settings, dataset = prepared
    Z = standardized(segment_frame(dataset.X, settings.segments.columns))

    def work() -> None:
        if tree:
            linkage(Z, method="ward")
        for k in ks:
            labels = KMeans(k, n_init=N_INIT, random_state=0).fit_predict(Z)
            silhouette_score(Z, labels)
            for resample in range(BOOTSTRAPS):
                rows = np.random.default_rng(resample).integers(len(Z), size=len(Z))
                refit = KMeans(k, n_init=REFIT_N_INIT, random_state=resample).fit(Z[rows])
                adjusted_rand_score(labels, refit.predict(Z))

    return work


def plain_with_tree(prepared: Any, ks: range) -> Callable[[], object]:
    """The plain loop and SciPy's Ward tree."""
    return plain(prepared, ks, tree=True)


ROLES = {"whole": whole, "evidence": evidence, "plain": plain, "plain_with_tree": plain_with_tree}


def middle(times: list[Values], key: str) -> float:
    """The median of the rounds."""
    return median(line[key] for line in times)


def verdict(what: str, value: float, limit: float) -> None:
    """Print one line: the measured value and the target."""
    print(
        f"- {what}: {value:.3g}, target at most {limit:g}: {'met' if value <= limit else 'NOT MET'}"
    )


if __name__ == "__main__":
    main()
