"""Entry point of a training elsewhere: `python container.py [ROOT]`, ROOT laid out as SageMaker's /opt/ml.

    input/data/opsdeck/    this file, the runner, and job.json: command or function, params, variables,
                           limits, scrub (whether the command gets this process's variables too), watched
                           (whether it ends when standard input does)
    input/data/code/       the project's code, where the command runs
    input/data/rows/       what it reads
    model/                 what it writes, with environment.json and opsdeck.json (seconds, peak_mb)
    output/failure         one line, if it failed

What the command prints is printed, and so is each line of its metrics.jsonl, behind CURVE: a log is all that
is seen from outside while it runs. Standard library only, in the Python of the project's image.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

CURVE = "opsdeck-curve "
KEPT = ("PATH", "LANG", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
LONGEST = 1000  # characters of a reason; SageMaker keeps 1024
APART = 0.5  # seconds between two looks at the curve


class Follower(threading.Thread):
    """Prints the lines that are new in metrics.jsonl until `done`."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path, self.done, self.offset = path, threading.Event(), 0

    def run(self) -> None:
        while not self.done.wait(APART):
            self.look()
        self.look()

    def look(self) -> None:
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(self.offset)
            whole, end, _ = file.read().rpartition(b"\n")
            self.offset += len(whole + end)
        for line in whole.decode("utf-8", "replace").splitlines():
            print(CURVE + line, flush=True)


def limited(limits: dict[str, int]) -> None:
    os.setsid()
    for name, value in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, hard))


def end(child: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it has ended by itself


def watch(child: subprocess.Popen[bytes], alone: threading.Event) -> None:
    """End the command when standard input ends: whoever started this is gone, and `alone` is set."""
    while os.read(0, 4096):
        pass
    alone.set()
    end(child)


def reason(root: Path, told: Path, code: int, last: str) -> str:
    try:
        problem = json.loads(told.read_text("utf-8"))
        place = f"{problem['file']}:{problem['line']}: " if problem["file"] else ""
        return f"{place}{problem['type']}: {problem['message']}"[:LONGEST]
    except (OSError, ValueError, KeyError):
        how = f"was ended by signal {-code}" if code < 0 else f"exited with {code}"
        return f"it {how}: {last}"[:LONGEST]


def account(here: Path, model: Path, variables: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-I", str(here / "probe.py")], env=variables, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    if done.returncode == 0:
        (model / "environment.json").write_bytes(done.stdout)


def main() -> int:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "/opt/ml").resolve()
    here = root / "input/data/opsdeck"
    job: dict[str, Any] = json.loads((here / "job.json").read_text("utf-8"))
    scratch, alone = Path(tempfile.mkdtemp(prefix="scratch-", dir=root)), threading.Event()
    try:
        return train(job, root, scratch, alone)
    finally:
        # What nobody waits for any more is not left on this machine.
        shutil.rmtree(root if alone.is_set() else scratch, ignore_errors=True)


def train(job: dict[str, Any], root: Path, scratch: Path, alone: threading.Event) -> int:
    """The exit status. What it wrote lies in model/, or its reason in output/failure."""
    here, model = root / "input/data/opsdeck", root / "model"
    told = scratch / "failure.json"
    (scratch / "params.json").write_text(json.dumps(job["params"]), encoding="utf-8")
    model.mkdir(parents=True, exist_ok=True)
    base = {name: value for name, value in os.environ.items() if name in KEPT or not job["scrub"]}
    plain = {**base, **job["variables"], "HOME": str(scratch), "TMPDIR": str(scratch)}
    variables = {**plain, **job.get("credentials", {}), "OPSDECK_INPUTS": str(root / "input/data/rows"),
                 "OPSDECK_OUTPUT": str(model), "OPSDECK_PARAMS": str(scratch / "params.json")}
    command = [sys.executable, str(here / "runner.py"), job["function"], str(told)] if job["function"] else \
        [sys.executable if one in ("python", "python3") and at == 0 else one
         for at, one in enumerate(job["command"])]
    began = time.monotonic()
    child = subprocess.Popen(command, cwd=root / "input/data/code", env=variables, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             preexec_fn=lambda: limited(job["limits"]))
    signal.signal(signal.SIGTERM, lambda *_: end(child))
    if job["watched"]:
        threading.Thread(target=watch, args=(child, alone), daemon=True).start()
    follower = Follower(model / "metrics.jsonl")
    follower.start()
    last = ""
    assert child.stdout is not None
    for raw in child.stdout:
        line = raw.decode("utf-8", "replace").rstrip()
        last = line or last
        print(line, flush=True)
    code = child.wait()
    end(child)
    follower.done.set()
    follower.join()
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
    if code != 0:
        (root / "output").mkdir(parents=True, exist_ok=True)
        (root / "output" / "failure").write_text(reason(root, told, code, last), encoding="utf-8")
        return 1
    account(here, model, plain)
    (model / "opsdeck.json").write_text(json.dumps({"seconds": seconds, "peak_mb": peak}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
