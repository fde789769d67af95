"""What a model's container and its place in a cluster are made of. Pure, and light to import."""

from __future__ import annotations

from dataclasses import dataclass

USER = 10001  # above the ranges of system users; the same in the image and in the pod


@dataclass(frozen=True)
class Settings:
    """`base`: the image to build on, `image`: the one that was built; both by digest, `name@sha256:…`.

    `python`: what `base` must hold, such as 3.11. `training`: the file name of the hash-pinned lock of the
    image that trains, None where there is no such image. `cpu` is in cores, `memory_mb` in MiB, for each of
    `least` to `most` replicas; more of them come when they use `target_cpu` percent of their `cpu`.
    """

    name: str
    namespace: str
    base: str | None
    image: str | None
    python: str
    training: str | None
    cpu: float
    memory_mb: int
    least: int
    most: int
    port: int
    target_cpu: int
