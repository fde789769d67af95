"""A step that a system engine runs as its second user holds none of the engine's capabilities."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# A process that is where systemd puts the engine: another user, with CAP_SETUID and CAP_SETGID in
# its permitted, inheritable and ambient sets. Then it starts a step as nobody and prints its sets.
ENGINE = """
import ctypes, os, subprocess, sys
from engine.daemon.privileges import keep_to_ourselves
libc = ctypes.CDLL(None, use_errno=True)
caps = 1 << 6 | 1 << 7
libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
os.setgroups([]); os.setgid(4242); os.setuid(4242)
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
assert libc.capset(header, (ctypes.c_uint32 * 6)(caps, caps, caps, 0, 0, 0)) == 0
for cap in (6, 7):
    assert libc.prctl(47, 2, cap, 0, 0) == 0  # PR_CAP_AMBIENT_RAISE
if "keep" in sys.argv:
    keep_to_ourselves()
step = ["sh", "-c", "id -u; grep -E 'Cap(Eff|Amb)' /proc/self/status | cut -f2"]
os.chdir("/")
print(subprocess.run(step, user=65534, group=65534, extra_groups=[], check=True,
                     capture_output=True, text=True).stdout)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user with capabilities")
@pytest.mark.parametrize(("how", "sets"), [("keep", {"0"}), ("spread", {"c0"})])
def test_a_step_has_none_of_the_engines_capabilities(how: str, sets: set[str]) -> None:
    done = subprocess.run([sys.executable, "-c", ENGINE, how], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    uid, *found = done.stdout.split()
    assert uid == "65534"
    assert {value.lstrip("0") or "0" for value in found} == sets
