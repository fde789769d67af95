"""A project's command runs under its limits, is told of in words, and leaves nothing behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ActionFailed
from engine.pipeline.child import process
from engine.pipeline.child.lines import SHOWN, Lines
from engine.pipeline.project.model import Limits

PYTHON = Path(sys.executable)


def run(folder: Path, code: str, limits: Limits | None = None, **more: Any) -> process.Ended:
    given = process.variables(PYTHON, folder, more.pop("variables", {}))
    return process.run([sys.executable, "-c", code], folder=folder, variables=given,
                       limits=limits or Limits(), log=folder / "log.txt",
                       say=more.pop("say", lambda line: None), **more)


def gone(pid: int, within: float = 5.0) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def written(path: Path, within: float = 10.0) -> str:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if path.exists() and path.read_text().endswith("\n"):
            return path.read_text()
        time.sleep(0.01)
    raise AssertionError(f"{path.name} was not written")


def test_the_output_comes_line_by_line_and_is_kept(tmp_path: Path) -> None:
    said: list[str] = []
    code = "import sys; print('one'); print('two', file=sys.stderr); print('\\x1b[31mred\\rnext')"
    ended = run(tmp_path, code, say=said.append)
    assert ended.well and ended.tail == ("one", "two", "red", "next")
    assert said == ["one", "two", "red", "next"]
    assert (tmp_path / "log.txt").read_text() == "one\ntwo\nred\nnext\n"
    assert 1 < ended.peak_mb < 100 and ended.seconds > 0


def test_its_environment_has_nothing_of_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN", "OPSDECK_HOME", "PYTHONPATH"):
        monkeypatch.setenv(name, "engine")
    ended = run(tmp_path, "import os; print(sorted(os.environ))", variables={"MINE": "1"})
    assert ended.well
    names = set(eval(ended.tail[-1]))
    assert {"PATH", "HOME", "LANG", "TMPDIR", "MINE"} <= names
    assert not any(name.startswith(("AWS_", "MLFLOW_", "OPSDECK_")) for name in names)
    assert "PYTHONPATH" not in names


def test_secrets_are_masked_wherever_the_output_goes(tmp_path: Path) -> None:
    said: list[str] = []
    ended = run(tmp_path, "import os; print('key', os.environ['KEY'])", variables={"KEY": "hunter2-long"},
                secrets=["hunter2-long"], say=said.append)
    assert "hunter2" not in (tmp_path / "log.txt").read_text() + "".join(said) + "".join(ended.tail)
    assert said and said[0].startswith("key ")


@pytest.mark.parametrize(("code", "limits", "cause", "sentence"), [
    ("x = bytearray(900_000_000)", {"memory_mb": 512},
     "memory", "The training was ended for memory at its limit of 512 MB."),
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", {},
     "killed", "The training was killed from outside (SIGKILL), having used"),
    ("while True: pass", {"cpu": 1.0}, "cpu", "at its limit of 1 s of processor time"),
    ("import time; time.sleep(60)", {"timeout": 0.3}, "timeout", "at its limit of 300 ms"),
    ("open('big', 'wb').write(bytes(3_000_000))", {"file_mb": 1}, "file", "past its limit of 1 MB"),
])
def test_each_limit_is_told_as_such(tmp_path: Path, code: str, limits: dict[str, Any], cause: str,
                                    sentence: str) -> None:
    given = Limits(**limits)
    ended = run(tmp_path, code, given)
    problem = process.failure(ended, "The training", "train", given)
    assert ended.cause == cause and problem is not None
    assert sentence in problem.message and "train.limits" in str(problem.hint)


def test_an_exit_code_is_told_with_the_last_line(tmp_path: Path) -> None:
    ended = run(tmp_path, "print('the table is empty'); raise SystemExit(3)")
    problem = process.failure(ended, "The training", "train", Limits())
    assert problem is not None and problem.message == "The training exited with 3: the table is empty"


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ActionFailed, match="no-such-program could not be executed: No such file"):
        process.run(["no-such-program"], folder=tmp_path, variables={"PATH": "/usr/bin"}, limits=Limits(),
                    log=tmp_path / "log.txt", say=print)


# A child that ignores SIGTERM, with a grandchild in a session of its own that does too.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
other = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
with open("pids", "w") as file:
    print(os.getpid(), other.pid, file=file)
"""


def test_what_the_command_left_running_ends_with_it(tmp_path: Path) -> None:
    began = time.monotonic()
    ended = run(tmp_path, STUBBORN)
    assert ended.well and time.monotonic() - began < 5
    assert all(gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_a_stage_that_is_killed_takes_the_command_and_its_grandchildren_along(tmp_path: Path) -> None:
    code = STUBBORN + "time.sleep(600)\n"
    stage = subprocess.Popen([sys.executable, "-c", f"""
from pathlib import Path
from engine.pipeline.child import process
from engine.pipeline.project.model import Limits
folder = Path({str(tmp_path)!r})
process.run([{sys.executable!r}, "-c", {code!r}], folder=folder, limits=Limits(), log=folder / "log.txt",
            variables=process.variables(Path({sys.executable!r}), folder, {{}}), say=print)
"""])
    try:
        pids = [int(pid) for pid in written(tmp_path / "pids").split()]
        assert not any(gone(pid, 0.05) for pid in pids)
    finally:
        stage.send_signal(signal.SIGKILL)
        stage.wait()
    assert all(gone(pid) for pid in pids)


def test_a_stage_that_is_asked_to_end_ends_the_command(tmp_path: Path) -> None:
    def ask() -> None:
        if (tmp_path / "pids").exists():
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(process.Stopped) as stopped, process.stoppable():
        run(tmp_path, STUBBORN + "time.sleep(600)\n", tick=ask)
    assert stopped.value.code == 143 and signal.getsignal(signal.SIGTERM) == before
    assert all(gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_a_flood_of_lines_is_kept_and_shown_in_part() -> None:
    log, said = io.StringIO(), []
    lines = Lines(log, said.append, clock=lambda: 5.0)
    lines.feed("".join(f"line {at}\n" for at in range(1000)).encode() + b"half \xff")
    lines.feed(b" done", last=True)
    assert len(said) == SHOWN + 1 and said[-1] == f"… {1001 - SHOWN} more lines in log.txt"
    assert log.getvalue().count("\n") == 1001 and lines.tail[-1] == "half \ufffd done"


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    log, said = io.StringIO(), []
    lines = Lines(log, said.append, clock=lambda: 5.0)
    for _ in range(20):
        lines.feed(b"x" * 10_000)
    assert len(said) >= 9
    lines.feed(b"", last=True)
    assert log.getvalue().replace("\n", "") == "x" * 200_000
