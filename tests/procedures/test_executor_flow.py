"""What a run does, step by step, with real processes and a real journal."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from engine.errors import DocumentError
from tests.procedures.kit import ANN, World, kit, running, states, step

FOUR = """
- {id: a, title: A, shell: ["echo", "one"], effect: none}
- {id: b, title: B, shell: "echo two; echo err >&2", effect: none}
"""


async def test_steps_run_in_order_and_their_output_is_kept(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start(FOUR))
    assert view.state == "done" and states(view) == {"a": "done", "b": "done"}
    assert step(view, "a").stdout == "one\n" and step(view, "a").exit_code == 0
    assert step(view, "a").ended <= step(view, "b").started


async def test_independent_steps_run_side_by_side(tmp_path: Path) -> None:
    """Each of two steps waits for a file that the other one makes: only together can they end."""
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start(f"""
            - id: left
              title: Left
              needs: []
              timeout: 10s
              shell: "touch {tmp_path}/l; until [ -e {tmp_path}/r ]; do sleep 0.02; done"
            - id: right
              title: Right
              needs: []
              timeout: 10s
              shell: "touch {tmp_path}/r; until [ -e {tmp_path}/l ]; do sleep 0.02; done"
            """))
    assert states(view) == {"left": "done", "right": "done"}


async def test_a_failure_ends_the_run_and_says_why(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start("""
            - {id: a, title: A, shell: "echo no route >&2; exit 3", effect: none}
            - {id: b, title: B, shell: "true", effect: none}
            """))
    assert view.state == "failed" and states(view) == {"a": "failed", "b": "planned"}
    assert step(view, "a").exit_code == 3
    assert "exited with 3: no route" in (view.reason or "")


async def test_continue_passes_over_a_failure(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start("""
            - {id: a, title: A, shell: "false", effect: none, on_failure: continue}
            - {id: b, title: B, shell: "true", effect: none}
            """))
    assert view.state == "done" and states(view) == {"a": "failed", "b": "done"}


async def test_a_step_is_retried_as_often_as_it_says(tmp_path: Path) -> None:
    count = tmp_path / "count"
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start(f"""
            - id: a
              title: A
              effect: idempotent
              irreversible: test
              retry: {{times: 3, backoff: 10ms}}
              shell: "echo x >> {count}; [ $(wc -l < {count}) -ge 3 ]"
            """))
    assert view.state == "done" and step(view, "a").attempt == 3
    assert count.read_text() == "x\nx\nx\n"


async def test_a_step_gives_up_after_its_retries(tmp_path: Path) -> None:
    count = tmp_path / "count"
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start(f"""
            - id: a
              title: A
              effect: none
              retry: {{times: 2, backoff: 10ms}}
              shell: "echo x >> {count}; false"
            """))
    assert view.state == "failed" and count.read_text() == "x\nx\nx\n"


async def test_when_decides_on_the_result_of_a_step_before(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start("""
            - {id: a, title: A, shell: ["echo", '{"n": 2}'], effect: none}
            - {id: b, title: B, shell: "true", effect: none, when: "steps.a.json.n > 5"}
            - {id: c, title: C, shell: ["echo", "${{ steps.a.json.n }}"], effect: none,
               when: "steps.a.json.n == 2"}
            """))
    assert states(view) == {"a": "done", "b": "skipped", "c": "done"}
    assert step(view, "b").reason == "not needed: steps.a.json.n > 5"
    assert step(view, "c").stdout == "2\n"


async def test_a_step_that_is_not_needed_says_why_in_the_words_of_the_document(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start("""
            - {id: a, title: A, shell: "true", effect: none, when: "1 > 2",
               otherwise: one is not more than two}
            - {id: b, title: B, shell: "true", effect: none, when: "steps.a.state == 'done'",
               otherwise: "a was ${{ steps.a.state }}"}
            """))
    assert step(view, "a").reason == "one is not more than two"
    assert step(view, "b").reason == "a was skipped"


async def test_otherwise_without_a_when_is_refused(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        with pytest.raises(DocumentError) as refused:
            await k.start("""
                - {id: a, title: A, shell: "true", effect: none, otherwise: never}
                """)
    assert "`otherwise` says why a step is not needed: give `when` too" in str(refused.value.problems)


async def test_a_when_over_a_missing_field_fails_the_step_with_a_sentence(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start("""
            - {id: a, title: A, shell: "true", effect: none}
            - {id: b, title: B, shell: "true", effect: none, when: "steps.a.result.nothing > 5"}
            """))
    assert view.state == "failed" and "b" in (step(view, "b").error or "")


async def test_expect_fails_a_step_whose_result_is_not_as_wanted(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start("""
            - {id: a, title: A, shell: ["echo", "cold"], effect: none, expect: "stdout == 'warm'"}
            """))
    assert view.state == "failed" and "expected stdout" in (step(view, "a").error or "")


async def test_expect_may_want_another_exit_code(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start("""
            - {id: a, title: A, shell: "exit 4", effect: none, expect: "exit_code == 4"}
            """))
    assert view.state == "done" and step(view, "a").exit_code == 4


async def test_goto_goes_back_over_repeatable_steps_at_most_max_times(tmp_path: Path) -> None:
    count = tmp_path / "count"
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start(f"""
            - {{id: a, title: A, shell: "echo x >> {count}", effect: idempotent, irreversible: test}}
            - {{id: b, title: B, shell: "[ $(wc -l < {count}) -ge 3 ]", effect: none,
                on_failure: {{goto: a, max: 2}}}}
            """))
    assert view.state == "done" and count.read_text() == "x\nx\nx\n"
    assert step(view, "a").attempt == 3


async def test_goto_forward_skips_what_lies_between(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start("""
            - {id: a, title: A, shell: "false", effect: none, on_failure: {goto: c}}
            - {id: b, title: B, shell: "true", effect: none}
            - {id: c, title: C, shell: "true", effect: none}
            """))
    assert view.state == "done"
    assert states(view) == {"a": "failed", "b": "skipped", "c": "done"}


async def test_rollback_undoes_the_failed_step_and_then_the_done_ones_backwards(
        tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start(f"""
            - {{id: a, title: A, shell: "echo a >> {log}", undo: {{shell: "echo undo-a >> {log}"}}}}
            - {{id: b, title: B, shell: "echo b >> {log}", undo: {{shell: "echo undo-b >> {log}"}}}}
            - {{id: c, title: C, shell: "echo c >> {log}; exit 1", on_failure: rollback,
                undo: {{shell: "echo undo-c >> {log}"}}}}
            """))
    assert view.state == "rolled_back"
    assert log.read_text().split() == ["a", "b", "c", "undo-c", "undo-b", "undo-a"]
    assert states(view) == {"a": "undone", "b": "undone", "c": "undone", "undo:a": "done",
                            "undo:b": "done", "undo:c": "done"}


async def test_an_undo_that_fails_asks_and_can_be_retried(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    async with kit(tmp_path) as k:
        live = await k.start(f"""
            - {{id: a, title: A, shell: "true", undo: {{shell: "[ -e {ready} ]"}}}}
            - {{id: b, title: B, shell: "false", on_failure: rollback, irreversible: test}}
            """)
        view = await k.waiting(live, "undo:a")
        assert view.state == "waiting" and "undo:a failed" in (view.next or "")
        ready.touch()
        await k.act(live, "retry", step="undo:a")
        view = await k.ended(live)
    assert view.state == "rolled_back" and states(view)["a"] == "undone"


async def test_ask_waits_for_a_person_to_retry(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    async with kit(tmp_path) as k:
        live = await k.start(f"""
            - {{id: a, title: A, shell: "[ -e {ready} ]", effect: none, on_failure: ask}}
            """)
        await k.waiting(live, "a")
        ready.touch()
        await k.act(live, "retry", step="a")
        view = await k.ended(live)
    assert view.state == "done" and step(view, "a").attempt == 2


async def test_a_once_step_that_runs_into_its_timeout_is_unknown_and_can_be_settled(
        tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start("""
            - {id: a, title: A, shell: "sleep 60", timeout: 300ms, irreversible: test}
            - {id: b, title: B, shell: "true", effect: none}
            """)
        view = await k.waiting(live, "a")
        assert view.state == "waiting" and step(view, "a").state == "unknown"
        assert "done or not-done" in (view.next or "")
        await k.act(live, "settle", step="a", text="done")
        view = await k.ended(live)
    assert view.state == "done" and states(view) == {"a": "done", "b": "done"}


async def test_a_repeatable_step_that_runs_into_its_timeout_has_failed(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start(
            '- {id: a, title: A, shell: "sleep 60", timeout: 200ms, effect: none}'))
    assert view.state == "failed" and "timeout of 0.2 s" in (step(view, "a").error or "")


async def test_a_timeout_ends_the_whole_process_group_and_who_left_it(tmp_path: Path) -> None:
    """A grandchild in the group, and one that left it with setsid, both end with the step."""
    async with kit(tmp_path) as k:
        live = await k.start(f"""
            - id: a
              title: A
              effect: none
              timeout: 500ms
              shell: |
                sh -c 'echo $$ > {tmp_path}/inside; exec sleep 70' &
                setsid sh -c 'echo $$ > {tmp_path}/outside; exec sleep 70' &
                sleep 70
            """)
        view = await k.ended(live)
    assert view.state == "failed"
    for name in ("inside", "outside"):
        pid = (tmp_path / name).read_text().strip()
        assert not running(pid), f"the {name} process outlived its step"


async def test_what_a_step_leaves_in_the_background_ends_with_it(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start(f"""
            - {{id: a, title: A, effect: none,
                shell: "sh -c 'echo $$ > {tmp_path}/pid; exec sleep 70' & sleep 0.2"}}
            """))
    assert view.state == "done"
    assert not running((tmp_path / "pid").read_text().strip())


async def test_a_command_that_does_not_exist_fails_with_its_name(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start(
            '- {id: a, title: A, shell: ["no-such-command-here"], effect: none}'))
    assert view.state == "failed" and "no-such-command-here" in (step(view, "a").error or "")


async def test_a_hundred_megabytes_of_output_are_capped_and_digested(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        started = time.monotonic()
        view = await k.ended(await k.start(
            "- {id: a, title: A, shell: 'head -c 100000000 /dev/zero | tr \"\\\\0\" x', effect: none}"))
        took = time.monotonic() - started
    shown = step(view, "a")
    assert view.state == "done" and shown.output_bytes == 100_000_000
    assert len(shown.stdout) < 70_000 and "bytes left out here" in shown.stdout
    assert Path(shown.output_file or "").stat().st_size == 100_000_000
    assert took < 20


async def test_invalid_utf8_and_escape_sequences_are_harmless(tmp_path: Path) -> None:
    script = r"printf '\377\376ok\033[2J\033]0;owned\007\033[31mred\033[0m\r50%%\r100%%\n'"
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start(f"""
            - id: a
              title: A
              effect: none
              shell: |
                {script}
            """))
    shown = step(view, "a").stdout
    assert "ok" in shown and "red" in shown and "100%" in shown
    assert "\x1b" not in shown and "owned" not in shown


async def test_a_secret_reaches_the_step_by_environment_and_is_masked_everywhere(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_TOKEN", "hunter2-secret")
    async with kit(tmp_path) as k:
        live = await k.start("""
            - id: a
              title: A
              effect: none
              env: {TOKEN: "${{ params.token }}"}
              shell: 'echo "got $TOKEN"; [ ${#TOKEN} = 14 ]'
            """, params={"token": "env:THE_TOKEN"}, head="params: {token: {type: secret}}")
        view = await k.ended(live)
    assert view.state == "done"
    assert "hunter2" not in step(view, "a").stdout and "got" in step(view, "a").stdout
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"hunter2" not in path.read_bytes(), path


async def test_parameters_in_a_shell_string_are_quoted_not_executed(tmp_path: Path) -> None:
    evil = "x; touch pwned $(touch pwned2)"
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start(
            "- {id: a, title: A, shell: 'printf %s ${{ params.name }}', effect: none}",
            params={"name": evil}, head="params: {name: {type: string}}"))
    assert step(view, "a").stdout == evil
    assert not list(tmp_path.glob("pwned*"))


async def test_an_action_runs_with_typed_parameters_and_leaves_a_result(tmp_path: Path) -> None:
    world = World()
    async with kit(tmp_path, world=world) as k:
        view = await k.ended(await k.start("""
            - {id: a, title: A, use: test.shift, with: {service: flights, weight: 0}}
            - {id: b, title: B, use: test.echo, with: {text: "was ${{ steps.a.result.before }}"}}
            """))
    assert view.state == "done" and world.shifts == [0]
    assert step(view, "b").result == {"text": "was 5"} and step(view, "b").stdout == "was 5\n"


async def test_pause_holds_the_next_step_and_resume_lets_it_go(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with kit(tmp_path) as k:
        live = await k.start(f"""
            - {{id: a, title: A, shell: "until [ -e {gate} ]; do sleep 0.02; done", effect: none}}
            - {{id: b, title: B, shell: "true", effect: none}}
            """)
        await k.act(live, "pause", reason="a call")
        gate.touch()
        view = await k.until(live, lambda v: states(v)["a"] == "done")
        assert view.state == "paused" and states(view)["b"] == "planned"
        assert (view.next or "").endswith(" (a call): resume it to go on")
        await k.act(live, "resume")
        view = await k.ended(live)
    assert view.state == "done"


@pytest.mark.parametrize("rollback", [False, True])
async def test_abort_ends_what_runs_and_undoes_only_when_told(tmp_path: Path, rollback: bool) -> None:
    log = tmp_path / "log"
    async with kit(tmp_path) as k:
        live = await k.start(f"""
            - {{id: a, title: A, shell: "echo a >> {log}", undo: {{shell: "echo undo-a >> {log}"}}}}
            - {{id: b, title: B, shell: "echo $$ > {tmp_path}/pid; sleep 70", effect: none}}
            """)
        await k.until(live, lambda v: states(v)["b"] == "intent" and (tmp_path / "pid").exists())
        await k.act(live, "abort", rollback=rollback)
        view = await k.ended(live)
    assert view.state == ("rolled_back" if rollback else "aborted")
    assert log.read_text().split() == (["a", "undo-a"] if rollback else ["a"])
    assert not running((tmp_path / "pid").read_text().strip())


async def test_a_run_is_the_same_after_a_restart_of_the_engine(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start("- {id: a, title: A, manual: \"Is it well?\"}")
        await k.waiting(live, "a")
        before = await k.until(live, lambda v: True)
    async with kit(tmp_path) as k:
        live = (await k.recover())[0]
        after = await k.waiting(live, "a")
        assert (after.state, after.revision, after.next) == (before.state, before.revision, before.next)
        await k.act(live, "answer", step="a", text="yes")
        view = await k.ended(live)
    assert view.state == "done" and step(view, "a").result == {"answer": "yes"}
    assert step(view, "a").by == ANN.user
