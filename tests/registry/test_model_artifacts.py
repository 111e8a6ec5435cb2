import json
import subprocess
import sys

import pytest

from support.running import environment

TRAINED = """
import json, sys
from churnlab.__main__ import main

code = main(["train", "dataset.rows=300", "evaluation.folds=2"])
from mlflow.utils import requirements_utils

modules = list(sys.modules)
first = modules.index("skops.io") < modules.index("mlflow")
print(json.dumps([code, first, requirements_utils._MODULES_TO_PACKAGES]))
"""


@pytest.mark.slow
def test_a_train_run_reads_no_list_of_packages_and_searches_no_module_of_mlflow(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", TRAINED],
        env=environment(tmp_path / "home"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    *_, result, found = ended.stdout.splitlines()
    assert json.loads(found) == [0, True, None]
    assert "run_id" in json.loads(result)
