"""Split members into a training part with folds and a hold-out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedKFold, train_test_split

from churnlab.data import quality
from churnlab.data.dataset import Dataset, folds_sha256, split_sha256
from churnlab.errors import InputError


class Fold(NamedTuple):
    """One fold of one repeat; ``train`` and ``validation`` are positions in y."""

    repeat: int
    fold: int
    train: np.ndarray
    validation: np.ndarray


def hold_out(
    y: np.ndarray, *, test_size: float, stratify: bool, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the training part and of the hold-out, in train_test_split's order.

    InputError: too few members to have both classes in both parts.
    """
    given = f"evaluation.test_size={test_size} of {len(y)} members"
    try:
        train, test = train_test_split(
            np.arange(len(y)),
            test_size=test_size,
            stratify=y if stratify else None,
            random_state=seed,
        )
    except ValueError as error:
        raise InputError(
            f"{given} cannot be split off: {error} Give more members or another size."
        ) from None
    for part, positions in {"training part": train, "hold-out": test}.items():
        if len(np.unique(y[positions])) < 2:
            raise InputError(
                f"{given} leaves a {part} in which all {len(positions)} members have the same "
                "outcome. Give more members, a larger part, or evaluation.stratify=true."
            )
    return train, test


def make_folds(y: np.ndarray, *, folds: int, repeats: int, seed: int) -> list[Fold]:
    """Draw stratified, shuffled folds; repeat r has random_state = seed + r.

    InputError: a class with fewer members than folds.

    >>> [fold.validation.size for fold in make_folds(np.arange(9) % 2, folds=3, repeats=1, seed=0)]
    [3, 3, 3]
    """
    rarest = int(np.bincount(y, minlength=2).min())
    if folds < 2 or repeats < 1 or rarest < folds:
        raise InputError(
            f"evaluation.folds={folds} and evaluation.repeats={repeats} do not work for {len(y)} "
            f"members of whom {int(y.sum())} left: each fold needs one of each outcome. Give 2 to "
            f"{rarest} folds and at least one repeat, or more members."
        )
    return [
        Fold(repeat, fold, train, validation)
        for repeat in range(repeats)
        for fold, (train, validation) in enumerate(
            StratifiedKFold(folds, shuffle=True, random_state=seed + repeat).split(y, y)
        )
    ]


@dataclass(frozen=True)
class Split:
    """Training part and hold-out as positions in the table, the folds of the training part (as
    positions in it), and the fingerprints of data, split and folds."""

    train: np.ndarray
    test: np.ndarray
    folds: list[Fold]
    data_sha256: str
    split_sha256: str
    folds_sha256: str


def make_split(
    dataset: Dataset, *, test_size: float, stratify: bool, folds: int, repeats: int, seed: int
) -> Split:
    """Split off the hold-out and make the folds; warn of members in both parts."""
    train, test = hold_out(dataset.y, test_size=test_size, stratify=stratify, seed=seed)
    for warning in quality.train_test_overlap(dataset.X, dataset.y, train=train, test=test):
        dataset.warn(warning)
    made = make_folds(dataset.y[train], folds=folds, repeats=repeats, seed=seed)
    return Split(
        train,
        test,
        made,
        dataset.sha256,
        split_sha256(dataset.sha256, test),
        folds_sha256(dataset.sha256, [train[fold.validation] for fold in made]),
    )
