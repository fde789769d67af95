"""Running a program that may hang: its whole group ends at a deadline, and its output has a limit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ActionFailed, UsageError

MOST = 4 << 20  # bytes of each output that are kept


@dataclass(frozen=True)
class Finished:
    code: int
    stdout: bytes
    stderr: str


async def run(argv: Sequence[str], *, environ: Mapping[str, str], within: float, cwd: Path | None = None
              ) -> Finished:
    """The program's end. Raises ActionFailed after `within` seconds, UsageError where there is none."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=cwd, env=dict(environ), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True,
            umask=0o022)
    except FileNotFoundError as error:
        raise UsageError(f"{argv[0]} is not installed", hint=f"install {argv[0]}") from error
    except OSError as error:
        raise ActionFailed(f"{argv[0]} cannot be started: {error.strerror}") from error
    assert process.stdout is not None and process.stderr is not None
    readers = [asyncio.ensure_future(_read(pipe)) for pipe in (process.stdout, process.stderr)]
    try:
        async with asyncio.timeout(within):
            stdout, stderr = await asyncio.gather(*readers)
            code = await process.wait()
    except BaseException as error:
        # The whole group: children that it left behind hold the pipes, even where it has ended itself.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())
        if isinstance(error, TimeoutError):
            raise ActionFailed(f"{Path(argv[0]).name} did not answer within {within:.0f} s") from error
        raise
    finally:
        for reader in readers:
            reader.cancel()
    return Finished(code, stdout, stderr.decode(errors="replace"))


async def _read(pipe: asyncio.StreamReader) -> bytes:
    kept = bytearray()
    while data := await pipe.read(65536):
        kept += data[:max(0, MOST - len(kept))]
    return bytes(kept)
