"""The names under which runs are found and read: experiments, tags and artifacts."""

from __future__ import annotations

EXPERIMENTS = {
    "explore": "explore",
    "train": "churn",
    "tune": "churn",
    "trial": "churn",
    "claims": "explore",
    "compare": "churn",
    "segment": "segments",
    "promote": "promotions",
    "rollback": "promotions",
    "score": "promotions",
    "report": "promotions",
    "pipeline": "churn",
}
"""The experiment of a command's runs is <dataset.name>-<this>, and so is that of its sweeps."""


class Tag:
    """Tags of runs, registered models and their versions."""

    COMMAND = "churnlab.command"
    """The command that made the run: train, tune, trial, segment, promote, sweep ..."""

    DATA = "churnlab.data_sha256"
    """SHA-256 of all rows as the contract reads them: id, features in the YAML's order, target."""

    SPLIT = "churnlab.split_sha256"
    """SHA-256 of the data and the row positions of the hold-out."""

    FOLDS = "churnlab.folds_sha256"
    """SHA-256 of the data and the row positions of every fold."""

    CODE = "churnlab.code_sha256"
    """SHA-256 of all files of the installed package."""

    CONFIG = "churnlab.config_sha256"
    """SHA-256 of the keys that decide the result: no paths, engine, storage or run names."""

    GIT_COMMIT = "churnlab.git_commit"
    """The commit that is checked out."""

    GIT_DIRTY = "churnlab.git_dirty"
    """Whether the checkout has changes that are not committed: true or false."""

    PACKAGES = "churnlab.packages"
    """Versions of Python and of the packages that decide the bits of a result, as JSON."""

    PROCESS = "churnlab.process"
    """The process that writes the run: its machine, its number, and when it started."""

    STUDY = "churnlab.study"
    """The name of the study, on a tune run and its trials."""

    STUDY_ID = "churnlab.study_id"
    """The id of the study: two studies of one name are two studies."""

    TRIAL = "churnlab.trial"
    """The number of the trial in its study."""

    REUSED_FROM = "churnlab.reused_from"
    """The run whose scores this trial reused, because its parameters were the same."""

    N_COMPLETE = "churnlab.n_complete"
    """How many trials of the study are complete."""

    BEST_TRIAL = "churnlab.best_trial"
    """The number of the study's best trial."""

    BEST_PARAMS = "churnlab.best_params"
    """The parameters of the study's best trial, as JSON."""

    BEST_RUN_ID = "churnlab.best_run_id"
    """The train run that fits the study's best parameters."""

    CALIBRATION = "churnlab.calibration"
    """Whether the probabilities call for calibration, and what was done about it, in words."""

    MODEL = "churnlab.model"
    """Why the run kept no model; absent when it kept one."""

    K_REASON = "churnlab.k_reason"
    """Why the segmentation has this number of segments, in one sentence."""

    K_ALONE = "churnlab.k_alone"
    """The number of segments that each criterion alone would have chosen, as JSON."""

    STABLE = "churnlab.stable"
    """Whether the segmentation comes back on other members: true or false."""

    UNSTABLE = "churnlab.unstable"
    """Why the segmentation is marked as unstable; absent when it is stable."""

    COLLINEAR = "churnlab.collinear"
    """Columns of the segmentation that say the same; absent when there are none."""

    LATE = "churnlab.late"
    """Columns of the segmentation that are known only close to the event, and the result without."""

    SAMPLED = "churnlab.sampled"
    """On how many members a large table was examined; absent when all were."""

    CHURN_RUN_ID = "churnlab.churn_run_id"
    """The train run whose model a version serves."""

    SEGMENT_RUN_ID = "churnlab.segment_run_id"
    """The segment run whose segmentation a version serves."""

    SEGMENTS = "churnlab.segments"
    """How the segments of a version relate to those of the champion it was compared with."""

    GATE = "churnlab.gate"
    """The verdict of the gate: promoted, forced or refused; ``churnlab.gate.<check>`` has its value."""

    REPLACED = "churnlab.replaced"
    """The version that a version replaced as champion."""

    REASON = "churnlab.reason"
    """Why a version was promoted, as the user gave it."""

    WHO = "churnlab.who"
    """The user who registered the version."""

    WHEN = "churnlab.when"
    """When the version was registered (UTC)."""

    MOVE = "churnlab.move"
    """``churnlab.move.NNNNNN`` on a registered model: one move of the champion, as JSON."""

    VERSION = "churnlab.version"
    """The version that the run registered, put back, reported on or scored with."""

    MODEL_URI = "churnlab.model_uri"
    """The model that scored the members."""

    REPRODUCES = "churnlab.reproduces"
    """The run that this run repeats."""

    IDENTICAL = "churnlab.identical"
    """Whether a repeated run gave the same bits: true or false."""


class Artifact:
    """Files that a run keeps and that others read; figures are ``figures/NAME.png``."""

    CONFIG = "config.yaml"
    """The resolved config of the run."""

    DATA_REPORT = "data_report.json"
    """What was found in the table: rows, churn rate, source, warnings."""

    FINDINGS = "findings.md"
    """explore: what the table says, in words."""

    OOF = "predictions/oof.parquet"
    """train: out-of-fold predictions, one row per member and repeat: row, y, probability, fold."""

    TEST = "predictions/test.parquet"
    """train: predictions for the hold-out, one row per member: row, y, probability."""

    FOLDS = "folds.csv"
    """train: the metrics of each fold."""

    CALIBRATION = "calibration.csv"
    """train: each way to calibrate that was tried: slope, intercept, error, log loss, kept or not."""

    IMPORTANCE = "importance.csv"
    """train: permutation importance of columns and of groups of correlated columns."""

    COEFFICIENTS = "coefficients.csv"
    """train: the estimator's own coefficient or importance of each column that it sees."""

    PROFIT = "profit.csv"
    """train: profit on the hold-out by share of members contacted."""

    TRIALS = "trials.csv"
    """tune: one row per trial, with its parameters and scores."""

    EVIDENCE = "evidence.csv"
    """segment: every criterion for each number of segments."""

    SEGMENTS = "segments.csv"
    """segment: the profile of each segment."""

    MEMBERS = "segments/members.parquet"
    """segment: the segment of each row."""

    PORTRAITS = "portraits.json"
    """segment: each segment's name, risk, traits and recommended actions."""

    SEGMENTATION = "segmentation.json"
    """segment: columns, fill values, stability and the result without late columns."""

    ACTIONS = "actions.csv"
    """segment: each action with its reach, cost, worth and the test that would prove it."""

    LEADERBOARD = "leaderboard.csv"
    """compare: one row per run, with all metrics and their CIs."""

    DIFFERENCES = "differences.csv"
    """compare: the config keys in which two runs differ."""

    FOLD_DIFFERENCES = "fold_differences.csv"
    """compare: the metric of both runs, fold by fold."""

    GATE = "gate.json"
    """promote: every check of the gate with its value, limit and verdict."""

    TRAINED_ON = "trained_on.parquet"
    """promote: content hashes of the members that the churn model was trained on."""

    CLAIMS = "claims.csv"
    """claims: each claim with its measured value, 95% CI and verdict."""

    REPORT = "report.html"
    """report: the page for a manager."""

    REPRODUCTION = "reproduction.json"
    """reproduce: what was compared, and what differs."""


SAME_QUESTION = (Tag.DATA, Tag.SPLIT)
"""Tags that two train runs must share to be compared."""
