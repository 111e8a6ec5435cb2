"""What cannot be kept and served is refused before it is trained."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from churnlab.data.contract import Column
from churnlab.errors import InputError
from churnlab.models.features import Features
from churnlab.models.pipelines import pipeline
from churnlab.registry.saved_form import OF_EACH, check_saved_form


class Rate(ClassifierMixin, BaseEstimator):
    """Predict the share of churn, times what ``distort`` says after loading."""

    def __init__(self, needs=0, distort=1.0):
        self.needs = needs
        self.distort = distort

    def fit(self, X, y):
        if len(X) < self.needs:
            raise ValueError(f"needs {self.needs} members")
        self.classes_, self.rate_, self.members_ = np.unique(y), float(np.mean(y)), len(X)
        return self

    def predict_proba(self, X):
        return np.tile([1 - self.rate_, self.rate_], (len(X), 1))

    def __setstate__(self, state):
        self.__dict__.update(state)
        if "rate_" in state:
            self.rate_ = self.rate_ * self.distort


class Unsavable(Rate):
    """Hold what can only be pickled."""

    def fit(self, X, y):
        self.score_ = (x for x in [1])
        return super().fit(X, y)


@pytest.fixture(scope="module")
def members() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"age": rng.normal(30, 5, 150), "visits": rng.normal(2, 1, 150)})
    return X, (X["visits"] < 1.2).astype(int).to_numpy()


def made(estimator):
    columns = {name: Column(kind="numeric") for name in ("age", "visits")}
    return pipeline(estimator, features=Features([*columns], {}), columns=columns, scale=True)


RATE = f"{Rate.__module__}.Rate"


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        RandomForestClassifier(3),
        HistGradientBoostingClassifier(max_iter=3),
        CalibratedClassifierCV(LogisticRegression(), cv=5),
        KNeighborsClassifier(n_neighbors=3 * OF_EACH),
    ],
)
def test_what_can_be_kept_is_accepted_and_stays_unfitted(members, estimator):
    model = made(estimator)
    check_saved_form(model, *members, trusted=[])
    assert not hasattr(model[-1], "classes_")


def test_types_that_nobody_reviewed_are_refused_with_the_exact_list_to_add(members):
    with pytest.raises(InputError) as error:
        check_saved_form(made(CalibratedClassifierCV(Rate(), cv=3)), *members, trusted=["a.B"])
    assert f"'model.trusted=[a.B,{RATE}]'" in str(error.value)
    assert f"trusted: [a.B, {RATE}]" in str(error.value)
    check_saved_form(made(CalibratedClassifierCV(Rate(), cv=3)), *members, trusted=["a.B", RATE])


def test_types_that_appear_only_in_a_fitted_model_are_found_before_training(members):
    with pytest.raises(InputError, match=r"sklearn\.gaussian_process\.kernels"):
        check_saved_form(made(GaussianProcessClassifier()), *members, trusted=[])


def test_a_model_that_needs_more_members_is_checked_with_all(members):
    check_saved_form(made(Rate(needs=len(members[1]))), *members, trusted=[RATE])
    with pytest.raises(InputError, match="cannot be fitted to these members: needs 151 members"):
        check_saved_form(made(Rate(needs=151)), *members, trusted=[RATE])


def test_a_model_that_answers_differently_after_loading_is_refused(members):
    with pytest.raises(InputError, match="predicts other probabilities after it was saved"):
        check_saved_form(made(Rate(distort=0.5)), *members, trusted=[RATE])


def test_a_model_that_only_pickle_could_save_is_refused(members):
    name = f"{Unsavable.__module__}.Unsavable"
    with pytest.raises(InputError, match="Unsavable") as error:
        check_saved_form(made(Unsavable()), *members, trusted=[name])
    assert "cannot be saved without pickle" in str(error.value)
