"""The engine without a screen, as CI meets it: exit codes, JSON, and failing closed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.end_to_end.command import Opsdeck

EMBEDDED = ("--embedded",)


@pytest.mark.parametrize(("steps", "options", "code", "state"), [
    ('- {id: a, title: A, shell: "true", effect: none}', (), 0, "done"),
    ('- {id: a, title: A, shell: "exit 9", effect: none}', (), 1, "failed"),
    ('- {id: a, title: A, shell: "true", irreversible: t, confirm: "yes"}', (), 3, "waiting"),
    ('- {id: a, title: A, shell: "true", irreversible: t, confirm: "yes"}', ("--yes",), 0, "done"),
    ('- {id: a, title: A, shell: "true", irreversible: t, confirm: {typed: prod}}', ("--yes",), 3,
     "waiting"),
    ('- {id: a, title: A, shell: "true", irreversible: t, confirm: {typed: prod}}',
     ("--confirm", "a=prod"), 0, "done"),
    ('- {id: a, title: A, shell: "true", irreversible: t, confirm: {typed: prod}}',
     ("--confirm", "a=test"), 3, "waiting"),
    ('- {id: a, title: A, shell: "true", irreversible: t, approvals: {min: 1}}', ("--yes",), 3,
     "waiting"),
    ('- {id: a, title: A, shell: "sleep 60", irreversible: t, timeout: 300ms}', (), 4, "waiting"),
    ('- {id: a, title: A, shell: "true", undo: {shell: "true"}}\n'
     '- {id: b, title: B, shell: "false", irreversible: t, on_failure: rollback}', (), 5,
     "rolled_back"),
])
def test_the_exit_code_says_how_it_went(opsdeck: Opsdeck, steps: str, options: tuple[str, ...],
                                        code: int, state: str) -> None:
    path = opsdeck.procedure("case", steps)
    shown = opsdeck.json("run", str(path), "--embedded", *options, code=code)
    assert shown["state"] == state


def test_bad_usage_and_bad_documents_exit_2_and_name_file_and_line(opsdeck: Opsdeck) -> None:
    path = opsdeck.procedure("broken", '- {id: a, title: A, shell: "true", efect: none}')
    done = opsdeck("run", str(path), "--embedded")
    assert done.returncode == 2
    assert f"{path}:10" in done.stderr and "efect" in done.stderr and "effect" in done.stderr
    for arguments in (("run", "no-such-procedure", "--embedded"), ("run", str(path) + "x", "--embedded"),
                      ("run", str(path), "--probe"), ("run", str(path), "--embedded", "-p", "x"),
                      ("fly",), ("show", "7x")):
        refused = opsdeck(*arguments)
        assert refused.returncode in (2, 7), arguments
        assert "Traceback" not in refused.stderr and refused.stderr.strip()


def test_a_parameter_that_does_not_fit_is_refused_before_anything_runs(opsdeck: Opsdeck) -> None:
    path = opsdeck.procedure("typed", '- {id: a, title: A, shell: ["echo", "${{ params.n }}"], effect: none}',
                             'params: {n: {type: integer, min: 1, max: 5, required: true}}')
    for given in ("9", "two", ""):
        done = opsdeck("run", str(path), "--embedded", "-p", f"n={given}")
        assert done.returncode == 2 and "`n`" in done.stderr
    assert opsdeck("run", str(path), "--embedded").returncode == 2
    assert opsdeck("run", str(path), "--embedded", "-p", "n=3").returncode == 0


def test_without_an_engine_a_run_exits_7_and_says_how_to_start_one(opsdeck: Opsdeck) -> None:
    done = opsdeck("run", "high-latency")
    assert done.returncode == 7 and "opsdeck engine start" in done.stderr


def test_after_exit_3_the_run_stays_and_an_engine_goes_on_with_it(opsdeck: Opsdeck) -> None:
    mark = opsdeck.home / "mark"
    path = opsdeck.procedure("gated", f"""
        - {{id: a, title: A, shell: "echo a >> {mark}", irreversible: t}}
        - {{id: b, title: B, shell: "echo b >> {mark}", irreversible: t, confirm: "yes"}}
        """)
    waiting = opsdeck.json("run", str(path), "--embedded", code=3)
    assert mark.read_text() == "a\n"
    opsdeck("engine", "start")
    assert opsdeck.json("show", waiting["id"])["state"] == "waiting"
    assert opsdeck("confirm", waiting["id"], "b").returncode == 0
    assert ended(opsdeck, waiting["id"])["state"] == "done"
    assert mark.read_text() == "a\nb\n"


def ended(opsdeck: Opsdeck, run: str, within: float = 20.0) -> dict[str, object]:
    end = time.monotonic() + within
    while True:
        shown: dict[str, object] = opsdeck.json("show", run)
        if shown["ended"] is not None:
            return shown
        assert time.monotonic() < end, shown


def test_embedded_is_refused_while_an_engine_has_the_home(opsdeck: Opsdeck) -> None:
    path = opsdeck.procedure("any", '- {id: a, title: A, shell: "true", effect: none}')
    pid = opsdeck.json("engine", "start")["pid"]
    done = opsdeck("run", str(path), "--embedded")
    assert done.returncode == 2 and str(pid) in done.stderr


def test_detach_prints_the_id_at_once_and_the_engine_goes_on(opsdeck: Opsdeck) -> None:
    opsdeck.procedure("slow", '- {id: a, title: A, shell: "sleep 0.5; echo hi", effect: none}')
    opsdeck("engine", "start")
    started = opsdeck.json("run", "slow", "--detach")
    assert set(started) == {"id"}
    shown = ended(opsdeck, started["id"])
    assert shown["steps"][0]["stdout"] == "hi\n"  # type: ignore[index]


def test_aborted_exits_6(opsdeck: Opsdeck) -> None:
    import subprocess

    from tests.end_to_end.command import OPSDECK

    opsdeck.procedure("slow", f"""
        - {{id: a, title: A, shell: "touch {opsdeck.home}/on; sleep 60", effect: none}}
        """)
    opsdeck("engine", "start")
    follower = subprocess.Popen([OPSDECK, "--home", str(opsdeck.home), "run", "slow", "--json"],
                                stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 20
    while not (opsdeck.home / "on").exists():
        assert time.monotonic() < end
    assert opsdeck("abort", "1").returncode == 0
    out, _ = follower.communicate(timeout=20)
    assert follower.returncode == 6 and json.loads(out)["state"] == "aborted"


def test_the_json_of_show_has_the_fields_that_programs_rely_on(opsdeck: Opsdeck) -> None:
    path = opsdeck.procedure("two", """
        - {id: a, title: A, shell: ["echo", "hi"], effect: none}
        - {id: b, title: B, shell: "exit 3", effect: none}
        """)
    opsdeck.json("run", str(path), "--embedded", code=1)
    opsdeck("engine", "start")
    shown = opsdeck.json("show", "1")
    assert {"id", "procedure", "state", "steps"} <= set(shown)
    assert (shown["id"], shown["procedure"], shown["state"]) == ("1", "two", "failed")
    a, b = shown["steps"]
    fields = {"id", "state", "attempt", "exit_code", "stdout", "result", "by", "started", "ended"}
    assert fields <= set(a) and (a["state"], a["exit_code"], a["stdout"]) == ("done", 0, "hi\n")
    assert (b["state"], b["exit_code"]) == ("failed", 3)
    info = opsdeck.json("engine", "status")
    assert set(info) == {"pid", "socket", "version", "state"}
    status = opsdeck.json("status")
    assert set(status) == {"at", "services"} and status["services"] == []


def test_a_dry_run_runs_nothing_that_has_an_effect_and_says_so_for_each_step(opsdeck: Opsdeck) -> None:
    mark = opsdeck.home / "mark"
    path = opsdeck.procedure("dry", f"""
        - {{id: look, title: Look, shell: "echo looked >> {mark}", effect: none}}
        - {{id: act, title: Act, shell: "echo acted >> {mark}", irreversible: t,
            probe: {{shell: "false"}}}}
        - {{id: later, title: Later, shell: ["echo", "${{{{ steps.act.stdout }}}}"], effect: none}}
        """)
    shown = opsdeck.json("run", str(path), "--embedded", "--dry-run")
    assert not mark.exists()
    assert [s["reason"].split(":")[0] for s in shown["steps"]] == ["would run", "would run",
                                                                  "not known yet"]
    probed = opsdeck.json("run", str(path), "--embedded", "--dry-run", "--probe")
    assert mark.read_text() == "looked\n"
    assert probed["steps"][0]["reason"] == "checked"
    assert probed["steps"][1]["reason"] == "would run; its probe says not-done"


def test_a_step_cannot_approve_or_confirm_its_own_run_over_the_socket(opsdeck: Opsdeck) -> None:
    """It runs as the engine's owner, who has every role; that it is a step is what counts."""
    from tests.end_to_end.command import OPSDECK

    command = f"{OPSDECK} --home {opsdeck.home}"
    opsdeck.procedure("sly", f"""
        - id: sly
          title: Sly
          needs: []
          effect: none
          shell: |
            {command} approve 1 gate; echo "approve $?"
            setsid -w {command} approve 1 gate; echo "setsid $?"
            {command} confirm 1 ask; echo "confirm $?"
        - {{id: gate, title: Gate, needs: [], shell: "true", irreversible: t,
            approvals: {{min: 1, not_initiator: false}}}}
        - {{id: ask, title: Ask, needs: [], shell: "true", irreversible: t, confirm: "yes"}}
        """)
    opsdeck("engine", "start")
    opsdeck.json("run", "sly", code=3)
    shown = opsdeck.json("show", "1")
    sly = next(s for s in shown["steps"] if s["id"] == "sly")
    assert sly["stdout"].split("\n")[-4:-1] != [] and "approve 8" in sly["stdout"]
    assert "setsid 8" in sly["stdout"] and "confirm 8" in sly["stdout"]
    assert {s["id"]: s["state"] for s in shown["steps"]} == {"sly": "done", "gate": "waiting",
                                                             "ask": "waiting"}
    assert opsdeck("approve", "1", "gate").returncode == 0


def test_what_is_written_to_a_closed_pipe_is_no_error(opsdeck: Opsdeck, tmp_path: Path) -> None:
    import subprocess

    from tests.end_to_end.command import OPSDECK

    done = subprocess.run(f"{OPSDECK} --home {opsdeck.home} config example | head -1", shell=True,
                          capture_output=True, text=True)
    assert done.stderr == ""
