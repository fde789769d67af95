"""The engine's log: one bounded file in the home, UTC, and standard error when it runs in front."""

from __future__ import annotations

import faulthandler
import logging
import logging.handlers
import os
import sys
import time

from engine.home import Home

BYTES = 5 * 1024 * 1024
KEPT = 3


class _Private(logging.handlers.RotatingFileHandler):
    """Files of mode 0600: a log may name what a step was given."""

    def _open(self):  # type: ignore[no-untyped-def]
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")


def write_to(home: Home, *, in_front: bool) -> None:
    """Send every logger of this process to the home's log, and to standard error if `in_front`."""
    shape = logging.Formatter("%(asctime)sZ %(levelname)-7s %(name)s  %(message)s",
                              "%Y-%m-%dT%H:%M:%S")
    shape.converter = time.gmtime
    handlers: list[logging.Handler] = [_Private(home.log, maxBytes=BYTES, backupCount=KEPT)]
    if in_front:
        handlers.append(logging.StreamHandler(sys.stderr))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    for handler in handlers:
        handler.setFormatter(shape)
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    for noisy in ("httpx", "httpcore", "uvicorn", "botocore", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    faulthandler.enable()
