"""The parts of a run's manifest, format 1, each field with what it holds. Pure.

Digests are SHA-256 in lower-case hex. What is not known is null, never a guess.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

FORMAT = 1


class Run(msgspec.Struct, frozen=True, omit_defaults=False):
    """Which run this is. Tells runs apart, and explains no difference between them."""

    id: str  # the run's name in the journal
    project: str  # the project's name
    made: str  # when the manifest was made, UTC, such as 2026-11-24T12:00:00Z
    command: list[str] = []  # the argument vector of the training process


class Code(msgspec.Struct, frozen=True):
    """The Git state of the code that ran; of a folder without Git only `sources`."""

    commit: str | None = None  # full id of the checked-out commit
    dirty: str | None = None  # digest of every uncommitted change (see `git.state`); null when clean
    changed: list[str] = []  # the paths of those changes
    folder: str = ""  # the project's folder inside the repository, "" for its root
    remote: str | None = None  # the address of `origin`, without credentials
    sources: str | None = None  # digest of the project's files, where there is no repository
    aside: list[str] = []  # patterns of the files that `sources` leaves out
    patch: str | None = None  # digest of the kept patch that makes the changes anew, if it was kept


class Lock(msgspec.Struct, frozen=True):
    """The file that pins every package."""

    path: str  # inside the project's folder
    sha256: str  # of its bytes


class Image(msgspec.Struct, frozen=True):
    """The container image the run took place in."""

    reference: str  # such as registry/name:tag
    digest: str  # sha256:…, of the image's manifest


class Derivation(msgspec.Struct, frozen=True):
    """How data was made from other data."""

    code: str  # digest of the code that makes it
    sources: dict[str, str]  # each source's URI and its sha256 or version
    command: list[str] = []  # the argument vector that makes it


class Dataset(msgspec.Struct, frozen=True):
    """One data set. At least one of `sha256`, `version` and `derived` is there, or it is unversioned."""

    uri: str  # a path relative to the project, file:///…, or s3://bucket/key
    kind: Literal["file", "folder", "s3", "derived"]  # where it lies, or that the run made it
    sha256: str | None = None  # of the file's bytes; of a folder see `digests.folder`
    version: str | None = None  # S3's version id; of a prefix a digest over its objects' version ids
    bytes: int | None = None  # how large all of it is
    files: int | None = None  # how many files or objects
    derived: Derivation | None = None  # what it was made from
    objects: dict[str, str] = {}  # below an S3 prefix, of at most 10,000: key and version id

    @property
    def versioned(self) -> bool:
        return bool(self.sha256 or self.version or self.derived)


class Python(msgspec.Struct, frozen=True):
    version: str  # such as 3.11.7
    implementation: str  # such as CPython
    compiler: str = ""  # that built it, such as GCC 12.2.0


class System(msgspec.Struct, frozen=True):
    name: str  # such as Debian GNU/Linux 12 (bookworm)
    kernel: str  # such as Linux 6.1.0
    machine: str  # such as x86_64
    libc: str = ""  # such as glibc 2.36; its mathematical functions round as they do


class Cpu(msgspec.Struct, frozen=True):
    model: str  # as the kernel names it
    usable: int  # cores this process may run on
    features: str = ""  # digest of the instruction sets the kernel reports; libraries choose by them


class Gpu(msgspec.Struct, frozen=True):
    name: str  # such as NVIDIA H100 80GB HBM3
    driver: str  # its version
    memory_mib: int | None = None  # of the card
    capability: str = ""  # compute capability, such as 9.0


class Blas(msgspec.Struct, frozen=True):
    """A library of linear algebra or threads that is loaded (or that NumPy was built with)."""

    name: str  # such as openblas
    version: str  # "" where it does not tell
    threads: int | None = None  # how many it uses
    layer: str = ""  # such as pthreads, or openmp
    architecture: str = ""  # the kernels it chose for this processor, such as SkylakeX


class Environment(msgspec.Struct, frozen=True):
    """Where the run took place."""

    python: Python  # the interpreter that trained
    system: System  # operating system and C library
    cpu: Cpu  # the processor
    gpus: list[Gpu] = []  # NVIDIA cards, as nvidia-smi lists them
    blas: dict[str, Blas] = {}  # by the name of the loaded library's role: blas, openmp
    threads: dict[str, str] = {}  # the variables that set thread counts, as the process had them
    variables: dict[str, str] = {}  # other variables that change results: hash seed, deterministic switches
    packages: dict[str, str] = {}  # every installed distribution and its version


class Artifact(msgspec.Struct, frozen=True):
    """A file or folder that the run made."""

    sha256: str  # of its bytes; of a folder see `digests.folder`
    bytes: int  # how large all of it is
    payload: str | None = None  # canonical digest of a model (see `payload.digest`): no times, no ids
    kind: str = "file"  # model, predictions, report, file …


class Known(msgspec.Struct, frozen=True):
    """Everything this version knows of a manifest."""

    format: int  # 1
    run: Run  # which run
    code: Code  # which program
    environment: Environment  # where
    lock: Lock | None = None  # null: the packages are pinned by no file
    image: Image | None = None  # null: it ran outside a container
    data: dict[str, Dataset] = {}  # by the name the project gives it
    config: dict[str, Any] = {}  # the configuration the training was given
    seeds: dict[str, int | str] = {}  # by name; larger than 64 bits as text
    artifacts: dict[str, Artifact] = {}  # by path inside the run's output
    loss: float | str | None = None  # the last training loss
    metrics: dict[str, float | str] = {}  # by name; "NaN", "Infinity" and "-Infinity" as text
