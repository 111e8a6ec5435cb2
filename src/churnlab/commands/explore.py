"""Explore a table before any model: data quality, churn by group, signals, and what it cannot show.

Why: a person should know the table before a model does. Every number has a confidence interval, and
none of them is a causal effect. The run's `findings.md` puts its tables and figures into words.

    churnlab explore
    churnlab explore dataset=gym dataset.path=members.csv
    churnlab explore --config-dir my_conf dataset=bank
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import mlflow
import pandas as pd
from matplotlib.figure import Figure

from churnlab.config.commands import Explore, Result
from churnlab.data.dataset import Dataset
from churnlab.explore import binning, redundancy, statistics
from churnlab.explore.association import links
from churnlab.plots import explore as plots
from churnlab.report import findings
from churnlab.tracking import artifacts
from churnlab.tracking.names import Artifact
from churnlab.tracking.runs import log_metrics, start_run

log = logging.getLogger(__name__)

NEARLY_THE_SAME = 0.95
"""Pairs of columns with a larger correlation are reported as redundant."""


def run(settings: Explore, dataset: Dataset) -> Result:
    """Describe the table and log tables, figures and findings."""
    y, contract = dataset.y, dataset.contract
    churn_rate = float(y.mean())
    tables = describe(dataset)
    figures = draw(dataset, tables)
    with start_run(
        "explore", settings.model_dump(), name=f"explore {contract.name}", dataset=dataset
    ) as opened:
        log_metrics({"rows": len(y), "churn_rate": churn_rate, "warnings": len(dataset.warnings)})
        for name, table in tables.items():
            artifacts.log_table(table, getattr(Artifact, name.upper()))
        for name, figure in figures.items():
            artifacts.log_figure(figure, name)
        text = findings.page(dataset, tables)
        mlflow.log_text(text, Artifact.FINDINGS)
        mlflow.set_tag("mlflow.note.content", findings.opening(dataset))
    log.info("%s", findings.short(dataset, tables))
    return Result({"run_id": opened.info.run_id, "rows": len(y), "churn_rate": churn_rate})


def describe(dataset: Dataset) -> dict[str, pd.DataFrame]:
    """Compute the tables, by name; each is an artifact of the same name."""
    X, y, columns = dataset.X, dataset.y, dataset.contract.columns
    gradients, words = statistics.gradients(X, y, columns), dataset.words
    pairs = zip(gradients["feature"], gradients["value"], strict=True)
    named = gradients.assign(value=[words.get(name, {}).get(value, value) for name, value in pairs])
    return {
        "summary": statistics.summary(X, columns),
        "completeness": statistics.completeness(X, y),
        "class_means": statistics.class_means(X, y),
        "correlations": statistics.correlations(X, y),
        "links": links(gradients, columns),
        "drivers": statistics.risk_ratios(X, y, columns),
        "gradients": named,
        "collinear": redundancy.collinear(X, limit=NEARLY_THE_SAME),
        "same_groups": redundancy.same_groups(X, columns),
    }


def draw(dataset: Dataset, tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Draw the figures, by name."""
    X, y, columns = dataset.X, dataset.y, dataset.contract.columns
    units = {name: column.unit for name, column in columns.items() if column.unit}
    gaps, drivers = tables["completeness"], tables["drivers"]
    pairs = zip(drivers["feature"], drivers["split"], strict=True)
    splits = [binning.as_written(split, dataset.words.get(name, {})) for name, split in pairs]
    missing = dict(zip(gaps["feature"], gaps["share"], strict=True))
    return {
        "links": plots.links(tables["links"]),
        "distributions": plots.distributions(
            statistics.histograms(X, y, columns), units=units, missing=missing
        ),
        "churn_by_value": plots.churn_by_value(
            tables["gradients"],
            base_rate=float(y.mean()),
            units=units,
            signals=set(tables["links"].query("signal")["feature"]),
        ),
        "risk_ratios": plots.risk_ratios(drivers.assign(split=splits)),
        "correlations": plots.correlations(tables["correlations"]),
        "correlation_matrix": plots.correlation_matrix(
            redundancy.correlation_matrix(X, y, target=dataset.contract.target)
        ),
    }
