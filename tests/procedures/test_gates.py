"""Who may let a step run, and to what exactly they agree."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from engine.config import Config
from engine.errors import Conflict, NotPermitted, UsageError
from tests.procedures.kit import ANN, BOB, EVE, VIC, World, kit, states, step

CONFIRM = '- {id: a, title: A, shell: "echo ran", irreversible: test, confirm: "yes"}'
TYPED = '- {id: a, title: A, shell: "true", irreversible: test, confirm: {typed: "${{ params.s }}"}}'
TWO = '''
- id: a
  title: A
  shell: "echo ran"
  irreversible: test
  approvals: {min: 2, roles: [approver], not_initiator: true, expires: 30m}
'''
ONE = TWO.replace("min: 2", "min: 1")
HEAD = "params: {s: {type: string}}"


async def test_a_step_waits_for_its_confirmation_and_then_runs(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start(CONFIRM)
        view = await k.waiting(live, "a")
        assert view.state == "waiting" and step(view, "a").command == "echo ran"
        await k.act(live, "confirm", step="a")
        view = await k.ended(live)
    assert view.state == "done" and step(view, "a").by == "ann"


async def test_yes_given_at_the_start_answers_plain_confirmations_only(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start(CONFIRM, yes=True))
        assert view.state == "done"
        live = await k.start(TYPED, yes=True, params={"s": "flights"}, head=HEAD)
        view = await k.waiting(live, "a")
    assert step(view, "a").gate.kind == "typed" and step(view, "a").gate.expected == "flights"


async def test_a_typed_confirmation_wants_exactly_the_text(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start(TYPED, params={"s": "flights"}, head=HEAD)
        await k.waiting(live, "a")
        with pytest.raises(UsageError, match="is not 'flights'"):
            await k.act(live, "confirm", step="a", text="flight")
        await k.act(live, "confirm", step="a", text="flights")
        assert (await k.ended(live)).state == "done"


async def test_the_text_given_at_the_start_counts_when_it_fits(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        right = await k.start(TYPED, params={"s": "flights"}, head=HEAD, confirm={"a": "flights"})
        assert (await k.ended(right)).state == "done"
        wrong = await k.start(TYPED, params={"s": "flights"}, head=HEAD, confirm={"a": "pricing"})
        assert (await k.waiting(wrong, "a")).state == "waiting"


async def test_an_answer_to_something_else_is_refused(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start(CONFIRM)
        await k.waiting(live, "a")
        with pytest.raises(Conflict, match="what was shown is not what would run now"):
            await k.act(live, "confirm", step="a", digest="feedfacefeedface")
        with pytest.raises(Conflict, match="does not say what was shown"):
            await k.act(live, "confirm", step="a", digest=None)
        assert states(await k.waiting(live, "a")) == {"a": "waiting"}


async def test_a_confirmation_is_refused_when_the_world_has_changed_since(tmp_path: Path) -> None:
    world = World()
    async with kit(tmp_path, world=world) as k:
        live = await k.start("""
            - {id: a, title: A, use: test.shift, with: {service: flights, weight: 0}, confirm: "yes"}
            """)
        view = await k.waiting(live, "a")
        seen = step(view, "a").preview
        assert (seen.now, seen.after) == ("weight 5", "weight 0")
        world.weight = 25
        with pytest.raises(Conflict, match="the state has changed since you looked: weight 25"):
            await k.act(live, "confirm", step="a", seen_state=seen.state)
        assert world.shifts == []
        await k.act(live, "confirm", step="a", seen_state={"weight": 25})
        assert (await k.ended(live)).state == "done" and world.shifts == [0]


async def test_two_different_people_approve_and_neither_is_the_initiator(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start(TWO, by=EVE)
        await k.waiting(live, "a")
        with pytest.raises(NotPermitted, match="started this run"):
            await k.act(live, "approve", by=EVE, step="a")
        with pytest.raises(NotPermitted, match="none of the roles"):
            await k.act(live, "approve", by=ANN, step="a")
        await k.act(live, "approve", by=BOB, step="a")
        with pytest.raises(Conflict, match="the same person counts once"):
            await k.act(live, "approve", by=BOB, step="a")
        assert states(await k.waiting(live, "a")) == {"a": "waiting"}
        cat = BOB.__class__("cat", 1009, 1, frozenset({"approver"}), "test")
        await k.act(live, "approve", by=cat, step="a")
        assert (await k.ended(live)).state == "done"


async def test_two_approvals_at_once_by_one_person_count_once(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start(TWO)
        await k.waiting(live, "a")
        results = await asyncio.gather(*(k.act(live, "approve", by=BOB, step="a") for _ in range(5)),
                                       return_exceptions=True)
        assert sum(r is None for r in results) == 1
        assert all(isinstance(r, Conflict) for r in results if r is not None)
        view = await k.waiting(live, "a")
    assert step(view, "a").gate.approvals == ["bob"] and view.state == "waiting"


async def test_reject_ends_the_step_and_wins_over_a_later_approval(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start(ONE)
        await k.waiting(live, "a")
        results = await asyncio.gather(
            k.act(live, "reject", by=BOB, step="a", reason="not now"),
            k.act(live, "approve", by=EVE, step="a"), return_exceptions=True)
        view = await k.ended(live)
    assert results[0] is None and isinstance(results[1], Conflict)
    assert view.state == "failed" and "rejected by bob: not now" in (view.reason or "")


async def test_what_a_person_is_asked_can_be_refused_with_a_reason(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start("- {id: look, title: Look, manual: Is the data right?}")
        await k.waiting(live, "look")
        await k.act(live, "reject", step="look", reason="the label leaks")
        view = await k.ended(live)
    assert view.state == "failed" and view.reason == "look failed: rejected by ann: the label leaks"


async def test_a_rejection_ends_the_run_of_a_step_that_asks_when_it_fails(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start(ONE + "  on_failure: ask\n")
        await k.waiting(live, "a")
        await k.act(live, "reject", by=BOB, step="a", reason="not now")
        view = await k.ended(live)
    assert view.state == "failed" and view.reason == "a failed: rejected by bob: not now"


async def test_a_rejected_step_is_never_passed_over(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start(ONE + "  on_failure: continue\n"
                             '- {id: b, title: B, shell: "true", effect: none}\n')
        await k.waiting(live, "a")
        await k.act(live, "reject", by=BOB, step="a")
        view = await k.ended(live)
    assert view.state == "failed" and states(view)["b"] == "planned"


async def test_an_approval_older_than_max_age_does_not_count(tmp_path: Path) -> None:
    now = [time.time()]
    async with kit(tmp_path, clock=lambda: now[0]) as k:
        live = await k.start(TWO)
        await k.waiting(live, "a")
        await k.act(live, "approve", by=BOB, step="a")
        now[0] += 301
        await k.act(live, "approve", by=EVE, step="a")
        view = await k.waiting(live, "a")
        assert step(view, "a").gate.approvals == ["eve"] and view.state == "waiting"
        await k.act(live, "approve", by=BOB, step="a")
        assert (await k.ended(live)).state == "done"


async def test_a_gate_that_nobody_answers_expires(tmp_path: Path) -> None:
    now = [time.time()]
    async with kit(tmp_path, clock=lambda: now[0]) as k:
        live = await k.start(ONE)
        await k.waiting(live, "a")
        now[0] += 1801
        live.wake.set()
        view = await k.ended(live)
    assert view.state == "failed" and "nobody approved it in time" in (view.reason or "")


async def test_the_policy_makes_a_gate_that_the_document_does_not_have(tmp_path: Path) -> None:
    """An operator who leaves the approvals out of a document does not get round them."""
    config = Config.model_validate({"policy": {"rules": [
        {"action": "test.shift", "service": "fli*", "confirm": {"typed": "${{ service }}"},
         "approvals": {"min": 1}}]}})
    world = World()
    async with kit(tmp_path, config=config, world=world) as k:
        live = await k.start("""
            - {id: a, title: A, use: test.shift, with: {service: flights, weight: 0}}
            - {id: b, title: B, use: test.shift, with: {service: pricing, weight: 1}}
            """, yes=True)
        view = await k.waiting(live, "a")
        assert step(view, "a").gate.expected == "flights" and world.shifts == []
        await k.act(live, "confirm", step="a", text="flights")
        assert states(await k.waiting(live, "a"))["a"] == "waiting"
        await k.act(live, "approve", by=BOB, step="a")
        assert (await k.ended(live)).state == "done" and world.shifts == [0, 1]


async def test_the_policy_cannot_be_weakened_by_the_document(tmp_path: Path) -> None:
    config = Config.model_validate({"policy": {"rules": [
        {"action": "shell", "approvals": {"min": 2, "not_initiator": True}}]}})
    async with kit(tmp_path, config=config) as k:
        live = await k.start(ONE.replace("not_initiator: true", "not_initiator: false"), by=EVE)
        view = await k.waiting(live, "a")
        assert step(view, "a").gate.approvals_needed == 2 and step(view, "a").gate.not_initiator


async def test_break_glass_opens_a_gate_alone_pages_and_is_recorded(tmp_path: Path) -> None:
    config = Config.model_validate({"policy": {"break_glass": ["operator"]}})
    async with kit(tmp_path, config=config) as k:
        live = await k.start(TWO)
        await k.waiting(live, "a")
        with pytest.raises(NotPermitted, match="may not break the glass"):
            await k.act(live, "approve", by=BOB, step="a", break_glass=True, reason="fire")
        with pytest.raises(UsageError, match="wants a reason"):
            await k.act(live, "approve", by=ANN, step="a", break_glass=True)
        await k.act(live, "approve", by=ANN, step="a", break_glass=True, reason="the site is down")
        assert (await k.ended(live)).state == "done"
        recorded = [e for e in k.journal.read(live.progress.id) if e.kind == "gate.approved"]
    assert k.pages and "the site is down" in k.pages[0]
    assert recorded[0].data["break_glass"] == "the site is down" and recorded[0].data["review"] == "due"


async def test_a_viewer_may_do_nothing(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start(CONFIRM)
        await k.waiting(live, "a")
        for verb in ("confirm", "reject", "pause", "abort"):
            with pytest.raises(NotPermitted):
                await k.act(live, verb, by=VIC, step="a")
        assert states(await k.waiting(live, "a")) == {"a": "waiting"}


async def test_only_a_skippable_step_can_be_skipped_and_only_with_a_reason(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start(CONFIRM)
        await k.waiting(live, "a")
        with pytest.raises(NotPermitted, match="may not be skipped"):
            await k.act(live, "skip", step="a", reason="because")
        other = await k.start(CONFIRM.replace("irreversible", "skippable: true, irreversible"))
        await k.waiting(other, "a")
        with pytest.raises(UsageError, match="wants a reason"):
            await k.act(other, "skip", step="a")
        await k.act(other, "skip", step="a", reason="done by hand")
        view = await k.ended(other)
    assert view.state == "done" and step(view, "a").reason == "done by hand"


async def test_a_retried_step_asks_again(tmp_path: Path) -> None:
    """A yes to one attempt is not a yes to the next."""
    async with kit(tmp_path) as k:
        live = await k.start('- {id: a, title: A, shell: "false", effect: idempotent, irreversible: t, '
                             'confirm: "yes", on_failure: ask}')
        first = step(await k.waiting(live, "a"), "a").gate
        await k.act(live, "confirm", step="a")
        await k.until(live, lambda v: step(v, "a").state == "failed")
        await k.act(live, "retry", step="a")
        again = step(await k.until(live, lambda v: step(v, "a").state == "waiting"), "a").gate
    assert again.kind == "confirm" and again.digest != first.digest


async def test_nothing_can_be_done_to_a_run_that_has_ended(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start('- {id: a, title: A, shell: "true", effect: none}')
        await k.ended(live)
        for verb in ("confirm", "pause", "abort", "retry"):
            with pytest.raises(Conflict, match="has ended: done"):
                await k.act(live, verb, step="a")


async def test_an_aborted_run_asks_nobody_any_more(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start(ONE)
        await k.waiting(live, "a")
        await k.act(live, "abort")
        view = await k.ended(live)
    assert states(view) == {"a": "planned"} and step(view, "a").gate is None and view.next is None


async def test_a_document_means_the_same_after_a_restart_as_when_it_was_started(tmp_path: Path) -> None:
    """Unquoted `yes` is a word in it, then and later; YAML 1.1 would read a boolean."""
    async with kit(tmp_path) as k:
        await k.waiting(await k.start(CONFIRM.replace('"yes"', "yes")), "a")
    async with kit(tmp_path) as k:
        live = (await k.recover())[0]
        await k.waiting(live, "a")
        await k.act(live, "confirm", step="a")
        assert (await k.ended(live)).state == "done"


async def test_an_optional_secret_that_was_not_given_is_not_in_the_environment(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        view = await k.ended(await k.start("""
            - id: a
              title: A
              effect: none
              env: {TOKEN: "${{ params.token }}"}
              shell: 'echo "${TOKEN-none}"'
            """, params={"token": None}, head="params: {token: {type: secret}}"))
    assert step(view, "a").stdout == "none\n"
