"""Check that a model can be kept and served before it is trained, and say what its code needs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from churnlab.bundle.skops_types import TRUSTED
from churnlab.errors import InputError
from churnlab.models import pipelines
from churnlab.models.own_code import OwnCode, own_code
from churnlab.tracking.processes import interruption

OF_EACH = 20
"""Members of each outcome on whom a model is fitted to see what its saved form holds."""


def check_saved_form(
    pipeline: Pipeline, X: pd.DataFrame, y: np.ndarray, *, trusted: Sequence[str]
) -> None:
    """Refuse a model that cannot be fitted, or that cannot be saved and served without pickle.

    Types appear in an estimator only when it is fitted; so a copy is fitted on a few of the
    members, on all of them if it cannot be fitted on so few. ``trusted`` are the types that the
    user trusts besides TRUSTED. InputError: it names the types that are missing in that list.
    """
    fitted = _fitted(pipeline, X, y)
    name = type(pipeline[-1]).__name__
    try:
        saved = skops.io.dumps(fitted)
        unknown = sorted(set(skops.io.get_untrusted_types(data=saved)) - {*TRUSTED, *trusted})
    except Exception as error:  # what an object's own way to be saved raises
        raise InputError(
            f"model.estimator: {name} cannot be saved without pickle ({error}), so it could not be "
            "served. Choose another estimator."
        ) from error
    if unknown:
        raise InputError(untrusted(name, unknown, trusted=trusted))
    if not trusted:
        return  # tests hold that types of the list survive saving
    try:
        loaded = skops.io.loads(saved, trusted=[*TRUSTED, *trusted])
        same = np.array_equal(_probability(loaded, X), _probability(fitted, X))
    except Exception as error:
        raise InputError(
            f"model.estimator: {name} cannot be used after it was saved and loaded ({error}). What "
            "its __setstate__ or its attributes need must survive that."
        ) from error
    if not same:
        raise InputError(
            f"model.estimator: {name} predicts other probabilities after it was saved and loaded. "
            "All that predict_proba uses must be attributes that numpy, scikit-learn or skops save."
        )


def untrusted(name: str, unknown: Sequence[str], *, trusted: Sequence[str]) -> str:
    """Say which types a user must review and add before a model can be kept."""
    types = [*trusted, *unknown]
    return (
        f"model.estimator: {name} could not be kept and served: its saved form would hold types "
        f"that nobody has reviewed, {', '.join(unknown)}. Loading a model runs the code of its "
        "types; if you trust it, add them on the command line, "
        f"'model.trusted=[{','.join(types)}]', or to the model's YAML, trusted: "
        f"[{', '.join(types)}]."
    )


def code_of(pipeline: Pipeline, trusted: Sequence[str]) -> OwnCode:
    """Find the code that a pipeline needs besides scikit-learn and what comes with it."""
    return own_code([*map(pipelines.type_name, _parts(pipeline)), *trusted])


def _parts(pipeline: Pipeline) -> Iterator[Any]:
    yield from (step for _, step in pipeline.steps)
    yield from pipeline.get_params(deep=True).values()


def _fitted(pipeline: Pipeline, X: pd.DataFrame, y: np.ndarray) -> Pipeline:
    """Return a copy fitted on a few members of each outcome, or on all if it needs more."""
    few = np.sort(np.concatenate([np.flatnonzero(y == outcome)[:OF_EACH] for outcome in (0, 1)]))
    failure: Exception | None = None
    for rows in (few, np.arange(len(y))):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the real fit repeats what is worth a warning
                return pipelines.fit(clone(pipeline), X.iloc[rows], y[rows])
        except Exception as error:
            if stopped := interruption(error):
                raise stopped from None
            failure = error
    raise InputError(
        f"model.estimator: {type(pipeline[-1]).__name__} cannot be fitted to these members: "
        f"{' '.join(str(failure).split())}"
    ) from failure


def _probability(model: Pipeline, X: pd.DataFrame) -> np.ndarray:
    return pipelines.churn_probability(model, X.iloc[: 2 * OF_EACH])
