"""What a run's steps write, piece by piece: for whoever follows it, and for whoever asks later."""

from __future__ import annotations

from typing import Literal

from engine.api.backend import Curve, OutputChunk, Point
from engine.procedures import curves, output
from engine.procedures.attempts import Performer
from engine.procedures.run import RunProgress

CHUNK = 65536  # bytes
Stream = Literal["stdout", "stderr"]
Offsets = dict[tuple[str, int, str], int]
STREAMS: tuple[Stream, ...] = ("stdout", "stderr")


def fresh(performer: Performer, run: RunProgress, offsets: Offsets) -> list[OutputChunk]:
    """What steps have written since `offsets` (by step, attempt and stream), which move on with it."""
    pieces = []
    for step in run.steps.values():
        following = any(key[0] == step.id and key[1] == step.attempt for key in offsets)
        if step.state != "intent" and not following:
            continue
        for stream in STREAMS:
            key = (step.id, step.attempt, stream)
            piece = chunk(performer, run, step.id, step.attempt, offsets.get(key, 0), CHUNK, stream)
            offsets[key] = piece.next
            if piece.text:
                pieces.append(piece)
    return pieces


def chunk(performer: Performer, run: RunProgress, step: str, attempt: int, offset: int, limit: int,
          stream: Stream = "stdout") -> OutputChunk:
    """At most `limit` bytes of an attempt's output from `offset` on; nothing while it is withheld,
    because it may hold secrets that are not known here."""
    shown = run.steps[step]
    folder = performer.attempt(run.id, step, attempt)
    path = folder.stdout if stream == "stdout" else folder.stderr
    secrets = performer.secrets_of(run.id, shown, attempt)
    text, end = ("", offset) if secrets is None else output.chunk(path, offset, limit, secrets)
    final = not (shown.state == "intent" and shown.attempt == attempt)
    return OutputChunk(run.id, step, attempt, offset, end, text, final, stream)


def curve(performer: Performer, run: RunProgress, step: str, attempt: int, offset: int) -> Curve:
    """The points that an attempt gave after `offset`. Blocks."""
    shown = run.steps[step]
    points, end = curves.read(performer.attempt(run.id, step, attempt).progress, offset)
    final = not (shown.state == "intent" and shown.attempt == attempt)
    return Curve(run.id, step, attempt, end, [Point(**point) for point in points], final)
