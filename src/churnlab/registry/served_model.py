"""Answer requests to a version: MLflow copies this file into each version and runs it there.

It must not import churnlab, which need not be installed. The version holds what it needs: the churn
pipeline and the segmentation (skops, no pickle), ``served.json`` (inputs, checks, expressions,
threshold, names and actions), ``expressions.py`` (the evaluator) and ``skops_types.py`` (the types
that the skops files may hold).
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import skops.io
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

MAX_REASONS, MIN_LOG_ODDS = 3, 0.2
"""The most reasons that a member gets, and the least that each adds to the log odds of churn."""


class ServedModel(mlflow.pyfunc.PythonModel):
    """Answer each member with probability, decision, segment, action and reasons."""

    def load_context(self, context: Any) -> None:
        """Read the version's files."""
        files = {name: Path(path) for name, path in context.artifacts.items()}
        self.served: dict[str, Any] = json.loads(files["served"].read_text(encoding="utf-8"))
        self.expressions = _module(files["expressions"])
        trusted = _module(files["skops_types"]).TRUSTED
        self.churn = skops.io.load(files["churn"], trusted=trusted)
        self.segmentation = skops.io.load(files["segments"], trusted=[])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[Any]:
        """Return one object per row, in order; ``params``: ``threshold`` (0 to 1) and ``reasons``.

        INVALID_PARAMETER_VALUE: a row breaks the dataset's contract; a bad request gets no number.
        """
        params = params or {}
        threshold = params.get("threshold", self.served["threshold"])
        if not 0 <= threshold <= 1:
            raise _refusal(f"threshold is {threshold}; give a probability between 0 and 1.")
        members = model_input.reset_index(drop=True)
        members = members.reindex(
            columns=[*members, *(name for name in self.served["inputs"] if name not in members)]
        )
        self._check(members)
        try:
            probability, segments = self._probability(members), self._segments(members)
        except ValueError as error:  # an expression has no value for one of these members
            raise _refusal(str(error)) from error
        reasons = self._reasons(members, probability) if params.get("reasons", True) else None
        answers = []
        for row, (churn, label) in enumerate(zip(probability, segments, strict=True)):
            segment = self.served["segments"][str(label)]
            answer: dict[str, Any] = {
                "churn_probability": float(churn),
                "will_churn": bool(churn > threshold),
                "segment": segment["number"],
                "segment_name": segment["name"],
                "recommended_action": segment["recommended_action"],
            }
            if reasons is not None:
                answer["reasons"] = reasons[row]
            answers.append(answer)
        if "member_id" in members:
            answers = [
                answer if pd.isna(member) else {"member_id": str(member), **answer}
                for member, answer in zip(members["member_id"], answers, strict=True)
            ]
        return answers

    def _check(self, members: pd.DataFrame) -> None:
        """Refuse rows that break the dataset's contract, naming row, column, value and limit."""
        inputs = members[self.served["inputs"]]
        if inputs.empty:
            raise _refusal("There is no row; give at least one member.")
        infinite = inputs.isin([np.inf, -np.inf]).to_numpy()
        missing = inputs.isna().to_numpy() & ~inputs.columns.isin(self.served["may_be_missing"])
        for wrong, found in ((missing, "missing"), (infinite, "infinite")):
            if wrong.any():
                row, column = np.argwhere(wrong)[0]
                raise _refusal(f"Row {row}: {inputs.columns[column]} is {found}; give it a value.")
        for check in self.served["checks"]:
            known = inputs[check["columns"]].notna().all(axis=1).to_numpy()
            broken = np.flatnonzero(
                known & (self.expressions.evaluate(check["holds"], inputs) == 0)
            )
            if len(broken):
                row = int(broken[0])
                found = ", ".join(
                    f"{name} is {_format_value(inputs[name].iloc[row])}"
                    for name in check["columns"]
                )
                raise _refusal(f"Row {row}: {found}; {check['text']}.")

    def _probability(self, members: pd.DataFrame, *, finite: bool = True) -> np.ndarray:
        """Return churn probabilities; with ``finite=False`` NaN where a feature has no value."""
        keep, derived = self.served["features"]["keep"], self.served["features"]["derive"]
        X = self.expressions.derive(
            _filled(members[keep], self.served["features"]["fill"]), derived, finite=finite
        )
        known = np.isfinite(X[list(derived)].to_numpy()).all(axis=1)
        probability = np.full(len(X), np.nan)
        if known.any():
            probability[known] = self.churn.predict_proba(X[known])[:, 1]
        return probability

    def _segments(self, members: pd.DataFrame) -> np.ndarray:
        filled = _filled(members, self.served["segment_fill"])
        return self.segmentation.predict(
            self.expressions.select(filled, self.served["segment_columns"])
        )

    def _reasons(self, members: pd.DataFrame, probability: np.ndarray) -> list[list[str]]:
        """Return what raises each member's risk most.

        A group of columns is worth the fall in the log odds of churn when its values are replaced
        by those of the typical (median) member who stayed. Correlated columns are one group, so
        that their effects do not cancel. A replacement that no member could have (a feature has no
        value then) is no reason.
        """
        groups = self.served["reasons"]
        if not groups:
            return [[] for _ in probability]
        typical = [
            members.assign(**{name: self.served["typical"][name] for name in group["columns"]})
            for group in groups
        ]
        changed = self._probability(pd.concat(typical, ignore_index=True), finite=False)
        worth = _log_odds(probability) - _log_odds(changed).reshape(len(groups), len(members))
        worth = np.where(worth >= MIN_LOG_ODDS, worth, -np.inf)
        order = np.argsort(-worth, axis=0, kind="stable")[:MAX_REASONS]
        texts: dict[tuple[int, int], str] = {}
        for place, group in enumerate(groups):
            rows = np.flatnonzero(np.isfinite(worth[place]) & (order == place).any(axis=0))
            found = self._texts(group, members.iloc[rows])
            texts |= {(place, int(row)): text for row, text in zip(rows, found, strict=True)}
        return [
            [texts[place, row] for place in order[:, row] if (place, row) in texts]
            for row in range(len(members))
        ]

    def _texts(self, group: dict[str, Any], members: pd.DataFrame) -> list[str]:
        """Return a group's text for each member: the first whose ``when`` holds, else its columns'
        values."""
        rows = members[self.served["inputs"]].to_dict("records")
        texts = [
            ", ".join(f"{name} is {_format_value(row[name], 6)}" for name in group["columns"])
            for row in rows
        ]
        for option in reversed(group["texts"]):
            holds = (
                np.ones(len(rows))
                if option["when"] is None
                else self.expressions.evaluate(option["when"], members)
            )
            for row in np.flatnonzero(holds):
                texts[row] = option["text"].format(**rows[row])
        return texts


def _filled(members: pd.DataFrame, values: dict[str, Any]) -> pd.DataFrame:
    return members.fillna(values) if members.isna().any(axis=None) else members


def _log_odds(probability: np.ndarray) -> np.ndarray:
    clipped = np.clip(probability, 0.001, 0.999)
    return np.log(clipped / (1 - clipped))


def _format_value(value: Any, digits: int = 15) -> str:
    """Format a value without needless digits: 31.0 is 31."""
    if pd.isna(value):
        return "not known"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def _refusal(text: str) -> MlflowException:
    return MlflowException(text, error_code=INVALID_PARAMETER_VALUE)


def _module(path: Path) -> ModuleType:
    """Run a Python file of the version, whatever churnlab is installed; leave nothing compiled."""
    module = ModuleType(f"churnlab_version_{path.stem}")
    exec(
        compile(path.read_text(encoding="utf-8"), str(path), "exec", dont_inherit=True),
        module.__dict__,
    )
    return module


mlflow.models.set_model(ServedModel())
