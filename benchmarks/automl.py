"""AutoGluon's medium preset on one table: ``python automl.py TRAIN NEW TARGET POSITIVE``, in an
environment of its own.

TRAIN and NEW are CSVs of what a model may use and the target. Prints the seconds it took, and
writes the probability of each new member beside NEW, as ``automl.csv``.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from autogluon.tabular import TabularPredictor

train, new, target, positive = sys.argv[1:]
started = time.perf_counter()
with tempfile.TemporaryDirectory() as folder:
    predictor = TabularPredictor(target, path=folder, eval_metric="log_loss", verbosity=0)
    predictor.fit(pd.read_csv(train, dtype={target: str}), presets="medium_quality")
    found = predictor.predict_proba(pd.read_csv(new, dtype={target: str}))
    best = predictor.model_best
found[positive].to_csv(Path(new).with_name("automl.csv"), index=False)
print(json.dumps({"seconds": time.perf_counter() - started, "best": best}))
