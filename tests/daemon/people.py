"""Real Unix users for tests, and requests that really come from them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ASK = """
import http.client, json, os, pwd, socket, sys
if len(sys.argv) > 5 and sys.argv[5] != "escape":
    user = pwd.getpwnam(sys.argv[5])
    os.initgroups(user.pw_name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
if "escape" in sys.argv:
    if os.fork():
        os.wait()
        sys.exit()
    os.setsid()
class Local(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(sys.argv[1])
c = Local("opsdeck")
body = sys.argv[4].encode() if len(sys.argv) > 4 and sys.argv[4] else None
c.request(sys.argv[2], sys.argv[3], body)
r = c.getresponse()
print(json.dumps({"status": r.status, "body": json.loads(r.read())}))
"""
USERS = {"opsdeck-t-alice": "opsdeck-t-oncall", "opsdeck-t-bob": None, "opsdeck-t-eve": None}


def ask(socket: Path, method: str, path: str, body: Any = None, *,
        user: str | None = None) -> dict[str, Any]:
    """One request from a process of its own that became `user` first."""
    command = [sys.executable, "-I", "-c", ASK, str(socket), method, path,
               json.dumps(body) if body is not None else "", *([user] if user else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd="/")
    if done.returncode:
        return {"status": None, "body": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.fixture(scope="module", name="users")
def unix_users() -> Iterator[dict[str, str]]:
    """Users and a group of their own on this machine, gone afterwards."""
    if os.geteuid() != 0 or shutil.which("useradd") is None:
        pytest.skip("needs root and useradd (Debian package passwd) to make users")
    subprocess.run(["groupadd", "-f", "opsdeck-t-socket"], check=True)
    subprocess.run(["groupadd", "-f", "opsdeck-t-oncall"], check=True)
    for user, group in USERS.items():
        groups = ",".join(["opsdeck-t-socket", *([group] if group else [])])
        subprocess.run(["useradd", "-M", "-G", groups, user], check=False, capture_output=True)
    subprocess.run(["useradd", "-M", "opsdeck-t-out"], check=False, capture_output=True)
    yield {name.rpartition("-")[2]: name for name in [*USERS, "opsdeck-t-out"]}
    for user in [*USERS, "opsdeck-t-out"]:
        subprocess.run(["userdel", user], check=False, capture_output=True)
    for name in ("opsdeck-t-socket", "opsdeck-t-oncall"):
        subprocess.run(["groupdel", name], check=False, capture_output=True)
