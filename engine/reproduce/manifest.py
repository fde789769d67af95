"""The manifest of a run: one canonical JSON object of what it was made from and what it gave. Pure.

The fields are those of `parts.Known`. A manifest of this format that has more of them, written by a
later version, keeps them when it is read and written again. A manifest of a later format is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from engine.errors import UsageError
from engine.reproduce import canonical
from engine.reproduce.parts import (
    FORMAT,
    Artifact,
    Code,
    Dataset,
    Environment,
    Image,
    Known,
    Lock,
    Run,
)

LIMIT = 16 << 20


@dataclass(frozen=True)
class Manifest:
    """`content` is all of it, unknown fields too; `known` is the typed view of what this version knows."""

    content: dict[str, Any]
    known: Known

    def encode(self) -> bytes:
        """The canonical bytes."""
        return canonical.encode(self.content)

    @property
    def sha256(self) -> str:
        """The digest that the journal chains and the registry is told."""
        return hashlib.sha256(self.encode()).hexdigest()


def assemble(*, run: Run, code: Code, environment: Environment, lock: Lock | None = None,
             image: Image | None = None, data: Mapping[str, Dataset] | None = None,
             config: Mapping[str, Any] | None = None, seeds: Mapping[str, int] | None = None,
             artifacts: Mapping[str, Artifact] | None = None, loss: float | None = None,
             metrics: Mapping[str, float] | None = None) -> Manifest:
    """The manifest of what was collected. Raises UsageError for a value that JSON cannot hold.

    A loss or metric that is not finite is kept by its name, and a seed of more than 64 bits as text.
    """
    known = Known(
        format=FORMAT, run=run, code=code, environment=environment, lock=lock, image=image,
        data=dict(data or {}), config=dict(config or {}),
        seeds={name: seed if -(2**63) <= seed < 2**64 else str(seed) for name, seed in (seeds or {}).items()},
        artifacts=dict(artifacts or {}), loss=None if loss is None else canonical.number(loss),
        metrics={name: canonical.number(value) for name, value in (metrics or {}).items()})
    content = msgspec.to_builtins(known)
    return read(canonical.encode(content))


def read(data: bytes, where: str = "manifest") -> Manifest:
    """A manifest from its bytes, canonical or not; `where` names it in errors.

    Raises UsageError for what is no manifest, is larger than 16 MiB, or is of a later format.
    """
    hint = "A manifest is the JSON that a pipeline run writes; get it again from the run."
    if len(data) > LIMIT:
        raise UsageError(f"This manifest is larger than {LIMIT >> 20} MiB.", where=where, hint=hint)
    try:
        content = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"This manifest is not JSON: {error}.", where=where, hint=hint) from error
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise UsageError("This is no manifest: it has no format number.", where=where, hint=hint)
    if content["format"] != FORMAT:
        raise UsageError(f"This manifest is of format {content['format']}; this version reads {FORMAT}.",
                         where=where, hint="Use the version of Opsdeck that wrote it, or a later one.")
    try:
        known = msgspec.convert(content, Known)
    except msgspec.ValidationError as error:
        raise UsageError(f"A field of this manifest is not what it must be: {error}.", where=where,
                         hint=hint) from error
    for value in (known.loss, *known.metrics.values()):
        if isinstance(value, str):
            canonical.as_number(value)
    canonical.encode(content)
    return Manifest(content, known)
