"""Build the churn pipeline (features, prepare, estimator) and check an estimator's YAML."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

from churnlab.data.contract import Column
from churnlab.errors import InputError, did_you_mean
from churnlab.models.features import Features
from churnlab.threads import one_thread


def pipeline(
    estimator: Any, *, features: Features, columns: Mapping[str, Column], scale: bool
) -> Pipeline:
    """Chain the unfitted steps features, prepare and estimator; every number stays float64.

    Derived columns are numeric. ``columns`` are the dataset's; ``features`` keeps some of them.
    """
    categories = [name for name in features.keep if columns[name].kind == "category"]
    numbers = [name for name in features.get_feature_names_out() if name not in categories]
    prepare: Any = StandardScaler() if scale else "passthrough"
    if categories:
        encoders = [(name, _encoder(columns[name], scale=scale), [name]) for name in categories]
        prepare = ColumnTransformer(
            [("numbers", prepare, numbers), *encoders],
            sparse_threshold=0,
            verbose_feature_names_out=False,
        )
    return Pipeline([("features", features), ("prepare", prepare), ("estimator", estimator)])


def fit(model: Pipeline, X: pd.DataFrame, y: np.ndarray) -> Pipeline:
    """Fit in place with one thread: faster for small tables, and the same bits on every machine."""
    with one_thread():
        return model.fit(X, y)


def churn_probability(model: Pipeline, X: pd.DataFrame) -> np.ndarray:
    """Predict churn probabilities, float64 (members,), with one thread as in ``fit``."""
    with one_thread():
        return np.asarray(model.predict_proba(X)[:, 1], dtype=np.float64)


def n_columns(model: Pipeline) -> int:
    """Count the columns that the fitted estimator sees, with derived ones and category levels."""
    return len(model[:-1].get_feature_names_out())


def per_column(model: Pipeline, attribute: str) -> np.ndarray | None:
    """Return a fitted estimator's attribute (coef_, ...) as one number per column, None if it has
    none.

    For a calibrated model it is the mean over its estimators, before their calibration.
    """
    pairs = getattr(model[-1], "calibrated_classifiers_", None)
    estimators = [model[-1]] if pairs is None else [pair.estimator for pair in pairs]
    values = [np.ravel(getattr(estimator, attribute, np.array([]))) for estimator in estimators]
    known = all(len(value) == n_columns(model) for value in values)
    return np.asarray(np.mean(values, axis=0), dtype=np.float64) if known else None


def estimator_weights(model: Pipeline) -> pd.DataFrame:
    """Return the estimator's own weight of each column: feature, value, kind; the largest absolute
    value first.

    ``kind`` is "coefficient" (per standard deviation where the pipeline scales) or "importance"
    (share of the impurity removed); for an estimator that has neither, the frame is empty.
    """
    for kind, attribute in {"coefficient": "coef_", "importance": "feature_importances_"}.items():
        value = per_column(model, attribute)
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
    """Refuse an unknown class, one without predict_proba, and unknown parameters.

    ``target`` is a class's dotted name; ``given`` maps parameters to values (keys such as
    ``_target_`` are Hydra's); values with a ``_target_`` are checked in turn. ``where`` is the key
    that the InputError names.
    """
    made = locate(target, where)
    if inspect.isclass(made) and not hasattr(made, "predict_proba"):
        raise InputError(
            f"{where}: {target} has no predict_proba, but a churn model needs probabilities. "
            "Choose a classifier that has it, or wrap this one in "
            "sklearn.calibration.CalibratedClassifierCV."
        )
    _check_keys(made, target, given, where)


def locate(target: str, where: str) -> Any:
    """Import the class or function of a dotted name; InputError, naming the key ``where``, if it
    does not exist."""
    module, _, name = str(target).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{where}._target_: {target} cannot be imported ({error}). Give the full dotted name, "
            "such as sklearn.linear_model.LogisticRegression, and install its package (pip install "
            "'churnlab[boosting]' has LightGBM, XGBoost and CatBoost) or put its module into the "
            "folder of --config-dir."
        ) from None
    if not callable(found):
        raise InputError(f"{where}._target_: {target} is not a class.")
    return found


def check_settable(estimator: Any, target: str, given: Iterable[str], *, where: str) -> None:
    """Refuse parameters that the estimator does not have; ``step__name`` is that of a part of it.

    ``target`` is the name of its class or of the function that makes it.
    """
    known = list(estimator.get_params(deep=True))
    for key in given:
        if "__" in key and key not in known:
            raise InputError(_no_parameter(target, key, known, where))
    plain = dict.fromkeys(key for key in given if "__" not in key and key not in known)
    _check_keys(type(estimator), target, plain, where)


def type_name(estimator: Any) -> str:
    """Return the dotted name of an object's class."""
    return f"{type(estimator).__module__}.{type(estimator).__qualname__}"


def check_values(estimator: Any, where: str = "model.estimator") -> None:
    """Refuse parameter values that scikit-learn would refuse at fit, and an estimator without
    probabilities."""
    name = type(estimator).__name__
    if not hasattr(estimator, "predict_proba"):
        raise InputError(
            f"{where}: {name} with these parameters has no predict_proba, but a churn "
            "model needs probabilities. Change the parameters, or wrap it in "
            "sklearn.calibration.CalibratedClassifierCV."
        )
    if not hasattr(estimator, "get_params"):
        raise InputError(
            f"{where}: {name} has no get_params; derive it from sklearn.base.BaseEstimator, so "
            "that every fold gets a copy of its own."
        )
    for part in [estimator, *estimator.get_params(deep=True).values()]:
        # Only scikit-learn's own estimators declare constraints.
        if hasattr(part, "_parameter_constraints") and not inspect.isclass(part):
            try:
                part._validate_params()
            except ValueError as error:  # scikit-learn's InvalidParameterError is private
                raise InputError(f"{where}: {error}") from None


def _encoder(column: Column, *, scale: bool) -> Any:
    """Return the encoder of a category column: one 0/1 column per declared value, the place of an
    ordered one among its values, or the churn rate of its members, cross-fitted while training."""
    values: Any = "auto" if column.values is None else [[str(value) for value in column.values]]
    if column.encoding == "target":
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        encoder: Any = TargetEncoder(target_type="binary", cv=folds)
    elif column.ordered:  # an accepted value that is not listed is before the first
        unknown = {"handle_unknown": "use_encoded_value", "unknown_value": -1}
        encoder = OrdinalEncoder(categories=values, dtype=np.float64, **unknown)
    else:
        return OneHotEncoder(categories=values, handle_unknown="ignore", sparse_output=False)
    return make_pipeline(encoder, StandardScaler()) if scale else encoder


def _check_keys(made: Any, target: str, given: Mapping[str, Any], where: str) -> None:
    """Refuse keys that are no parameters of ``made``, here and inside nested ``_target_``s.

    Of a class that passes any keyword on, only what looks like a slip of the pen is refused.
    """
    known, anything = _parameters(made)
    for key, value in given.items():
        if key.startswith("_"):
            continue
        if key not in known and (not anything or get_close_matches(key, known, cutoff=0.83)):
            raise InputError(_no_parameter(target, key, known, where))
        for block in _blocks(value):
            inner = f"{where}.{key}"
            _check_keys(locate(block["_target_"], inner), block["_target_"], block, inner)


def without_effect(
    target: str,
    given: Mapping[str, Any],
    kept: Collection[str],
    *,
    where: str = "model.estimator",
) -> dict[str, list[str]]:
    """Return, by class, the keys that it takes because it takes any keyword, and then drops.

    ``kept`` are the parameters of the estimator and its parts (get_params), among which LightGBM
    and XGBoost have any keyword that they pass on. Keys of nested ``_target_``s are among the
    result; ``step__name`` is left out.
    """
    known = {*_parameters(locate(target, where))[0], *(key.rpartition("__")[2] for key in kept)}
    keys = [
        key for key in given if key not in known and not key.startswith("_") and "__" not in key
    ]
    found = {target: keys} if keys else {}
    for key, value in given.items():
        for block in _blocks(value):
            found |= without_effect(block["_target_"], block, kept, where=f"{where}.{key}")
    return found


def _parameters(made: Any) -> tuple[list[str], bool]:
    """Return the parameters of a class or function, and whether it takes other keywords, too.

    A class that does passes them on to its base classes, whose parameters are then its own.
    """
    found: dict[str, None] = {}
    anything = True
    for callee in made.__mro__[:-1] if inspect.isclass(made) else [made]:
        if not anything or (inspect.isclass(callee) and "__init__" not in vars(callee)):
            continue
        parameters = list(inspect.signature(callee).parameters.values())
        anything = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)
        # A function's positional parameters without a default are its data, not its settings.
        found |= dict.fromkeys(
            parameter.name
            for parameter in parameters
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
            and (
                inspect.isclass(made)
                or parameter.kind == parameter.KEYWORD_ONLY
                or parameter.default != parameter.empty
            )
        )
    takes = inspect.signature(made).parameters.values()
    return [*found], any(parameter.kind == parameter.VAR_KEYWORD for parameter in takes)


def _no_parameter(target: str, key: str, known: Sequence[str], where: str) -> str:
    return (
        f"{where}.{key}: {target} has no parameter {key}.{did_you_mean(key, known)} It has "
        f"{', '.join(known) or 'none'}."
    )


def _blocks(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the blocks with a ``_target_`` that a value is, or that stand in its lists."""
    if isinstance(value, Mapping) and isinstance(value.get("_target_"), str):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _blocks(part)
