"""What a command says when it cannot do what it was asked: sentences on standard error, never a
traceback. One that nobody expected goes whole into the home's log."""

from __future__ import annotations

import errno
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from engine.cli.text import plain
from engine.errors import DocumentError, OpsdeckError

CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def report(error: Exception, arguments: Sequence[str]) -> int:
    """Print an error; returns the exit code."""
    if isinstance(error, OpsdeckError):
        print(_sentences(error), file=sys.stderr)
        return error.exit_code
    if isinstance(error, OSError) and error.errno in CANNOT_WRITE and error.filename is None:
        print(f"the output cannot be written: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left at exit goes there
        return 1
    log = _log(error, arguments)
    hint = f"what is known of it stands in {log}" if log else "no log could be written"
    print(f"opsdeck met an error of its own ({type(error).__name__})\n  {hint}", file=sys.stderr)
    return 1


def _sentences(error: OpsdeckError) -> str:
    lines = [f"{error.where}: {error.message}" if error.where else error.message]
    if isinstance(error, DocumentError):
        lines += error.problems
    if error.hint:
        lines.append(f"  {error.hint}")
    return "\n".join(plain(line, keep="\n") for line in lines)


def _log(error: Exception, arguments: Sequence[str]) -> Path | None:
    """Append the traceback to the log of the home that was meant; the arguments' names only.

    Values may be secrets or answers, so that nothing after a `=` and no plain argument is kept.
    """
    from engine.home import find

    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    words = " ".join(a.partition("=")[0] for a in arguments if a.startswith("-"))
    text = f"{at} ERROR   opsdeck.command  opsdeck {words}\n{''.join(_trace(error))}"
    for named in (_home_of(arguments), "~/.local/state/opsdeck"):
        try:
            log = find(named).log
            log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except (OSError, OpsdeckError):
            continue
        with os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        return log
    return None


def _trace(error: Exception) -> list[str]:
    return traceback.format_exception(error)


def _home_of(arguments: Sequence[str]) -> str | None:
    for at, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--home":
            return value if equals else arguments[at + 1] if at + 1 < len(arguments) else None
    return None
