"""What MLproject calls: ``python -m churnlab.mlproject COMMAND OVERRIDES``.

``mlflow run`` hands all overrides over as one shell word; here it becomes words again. An empty one
is no word.
"""

from __future__ import annotations

import shlex
import sys

from churnlab.__main__ import main

if __name__ == "__main__":
    command, overrides = sys.argv[1:]
    sys.exit(main([command, *shlex.split(overrides)]))
