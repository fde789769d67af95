"""What leaves the console: the clipboard, pictures of a view, and the report of a fault."""

from __future__ import annotations

import base64
import os
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from console import format, picture

if TYPE_CHECKING:
    from console.app import OpsdeckApp

COPY_LIMIT = 74_994  # bytes: 100 kB of base64, what terminals accept in one OSC 52


def osc52(text: str, environ: Mapping[str, str]) -> str:
    """The sequence that puts `text` into the terminal's clipboard, wrapped for tmux where it runs.

    Raises ValueError when the text is too long for one sequence.
    """
    data = text.encode()
    if len(data) > COPY_LIMIT:
        raise ValueError(f"{format.size(len(data))} is more than the {format.size(COPY_LIMIT)} "
                         "that a terminal's clipboard takes")
    sequence = f"\x1b]52;c;{base64.b64encode(data).decode()}\x07"
    if environ.get("TMUX"):
        escaped = sequence.replace("\x1b", "\x1b\x1b")
        return f"\x1bPtmux;{escaped}\x1b\\"
    return sequence


def copy(app: OpsdeckApp, text: str) -> None:
    if not text:
        app.say("There is nothing to copy here.", passing=True)
        return
    try:
        sequence = osc52(text, os.environ)
    except ValueError as error:
        app.say(f"Not copied: {error}. Save the view with ctrl-s instead.", "warn")
        return
    app.write_raw(sequence)
    app.say(f"Copied {format.size(len(text.encode()))} to the terminal's clipboard.", passing=True)


def save(app: OpsdeckApp, place: str) -> None:
    """Write the view as SVG and as text, here or else in /tmp, and say where."""
    stem = f"opsdeck-{place}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    for folder in (Path.cwd(), Path("/tmp")):
        try:
            picture.save(app.painter, folder / stem)
        except OSError as error:
            reason = error.strerror
        else:
            app.say(f"Saved {folder / stem}.svg and .txt")
            return
    app.say(f"Not saved: {reason}. Neither this directory nor /tmp can be written.", "warn")


def crash(app: OpsdeckApp, log: Path | None) -> None:
    """Keep the details of a fault in a file and leave a sentence for the terminal."""
    details = "".join(traceback.format_exception(*sys.exc_info()))
    if app._exception is not None:
        details = "".join(traceback.format_exception(app._exception))
    where = log or Path("/tmp/opsdeck-console-crash.log")
    try:
        with where.open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}\n{details}\n")
        kept = f"The details are in {where}."
    except OSError as error:
        kept = f"The details could not be kept ({error.strerror}): {details.splitlines()[-1]}"
    app._exit_renderables[:] = [Text(
        f"The console stopped because of a fault of its own. {kept}\n"
        "Nothing that runs in the engine is touched; open the console again to go on.")]
