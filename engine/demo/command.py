"""How the demo's steps end: an error is a sentence on standard error and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from engine.errors import OpsdeckError


def guarded(main: Callable[[], None]) -> None:
    """Run a step's `main`; leave the process with the exit code of an OpsdeckError it raises."""
    try:
        main()
    except OpsdeckError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
