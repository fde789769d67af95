"""The files of a project's container and cluster, rendered from its settings: `opsdeck pipeline render`.

    Dockerfile  .dockerignore     the image that serves, and the one that trains
    serving.lock  training.lock   their packages, with hashes
    server/engine/…               the model server's code
    kubernetes/10-namespace.yaml … 60-horizontalpodautoscaler.yaml

What is rendered twice from the same project is the same to the byte. The model itself (model.onnx and
manifest.json) is put into `model` before the image is built.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from engine.errors import ActionFailed, UsageError
from engine.pipeline.project.model import Project
from engine.reproduce.rendering import dockerfile, kubernetes, server
from engine.reproduce.rendering.settings import Settings

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?")  # leaves room for what a pod's name adds
PINNED = re.compile(r"\S+@sha256:[0-9a-f]{64}")
TRAINING = "training.lock"
EXPORT_S = 60.0


def settings(project: Project, *, base: str | None = None, image: str | None = None) -> Settings:
    """What the project's file says; `base` and `image` stand above it. The image that training runs in is the
    base where no other is named. Pure. Raises UsageError for a name that a cluster refuses, and for an image
    without a digest."""
    serving = project.serving
    for given, option in ((base, "--base"), (image, "--image")):
        if given is not None and not PINNED.fullmatch(given):
            raise UsageError(f"{given} is not an image by its digest.", where=option,
                             hint="Write NAME@sha256: and 64 hex digits; what a tag names changes.")
    namespace = serving.namespace or project.project
    for name, where in ((project.model, "model"), (namespace, "serving.namespace")):
        if not LABEL.fullmatch(name):
            raise UsageError(
                f"{name} cannot name something in Kubernetes.", where=where,
                hint="At most 52 lower-case letters, digits and dashes do, with no dash at the end.")
    return Settings(
        name=project.model, namespace=namespace, base=base or serving.base or project.environment.image,
        image=image or serving.image, python=project.environment.python,
        training=None if project.environment.inherit else TRAINING, cpu=serving.cpu,
        memory_mb=serving.memory_mb, least=serving.replicas.min, most=serving.replicas.max,
        port=serving.port, target_cpu=serving.target_cpu)


def docker(project: Project, folder: Path, found: Settings) -> dict[str, bytes]:
    """The files of the image by path. Blocking. Raises UsageError without a base image or a lock,
    ActionFailed when uv does not export one."""
    files = {"Dockerfile": dockerfile.dockerfile(found).encode(), "serving.lock": server.LOCK.read_bytes(),
             ".dockerignore": dockerfile.IGNORED.encode()}
    if found.training is not None:
        files[found.training] = _requirements(folder, project.environment.lock or "")
    return {**files, **{f"server/{path}": content for path, content in server.files().items()}}


def cluster(found: Settings) -> dict[str, bytes]:
    """The manifests by path. Raises UsageError without an image by digest."""
    import yaml

    return {f"kubernetes/{name}": yaml.safe_dump(one, sort_keys=False, width=100).encode()
            for name, one in kubernetes.objects(found).items()}


def write(out: Path, files: Mapping[str, bytes]) -> list[str]:
    """Write what differs; the paths that did. Manifests of an earlier rendering that are no more are removed.

    Raises UsageError where a folder cannot be made or written.
    """
    written = []
    try:
        for name, content in sorted(files.items()):
            path = out / name
            if path.is_file() and path.read_bytes() == content:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            written.append(name)
        if any(name.startswith("kubernetes/") for name in files):
            for left in (out / "kubernetes").glob("[0-9]0-*.yaml"):
                if f"kubernetes/{left.name}" not in files:
                    left.unlink()
    except OSError as error:
        raise UsageError(f"The files cannot be written: {error.strerror}.", where=str(out),
                         hint="Name another folder: --out DIR") from error
    return written


def _requirements(folder: Path, name: str) -> bytes:
    """The lock as a requirements file with hashes, without the addresses of an index."""
    from engine.pipeline.child.process import tool

    lock = folder / name
    if not lock.is_file():
        raise UsageError(f"The lock {name} is not there.", where=f"environment.lock: {lock}")
    if lock.name != "uv.lock":
        lines = lock.read_text("utf-8").splitlines(keepends=True)
        return "".join(line for line in lines if not re.match(
            r"\s*(-i|--(extra-)?index-url|--find-links|-f|--trusted-host)\b", line)).encode()
    uv = tool("uv")
    if uv is None:
        raise ActionFailed("uv is not installed, which reads uv.lock.", where=str(lock),
                           hint="Install it: pip install uv")
    done = subprocess.run(
        [str(uv), "export", "--frozen", "--offline", "--quiet", "--no-emit-project", "--no-header",
         "--no-annotate", "--no-dev", "--project", str(lock.parent)],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=EXPORT_S, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it gave no reason"]
        raise ActionFailed(f"uv could not read the lock: {said[-1]}", where=str(lock),
                           hint="Lock anew: uv lock")
    for text in re.split(rb"(?<!\\)\n", done.stdout):
        if text.strip() and b"--hash=" not in text:
            package = text.split()[0].decode(errors="replace")
            raise UsageError(f"The lock has no hash of {package}, so that the image could hold another.",
                             where=str(lock),
                             hint="A package from a folder or a repository has none: lock it from an index.")
    return done.stdout
