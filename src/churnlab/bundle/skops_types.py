"""The types that a saved pipeline may hold besides those that skops itself trusts.

The one list, for models that runs keep and for versions: each carries a copy of this file.
"""

TRUSTED = [
    "catboost.core.CatBoostClassifier",
    "churnlab.models.features.Features",
    "collections.OrderedDict",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "scipy._lib.array_api_compat.numpy._aliases.asarray",  # an attribute of BSpline
    "scipy.interpolate._bsplines.BSpline",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.calibration._TemperatureScaling",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.model_selection._split.StratifiedKFold",  # the folds of a TargetEncoder
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
]
"""Reviewed by hand; never read from the saved model itself.

The boosting libraries save and load their trees in forms of their own, LightGBM as text, XGBoost
and CatBoost as bytes, and none of them is pickle.
"""
