"""churnlab: who will leave, what kinds of members are there, and what to do about each kind."""

import logging
import os
import warnings

# MLflow reads these while it is imported: no telemetry, no bars, no addresses on standard output,
# and no uv.lock of the working directory inside every version.
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
for told_by_mlflow in (
    "The specified dataset source can be interpreted",
    ".*input example was not provided",
):
    warnings.filterwarnings("ignore", message=told_by_mlflow)
logging.getLogger("mlflow.store.db.utils").setLevel(
    logging.CRITICAL
)  # tells with SQL and traceback what it raises
