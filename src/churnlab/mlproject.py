"""Run what MLproject calls: ``python -m churnlab.mlproject COMMAND OVERRIDES``.

``mlflow run`` passes all overrides as one shell word; split it here. An empty word has none.
"""

from __future__ import annotations

import shlex
import sys

from churnlab.__main__ import main

if __name__ == "__main__":
    command, overrides = sys.argv[1:]
    sys.exit(main([command, *shlex.split(overrides)]))
