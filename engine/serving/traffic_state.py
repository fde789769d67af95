"""What the gateway remembers over a restart: weights, their revision, and the lease.

A state file is replaced whole (temporary file, fsync, rename, fsync of the directory), so a kill at
any moment leaves the old state or the new one. It carries its own SHA-256, because weights that are
nearly right would be worse than none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.errors import OpsdeckError, UsageError
from engine.serving.split import check_weights

FORMAT = 1
Cause = Literal["initial", "set", "lease_expired", "state_corrupt"]


class StateCorrupt(OpsdeckError):
    """The state file is not what a gateway of this service wrote."""

    code = "state_corrupt"


@dataclass(frozen=True)
class Lease:
    """A promise to renew: `expires_at` in UTC seconds since the epoch, `granted_s` as last asked.

    `fallback`: the whole split in percent that comes into force when it is broken, None for all
    traffic to the champion.
    """

    expires_at: float
    granted_s: float
    fallback: dict[str, float] | None = None

    def written(self) -> dict[str, Any]:
        """As the state file has it; a lease without fallback looks as it did before there were any."""
        bare = {"expires_at": self.expires_at, "granted_s": self.granted_s}
        return bare if self.fallback is None else {**bare, "fallback": self.fallback}


@dataclass(frozen=True)
class State:
    """Weights in percent by variant. `cause` says why they are what they are."""

    weights: dict[str, float]
    revision: int
    lease: Lease | None
    cause: Cause


def save(path: Path, service: str, state: State) -> None:
    """Write the state durably. Raises OSError; then the file holds the old state or this one."""
    content = {
        "format": FORMAT, "service": service, "weights": state.weights,
        "revision": state.revision, "cause": state.cause,
        "lease": None if state.lease is None else state.lease.written(),
    }
    text = json.dumps({**content, "sha256": _digest(content)}, indent=1) + "\n"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW,
                 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    _sync_directory(path.parent)


def load(path: Path, service: str, variants: Sequence[str]) -> State | None:
    """The state kept, None when there is none.

    Raises StateCorrupt when the file is not whole, is another service's, or names variants that are
    no longer there.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateCorrupt(f"it cannot be read ({error.strerror})", where=str(path)) from None
    try:
        content = json.loads(text)
        digest = content.pop("sha256")
        if content["format"] != FORMAT:
            raise StateCorrupt(f"it has format {content['format']}", where=str(path))
        if digest != _digest(content):
            raise StateCorrupt("its checksum does not match", where=str(path))
        if content["service"] != service:
            raise StateCorrupt(f"it belongs to service {content['service']}", where=str(path))
        return State(check_weights(content["weights"], variants), content["revision"],
                     _lease(content["lease"], variants), content["cause"])
    except UsageError as error:
        raise StateCorrupt(error.message, where=str(path)) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise StateCorrupt("it is not a state file", where=str(path)) from None


def _lease(content: dict[str, Any] | None, variants: Sequence[str]) -> Lease | None:
    if content is None:
        return None
    fallback = content.get("fallback")
    lease = Lease(float(content["expires_at"]), float(content["granted_s"]),
                  None if fallback is None else check_weights(fallback, variants))
    if not math.isfinite(lease.expires_at) or not math.isfinite(lease.granted_s):
        raise ValueError("a lease that never ends")
    return lease


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
