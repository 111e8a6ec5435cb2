"""The bare script of training.py: ``python bare.py TABLE VALUES [--short]``.

It does what ``churnlab train`` does for each value of C, as a data scientist's script would, with
pandas, scikit-learn, matplotlib and skops, and without MLflow, a config or checks of the table.
``--short`` leaves out what few scripts do: further draws of the folds, the model without its late
column, slices, the learning curve and the net benefit. Intervals are churnlab's own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import skops.io
from sklearn import calibration
from sklearn import metrics as scores
from sklearn.base import clone
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, learning_curve, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

LATE = "Avg_class_frequency_current_month"


def main() -> None:
    """Train once per value of C."""
    path, values, *options = sys.argv[1:]
    for C in values.split(","):
        output = Path(f"bare-{C}")
        (output / "figures").mkdir(parents=True, exist_ok=True)
        train(Path(path), float(C), output, short="--short" in options)


def train(path: Path, C: float, output: Path, *, short: bool) -> None:
    """Cross-validate and fit one model; write its tables, figures, metrics and the model."""
    frame = pd.read_csv(path)
    X, y = frame.drop(columns="Churn").astype("float64"), frame["Churn"].to_numpy()
    split = train_test_split(X, y, test_size=0.2, stratify=y, random_state=0)
    train_X, test_X, train_y, test_y = split
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000))
    oof, per_fold = cross_validate(pipeline, train_X, train_y, seed=0)
    pipeline.fit(train_X, train_y)
    test = pd.DataFrame({"y": test_y, "probability": pipeline.predict_proba(test_X)[:, 1]})
    found = {f"cv_{name}": mean for name, mean in per_fold.mean().items()}
    found |= {f"test_{name}": value for name, value in metrics(test_y, test["probability"]).items()}
    tables = {"oof.parquet": oof, "test.parquet": test, "folds.csv": per_fold}
    tables["importance.csv"] = importance(pipeline, test_X, test_y)
    tables["coefficients.csv"] = pd.DataFrame({"of": X.columns, "is": pipeline[-1].coef_[0]})
    draw_figures(oof, test, tables["importance.csv"], output / "figures")
    if not short:
        draws = [cross_validate(pipeline, train_X, train_y, seed=seed) for seed in range(1, 5)]
        tables["further.parquet"] = pd.concat([table for table, _ in draws])
        tables["further_folds.csv"] = pd.concat([table for _, table in draws])
        early, early_folds = cross_validate(pipeline, train_X.drop(columns=LATE), train_y, seed=0)
        found |= {f"early_{name}": mean for name, mean in early_folds.mean().items()}
        tables["slices.csv"] = slices(train_X.iloc[oof["row"]].reset_index(drop=True), oof)
        tables["learning_curve.csv"] = curve(pipeline, train_X, train_y)
        tables["net_benefit.csv"] = net_benefit(test)
        draw_further_figures(tables, output / "figures")
    for name, table in tables.items():
        write = table.to_parquet if name.endswith("parquet") else table.to_csv
        write(output / name, index=False)
    (output / "metrics.json").write_text(json.dumps(found), encoding="utf-8")
    skops.io.dump(pipeline, output / "model.skops")
    print(found)


def cross_validate(
    pipeline: Pipeline, X: pd.DataFrame, y: np.ndarray, *, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the out-of-fold predictions and the metrics of each of five folds."""
    folds, per_fold = [], []
    draw = StratifiedKFold(5, shuffle=True, random_state=seed)
    for number, (train, validation) in enumerate(draw.split(X, y)):
        fitted = clone(pipeline).fit(X.iloc[train], y[train])
        probability = fitted.predict_proba(X.iloc[validation])[:, 1]
        known = {"row": validation, "y": y[validation], "probability": probability}
        folds.append(pd.DataFrame(known).assign(fold=number))
        per_fold.append(metrics(y[validation], probability))
    return pd.concat(folds, ignore_index=True), pd.DataFrame(per_fold)


def metrics(y: Any, probability: Any) -> dict[str, float]:
    """Return scikit-learn's metrics, and the calibration error over ten bins."""
    predicted, probability = probability > 0.5, np.asarray(probability)
    bins = np.array_split(np.argsort(probability), 10)
    return {
        "roc_auc": scores.roc_auc_score(y, probability),
        "average_precision": scores.average_precision_score(y, probability),
        "log_loss": scores.log_loss(y, np.clip(probability, 0.001, 0.999)),
        "brier": scores.brier_score_loss(y, probability),
        "ece": float(np.mean([abs(np.mean(y[part] - probability[part])) for part in bins])),
        "accuracy": scores.accuracy_score(y, predicted),
        "precision": scores.precision_score(y, predicted),
        "recall": scores.recall_score(y, predicted),
        "f1": scores.f1_score(y, predicted),
    }


def importance(pipeline: Pipeline, X: pd.DataFrame, y: np.ndarray) -> pd.DataFrame:
    """Return scikit-learn's permutation importance of each column, the smallest first."""
    found = permutation_importance(
        pipeline, X, y, scoring="neg_log_loss", n_repeats=5, random_state=0
    )
    columns = {"importance": found.importances_mean, "std": found.importances_std}
    return pd.DataFrame({"column": X.columns, **columns}).sort_values("importance")


def slices(X: pd.DataFrame, oof: pd.DataFrame) -> pd.DataFrame:
    """Compare observed with predicted churn by each column, numbers in quarters."""
    found = []
    for name in X.columns:
        many = X[name].nunique() > 10
        value = pd.qcut(X[name], 4, duplicates="drop") if many else X[name]
        table = oof.groupby(value, observed=True).agg(
            n=("y", "size"), observed=("y", "mean"), predicted=("probability", "mean")
        )
        found.append(table.assign(slice=[f"{name} = {value}" for value in table.index]))
    together = pd.concat(found, ignore_index=True)
    together["ratio"] = together["observed"] / together["predicted"]
    together["error"] = together["ratio"] / np.sqrt(
        np.maximum(together["observed"], 0.01) * together["n"]
    )
    return together.sort_values("ratio").reset_index(drop=True)


def curve(pipeline: Pipeline, X: pd.DataFrame, y: np.ndarray) -> pd.DataFrame:
    """Return scikit-learn's learning curve at an eighth, a quarter, a half and all members."""
    sizes, _, losses = learning_curve(
        pipeline, X, y, train_sizes=[0.125, 0.25, 0.5, 1], cv=5, scoring="neg_log_loss"
    )
    return pd.DataFrame({"members": sizes, "log_loss": -losses.mean(axis=1)})


def net_benefit(test: pd.DataFrame) -> pd.DataFrame:
    """Return the net benefit of the model by threshold."""
    at = np.linspace(0.01, 0.99, 99)
    flagged = test["probability"].to_numpy()[:, None] > at
    left = test["y"].to_numpy()[:, None] == 1
    benefit = (flagged & left).mean(axis=0) - (flagged & ~left).mean(axis=0) * at / (1 - at)
    return pd.DataFrame({"threshold": at, "model": benefit})


def draw_figures(
    oof: pd.DataFrame, test: pd.DataFrame, drivers: pd.DataFrame, folder: Path
) -> None:
    """Draw the six figures of a model and its importances, in the sizes of churnlab's."""
    samples = {"out of fold": oof, "hold-out": test}
    figure, axes = new(5.6, 5.4)
    for name, sample in samples.items():
        false_positives, recall, _ = scores.roc_curve(sample["y"], sample["probability"])
        area = scores.roc_auc_score(sample["y"], sample["probability"])
        axes.plot(false_positives, recall, label=f"{name} (AUC {area:.3f})")
    save(figure, axes, folder, "roc", "false positive rate", "recall")
    figure, axes = new(5.6, 5.4)
    for name, sample in samples.items():
        precision, recall, _ = scores.precision_recall_curve(sample["y"], sample["probability"])
        area = scores.average_precision_score(sample["y"], sample["probability"])
        axes.step(recall, precision, where="post", label=f"{name} (AP {area:.3f})")
    save(figure, axes, folder, "precision_recall", "recall", "precision")
    draw_probabilities(samples, folder)
    figure, axes = new(5.4, 4.4)
    counts = scores.confusion_matrix(test["y"], test["probability"] > 0.5)
    axes.imshow(counts, cmap="Blues")
    for (row, column), count in np.ndenumerate(counts):
        axes.text(column, row, f"{count:,}", ha="center", va="center")
    save(figure, axes, folder, "confusion", "predicted", "observed")
    figure, axes = new(5.6, 5.4)
    for name, sample in samples.items():
        ranked = sample.sort_values("probability", ascending=False)["y"].to_numpy()
        share = np.arange(1, len(ranked) + 1) / len(ranked)
        axes.plot(share, np.cumsum(ranked) / ranked.sum(), label=name)
    save(figure, axes, folder, "gains", "members contacted", "leavers found")
    figure, axes = new(8.5, 6)
    axes.barh(drivers["column"], drivers["importance"], xerr=drivers["std"])
    save(figure, axes, folder, "importance", "increase in log loss", "")


def draw_probabilities(samples: dict[str, pd.DataFrame], folder: Path) -> None:
    """Draw how well the probabilities are calibrated, and how they are distributed."""
    figure, (axes, below) = new(6.2, 6.6, rows=2)
    for name, sample in samples.items():
        observed, predicted = calibration.calibration_curve(
            sample["y"], sample["probability"], n_bins=10, strategy="quantile"
        )
        axes.plot(predicted, observed, marker="o", label=name)
        below.hist(sample["probability"], bins=40, histtype="step")
    below.set(yscale="log", xlabel="predicted churn probability", ylabel="members")
    save(figure, axes, folder, "reliability", "", "observed churn rate")
    figure, axes = new(7, 4.2)
    oof = samples["out of fold"]
    for outcome, name in enumerate(("stayed", "left")):
        axes.hist(oof.loc[oof["y"] == outcome, "probability"], bins=50, alpha=0.5, label=name)
    axes.axvline(0.5, color="black", label="threshold")
    axes.set(yscale="log")
    save(figure, axes, folder, "scores", "predicted churn probability", "members")


def draw_further_figures(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """Draw the slices, the learning curve and the net benefit."""
    figure, axes = new(8.5, 5.2)
    worst = tables["slices.csv"].tail(12)
    axes.errorbar(worst["ratio"], worst["slice"], xerr=worst["error"], fmt="o")
    save(figure, axes, folder, "slices", "observed / predicted churn", "")
    figure, axes = new(7, 4.2)
    table = tables["learning_curve.csv"]
    axes.plot(table["members"], table["log_loss"], marker="o", label="five folds")
    save(figure, axes, folder, "learning_curve", "training members", "log loss")
    figure, axes = new(7, 4.4)
    table = tables["net_benefit.csv"]
    axes.plot(table["threshold"], table["model"], label="model")
    axes.axhline(0, label="contact nobody")
    save(figure, axes, folder, "net_benefit", "threshold", "net benefit")


def new(width: float, height: float, rows: int = 1) -> Any:
    """Return a figure of so many inches and its axes."""
    return plt.subplots(rows, figsize=(width, height), dpi=120, layout="constrained")


def save(figure: Any, axes: Any, folder: Path, name: str, xlabel: str, ylabel: str) -> None:
    """Finish a figure and write it as PNG."""
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(color="#e4e6ea")
    if axes.get_legend_handles_labels()[1]:
        axes.legend()
    figure.suptitle(name)
    figure.savefig(folder / f"{name}.png")
    plt.close(figure)


if __name__ == "__main__":
    main()
