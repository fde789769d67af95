"""A Dockerfile whose last stage serves one model, with another that trains. Pure.

Everything in the image is pinned: the base by its digest, packages by their hashes, the server's code by the
files beside the Dockerfile, the model by its manifest, which the server checks before it reads a byte.
"""

from __future__ import annotations

import json

from engine.errors import UsageError
from engine.reproduce.rendering.settings import USER, Settings

IGNORED = """\
*
!Dockerfile
!serving.lock
!training.lock
!server
!model
**/__pycache__
**/.git
**/.env
"""


def dockerfile(settings: Settings) -> str:
    """The text. Raises UsageError without a base image: what a tag names changes."""
    if settings.base is None:
        raise UsageError("The base image is not given by its digest, so it could not be built again.",
                         where="serving.base",
                         hint=f"Give one with Python {settings.python} by --base NAME@sha256:… or as "
                              "serving.base (docker buildx imagetools inspect NAME:TAG tells the digest).")
    stages = [_environment(settings, "serving", "serving.lock", "--only-binary=:all:")]
    if settings.training is not None:
        stages += [_environment(settings, "training", settings.training), _train(settings)]
    return "\n".join([_head(settings), *stages, _serve(settings)])


def _head(settings: Settings) -> str:
    train = ("" if settings.training is None else
             "#     docker build --target train --build-context project=PROJECT .\n")
    return ("# Rendered by `opsdeck pipeline render`; change the project's file instead. In this folder,\n"
            "#     docker build .\n"
            "# makes the server of the model in ./model (model.onnx and manifest.json)"
            + (".\n" if not train else f", and the image that trains:\n{train}"))


def _environment(settings: Settings, name: str, lock: str, *more: str) -> str:
    """Packages are installed in a stage of their own, so that pip and its cache stay behind."""
    check = f"import sys; assert sys.version_info[:2] == {_version(settings.python)}, sys.version"
    return "\n".join((
        f"FROM {settings.base} AS {name}-packages",
        f"RUN {_exec('python', '-c', check)}",
        f"COPY {_exec(lock, f'/locks/{lock}')}",
        f"RUN {_exec('python', '-m', 'venv', '/opt/environment')}",
        "RUN " + _exec("/opt/environment/bin/python", "-m", "pip", "install", "--no-cache-dir", "--no-deps",
                       *more, "--require-hashes", "--requirement", f"/locks/{lock}"),
        ""))


def _train(settings: Settings) -> str:
    return "\n".join((
        f"FROM {settings.base} AS train",
        f"COPY --from=training-packages {_exec('/opt/environment', '/opt/environment')}",
        f"COPY --from=project {_exec('.', '/project')}",
        "ENV PATH=/opt/environment/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 "
        "PYTHONUNBUFFERED=1",
        "WORKDIR /project",
        f"USER {USER}:{USER}",
        ""))


def _serve(settings: Settings) -> str:
    ping = (f"import urllib.request as r; "
            f"r.urlopen('http://127.0.0.1:{settings.port}/ping', timeout=2).read()")
    return "\n".join((
        f"FROM {settings.base} AS serve",
        f"COPY --from=serving-packages {_exec('/opt/environment', '/opt/environment')}",
        f"COPY {_exec('server', '/opt/server')}",
        f"COPY {_exec('model', '/model')}",
        "ENV PYTHONPATH=/opt/server PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1",
        "WORKDIR /opt/server",
        f"USER {USER}:{USER}",
        f"EXPOSE {settings.port}",
        "STOPSIGNAL SIGTERM",
        f"HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD "
        f"{_exec('/opt/environment/bin/python', '-c', ping)}",
        "ENTRYPOINT " + _exec("/opt/environment/bin/python", "-m", "engine.serving.model_server", "--model",
                              "/model", "--host", "0.0.0.0", "--port", str(settings.port)),
        ""))


def _exec(*words: str) -> str:
    """The form without a shell, which is JSON."""
    return json.dumps(list(words))


def _version(python: str) -> tuple[int, ...]:
    return tuple(int(part) for part in python.split(".")[:2])
