"""Evaluate the predictions of one model: metrics, confidence intervals, calibration, gains."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import binomtest, chi2, norm
from scipy.stats import t as student
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from churnlab.evaluation.calibration_error import GROUPS, calibration_error
from churnlab.evaluation.metric_names import METRICS
from churnlab.evaluation.metrics import CLIP, Counts, Groups, all_metrics, computable, group_members
from churnlab.models.decision import ContactEconomics

SURE = float(norm.ppf(0.975))
"""Standard errors from the middle to an end of a 95% CI."""


def classification_metrics(
    y: np.ndarray,
    probability: np.ndarray,
    *,
    threshold: float,
    costs: ContactEconomics | None = None,
) -> dict[str, float]:
    """Compute every metric of `metric_names.METRICS`; churn is predicted above the threshold.

    ``costs`` are those of a contact; without them there are no metrics of money.

    log_loss clips probabilities to [0.001, 0.999]. ece is the mean gap between probability and
    outcome over ten bins of equal size, where members of equal probability share their mean
    outcome, so that the order of the rows does not matter. Precision is 0 where no churn is
    predicted; without churners recall and f1 are 0, roc_auc and average_precision nan.

    >>> scores = classification_metrics(
    ...     np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.6, 0.9]), threshold=0.5
    ... )
    >>> scores["roc_auc"], scores["recall"], round(scores["brier"], 3)
    (0.75, 0.5, 0.185)
    """
    groups = group_members(y, probability, threshold, costs=costs)
    values = all_metrics(groups, groups.left[None, :], groups.stayed[None, :])
    return {name: float(value[0]) for name, value in values.items()}


def hold_out_metrics(
    hold_out: pd.DataFrame, *, threshold: float, seed: int, costs: ContactEconomics | None = None
) -> dict[str, float]:
    """Compute the metrics of the hold-out (test_<metric>) and the ends of their 95% CIs.

    ``hold_out``: a row per member, y and probability.
    """
    y, probability = hold_out["y"].to_numpy(), hold_out["probability"].to_numpy()
    test = classification_metrics(y, probability, threshold=threshold, costs=costs)
    intervals = bootstrap_intervals(y, probability, threshold=threshold, seed=seed, costs=costs)
    metrics = {f"test_{name}": value for name, value in test.items()}
    metrics |= {f"test_{name}_low": low for name, (low, _) in intervals.items()}
    return metrics | {f"test_{name}_high": high for name, (_, high) in intervals.items()}


def bootstrap_intervals(
    y: np.ndarray,
    probability: np.ndarray,
    *,
    threshold: float,
    resamples: int = 1000,
    seed: int,
    costs: ContactEconomics | None = None,
) -> dict[str, tuple[float, float]]:
    """Return the 95% CI (low, high) of every metric, over resamples of the members where needed.

    Shares of members (accuracy, precision, recall; f1 by way of one) have Wilson's CI. The others
    have their bootstrap standard error: log_loss on the logarithmic scale, those in [0, 1] with
    Wilson's formula for as many trials as that error is worth, amounts of money on their own scale,
    by Student's t for the rarer outcome. Percentiles of the resamples would cover a precision of
    few members in 80%, a roc_auc of few churners in 90%. The ece has the CI of
    ``calibration_error``. nan for a ranking metric without both outcomes, 0 to 1 for a share of
    nobody.

    A resample is drawn as multinomial counts over the distinct (probability, outcome) pairs, which
    equals drawing members with replacement. With more than GROUPS distinct probabilities, neighbors
    are pooled (never across the threshold), which bounds time and memory and moves a limit by less
    than a hundredth of the CI's width.
    """
    groups = group_members(y, probability, threshold, most=GROUPS, costs=costs)
    found = calibration_error(y, probability, seed=seed)
    counts = Counts(groups, groups.left[None, :], groups.stayed[None, :])
    ends = {name: (found.low, found.high) for name, m in METRICS.items() if m.resampling_bias}
    for name, metric in METRICS.items():
        if metric.share_of is not None:
            part, whole = (float(number[0]) for number in metric.share_of(counts))
            low, high = wilson(part / whole if whole else 0.0, whole)
            ends[name] = (float(metric.from_share(low)), float(metric.from_share(high)))
    others = [name for name in computable(groups) if name not in ends]
    errors = _bootstrap_errors(groups, others, resamples=resamples, seed=seed)
    rarer = float(min(counts.churners[0], counts.stayers[0]))
    for name in others:
        value = float(METRICS[name].compute(counts)[0])
        ends[name] = _metric_interval(name, value, errors[name], rarer=rarer)
    return {name: ends[name] for name in computable(groups)}


def _bootstrap_errors(
    groups: Groups, names: Sequence[str], *, resamples: int, seed: int
) -> dict[str, float]:
    """Return the standard deviation of each metric over resamples of the members."""
    rng = np.random.default_rng(seed)
    counts = np.concatenate([groups.left, groups.stayed])
    filled, members = np.flatnonzero(counts), int(counts.sum())
    values: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for done in range(0, resamples, chunk := max(1, 250_000 // len(counts))):
        drawn = np.zeros((min(chunk, resamples - done), len(counts)))
        shares = counts[filled] / members
        drawn[:, filled] = rng.multinomial(members, shares, size=len(drawn))
        resample = Counts(groups, *np.split(drawn, 2, axis=1))
        for name in names:
            values[name].append(METRICS[name].compute(resample))
    return {name: _spread(np.concatenate(parts)) for name, parts in values.items()}


def _metric_interval(name: str, value: float, error: float, *, rarer: float) -> tuple[float, float]:
    """Return the 95% CI of a metric from its standard error; ``rarer`` members had the rarer
    outcome."""
    if math.isnan(value):
        return math.nan, math.nan
    sure = float(student.ppf(0.975, rarer - 1)) if rarer > 1 else SURE
    if METRICS[name].needs_costs:
        return value - sure * error, value + sure * error
    if not METRICS[name].unit_interval:
        factor = math.exp(SURE * error / value) if value > 0 else 1.0
        return value / factor, min(value * factor, -math.log(CLIP))
    if error == 0 and 0 < value < 1:  # a constant model ranks at chance in every sample
        return value, value
    trials = value * (1 - value) / error**2 if error > 0 else rarer
    return wilson(value, trials, sure=sure)


def wilson(share: float, trials: float, *, sure: float = SURE) -> tuple[float, float]:
    """Return the 95% CI of a share (Wilson, 1927, JASA 22:209); 0 to 1 for that of nobody.

    Unlike ``scipy.stats.binomtest`` it takes a fraction of a trial: an estimate whose error is
    larger than a binomial one is worth fewer trials (the effective sample size: Kish, 1965, Survey
    Sampling, 8.2).

    >>> [round(end, 4) for end in wilson(0.3, 50)]
    [0.191, 0.4375]
    """
    if trials <= 0:
        return 0.0, 1.0
    narrowed = 1 + sure**2 / trials
    middle = (share + sure**2 / (2 * trials)) / narrowed
    reach = sure * math.sqrt(share * (1 - share) / trials + (sure / (2 * trials)) ** 2) / narrowed
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


def calibration_line(y: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Fit the calibration line (Cox, 1958, Biometrika 45:562) and test it against the perfect one.

    Return slope, intercept, p, ece, ece_floor and ece_corrected. Slope and intercept are of an
    unpenalized logistic regression of y on the clipped logit; a perfect model has slope 1 and
    intercept 0, a slope above 1 means that the probabilities are too timid. p is that of perfect
    calibration: twice the smaller one (Bonferroni) of the likelihood-ratio test of these two values
    (2 df; Miller, Hui and Tierney, 1991, Statistics in Medicine 10:1213) and of the ece, which also
    sees gaps that no line shows. All three are nan where all outcomes are equal, and where the
    probabilities differ so little that the slope of a perfect model would have a standard error
    above 1. For the ece see ``CalibrationError``.
    """
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    logit = np.log(clipped / (1 - clipped))
    slope = intercept = p = np.nan
    weight = clipped * (1 - clipped)
    information = float(weight @ (logit - weight @ logit / weight.sum()) ** 2)
    if information > 1 and np.ptp(y) > 0:
        line = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8)
        with warnings.catch_warnings():
            # Outcomes that are separated perfectly have no finite slope: its CI is endless.
            warnings.simplefilter("ignore", ConvergenceWarning)
            line.fit(logit[:, None], y)
        slope, intercept = float(line.coef_[0, 0]), float(line.intercept_[0])
        gained = _log_likelihood(y, intercept + slope * logit) - _log_likelihood(y, logit)
        p = float(chi2.sf(2 * gained, 2))
    error = calibration_error(y, probability, seed=0)
    errors = {"ece": error.ece, "ece_floor": error.floor, "ece_corrected": error.corrected}
    p = min(2 * min(p, error.p), 1.0)  # also nan where the line is
    return {"slope": slope, "intercept": intercept, "p": p} | errors


def repeated_calibration_line(predictions: pd.DataFrame) -> dict[str, float]:
    """Average the ``calibration_line`` of out-of-fold predictions over the repeats of the folds.

    Each repeat has every member once: pooled, the same outcomes would count several times and p
    would be too small. p is the median.
    """
    lines = [
        calibration_line(part["y"].to_numpy(), part["probability"].to_numpy())
        for _, part in predictions.groupby("repeat")
    ]
    means = {name: float(np.mean([line[name] for line in lines])) for name in lines[0]}
    return means | {"p": float(np.median([line["p"] for line in lines]))}


def _log_likelihood(y: np.ndarray, logit: np.ndarray) -> float:
    return float(np.sum(y * logit - np.logaddexp(0, logit)))


def reliability(y: np.ndarray, probability: np.ndarray, *, bins: int = 10) -> pd.DataFrame:
    """Compare predicted with observed churn by bins of about equal size, one row per bin.

    Columns: members, probability (the mean), churn_rate, low and high (its 95% Wilson CI). Members
    of equal probability stay in one bin.
    """
    _, inverse, count = np.unique(probability, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - count / 2
    frame = pd.DataFrame(
        {"bin": (middle * bins / len(y)).astype(int)[inverse], "y": y, "probability": probability}
    )
    table = frame.groupby("bin").agg(
        members=("y", "size"),
        left=("y", "sum"),
        probability=("probability", "mean"),
        churn_rate=("y", "mean"),
    )
    limits = [
        binomtest(int(left), int(members)).proportion_ci(method="wilson")
        for left, members in zip(table.pop("left"), table["members"], strict=True)
    ]
    return table.assign(low=[limit.low for limit in limits], high=[limit.high for limit in limits])


def gains(y: np.ndarray, probability: np.ndarray, *, shares: Sequence[float]) -> pd.DataFrame:
    """Count the churners among the riskiest members, one row per share of the members.

    Columns: share, members, gain (share of all churners), perfect (the gain of a perfect ranking of
    the same members), precision, lift. A share that ends inside a group of equal probabilities
    takes that part of the group's churners.
    """
    groups = group_members(y, probability, 0.5)
    members = np.concatenate([[0], np.cumsum(groups.left + groups.stayed)])
    left = np.concatenate([[0], np.cumsum(groups.left)])
    share = np.asarray(shares, dtype=np.float64)
    found = np.interp(share * len(y), members, left)
    gain, perfect = (
        part / max(left[-1], 1) for part in (found, np.minimum(share * len(y), left[-1]))
    )
    table = pd.DataFrame(
        {"share": share, "members": share * len(y), "gain": gain, "perfect": perfect}
    )
    return table.assign(precision=found / table["members"], lift=gain / share)


def repeated_gains(predictions: pd.DataFrame, *, shares: Sequence[float]) -> pd.DataFrame:
    """Average the ``gains`` of out-of-fold predictions over the repeats of the folds.

    Averaged probabilities would be those of an ensemble, which ranks better than the one model.
    """
    tables = [
        gains(part["y"].to_numpy(), part["probability"].to_numpy(), shares=shares)
        for _, part in predictions.groupby("repeat")
    ]
    return pd.concat(tables).groupby(level=0).mean()


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of values, ignoring NaN."""
    known = values[~np.isnan(values)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return float(low), float(high)


def _spread(values: np.ndarray) -> float:
    """Return the standard deviation of values, ignoring NaN."""
    known = values[~np.isnan(values)]
    return float(known.std(ddof=1)) if len(known) > 1 else 0.0


def in_words(metrics: Mapping[str, float], *, folds: int, members: int) -> str:
    """Say how a model scores, cross-validated over so many folds and on so many held-out members.

    ``metrics`` are those of a train run.
    """
    guessing = metrics["test_roc_auc_low"] <= 0.5 < metrics["test_roc_auc_high"]
    few = ", too few members to tell from guessing" if guessing else ""
    return (
        f"cv log loss {metrics['cv_log_loss']:.4f} and ROC AUC {metrics['cv_roc_auc']:.4f} "
        f"over {folds} folds; hold-out of {members} members: ROC AUC "
        f"{metrics['test_roc_auc']:.4f} (95% CI {metrics['test_roc_auc_low']:.4f} to "
        f"{metrics['test_roc_auc_high']:.4f}{few}), accuracy {metrics['test_accuracy']:.4f}, "
        f"precision {metrics['test_precision']:.4f} and recall {metrics['test_recall']:.4f} at "
        f"threshold {metrics['threshold']:.2f}."
    )
