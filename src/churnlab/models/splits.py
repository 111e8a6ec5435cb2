"""Split members into a training part with folds and a hold-out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, train_test_split

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
    y: np.ndarray,
    *,
    test_size: float,
    stratify: bool,
    seed: int,
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the training part and of the hold-out, in train_test_split's order.

    ``groups`` numbers the members if some have several rows: then members are drawn, stratified by
    whether they left in any row, and their rows follow them. InputError: too few members to have
    both classes in both parts.
    """
    if groups is not None:
        groups = np.unique(groups, return_inverse=True)[1]
        left = np.bincount(groups, weights=y) > 0
        parts = hold_out(left.astype(int), test_size=test_size, stratify=stratify, seed=seed)
        train, test = (np.flatnonzero(np.isin(groups, members)) for members in parts)
        _check_outcomes(y, test_size, {"training part": train, "hold-out": test})
        return train, test
    given = f"evaluation.test_size={test_size} of {len(y)} members"
    try:
        train, test = train_test_split(
            np.arange(len(y)),
            test_size=test_size,
            stratify=y if stratify else None,
            random_state=seed,
        )
    except ValueError:
        raise InputError(
            f"{given} cannot be split off: a training part and a hold-out with members of both "
            "outcomes need more members, or another size."
        ) from None
    _check_outcomes(y, test_size, {"training part": train, "hold-out": test})
    return train, test


def _check_outcomes(y: np.ndarray, test_size: float, parts: Mapping[str, np.ndarray]) -> None:
    """Refuse a part in which all members have the same outcome."""
    for part, positions in parts.items():
        if len(np.unique(y[positions])) < 2:
            raise InputError(
                f"evaluation.test_size={test_size} of {len(y)} members leaves a {part} in which "
                f"all {len(positions)} members have the same outcome. Give more members, a larger "
                "part, or evaluation.stratify=true."
            )


def make_folds(
    y: np.ndarray,
    *,
    folds: int,
    repeats: int,
    seed: int,
    first: int = 0,
    groups: np.ndarray | None = None,
) -> list[Fold]:
    """Draw stratified, shuffled folds; repeat r has random_state = seed + r.

    ``first`` is the number of the first repeat. ``groups`` numbers the members if some have several
    rows, which then share a fold. InputError: a class with fewer members than folds.

    >>> [fold.validation.size for fold in make_folds(np.arange(9) % 2, folds=3, repeats=1, seed=0)]
    [3, 3, 3]
    """
    members = np.arange(len(y)) if groups is None else groups
    stayed, left = (len(np.unique(members[y == outcome])) for outcome in (0, 1))
    rarest = min(stayed, left)
    if folds < 2 or repeats < 1 or rarest < folds:
        raise InputError(
            f"evaluation.folds={folds} and evaluation.repeats={repeats} do not work for "
            f"{len(np.unique(members))} members of whom {left} left: each fold needs one of each "
            f"outcome. Give 2 to {rarest} folds and at least one repeat, or more members."
        )
    draw = StratifiedKFold if groups is None else StratifiedGroupKFold
    made = [
        Fold(repeat, fold, train, validation)
        for repeat in range(first, first + repeats)
        for fold, (train, validation) in enumerate(
            draw(folds, shuffle=True, random_state=seed + repeat).split(y, y, groups)
        )
    ]
    if any(len(np.unique(y[fold.validation])) < 2 for fold in made):  # members of many rows
        raise InputError(
            f"evaluation.folds={folds} leaves a fold in which all members have the same outcome, "
            "because all rows of a member share a fold. Give fewer folds, or more members."
        )
    return made


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
    train, test = hold_out(
        dataset.y, test_size=test_size, stratify=stratify, seed=seed, groups=dataset.groups
    )
    for warning in quality.train_test_overlap(
        dataset.X, dataset.y, train=train, test=test, ids=dataset.ids
    ):
        dataset.warn(warning)
    made = make_folds(
        dataset.y[train],
        folds=folds,
        repeats=repeats,
        seed=seed,
        groups=dataset.groups_of(train),
    )
    return Split(
        train,
        test,
        made,
        dataset.sha256,
        split_sha256(dataset.sha256, test),
        folds_sha256(dataset.sha256, [train[fold.validation] for fold in made]),
    )
