"""How often a verdict between two models is wrong, and how much it takes to find a difference."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier

from churnlab.evaluation.comparison import Difference, FoldTest, fold_test, paired_difference
from churnlab.evaluation.cross_validation import cross_fitted_thresholds, cv_metrics, fold_metrics
from churnlab.evaluation.metric_names import METRICS
from churnlab.evaluation.verdicts import BETTER, EQUAL, Predictions, Verdict, decide, judge
from churnlab.models import decision
from churnlab.models.splits import make_folds
from support.planted import assert_at_least, assert_at_most, count, tables
from support.soak import SOAK

A_SIDE = 0.025
"""How often a verdict may call one of two equal models better than the other."""

HELD_OUT, FOLDS = 0.2, 5

Fit = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]
"""Fit a model on features and outcomes; return its probabilities for features."""


def sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


def outcomes(rng: np.random.Generator, logit: np.ndarray) -> np.ndarray:
    return (rng.random(logit.shape) < sigmoid(logit)).astype(int)


def logistic(columns: list[int]) -> Fit:
    """Fit a logistic regression, with the penalty that is scikit-learn's default, on columns."""

    def fit(X: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        (weights,) = newton(X[None][:, :, columns], y)
        return lambda new: sigmoid(np.c_[np.ones(len(new)), new[:, columns]] @ weights)

    return fit


def newton(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Fit penalized logistic regressions of y on each X (model, member, column) at once."""
    Z = np.concatenate([np.ones((*X.shape[:2], 1)), X], axis=2)
    penalty = np.diag([0.0] + [1.0] * X.shape[2])
    weights = np.zeros((len(X), Z.shape[2]))
    for _ in range(7):
        p = sigmoid(np.einsum("mij,mj->mi", Z, weights))
        slope = np.einsum("mij,mi->mj", Z, y - p) - weights @ penalty
        curvature = np.matmul(Z.transpose(0, 2, 1) * (p * (1 - p))[:, None], Z) + penalty
        weights += np.linalg.solve(curvature, slope[..., None])[..., 0]
    return weights


def log_loss(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return the log loss of probabilities (model, member)."""
    p = np.clip(p, 0.001, 0.999)
    return -np.where(y == 1, np.log(p), np.log1p(-p)).mean(axis=-1)


def table_of(
    rows: np.ndarray, y: np.ndarray, probability: np.ndarray, **more: object
) -> pd.DataFrame:
    predicted = {"row": rows, "y": y, "probability": probability, "threshold": 0.5}
    return pd.DataFrame(predicted | more)


def trained(
    fit: Fit, X: np.ndarray, y: np.ndarray, *, draws: int, seed: int, name: str = ""
) -> Predictions:
    """Train a model as churnlab does: folds, further draws, and one look at the hold-out."""
    rows = np.arange(len(y))
    test, train = np.split(rows, [int(HELD_OUT * len(y))])
    parts = [
        table_of(
            train[fold.validation],
            y[train[fold.validation]],
            fit(X[train[fold.train]], y[train[fold.train]])(X[train[fold.validation]]),
            fold=fold.fold,
            repeat=fold.repeat,
        )
        for fold in make_folds(y[train], folds=FOLDS, repeats=draws, seed=seed)
    ]
    held_out = table_of(test, y[test], fit(X[train], y[train])(X[test]))
    return Predictions(name, held_out, len(train), pd.concat(parts, ignore_index=True))


def verdicts(
    judged: Callable[[np.random.Generator], Verdict], *, of: int, seed: int = 0
) -> tuple[int, int, int]:
    """Count the tables in which the first model is better, the second is, and both are equal."""
    found = Counter()
    for rng in np.random.default_rng(seed).spawn(of):
        made = judged(rng)
        found[made.winner if made.winner is not None else made.answer] += 1
    print(f"of {of} tables: first better {found[0]}, second {found[1]}, equal {found[EQUAL]}")
    return found[0], found[1], found[EQUAL]


# Equal models


def members(rng: np.random.Generator, n: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw members: of all columns only the first three say who leaves."""
    X = rng.normal(size=(n, columns))
    return X, outcomes(rng, -1.2 + X[:, :3] @ [1.0, 0.7, 0.4])


@pytest.mark.parametrize(("n", "draws"), [(150, 5), (250, 1), (1000, 5)])
def test_two_regressions_with_a_useless_column_each_are_equal(n, draws):
    def judged(rng: np.random.Generator) -> Verdict:
        X, y = members(rng, n, 5)
        first, second = (
            trained(logistic([0, 1, 2, useless]), X, y, draws=draws, seed=0) for useless in (3, 4)
        )
        return judge(first, second, metric="log_loss", seed=0)

    of = tables(8, 1000)
    first, second, _ = verdicts(judged, of=of)
    assert_at_most(A_SIDE, first, of=of)
    assert_at_most(A_SIDE, second, of=of)


@pytest.mark.parametrize("metric", ["log_loss", "roc_auc"])
def test_two_forests_that_differ_only_in_their_seed_are_equal(metric):
    def judged(rng: np.random.Generator) -> Verdict:
        X, y = members(rng, 200, 5)

        def forest(seed: int) -> Fit:
            return lambda X, y: (lambda made: lambda new: made.predict_proba(new)[:, 1])(
                RandomForestClassifier(10, min_samples_leaf=3, random_state=seed).fit(X, y)
            )

        first, second = (trained(forest(seed), X, y, draws=1, seed=0) for seed in (0, 1))
        return judge(first, second, metric=metric, seed=0)

    of = tables(5, 400)
    first, second, _ = verdicts(judged, of=of)
    assert_at_most(A_SIDE, first, of=of)
    assert_at_most(A_SIDE, second, of=of)


def test_two_models_with_a_chosen_threshold_are_equal_in_f1():
    def judged(rng: np.random.Generator) -> Verdict:
        X, y = members(rng, 250, 5)
        sides = []
        for useless in (3, 4):
            made = trained(logistic([0, 1, 2, useless]), X, y, draws=3, seed=0)
            chosen = cross_fitted_thresholds(made.out_of_fold, decision.f1)
            sides.append(made._replace(out_of_fold=made.out_of_fold.assign(threshold=chosen)))
        return judge(*sides, metric="f1", seed=0)

    of = tables(6, 1000)
    first, second, _ = verdicts(judged, of=of)
    assert_at_most(A_SIDE, first, of=of)
    assert_at_most(A_SIDE, second, of=of)


# Tuned models


CANDIDATES = 50


def noisy(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return outcomes, probabilities (model, member) of models that are equally good, and folds.

    Each is the truth with noise of its own; the first is the untuned one.
    """
    logit = rng.normal(-1.2, 1.5, n)
    noise = rng.normal(0, 0.5, (CANDIDATES + 1, n))
    return outcomes(rng, logit), sigmoid(logit + noise), np.arange(n) % FOLDS


def evidence_of_noise(rng: np.random.Generator, n: int) -> tuple[Predictions, Predictions]:
    """Return the best of worthless candidates, with nested predictions, and the untuned model."""
    y, p, fold = noisy(rng, n)
    test, train = np.split(np.arange(n), [int(HELD_OUT * n)])
    best = 1 + int(np.argmin(log_loss(y[train], p[1:, train])))
    nested = p[0].copy()
    for number in range(FOLDS):
        inner, outer = train[fold[train] != number], train[fold[train] == number]
        nested[outer] = p[1 + int(np.argmin(log_loss(y[inner], p[1:, inner]))), outer]
    folds = {"fold": fold[train], "repeat": 0}
    tuned, untuned = (
        Predictions(
            name,
            table_of(test, y[test], p[which, test]),
            len(train),
            table_of(train, y[train], p[which, train], **folds),
        )
        for name, which in (("tuned", best), ("untuned", 0))
    )
    inside = table_of(train, y[train], nested[train], **folds)
    return tuned._replace(chosen_among=CANDIDATES, nested=inside), untuned


@pytest.mark.parametrize("outer", [False, True])
def test_the_best_of_fifty_worthless_candidates_is_not_better_than_the_untuned_model(outer):
    def judged(rng: np.random.Generator) -> Verdict:
        tuned, untuned = evidence_of_noise(rng, 1000)
        return judge(
            tuned if outer else tuned._replace(nested=None), untuned, metric="log_loss", seed=0
        )

    of = tables(10, 2000)
    first, second, _ = verdicts(judged, of=of)
    assert_at_most(A_SIDE, first, of=of)
    assert_at_most(A_SIDE, second, of=of)


def loss_of_columns(X: np.ndarray, y: np.ndarray, fold: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Return out-of-fold probabilities (model, member) of a regression on each set of columns."""
    p = np.empty((len(sets), len(y)))
    for number in range(FOLDS):
        inside = fold == number
        weights = newton(X[~inside][:, sets].transpose(1, 0, 2), y[~inside])
        Z = np.concatenate([np.ones((*X[inside][:, sets].shape[:2], 1)), X[inside][:, sets]], 2)
        p[:, inside] = sigmoid(np.einsum("imj,mj->mi", Z, weights))
    return p


@pytest.mark.parametrize("outer", [False, True])
def test_the_best_of_fifty_sets_of_useless_columns_is_not_better_than_one_set(outer):
    """Really fits three columns that matter and three that do not; the study chooses which.

    Columns that fit these members best by chance fit others worse than any, so the untuned model is
    really better, and may be called so.
    """
    sets = np.array([[0, 1, 2, *range(3 + 3 * k, 6 + 3 * k)] for k in range(CANDIDATES + 1)])

    def judged(rng: np.random.Generator) -> Verdict:
        X, y = members(rng, 200, 3 + 3 * len(sets))
        test, train = np.split(np.arange(200), [40])
        fold, Xt, yt = np.arange(160) % FOLDS, X[train], y[train]
        p = loss_of_columns(Xt, yt, fold, sets)
        best, nested = 1 + int(np.argmin(log_loss(yt, p[1:]))), np.empty(160)
        for number in range(FOLDS) if outer else ():
            inside = fold == number
            inner = loss_of_columns(
                Xt[~inside], yt[~inside], np.arange((~inside).sum()) % FOLDS, sets
            )
            chosen = sets[1 + int(np.argmin(log_loss(yt[~inside], inner[1:])))]
            nested[inside] = logistic(list(chosen))(Xt[~inside], yt[~inside])(Xt[inside])
        folds = {"fold": fold, "repeat": 0}
        tuned, untuned = (
            Predictions(
                name,
                table_of(test, y[test], logistic(list(sets[which]))(Xt, yt)(X[test])),
                160,
                table_of(train, yt, p[which], **folds),
            )
            for name, which in (("tuned", best), ("untuned", 0))
        )
        if outer:
            tuned = tuned._replace(nested=table_of(train, yt, nested, **folds))
        return judge(tuned._replace(chosen_among=CANDIDATES), untuned, metric="log_loss", seed=0)

    of = tables(4 if outer else 8, 500)
    first, _, _ = verdicts(judged, of=of)
    assert_at_most(A_SIDE, first, of=of)


# A threshold that the members choose


def f1(y: np.ndarray, marked: np.ndarray) -> float:
    return 2 * (y & marked).sum() / (y.sum() + marked.sum())


def test_the_score_of_a_chosen_threshold_is_that_of_new_outcomes_of_the_same_folds():
    n = 300
    fold, gaps = np.arange(n) % FOLDS, []
    for rng in np.random.default_rng(3).spawn(tables(120, 5000)):
        logit = rng.normal(-1.5, 1, n)
        table = table_of(np.arange(n), outcomes(rng, logit), sigmoid(logit), fold=fold, repeat=0)
        table["threshold"] = cross_fitted_thresholds(table, decision.f1)
        marked = (table["probability"] > table["threshold"]).to_numpy()
        new = outcomes(rng, np.tile(logit, (20, 1)))
        fresh = [f1(y[fold == one], marked[fold == one]) for y in new for one in range(FOLDS)]
        gaps.append(cv_metrics(fold_metrics(table))["cv_f1"] - np.mean(fresh))
    mean, error = np.mean(gaps), np.std(gaps, ddof=1) / np.sqrt(len(gaps))
    print(f"cv_f1 minus F1 on new members: {mean:.4f} ± {error:.4f}")
    assert abs(mean) < 3.3 * error


# Equal for all practical purposes, and power


def noise_that_costs(
    rng: np.random.Generator, n: int, difference: float, *, draws: int
) -> tuple[Difference, FoldTest]:
    """Compare n members' true probabilities with noisy ones, which cost so much log loss.

    Noise e on the logit costs about var(e) E[p (1 - p)] / 2, as does leaving out a column. The
    probabilities are the same in every draw of the folds.
    """
    logit = rng.normal(-1.2, 2, n)
    p = sigmoid(logit)
    noisy = sigmoid(logit + rng.normal(0, 1, n) * np.sqrt(2 * difference / (p * (1 - p)).mean()))
    y = outcomes(rng, logit)
    found = paired_difference(y, p, noisy, metric="log_loss", thresholds=(0.5, 0.5), seed=0)
    scores = np.array(
        [
            [log_loss(y[fold.validation], one[fold.validation]) for one in (p, noisy)]
            for fold in make_folds(y, folds=FOLDS, repeats=draws, seed=0)
        ]
    )
    return found, fold_test(*scores.T, ratio=1 / (FOLDS - 1))


@pytest.mark.parametrize("members", [800, 3200])
def test_models_that_differ_by_the_margin_are_rarely_called_equal(members):
    margin = METRICS["log_loss"].margin

    def equal(rng: np.random.Generator) -> bool:
        found = noise_that_costs(rng, members, margin, draws=1)
        return decide(*found, metric="log_loss")[0] == EQUAL

    of = tables(8, 1000)
    assert_at_most(0.05, count(equal, of=of, seed=1), of=of)


def test_a_margin_is_found_in_most_tables_of_4000_members_with_further_draws():
    """3,200 of them are in the training part."""
    margin = METRICS["log_loss"].margin

    def better(rng: np.random.Generator) -> bool:
        found = noise_that_costs(rng, 3200, margin, draws=5)
        return decide(*found, metric="log_loss") == (BETTER, 0)

    of = tables(8, 400)
    assert_at_least(0.8, count(better, of=of, seed=2), of=of)


@pytest.mark.skipif(not SOAK, reason="part of the long form: make soak")
@pytest.mark.parametrize("draws", [1, 5])
def test_the_power_curve(draws):
    """Prints the table of docs/explanation/comparing.md."""
    of = 200
    for n in (400, 1000, 2000, 4000):
        shares = []
        for difference in (0.003, 0.01, 0.02, 0.03):
            found = [
                decide(
                    *noise_that_costs(rng, int(n * 0.8), difference, draws=draws), metric="log_loss"
                )
                for rng in np.random.default_rng(n).spawn(of)
            ]
            shares.append(sum(one == (BETTER, 0) for one in found) / of)
        print(f"{draws} draws, {n} members: {shares}")
    assert shares[-1] > 0.95
