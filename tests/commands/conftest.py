"""Models of the real table, which the tests of several commands compare with its figures."""

import json
import os
from pathlib import Path

import pytest
from filelock import FileLock

from support.real_table import ONLY_VERDICTS, Real
from support.running import churnlab_at


@pytest.fixture(scope="session")
def real(gym_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Real:
    """Return models of the real table for reading, trained once for all workers; what decides
    their metrics is set as it is by default."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    made, home = root / "real.json", root / "real" / "home"
    gym = ["dataset=gym", f"dataset.path={gym_csv}"]
    with FileLock(root / "real.lock"):
        if not made.exists():
            churnlab = churnlab_at(home)
            forest, features = "model=random_forest", "features=raw,behaviour"
            ended = [
                churnlab("train", "-m", *gym, *ONLY_VERDICTS, *words)
                for words in (
                    ("model=logistic_regression,random_forest", features),
                    (forest, "+model.estimator.max_features=0.6"),
                )
            ]
            assert [end.code for end in ended] == [0, 0], [end.err for end in ended]
            names = ("linear", "linear behaviour", "forest", "forest behaviour", "forest tuned")
            ids = dict(zip(names, (run for end in ended for run in end.line["runs"]), strict=True))
            made.write_text(json.dumps([gym, ended[0].line["run_id"], ids]), encoding="utf-8")
    return Real(home, *json.loads(made.read_text(encoding="utf-8")))
