"""The churn pipeline: features, preparation, estimator; and what may be said about an estimator in
YAML."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from churnlab.data.contract import Column
from churnlab.errors import InputError
from churnlab.models.features import Features


def pipeline(
    estimator: Any, *, features: Features, columns: Mapping[str, Column], scale: bool
) -> Pipeline:
    """The unfitted steps features, prepare and estimator; every number stays float64.

    Derived columns are numeric. ``columns`` are the dataset's, of which ``features`` keeps some.
    """
    categories = [name for name in features.keep if columns[name].kind == "category"]
    numbers = [name for name in features.get_feature_names_out() if name not in categories]
    prepare: Any = StandardScaler() if scale else "passthrough"
    if categories:
        encoders = [(name, _one_hot(columns[name]), [name]) for name in categories]
        prepare = ColumnTransformer(
            [("numbers", prepare, numbers), *encoders],
            sparse_threshold=0,
            verbose_feature_names_out=False,
        )
    return Pipeline([("features", features), ("prepare", prepare), ("estimator", estimator)])


def fit(model: Pipeline, X: pd.DataFrame, y: np.ndarray) -> Pipeline:
    """Fit in place with one thread: small fits are faster, and the sums have the same bits on every
    machine."""
    with threadpool_limits(limits=1):
        return model.fit(X, y)


def churn_probability(model: Pipeline, X: pd.DataFrame) -> np.ndarray:
    """The fitted pipeline's probability of leaving for each member, computed with one thread as in
    ``fit``."""
    with threadpool_limits(limits=1):
        return np.asarray(model.predict_proba(X)[:, 1], dtype=np.float64)


def n_columns(model: Pipeline) -> int:
    """How many columns the fitted pipeline's estimator sees, derived ones and levels of categories
    included."""
    return len(model[:-1].get_feature_names_out())


def of_columns(model: Pipeline, attribute: str) -> np.ndarray | None:
    """What the fitted estimator says of its columns under this name (coef_, ...), one number each;
    None if nothing.

    Of a calibrated model it is the mean over its estimators, before their calibration.
    """
    pairs = getattr(model[-1], "calibrated_classifiers_", None)
    estimators = [model[-1]] if pairs is None else [pair.estimator for pair in pairs]
    values = [np.ravel(getattr(estimator, attribute, np.array([]))) for estimator in estimators]
    told = all(len(value) == n_columns(model) for value in values)
    return np.asarray(np.mean(values, axis=0), dtype=np.float64) if told else None


def coefficients(model: Pipeline) -> pd.DataFrame:
    """What the fitted estimator says of its columns: (feature, value, kind), the largest absolute
    value first.

    ``kind`` is "coefficient" (per standard deviation where the pipeline scales) or "importance"
    (share of the impurity removed); estimators that say nothing of their columns give an empty
    frame.
    """
    for kind, attribute in {"coefficient": "coef_", "importance": "feature_importances_"}.items():
        value = of_columns(model, attribute)
        if value is not None:
            table = pd.DataFrame(
                {"feature": model[:-1].get_feature_names_out(), "value": value, "kind": kind}
            )
            return table.sort_values(
                "value", key=np.abs, ascending=False, kind="stable", ignore_index=True
            )
    return pd.DataFrame({"feature": [], "value": [], "kind": []}).astype({"value": np.float64})


def check_parameters(
    target: str, given: Mapping[str, Any], *, where: str = "model.estimator"
) -> None:
    """Refuse a class that is not there or gives no probabilities, and parameters that it does not
    have.

    ``target`` is a class's dotted name; ``given`` maps parameters to values (keys such as
    ``_target_`` are Hydra's); values that name a class themselves are checked in turn. ``where`` is
    the key to name in the error.
    """
    made = locate(target, where)
    if inspect.isclass(made) and not hasattr(made, "predict_proba"):
        raise InputError(
            f"{where}: {target} has no predict_proba, and a churn model must give probabilities. "
            "Choose a classifier that has it, or put this one into "
            "sklearn.calibration.CalibratedClassifierCV."
        )
    _check_keys(made, target, given, where)


def locate(target: str, where: str) -> Any:
    """The class or function of a dotted name; InputError, naming the key ``where``, when there is
    none."""
    module, _, name = str(target).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{where}._target_: {target} cannot be imported ({error}). Name a class by its full "
            "dotted name, as sklearn.linear_model.LogisticRegression, and install the package that "
            "it is in."
        ) from None
    if not callable(found):
        raise InputError(f"{where}._target_: {target} is not a class.")
    return found


def check_values(estimator: Any) -> None:
    """Refuse parameter values that scikit-learn refuses, before any work, and an estimator without
    probabilities."""
    name = type(estimator).__name__
    if not hasattr(estimator, "predict_proba"):
        raise InputError(
            f"model.estimator: {name} with these parameters has no predict_proba, and a churn "
            "model must give probabilities. Change the parameters, or put it into "
            "sklearn.calibration.CalibratedClassifierCV."
        )
    inner = estimator.get_params(deep=True).values() if hasattr(estimator, "get_params") else []
    for part in [estimator, *inner]:
        if hasattr(part, "_parameter_constraints") and not inspect.isclass(
            part
        ):  # scikit-learn's own
            try:
                part._validate_params()
            except ValueError as error:  # scikit-learn's InvalidParameterError is private
                raise InputError(f"model.estimator: {error}") from None


def _one_hot(column: Column) -> OneHotEncoder:
    values: Any = "auto" if column.values is None else [[str(value) for value in column.values]]
    return OneHotEncoder(categories=values, handle_unknown="ignore", sparse_output=False)


def _check_keys(made: Any, target: str, given: Mapping[str, Any], where: str) -> None:
    parameters = inspect.signature(made).parameters.values()
    anything = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)
    known = [
        parameter.name
        for parameter in parameters  # of a function only what has a default or a keyword: the rest is its subject
        if inspect.isclass(made)
        or parameter.kind == parameter.KEYWORD_ONLY
        or parameter.default != parameter.empty
    ]
    for key, value in given.items():
        if key.startswith("_"):
            continue
        if key not in known and not anything:
            near = difflib.get_close_matches(key, known, n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise InputError(
                f"{where}.{key}: {target} has no parameter {key}.{meant} It has "
                f"{', '.join(known) or 'none'}."
            )
        if isinstance(value, Mapping) and isinstance(value.get("_target_"), str):
            inner = f"{where}.{key}"
            _check_keys(locate(value["_target_"], inner), value["_target_"], value, inner)
