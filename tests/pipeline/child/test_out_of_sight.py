"""What a stage is given in secret is out of reach of the project's code, which runs as the same user."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from pathlib import Path

from tests.pipeline.child.peeking import PROCESS
from tests.pipeline.project.written import project

SECRET = "hunter2-of-the-registry"
# Looks into every process above it, and into one that the test has started beside, which nothing protects.
LOOK = '''
import json, os
from pathlib import Path

def seen(pid):
    found = {}
    for name in ("environ", "cmdline", "fd/0"):
        try:
            with open(os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                found[name] = str(file.read())
        except OSError as error:
            found[name] = type(error).__name__
    try:
        open(f"/proc/{pid}/mem", "rb").close()
        found["mem"] = "opened"
    except OSError as error:
        found["mem"] = type(error).__name__
    return found

def main(inputs, output, params):
    above, pid = [], os.getppid()
    while len(above) < 2:  # what watches over this, and the stage; above is whoever started that
        above.append(seen(pid))
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    (output / "seen.json").write_text(json.dumps({"above": above, "beside": seen(params["beside"])}))
'''


def _as_any_user_is() -> None:
    """Root may then look into no more than any user may: without SYS_PTRACE, SYS_ADMIN and PERFMON."""
    for capability in (19, 21, 38) if os.geteuid() == 0 else ():
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def test_the_projects_code_finds_no_password_in_the_processes_above_it(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"], env={"TOLD": SECRET}, preexec_fn=_as_any_user_is) as beside:
        given = f'function: "train:main"}}\n  params: {{beside: {beside.pid}}}'
        folder = project(tmp_path / "delays", ('function: "train:main"}', given))
        (folder / "train.py").write_text(LOOK)
        home = tmp_path / "home"
        home.mkdir()
        words = ["one", "--project", "delays", "--folder", folder, "--home", home, "--run", "1", "--step",
                 "one", "--attempt", "1", "--hidden"]
        try:
            done = subprocess.run([*PROCESS, *map(str, words)], preexec_fn=_as_any_user_is, timeout=60,
                                  input=json.dumps({"MLFLOW_TRACKING_PASSWORD": SECRET}), text=True,
                                  capture_output=True, check=False)
        finally:
            beside.kill()
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["result"]["has"], told
    [made] = home.glob("pipelines/delays/stages/one/*/output")
    seen = json.loads((made / "seen.json").read_text())
    assert SECRET in seen["beside"]["environ"], "the test itself cannot look"
    assert SECRET not in json.dumps(seen["above"]) + done.stdout + done.stderr
    guard, stage = seen["above"]
    assert "guard.py" in guard["cmdline"] and "peeking.py" in stage["cmdline"]
    assert {guard["mem"], guard["fd/0"], stage["mem"], stage["fd/0"], stage["environ"]} == {"PermissionError"}
