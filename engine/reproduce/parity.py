"""Whether production is what staging tested: the same lock and the same image. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import Conflict
from engine.reproduce.parts import Image, Lock


@dataclass(frozen=True)
class Side:
    """What one of the two has installed; None where it has no lock or runs in no container."""

    lock: Lock | None
    image: Image | None


def require(staging: Side, production: Side) -> None:
    """Raises Conflict where the digests of the two locks or images differ, or only one side has one.

    Paths and tags may differ: the digest says what is installed.
    """
    _same("lock", *(side.lock.sha256 if side.lock else "none" for side in (staging, production)))
    _same("image", *(side.image.digest if side.image else "none" for side in (staging, production)))


def _same(what: str, staging: str, production: str) -> None:
    if staging != production:
        raise Conflict(
            f"Production would not run what staging tested: its {what} is {_short(production)}, "
            f"and staging's {_short(staging)}.", where=what,
            hint=f"Test with production's {what} in staging, or release with staging's.")


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
