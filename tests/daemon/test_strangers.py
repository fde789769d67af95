"""Real users and real processes at the socket: what each may do is what the kernel says it is."""

from __future__ import annotations

import grp
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import home as homes
from engine.api import wire
from engine.api.light import Client
from tests.daemon.conftest import Running
from tests.daemon.people import ASK, ask


@pytest.fixture
def system(users: dict[str, str], engine_process: Callable[..., Any]) -> Iterator[Path]:
    """A system engine's socket, in a home that others may pass through."""
    with tempfile.TemporaryDirectory(prefix="opsdeck-t-") as folder:
        Path(folder).chmod(0o755)
        home = homes.at(Path(folder) / "home", "system")
        home.path.mkdir(mode=0o711)
        home.config.write_text(f"""
engine: {{group: opsdeck-t-socket, steps_user: {users["out"]}}}
roles:
  operator: {{groups: [opsdeck-t-oncall]}}
  approver: {{users: [{users["bob"]}]}}
policy: {{break_glass: [operator]}}
""")
        home.config.chmod(0o644)
        process = engine_process(home.path, "system")
        assert process.poll() is None, process.communicate()
        yield home.socket


def test_the_socket_is_0660_and_its_groups(system: Path) -> None:
    found = system.stat()
    assert oct(found.st_mode & 0o777) == "0o660"
    assert grp.getgrgid(found.st_gid).gr_name == "opsdeck-t-socket"


def test_a_user_outside_the_group_does_not_reach_the_engine(system: Path,
                                                            users: dict[str, str]) -> None:
    answer = ask(system, "GET", "/v1/engine", user=users["out"])
    assert answer["status"] is None
    assert "PermissionError" in answer["body"]


def test_each_user_may_do_what_their_groups_and_name_say(system: Path,
                                                         users: dict[str, str]) -> None:
    started = ask(system, "POST", "/v1/runs", {"procedure": "vote"}, user=users["alice"])
    assert (started["status"], started["body"]["by"]) == (200, users["alice"])
    act = {"step": "drain", "digest": started["body"]["steps"][1]["gate"]["digest"]}
    path = "/v1/runs/1/approve"
    assert ask(system, "POST", path, act, user=users["alice"])["status"] == 403
    refused = ask(system, "POST", path, act, user=users["eve"])
    assert refused["status"] == 403
    assert refused["body"]["exit_code"] == 8
    assert users["eve"] in refused["body"]["message"]
    assert ask(system, "GET", "/v1/status", user=users["eve"])["status"] == 403
    assert ask(system, "GET", "/v1/engine", user=users["eve"])["body"]["roles"] == []
    assert ask(system, "POST", path, act, user=users["bob"])["status"] == 200


def test_root_and_the_engines_own_user_may_not_act_unless_mapped(system: Path,
                                                                 users: dict[str, str]) -> None:
    started = ask(system, "POST", "/v1/runs", {"procedure": "ask"}, user=users["alice"])
    act = {"step": "drain", "digest": started["body"]["steps"][1]["gate"]["digest"]}
    assert ask(system, "POST", "/v1/runs/1/confirm", act)["status"] == 403
    assert ask(system, "GET", "/v1/runs/1")["status"] == 403


def test_a_document_by_path_wants_an_admin(system: Path, users: dict[str, str]) -> None:
    answer = ask(system, "POST", "/v1/runs", {"procedure": "x.yaml", "document": "opsdeck: 1"},
                 user=users["alice"])
    assert answer["status"] == 403
    assert "not in the library" in answer["body"]["message"]


def test_the_glass_is_broken_by_the_role_that_may_and_with_a_reason(system: Path,
                                                                    users: dict[str, str]) -> None:
    started = ask(system, "POST", "/v1/runs", {"procedure": "vote"}, user=users["alice"])
    act = {"step": "drain", "digest": started["body"]["steps"][1]["gate"]["digest"],
           "break_glass": True}
    path = "/v1/runs/1/approve"
    assert ask(system, "POST", path, act, user=users["bob"])["status"] == 403
    assert ask(system, "POST", path, act, user=users["alice"])["status"] == 422
    assert ask(system, "POST", path, {**act, "reason": "site is down"},
               user=users["alice"])["status"] == 200


async def test_a_step_cannot_answer_over_the_socket_not_even_from_a_session_of_its_own(
        running: Running) -> None:
    import asyncio

    view = await running.client.start_run(wire.StartRun("vote"))
    gate = view.steps[1].gate
    assert gate is not None
    # A step: a session leader that goes on to ask, from inside its session and from outside it.
    step = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STEP, str(running.home.socket), ASK, json.dumps(
            {"step": "drain", "digest": gate.digest}), start_new_session=True,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    running.app.running.add(step.pid)
    out, _ = await asyncio.wait_for(step.communicate(b"go\n"), 30)
    inside, escaped = (json.loads(line) for line in out.splitlines())
    assert [inside["status"], escaped["status"]] == [403, 403]
    assert "was started by a step that runs" in escaped["body"]["message"]
    assert (await running.client.run(view.id)).state == "waiting"


STEP = """
import subprocess, sys
socket, ask, act = sys.argv[1:]
sys.stdin.readline()
for how in ([], ["escape"]):
    subprocess.run([sys.executable, "-c", ask, socket, "POST", "/v1/runs/1/approve", act, *how])
"""


async def test_a_step_that_left_its_parents_behind_is_known_by_the_lock_it_holds(
        running: Running) -> None:
    import asyncio

    view = await running.client.start_run(wire.StartRun("vote"))
    gate = view.steps[1].gate
    assert gate is not None
    lock = running.home.path / "runs" / "1" / "drain-1" / "lock"
    lock.parent.mkdir(parents=True)
    act = json.dumps({"step": "drain", "digest": gate.digest})
    with lock.open("w") as held:
        orphan = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ASK, str(running.home.socket), "POST", "/v1/runs/1/approve", act,
            pass_fds=(held.fileno(),), start_new_session=True, stdout=asyncio.subprocess.PIPE)
        out, _ = await asyncio.wait_for(orphan.communicate(), 30)
    answer = json.loads(out)
    assert answer["status"] == 403
    assert "holds the lock that a step left to it" in answer["body"]["message"]


async def test_the_owner_from_a_terminal_of_their_own_may_answer(running: Running) -> None:
    import asyncio

    view = await running.client.start_run(wire.StartRun("vote"))
    gate = view.steps[1].gate
    assert gate is not None
    act = wire.Act(step="drain", digest=gate.digest)
    done = await asyncio.to_thread(Client(running.home.socket).act, view.id, "approve", act)
    assert done.state == "done"
