"""Fetching a secret's value from where its reference points: environment, file or command."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from engine.api.params import is_reference
from engine.errors import OpsdeckError

LIMIT = 65536   # bytes: larger is surely not the secret that was meant
TIMEOUT = 30.0  # seconds a `command:` may take


class SecretError(OpsdeckError):
    """A secret that cannot be had. Never says anything of a value."""

    exit_code = 1
    code = "secret"


def resolve_secret(reference: str, environ: Mapping[str, str]) -> str:
    """The value behind `env:NAME`, `file:PATH` or `command:ARGV` (run without a shell).

    The last newline of a file or of a command's output is not part of the value. Blocks while a
    command runs, up to 30 s. Raises SecretError if there is none, or it is empty, not text, or
    over 64 KiB.
    """
    if not is_reference(reference):
        raise SecretError("this is not a reference to a secret",
                          hint="write env:NAME, file:/absolute/path or command:PROGRAM ARGUMENTS")
    source, _, rest = reference.partition(":")
    if source == "env":
        value = _from_env(rest, environ)
    elif source == "file":
        value = _text(_from_file(rest), reference)
    else:
        value = _text(_from_command(rest, environ), "command")
    if not value:
        raise SecretError(f"the secret from {source} is empty", where=_name(reference))
    return value


def _name(reference: str) -> str:
    """The reference for messages; of a command only its program, arguments may be telling."""
    source, _, rest = reference.partition(":")
    return f"command:{rest.split()[0]}" if source == "command" else reference


def _from_env(name: str, environ: Mapping[str, str]) -> str:
    if name not in environ:
        raise SecretError(f"there is no variable {name} in the engine's environment",
                          where=f"env:{name}", hint=f"set {name} where the engine is started")
    return environ[name]


def _from_file(name: str) -> bytes:
    path = Path(name)
    where = f"file:{name}"
    try:
        if not path.is_file():
            raise SecretError("there is no such file" if not path.exists() else
                              "this is not a plain file", where=where)
        with path.open("rb") as file:
            return file.read(LIMIT + 1)
    except OSError as error:
        raise SecretError(f"the file cannot be read: {error.strerror}", where=where) from error


def _from_command(line: str, environ: Mapping[str, str]) -> bytes:
    try:
        argv = shlex.split(line)
    except ValueError as error:
        raise SecretError(f"the command cannot be read: {str(error).lower()}",
                          where="command:") from error
    where = f"command:{argv[0]}"
    try:
        done = subprocess.run(argv, env=dict(environ), stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=TIMEOUT, check=False)
    except FileNotFoundError:
        raise SecretError("there is no such program", where=where) from None
    except OSError as error:
        raise SecretError(f"the program cannot be run: {error.strerror}", where=where) from error
    except subprocess.TimeoutExpired:
        raise SecretError(f"the program did not answer within {TIMEOUT:g} s", where=where) from None
    if done.returncode != 0:
        raise SecretError(f"the program ended with {done.returncode}", where=where,
                          hint="run it as the engine's user to see why")
    return done.stdout


def _text(data: bytes, reference: str) -> str:
    if len(data) > LIMIT:
        raise SecretError(f"the secret is larger than {LIMIT // 1024} KiB", where=_name(reference))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise SecretError("the secret is not text in UTF-8", where=_name(reference)) from None
    if "\0" in text:
        raise SecretError("the secret holds a zero byte", where=_name(reference))
    return text.removesuffix("\n").removesuffix("\r")
