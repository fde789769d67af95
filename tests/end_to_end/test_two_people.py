"""A system engine with real Unix users: two people approve, and the step runs as a third."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import home as homes
from tests.daemon.people import ask
from tests.reproduce.repository import Repository

ROOT = Path(__file__).parents[2]
DOCUMENT = """opsdeck: 1
id: big-step
title: A step that two people must allow
kind: runbook
owner: tests
reviewed: 2026-11-20
review_every: 9999d
steps:
  - id: act
    title: Act
    shell: "id -un; env | cut -d= -f1 | sort | tr '\\\\n' ' '"
    irreversible: test
    approvals: {min: 2, roles: [approver], not_initiator: true}
"""

SECRET_DOCUMENT = """opsdeck: 1
id: with-token
title: A step with a token
kind: runbook
owner: tests
reviewed: 2026-11-20
review_every: 9999d
params:
  token: {type: secret, required: true}
steps:
  - id: act
    title: Act
    env: {TOKEN: "${{ params.token }}"}
    shell: "printenv TOKEN | wc -c"
    irreversible: test
"""

WRITTEN_DOCUMENT = """opsdeck: 1
id: let-go
title: Release what somebody wrote
kind: runbook
owner: tests
reviewed: 2026-11-20
review_every: 9999d
params:
  folder: {type: string, required: true}
  since: {type: string, required: true}
steps:
  - {id: build, title: Build it, use: test.built,
     with: {folder: "${{ params.folder }}", since: "${{ params.since }}"}}
  - id: act
    title: Act
    shell: "true"
    irreversible: test
    approvals: {min: 1, roles: [approver], not_initiator: true}
"""


@pytest.fixture
def system(users: dict[str, str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="opsdeck-s-") as folder:
        Path(folder).chmod(0o755)
        home = homes.at(Path(folder) / "home", "system")
        home.path.mkdir(mode=0o711)
        (home.path / "runbooks").mkdir(mode=0o755)
        (home.path / "runbooks" / "big-step.yaml").write_text(DOCUMENT)
        (home.path / "runbooks" / "with-token.yaml").write_text(SECRET_DOCUMENT)
        (home.path / "runbooks" / "let-go.yaml").write_text(WRITTEN_DOCUMENT)
        home.config.write_text(f"""
people: {{{users["bob"]}: [robert@example.org]}}
policy: {{break_glass: [approver]}}
engine: {{group: opsdeck-t-socket, steps_user: {users["out"]}, secret_env: [FOR_STEPS_*]}}
roles:
  operator: {{groups: [opsdeck-t-oncall]}}
  approver: {{users: [{users["alice"]}, {users["bob"]}, {users["eve"]}]}}
""")
        home.config.chmod(0o644)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.end_to_end.system_engine", str(home.path)], cwd=ROOT,
            stdout=subprocess.PIPE, text=True, env={**os.environ, "SECRET_OF_THE_ENGINE": "x",
                                                        "FOR_STEPS_TOKEN": "hunter2"})
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield home.socket
        process.terminate()
        process.wait(20)


def show(socket: Path, user: str) -> dict[str, Any]:
    found: dict[str, Any] = ask(socket, "GET", "/v1/runs/1", user=user)["body"]
    return found


def test_two_people_other_than_the_initiator_let_the_step_run(system: Path,
                                                              users: dict[str, str]) -> None:
    alice, bob, eve = users["alice"], users["bob"], users["eve"]
    started = ask(system, "POST", "/v1/runs", {"procedure": "big-step"}, user=alice)
    assert started["status"] == 200 and started["body"]["by"] == alice
    assert started["body"]["unisolated"] is False
    act = {"step": "act", "digest": started["body"]["steps"][0]["gate"]["digest"]}
    assert ask(system, "POST", "/v1/runs/1/approve", act, user=alice)["status"] == 403
    assert ask(system, "POST", "/v1/runs/1/approve", act, user=bob)["status"] == 200
    assert ask(system, "POST", "/v1/runs/1/approve", act, user=bob)["status"] == 409
    assert show(system, eve)["state"] == "waiting"
    assert ask(system, "POST", "/v1/runs/1/approve", act, user=eve)["status"] == 200
    end = time.monotonic() + 20
    while show(system, alice)["ended"] is None:
        assert time.monotonic() < end
    step = show(system, alice)["steps"][0]
    assert step["state"] == "done", step["error"]
    name, environment = step["stdout"].splitlines()
    assert name == users["out"] == pwd.getpwnam(users["out"]).pw_name
    assert "SECRET_OF_THE_ENGINE" not in environment and "OPSDECK_RUN" in environment


def test_nobody_approves_what_they_wrote_but_with_broken_glass(
        system: Path, users: dict[str, str], tmp_path: Path) -> None:
    """alice starts what bob and eve wrote: bob is known by the map, eve by the name of her address."""
    alice, bob, eve = users["alice"], users["bob"], users["eve"]
    repo = Repository(tmp_path / "project")
    since = repo.commit(a__py="first")
    for author in ("Robert <robert@example.org>", f"E <{eve}@example.org>", "X <x@example.net>"):
        repo.write("a.py", author)
        repo.git("-c", "user.name=Forge", "-c", "user.email=noreply@forge", "commit", "-qam", "x",
                 f"--author={author}")
    run = ask(system, "POST", "/v1/runs", {"procedure": "let-go", "params": {
        "folder": str(repo.folder), "since": since}}, user=alice)["body"]["id"]
    end = time.monotonic() + 20
    while (gate := show(system, alice)["steps"][1]["gate"]) is None:
        assert time.monotonic() < end
    assert gate["authors"] == sorted([bob, eve])
    assert "X <x@example.net>, who is no user of this engine as far as its config tells" in gate["written"]
    act = {"step": "act", "digest": gate["digest"]}
    path = f"/v1/runs/{run}/approve"
    for user, commit in ((bob, "by Robert <robert@example.org>), and may not approve it too"),
                         (eve, f"by E <{eve}@example.org>, taken for {eve} by the e-mail or name)")):
        refused = ask(system, "POST", path, act, user=user)
        assert refused["status"] == 403 and commit in refused["body"]["message"]
        assert "another person with the role approver approves it; approver may open it alone" in (
            refused["body"]["hint"])
    [waits] = ask(system, "GET", "/v1/snapshot", user=bob)["body"]["waiting"]
    assert not waits["may"] and waits["why"].startswith("you wrote what this step puts into production")
    assert ask(system, "POST", path, act, user=alice)["status"] == 403, "she started it"
    done = ask(system, "POST", path, {**act, "break_glass": True, "reason": "nobody else"}, user=eve)
    assert done["status"] == 200
    events = ask(system, "GET", f"/v1/runs/{run}/timeline", user=bob)["body"]["events"]
    [opened] = [event for event in events if event["kind"] == "gate.approved"]
    assert opened["by"] == eve and "by an author (commit " in opened["text"]


def test_nobody_runs_a_document_of_their_own_on_a_system_engine(system: Path,
                                                                users: dict[str, str]) -> None:
    own = DOCUMENT.replace("    approvals: {min: 2, roles: [approver], not_initiator: true}\n", "")
    refused = ask(system, "POST", "/v1/runs", {"procedure": "mine.yaml", "document": own},
                  user=users["alice"])
    assert refused["status"] == 403 and "admin" in str(refused["body"])


def test_an_operator_cannot_have_the_engines_own_variables_read_into_a_step(
        system: Path, users: dict[str, str]) -> None:
    alice = users["alice"]

    def start(reference: str) -> dict[str, Any]:
        return ask(system, "POST", "/v1/runs", {"procedure": "with-token", "params": {
            "token": reference}}, user=alice)

    refused = start("env:SECRET_OF_THE_ENGINE")
    assert refused["status"] == 403
    assert "add SECRET_OF_THE_ENGINE to `engine: secret_env:`" in refused["body"]["hint"]
    assert start("env:FOR_STEPS_TOKEN")["status"] == 200
    end = time.monotonic() + 20
    while show(system, alice)["ended"] is None:
        assert time.monotonic() < end
    assert show(system, alice)["steps"][0]["stdout"].strip() == "8"


def test_roles_change_while_the_engine_runs_and_only_an_admin_may_ask_for_it(
        system: Path, users: dict[str, str]) -> None:
    home = homes.at(system.parent, "system")
    written = home.config.read_text()
    assert ask(system, "GET", "/v1/status", user=users["bob"])["status"] == 200
    home.config.write_text(written.replace(f"{users['bob']}, ", "")
                           + f"  admin: {{users: [{users['alice']}]}}\n")
    assert ask(system, "POST", "/v1/engine/reload", user=users["alice"])["status"] == 403
    os.kill(json.loads(home.record.read_text())["pid"], signal.SIGHUP)
    end = time.monotonic() + 20
    while ask(system, "GET", "/v1/status", user=users["bob"])["status"] == 200:
        assert time.monotonic() < end, "the roles from before still hold"
    home.config.write_text(written)
    done = ask(system, "POST", "/v1/engine/reload", user=users["alice"])
    assert (done["status"], done["body"]["changed"]) == (200, ["roles.admin", "roles.approver"])
    assert ask(system, "GET", "/v1/status", user=users["bob"])["status"] == 200
    home.config.chmod(0o666)
    assert ask(system, "POST", "/v1/engine/reload", user=users["alice"])["status"] == 403
    os.kill(json.loads(home.record.read_text())["pid"], signal.SIGHUP)
    events: list[str] = []
    while "config.refused" not in events:
        assert time.monotonic() < end, "a config that anybody may write was not refused"
        found = ask(system, "GET", "/v1/events", user=users["bob"])["body"]["events"]
        events = [event["kind"] for event in found]
