"""Nobody approves what they wrote, as far as Git and the config tell; and strangers are told of."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import wire
from engine.api.backend import Caller
from engine.cli.show import gate_lines
from engine.config import Config
from engine.errors import NotPermitted
from engine.fields import Approvals
from engine.journal.events import SYSTEM, Actor
from engine.procedures.actions import Action, Context, Params
from engine.procedures.approvals import Answer, Requirement, counting, objection, satisfied, ways
from engine.procedures.authors import Authors, resolve, words
from engine.procedures.recovery import fold
from engine.timeline import sentence
from engine.waiting import waiting
from tests.procedures.kit import ANN, BOB, EVE, Kit, World, kit, step

SHA = "1a2b3c4d5e6f" + "0" * 28
CAT = Caller("cat", 1009, 1, frozenset({"viewer", "approver"}), "test")
HARMFUL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
START = Actor("ann", 1001, "test")
DOCUMENT = """
- {id: make, title: Make, use: test.written, with: {told: '%s'}}
- id: go
  title: Go
  shell: "true"
  irreversible: test
  approvals: {min: 1, roles: [approver], not_initiator: %s}
"""

texts = st.text(max_size=40)
addresses = st.one_of(texts, st.builds("{}@{}".format, texts, texts))
persons = st.builds(lambda name, email, commits: {
    "name": name, "email": email, "commits": commits, "last": SHA}, texts, addresses, st.integers(1, 9))
accounts = st.builds(lambda people, since, uncommitted: {
    "commit": SHA, "since": since, "people": people, "uncommitted": uncommitted},
    st.lists(persons, max_size=4), st.none() | st.just(SHA), st.integers(0, 3))
maps = st.dictionaries(st.sampled_from(["ann", "bob", "cat"]), st.lists(addresses, max_size=2))
junk = st.recursive(st.none() | st.integers() | texts, lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(texts, inner, max_size=3), max_leaves=6)


def by(name: str, email: str, **more: Any) -> dict[str, Any]:
    return {"commit": SHA, "since": "0" * 40, "commits": 1,
            "people": [{"name": name, "email": email, "commits": 1, "last": SHA}], **more}


def authors(*told: Any, people: dict[str, list[str]] | None = None, known: tuple[str, ...] = ("ann", "bob"),
            initiator: Actor = START) -> Authors:
    found = resolve(told, people=people or {}, known=known, initiator=initiator)
    assert found is not None
    return found


@pytest.mark.parametrize(("name", "email", "is_bob"), [
    ("Robert", "bob@example.org", True), ("Robert", "BOB@Example.org", True), ("bob", "x@y", True),
    ("Robert", "bob+git@example.org", True), ("R", "4711+bob@users.noreply.github.com", True),
    ("Robert", "rob@example.org", False), ("", "", False), ("Bob Bobson", "dev@bob", False),
    ("R", "bob+x@users.noreply.github.com", False), ("R", "x+bob@example.org", False)])
def test_without_a_map_the_address_or_the_name_tells_whose_a_commit_is(
        name: str, email: str, is_bob: bool) -> None:
    found = authors(by(name, email))
    assert (found.of("bob") is not None) is is_bob
    assert ("no user of this engine as far as its config tells" in words(found)) is not is_bob
    assert ("taken for bob" in words(found)) is is_bob


def test_what_the_map_says_of_an_address_holds_before_what_its_name_looks_like() -> None:
    told = by("cat", "bob@example.org")
    mapped = authors(told, people={"ann": ["Bob@example.org"]})
    assert mapped.users == ["ann"] and mapped.of("bob") is None and mapped.of("cat") is None
    assert "cat <bob@example.org> (ann), commit 1a2b3c4d5e6f" in words(mapped)
    two = authors(told, people={"ann": ["bob@example.org"], "eve": ["bob@example.org"]})
    assert two.users == ["ann", "eve"], "a shared mailbox is all of theirs"
    elsewhere = authors(told, people={"ann": ["ann@example.org"]})
    assert elsewhere.of("bob") is not None, "a map of others does not let bob approve"


def test_what_is_not_known_is_said() -> None:
    alone = authors(by("X", "x@y", since=None, uncommitted=2, missing="the clone is shallow"))
    assert words(alone) == (
        "written by X <x@y>, who is no user of this engine as far as its config tells, commit 1a2b3c4d5e6f; "
        "only the newest commit counts, as what production was built from is not known; "
        "2 uncommitted changes, taken for ann's, who started the run; the clone is shallow")
    by_a_trigger = authors(by("X", "x@y", uncommitted=1), initiator=SYSTEM)
    assert words(by_a_trigger).endswith("1 uncommitted change, which nobody knows whose it is")
    nothing = authors({"commit": SHA, "since": SHA})
    assert words(nothing) == "no commit has changed it since what production was built from"
    many = authors({"commit": SHA, "since": SHA, "people": [
        {"name": f"n{n}", "email": "", "commits": 2, "last": SHA} for n in range(9)]})
    assert words(many).endswith("and 5 more") and "2 commits, the newest 1a2b" in words(many)
    assert resolve([], people={}, known=(), initiator=START) is None


def test_names_do_nothing_to_a_screen() -> None:
    said = words(authors(by("\x1b[2J\x1b]0;x\x07E\nvil\u202e", "a\x00b\r@x" + "y" * 100)))
    assert "E vil <a b@xy" in said or "E vil <ab @xy" in said
    assert not HARMFUL.search(said) and "…" in said


@given(st.lists(st.one_of(accounts, junk), max_size=3), maps)
def test_any_account_is_taken_and_is_the_same_after_it_was_recorded(told: list[Any], people: Any) -> None:
    found = resolve(told, people=people, known=("ann", "bob"), initiator=START)
    assert (found is None) is (not told)
    if found is not None:
        again = msgspec.convert(json.loads(json.dumps(msgspec.to_builtins(found))), Authors)
        assert again == found
        assert not HARMFUL.search(words(found))


@given(st.lists(accounts, min_size=1, max_size=3), maps, st.booleans(), st.integers(1, 3), st.booleans(),
       st.sets(st.sampled_from(["ann", "bob", "cat", "dan"])))
def test_a_gate_that_wants_another_person_opens_without_every_author_or_with_broken_glass_alone(
        told: list[Any], people: Any, other: bool, least: int, broken: bool, users: set[str]) -> None:
    found = authors(*told, people=people)
    wanted = Requirement(approvals=Approvals(min=least, not_initiator=other), authors=found)
    answers = [Answer(user, 1000 + at, 1.0, "d", "fire" if broken and at == 0 else None)
               for at, user in enumerate(sorted(users))]
    good = counting(answers, wanted=wanted, initiator_uid=-1, digest="d", now=2.0)
    for answer in answers:
        own = other and found.of(answer.user) is not None
        assert (answer in good) is (not own or answer.break_glass is not None)
        against = objection(wanted, user=answer.user, uid=answer.uid, roles={"approver"}, initiator_uid=-1)
        assert (against is not None) is own
    opens = satisfied(wanted, confirmation=None, approvals=answers, initiator_uid=-1, digest="d", now=2.0)
    assert opens is (len(good) >= least or any(one.break_glass for one in good))
    mapped = {user for user, mails in people.items() for one in told for person in one["people"]
              if person["email"].strip() and person["email"] in mails}
    if other:
        assert not mapped & {one.user for one in good if one.break_glass is None}


class Told(Params):
    told: str


async def _written(context: Context, params: Told) -> dict[str, Any]:
    return {"written_by": json.loads(params.told)}


class Telling(World):
    """A world with an action that tells who wrote what it made."""

    def registry(self) -> Any:
        found = super().registry()
        found.add(Action("test.written", "none", "tell", Told, _written, lambda p: "tell"))
        return found


def document(told: Any, *, other: bool = True) -> str:
    return DOCUMENT % (json.dumps(told), str(other).lower())


async def asked(k: Kit, *, user: Caller) -> wire.Waiting:
    [live] = k.executor.live.values()
    [found] = waiting([live], user.roles, user.uid, user.user)
    return found


async def test_the_author_is_refused_by_name_and_another_person_opens_the_gate(tmp_path: Path) -> None:
    config = Config.model_validate({"people": {"bob": ["robert@example.org"]},
                                    "policy": {"break_glass": ["admin"]}})
    told = by("Robert", "robert@example.org", commits=3)
    async with kit(tmp_path, config=config, world=Telling()) as k:
        live = await k.start(document(told))
        view = await k.waiting(live, "go")
        gate = step(view, "go").gate
        assert gate.authors == ["bob"]
        shown = [" ".join(line.split()) for line in gate_lines(view, step(view, "go"))]
        assert f"authors {gate.written}" in shown
        assert "waits for 1 approval of approver, not from who started it or wrote it (bob)" in shown[-4]
        assert shown[-1] == (f"or alone `opsdeck approve {view.id} go --break-glass REASON`, by admin; it is "
                             "paged and reviewed")
        assert gate.written == "written by Robert <robert@example.org> (bob), commit 1a2b3c4d5e6f"
        assert gate.alone == ["admin"] and "nor one who wrote it" in gate.prompt
        with pytest.raises(NotPermitted) as refused:
            await k.act(live, "approve", by=BOB, step="go")
        assert refused.value.message == (
            "bob wrote what this step puts into production (commit 1a2b3c4d5e6f, by Robert "
            "<robert@example.org>), and may not approve it too")
        assert refused.value.hint == (
            "another person with the role approver approves it; admin may open it alone with a reason, which "
            "is recorded, paged and reviewed: approve --break-glass REASON")
        mine, others = await asked(k, user=BOB), await asked(k, user=CAT)
        assert not mine.may and mine.why.startswith("you wrote what this step puts into production")
        assert others.may and not others.why
        await k.act(live, "approve", by=CAT, step="go")
        assert (await k.ended(live)).state == "done"


async def test_after_a_restart_it_is_decided_by_what_the_journal_holds(tmp_path: Path) -> None:
    """Whatever the config says of people by then."""
    told = by("X", "x@example.org", since=None)
    before = Config.model_validate({"people": {"bob": ["x@example.org"]}})
    async with kit(tmp_path, config=before, world=Telling()) as k:
        gate = step(await k.waiting(await k.start(document(told)), "go"), "go").gate
    async with kit(tmp_path, config=Config.model_validate({"people": {"cat": ["x@example.org"]}}),
                   world=Telling()) as k:
        live = (await k.recover())[0]
        again = step(await k.waiting(live, "go"), "go").gate
        assert (again.digest, again.written, again.authors) == (gate.digest, gate.written, gate.authors)
        with pytest.raises(NotPermitted, match="bob wrote what this step"):
            await k.act(live, "approve", by=BOB, step="go")
        events = k.journal.read(live.progress.id)
        assert fold(events).steps["go"].wanted == live.progress.steps["go"].wanted
        await k.act(live, "approve", by=CAT, step="go")
        assert (await k.ended(live)).state == "done"


async def test_an_author_may_break_the_glass_and_that_is_recorded_as_theirs(tmp_path: Path) -> None:
    config = Config.model_validate({"policy": {"break_glass": ["approver"]}})
    async with kit(tmp_path, config=config, world=Telling()) as k:
        live = await k.start(document(by("Bob", "bob@example.org")))
        await k.waiting(live, "go")
        with pytest.raises(NotPermitted, match="taken for bob by the e-mail or name"):
            await k.act(live, "approve", by=BOB, step="go")
        await k.act(live, "approve", by=BOB, step="go", break_glass=True, reason="it burns")
        assert (await k.ended(live)).state == "done"
        [recorded] = [e for e in k.journal.read(live.progress.id) if e.kind == "gate.approved"]
    assert recorded.data["wrote"] == "commit 1a2b3c4d5e6f, by Bob <bob@example.org>"
    assert "who wrote what it puts into production (commit 1a2b3c4d5e6f" in k.pages[0]
    assert sentence(recorded) == ("approved alone by an author (commit 1a2b3c4d5e6f, by Bob "
                                  "<bob@example.org>), glass broken: it burns")


async def test_who_may_approve_their_own_run_may_approve_what_they_wrote(tmp_path: Path) -> None:
    async with kit(tmp_path, world=Telling()) as k:
        live = await k.start(document(by("Eve", "eve@example.org"), other=False), by=EVE)
        gate = step(await k.waiting(live, "go"), "go").gate
        assert not gate.written and not gate.authors
        await k.act(live, "approve", by=EVE, step="go")
        assert (await k.ended(live)).state == "done"


async def test_an_account_that_cannot_be_read_is_told_and_stops_nothing(tmp_path: Path) -> None:
    async with kit(tmp_path, world=Telling()) as k:
        live = await k.start(document({"people": "everybody"}))
        gate = step(await k.waiting(live, "go"), "go").gate
        assert gate.written == "a step's account of who wrote it cannot be read" and gate.authors == []
        await k.act(live, "approve", by=BOB, step="go")
        assert (await k.ended(live)).state == "done"
        with pytest.raises(NotPermitted, match="started this run"):
            other = await k.start(document(by("X", "x@y")), by=EVE)
            await k.waiting(other, "go")
            await k.act(other, "approve", by=EVE, step="go")


def test_whoever_may_not_is_told_what_else_there_is() -> None:
    wanted = Requirement(approvals=Approvals())
    against = objection(wanted, user="ann", uid=1, roles={"approver"}, initiator_uid=1, you=True)
    assert against == "you started this run, and may not approve it too"
    assert objection(wanted, user="ann", uid=1, roles=ANN.roles, initiator_uid=2) == (
        "ann has none of the roles that may approve this")
    assert ways(wanted, []) == ("another person with the role approver approves it; nobody may break the "
                                "glass here (policy: break_glass: in opsdeck.yaml)")
