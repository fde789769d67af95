"""What a system engine may do, its steps may not: capabilities(7) stay in this process."""

from __future__ import annotations

import ctypes
import os

_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4


def keep_to_ourselves() -> None:
    """Empty the ambient set that the unit gave us, so that no program we execute has any of it.

    The engine keeps its permitted capabilities and can still start steps as the second user. Without
    this, a step would hold CAP_SETUID and could become anybody, an approver too. Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
