"""Where a run takes place: the interpreter's own account, and the graphics processors' by nvidia-smi."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from engine.errors import ActionFailed, UsageError
from engine.reproduce.parts import Environment, Gpu

PROBE = Path(__file__).with_name("probe.py")
QUERY = ("name", "driver_version", "memory.total", "compute_cap")
TIMEOUT_S = 60.0
GPU_TIMEOUT_S = 15.0


def collect(python: Path | None = None, variables: Mapping[str, str] | None = None) -> Environment:
    """The environment as the process that trains finds it. Blocking, about half a second.

    `python`: the interpreter of the project's own environment, this one by default; `variables`: the whole
    environment that the training gets, this process's by default. Raises UsageError for an interpreter
    that is not there, ActionFailed when it gives no account of itself.
    """
    interpreter = python or Path(sys.executable)
    given = dict(os.environ if variables is None else variables)
    try:
        # -I: what lies in the current folder must not stand in for a module.
        done = subprocess.run([str(interpreter), "-I", str(PROBE)], env=given, stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=TIMEOUT_S, check=False)
    except OSError as error:
        raise UsageError(f"This interpreter cannot be started: {error.strerror}.", where=str(interpreter),
                         hint="Make the project's environment first.") from error
    except subprocess.TimeoutExpired as error:
        raise ActionFailed(f"The interpreter gave no account of itself within {TIMEOUT_S:.0f} s.",
                           where=str(interpreter)) from error
    try:
        found = msgspec.json.decode(done.stdout, type=Environment)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        told = done.stderr.decode(errors="replace").strip().splitlines() or ["it printed no reason"]
        raise ActionFailed(f"The interpreter gave no account of itself: {told[-1]}", where=str(interpreter),
                           hint="Its packages may be damaged; make the environment anew.") from error
    return msgspec.structs.replace(found, gpus=gpus(given))


def gpus(variables: Mapping[str, str] | None = None) -> list[Gpu]:
    """The NVIDIA cards and their driver; none where nvidia-smi is not installed or sees none. Blocking.

    Raises ActionFailed when nvidia-smi does not answer: a card that hangs would be left out silently.
    """
    given = os.environ if variables is None else variables
    command = shutil.which("nvidia-smi", path=given.get("PATH"))
    if command is None:
        return []
    try:
        done = subprocess.run([command, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"],
                              env=dict(given), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=GPU_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ActionFailed(f"nvidia-smi did not answer within {GPU_TIMEOUT_S:.0f} s.", where=command,
                           hint="A card or its driver hangs; look at dmesg.") from error
    except OSError as error:
        raise ActionFailed(f"nvidia-smi cannot be started: {error.strerror}.", where=command) from error
    # Exit code 9: no driver is loaded; 6: no device was found.
    return [_gpu(line) for line in done.stdout.splitlines() if line.count(",") >= 3] \
        if done.returncode == 0 else []


def _gpu(line: str) -> Gpu:
    name, driver, memory, capability = [part.strip() for part in line.rsplit(",", 3)]
    return Gpu(name, driver, int(memory) if memory.isdigit() else None,
               capability if capability.replace(".", "").isdigit() else "")
