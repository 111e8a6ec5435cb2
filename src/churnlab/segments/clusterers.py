"""Divide members into segments in one of several ways: conf/clusterer names the class of each.

A new way is one YAML with the ``_target_`` of a class that does what Clusterer says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from churnlab.errors import InputError
from churnlab.segments.kmeans import fit_each, fit_kmeans, sample_rows, segmentation
from churnlab.segments.latent_classes import Classes, class_shares, features, fit_classes
from churnlab.segments.null_model import Structure
from churnlab.segments.refits import Assign, Refit, refit, refit_nearest
from churnlab.segments.space import Layout, Space, feature_columns, space_of
from churnlab.threads import one_thread

OF_EACH = ("covariances_", "precisions_", "precisions_cholesky_")
"""What scikit-learn's mixture has for each Gaussian, unless all share one covariance."""

Covariance = Literal["full", "tied", "diag", "spherical"]

UNSURE = 0.8
"""A member whose segment is less probable than this lies between two segments."""


class Fit(Protocol):
    """A fit into ``n_clusters`` segments; ``labels_`` are the rows' numbers, the largest segment 0,
    ``inertia_`` the sum of squared distances to the segments' means. KMeans is one."""

    labels_: np.ndarray
    n_clusters: int
    inertia_: float


@dataclass
class MixtureFit:
    """A fitted mixture: a Fit with ``bic``, the lower the better, and the fitted ``model``."""

    labels_: np.ndarray
    n_clusters: int
    inertia_: float
    bic: float
    model: Any


@runtime_checkable
class Clusterer(Protocol):
    """A way to divide members: its coordinates, its fits, quick refits and the pipeline it serves.

    ``called``: its name in sentences. ``takes_words``: columns of words take part.
    """

    called: ClassVar[str]
    takes_words: ClassVar[bool]

    def space(self, frame: pd.DataFrame) -> Space:
        """Return the coordinates of the frame's rows."""

    def fit(
        self, space: Space, ks: Iterable[int], *, n_init: int, random_state: int, max_rows: int
    ) -> Mapping[int, Fit]:
        """Fit each k on all rows, the best of ``n_init`` starts."""

    def quick(self, layout: Layout) -> Refit:
        """Return what fits quickly on some rows of these coordinates."""

    def structure(self, layout: Layout) -> Callable[..., Structure] | None:
        """Return what null_model.groups_p_value measures; None: null_model.structure."""

    def pipeline(self, frame: pd.DataFrame, fit: Any) -> Pipeline:
        """Return what predicts the segment of a frame's rows, made of scikit-learn's parts."""


class NearestCenter:
    """k-means on standardized numbers."""

    called: ClassVar[str] = "k-means"
    takes_words: ClassVar[bool] = False

    def space(self, frame: pd.DataFrame) -> Space:
        return space_of(frame)

    def fit(
        self, space: Space, ks: Iterable[int], *, n_init: int, random_state: int, max_rows: int
    ) -> Mapping[int, Fit]:
        return fit_kmeans(space.Z, ks, n_init=n_init, random_state=random_state, max_rows=max_rows)

    def quick(self, layout: Layout) -> Refit:
        return refit_nearest

    def structure(self, layout: Layout) -> Callable[..., Structure] | None:
        return None

    def pipeline(self, frame: pd.DataFrame, fit: Any) -> Pipeline:
        return segmentation(frame, fit)


class Gaussians:
    """A mixture of Gaussians on standardized numbers: segments of different size and shape.

    It starts from the centers of k-means. ``covariance_type`` and ``reg_covar`` are scikit-learn's.
    """

    called: ClassVar[str] = "a mixture of Gaussians"
    takes_words: ClassVar[bool] = False

    def __init__(self, covariance_type: Covariance = "full", reg_covar: float = 1e-3) -> None:
        if covariance_type not in get_args(Covariance) or not reg_covar > 0:
            raise InputError(
                f"clusterer: covariance_type is one of {', '.join(get_args(Covariance))}, and "
                f"reg_covar is above 0; they are {covariance_type} and {reg_covar}."
            )
        self.parameters: dict[str, Any] = {
            "covariance_type": covariance_type,
            "reg_covar": reg_covar,
        }

    def space(self, frame: pd.DataFrame) -> Space:
        return space_of(frame)

    def fit(
        self, space: Space, ks: Iterable[int], *, n_init: int, random_state: int, max_rows: int
    ) -> Mapping[int, Fit]:
        Z = space.Z
        part = Z[sample_rows(len(Z), max_rows, random_state=random_state)]

        def fit(k: int) -> MixtureFit:
            rng = np.random.default_rng([random_state, k])
            mixture = self._mixture(Z, refit(part, [k], n_init, rng)[k])
            labels, order = _by_size(mixture.predict(Z), k)
            shared = () if self.parameters["covariance_type"] == "tied" else OF_EACH
            for name in ("weights_", "means_", *shared):
                setattr(mixture, name, getattr(mixture, name)[order])
            return MixtureFit(labels, k, _inertia(Z, labels, k), float(mixture.bic(Z)), mixture)

        return fit_each(fit, ks)

    def quick(self, layout: Layout) -> Refit:
        def refits(
            Z: np.ndarray,
            ks: Iterable[int],
            n_init: int,
            rng: np.random.Generator,
            *,
            weights: np.ndarray | None = None,
        ) -> dict[int, Assign]:
            centers = refit(Z, ks, n_init, rng, weights=weights)
            rows = Z if weights is None else np.repeat(Z, weights.astype(int), axis=0)
            return {k: self._mixture(rows, of_k).predict for k, of_k in centers.items()}

        return refits

    def structure(self, layout: Layout) -> Callable[..., Structure] | None:
        def measure(Z: np.ndarray, k: int, *, n_init: int, rng: np.random.Generator) -> Structure:
            mixture = self._mixture(Z, refit(Z, [k], n_init, rng)[k])
            return Structure(float(mixture.score(Z)), _sure(mixture.predict_proba(Z)))

        return measure

    def pipeline(self, frame: pd.DataFrame, fit: Any) -> Pipeline:
        return Pipeline([("scale", StandardScaler().fit(frame)), ("mixture", fit.model)])

    def _mixture(self, Z: np.ndarray, centers: np.ndarray) -> GaussianMixture:
        mixture = GaussianMixture(
            len(centers), means_init=centers, random_state=0, max_iter=200, **self.parameters
        )
        with one_thread():
            return mixture.fit(Z)


class MixedClasses:
    """Latent classes: numbers and words take part, each weighed by what it tells (latent_classes).

    Numbers of two values count as words, so that 1 and 0 are what Yes and No are.
    """

    called: ClassVar[str] = "a mixture of latent classes"
    takes_words: ClassVar[bool] = True

    def space(self, frame: pd.DataFrame) -> Space:
        return space_of(frame, levels_of(frame))

    def fit(
        self, space: Space, ks: Iterable[int], *, n_init: int, random_state: int, max_rows: int
    ) -> Mapping[int, Fit]:
        Z, layout = space
        part = Z[sample_rows(len(Z), max_rows, random_state=random_state)]
        whole = features(Z, layout)

        def fit(k: int) -> MixtureFit:
            rng = np.random.default_rng([random_state, k])
            classes = fit_classes(part, layout, [k], n_init=n_init, rng=rng)[k]
            labels, order = _by_size(class_shares(whole, classes).argmax(axis=1), k)
            classes = classes._replace(coef=classes.coef[order], intercept=classes.intercept[order])
            return MixtureFit(labels, k, _inertia(Z, labels, k), classes.bic, classes)

        return fit_each(fit, ks)

    def quick(self, layout: Layout) -> Refit:
        def refits(
            Z: np.ndarray,
            ks: Iterable[int],
            n_init: int,
            rng: np.random.Generator,
            *,
            weights: np.ndarray | None = None,
        ) -> dict[int, Assign]:
            fits = fit_classes(Z, layout, ks, n_init=n_init, rng=rng, weights=weights, quick=True)
            return {k: partial(assign, classes=classes) for k, classes in fits.items()}

        def assign(rows: np.ndarray, classes: Classes) -> np.ndarray:
            return class_shares(features(rows, layout), classes).argmax(axis=1)

        return refits

    def structure(self, layout: Layout) -> Callable[..., Structure] | None:
        def measure(Z: np.ndarray, k: int, *, n_init: int, rng: np.random.Generator) -> Structure:
            fits = fit_classes(Z, layout, [1, k], n_init=n_init, rng=rng, quick=True)
            gain = fits[k].log_likelihood - fits[1].log_likelihood
            return Structure(gain / len(Z), _sure(class_shares(features(Z, layout), fits[k])))

        return measure

    def pipeline(self, frame: pd.DataFrame, fit: Any) -> Pipeline:
        """The probability of a class is a multinomial logistic function of the features, so that
        scikit-learn serves it without churnlab."""
        last = LogisticRegression()
        last.classes_ = np.arange(fit.n_clusters, dtype=np.int32)
        last.coef_, last.intercept_ = fit.model.coef, fit.model.intercept
        last.n_features_in_ = fit.model.coef.shape[1]
        last.n_iter_ = np.zeros(1, np.int32)
        return Pipeline([("columns", feature_columns(frame, levels_of(frame))), ("classes", last)])


KMEANS: Clusterer = NearestCenter()
"""What divides the members unless a config says otherwise."""


def as_clusterer(made: object, *, where: str) -> Clusterer:
    """Return an object that a config's key ``where`` names. InputError: it is no Clusterer."""
    if isinstance(made, Clusterer):
        return made
    raise InputError(
        f"{where}._target_ is {type(made).__name__}, which cannot divide members: it needs what "
        "Clusterer in churnlab/segments/clusterers.py lists. Choose clusterer=kmeans, "
        "gaussian_mixture or mixed, or add it."
    )


def levels_of(frame: pd.DataFrame) -> list[str]:
    """Return the columns of words, and those of two numbers."""
    numbers = frame.select_dtypes("number").columns
    return [str(name) for name in frame if name not in numbers or frame[name].nunique() == 2]


def _sure(shares: np.ndarray) -> float:
    """Return minus the share of rows that lie between two segments."""
    return -float((shares.max(axis=1) < UNSURE).mean())


def _by_size(labels: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels numbered by size, the largest 0, and the order of the old numbers."""
    order = np.argsort(-np.bincount(labels, minlength=k), kind="stable")
    return np.argsort(order)[labels], order


def _inertia(Z: np.ndarray, labels: np.ndarray, k: int) -> float:
    means = [Z[labels == i].mean(axis=0) if (labels == i).any() else 0 * Z[0] for i in range(k)]
    return float(((Z - np.array(means)[labels]) ** 2).sum())
