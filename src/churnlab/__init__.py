"""churnlab: who will leave, what kinds of members are there, and what to do about each kind."""

import logging
import os
import warnings

# MLflow reads these when it is imported: no telemetry, no progress bars, no URLs on standard
# output, and no uv.lock of the working directory in every version.
os.environ.update(
    {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_UV_AUTO_DETECT": "false",
        "MLFLOW_LOGGING_LEVEL": os.environ.get("MLFLOW_LOGGING_LEVEL", "WARNING"),
        "TQDM_DISABLE": "1",
    }
)
for needless in ("The specified dataset source can be", ".*input example was not provided"):
    warnings.filterwarnings("ignore", message=needless)
# It logs with SQL and traceback what it raises anyway.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
