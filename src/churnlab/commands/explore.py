"""Check a table against its contract and show who leaves: distributions, means, correlations, risk ratios.

Why: before any model, the table must be what its YAML says, and a person must have seen it. A correlation or a risk
ratio comes with its interval, and neither is an effect.

    churnlab explore
    churnlab explore dataset=gym dataset.path=members.csv
    churnlab explore --config-dir my_conf dataset=bank
"""

from __future__ import annotations

import logging

import mlflow

from churnlab import artifacts, exploration, schema, tracking
from churnlab.commands import Result
from churnlab.data import Dataset
from churnlab.plots import table as plots

log = logging.getLogger(__name__)

NEARLY_THE_SAME = 0.95
"""Pairs of columns correlated beyond this say the same thing twice and are told."""


def run(settings: schema.Explore, dataset: Dataset) -> Result:
    """Describe the table and log what was found."""
    X, y, columns = dataset.X, dataset.y, dataset.contract.columns
    churn_rate = float(y.mean())
    correlations = exploration.correlations(X, y)
    drivers = exploration.drivers(X, y, columns, cuts={name: c.cut for name, c in columns.items() if c.cut is not None})
    pairs = exploration.correlated_pairs(X, limit=NEARLY_THE_SAME)
    gradients = exploration.gradients(X, y, columns)
    units = {name: column.unit for name, column in columns.items() if column.unit}
    figures = {
        "distributions": plots.distributions(exploration.histograms(X, y, columns), units=units),
        "correlations": plots.correlations(correlations),
        "correlation_matrix": plots.correlation_matrix(
            exploration.correlation_matrix(X, y, target=dataset.contract.target)
        ),
        "risk_ratios": plots.risk_ratios(drivers),
        "churn_by_value": plots.churn_by_value(gradients, base_rate=churn_rate, units=units),
    }
    strongest = correlations.iloc[0]
    said = (
        f"{len(y):,} members of whom {churn_rate:.1%} left; the strongest correlation is "
        f"{strongest['feature']} ({strongest['pearson_r']:+.2f})"
    )
    with tracking.start_run(
        "explore", settings.model_dump(), name=f"explore {dataset.contract.name}", dataset=dataset
    ) as mlflow_run:
        tracking.log_metrics({"rows": len(y), "churn_rate": churn_rate, "warnings": len(dataset.warnings)})
        report = {"rows": len(y), "source": dataset.source, "warnings": list(dataset.warnings)}
        mlflow.log_dict(report | {"correlated_pairs": pairs.to_dict("records")}, "data_report.json")
        artifacts.log_table(exploration.summary(X, columns), "summary.csv")
        artifacts.log_table(exploration.class_means(X, y), "class_means.csv")
        artifacts.log_table(correlations, "correlations.csv")
        artifacts.log_table(drivers, "drivers.csv")
        artifacts.log_table(gradients, "gradients.csv")
        for name, figure in figures.items():
            mlflow.log_figure(figure, f"figures/{name}.png")
        mlflow.set_tag("mlflow.note.content", said)
    shown = correlations[["feature", "pearson_r", "low", "high", "auc"]]
    log.info("%s\n%s", said, shown.to_string(index=False, float_format="{:+.3f}".format))
    return Result(
        {
            "run_id": mlflow_run.info.run_id,
            "rows": len(y),
            "churn_rate": churn_rate,
            "warnings": len(dataset.warnings),
        }
    )
