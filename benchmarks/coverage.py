"""Measure how often the 95% intervals that churnlab prints cover the truth.

    python benchmarks/coverage.py                      every kind: about an hour on two idle cores
    python benchmarks/coverage.py --short              200 tables of 800 members: does it run?
    python benchmarks/coverage.py --only correlation   one kind
    python benchmarks/coverage.py --list               the kinds

Every table is drawn from a population whose truth is known, and churnlab's own functions measure
it. One line per kind and size; the results are the same for any number of processes. It reports
and asserts nothing: the exit code is 0.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import model_intervals
import table_intervals
from tallies import Tally, measure

KINDS = model_intervals.KINDS | table_intervals.KINDS


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", type=int, default=4000, help="per kind and size")
    parser.add_argument("--judges", default="800,4000", help="members per table")
    parser.add_argument("--only", choices=KINDS, nargs="+", help="these kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--short", action="store_true", help="200 tables of 800 members")
    parser.add_argument("--list", action="store_true", help="print the kinds and stop")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name}: {kind.printed}" for name, kind in KINDS.items()))
        return
    tables, sizes = options.tables, [int(size) for size in options.judges.split(",")]
    if options.short:
        tables, sizes = 200, [800]
    print(
        "| kind | case | printed by | n | intervals | coverage (99% CI) | above | below | 94-97.5 |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in options.only or KINDS:
        for n in sizes:
            start = time.perf_counter()
            found = measure(
                name, KINDS[name], n, tables=tables, seed=options.seed, processes=options.processes
            )
            for label, tally in found.items():
                print(line(name, label, KINDS[name].printed, n, tally))
            print(end="", flush=True)
            seconds = time.perf_counter() - start
            print(f"{name}, {n} members: {seconds:.0f} s", file=sys.stderr)


def line(name: str, label: str, printed: str, n: int, tally: Tally) -> str:
    """Format one row of the report; the misses are those of intervals above and below the truth."""
    share, low, high = (f"{100 * value:.1f}" for value in tally.coverage)
    misses = [f"{100 * each / max(tally.printed, 1):.1f}%" for each in (tally.above, tally.below)]
    missing = f" ({tally.missing:,} without ends)" if tally.missing else ""
    coverage = f"{share}% ({low} to {high})"
    cells = (name, label, printed, f"{n:,}", f"{tally.printed:,}{missing}", coverage, *misses)
    return f"| {' | '.join([*cells, tally.verdict])} |"


if __name__ == "__main__":
    main()
