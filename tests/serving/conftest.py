"""A version that every test of the room may ask."""

from pathlib import Path
from typing import Any

import pytest

from support.club import CLUB, club_members
from support.running import THREE_SEGMENTS, churnlab_at, version_folder


@pytest.fixture(scope="session")
def club(tmp_path_factory: pytest.TempPathFactory, client_at: Any) -> Path:
    """Return the folder of a version of the club."""
    place = tmp_path_factory.mktemp("club")
    (place / "conf" / "dataset").mkdir(parents=True)
    (place / "conf" / "dataset" / "club.yaml").write_text(CLUB, encoding="utf-8")
    club_members(400, seed=0).to_csv(place / "club.csv", index=False)
    table = ("--config-dir", f"{place}/conf", "dataset=club", f"dataset.path={place}/club.csv")
    churnlab = churnlab_at(place / "home")
    ended = [
        churnlab("train", *table, "features=raw", "evaluation.folds=2"),
        churnlab("segment", *table, "segments=all", "playbook=any", *THREE_SEGMENTS),
        churnlab("promote", *table, "evaluation.folds=2", "force=true", "reason=a test"),
    ]
    assert [end.code for end in ended] == [0, 0, 0], [end.err for end in ended]
    return version_folder(client_at(place / "home"), "club-churn", "1")
