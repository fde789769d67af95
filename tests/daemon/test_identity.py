"""Who may do what: roles from the user database, and calls that a running step may not make."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from engine import home as homes
from engine.api.backend import VERBS, Caller, Verb
from engine.config import Config
from engine.daemon.identity import (
    PEOPLE_ONLY,
    VERB_ROLES,
    Gatekeeper,
    User,
    embedded_caller,
    look_up,
    mapped_roles,
)
from engine.daemon.processes import Peer, ancestors, identity
from engine.errors import NotPermitted
from engine.home import Mode

ROLES = Config.model_validate({"roles": {
    "viewer": {"groups": ["staff"]}, "operator": {"groups": ["oncall"]},
    "approver": {"users": ["bob"]}, "admin": {"users": ["root"]}},
    "policy": {"break_glass": ["operator"]}})
USERS = {0: User("root", frozenset({"root"})), 10: User("alice", frozenset({"staff", "oncall"})),
         11: User("bob", frozenset({"bob"})), 12: User("eve", frozenset({"eve"})),
         90: User("opsdeck", frozenset({"opsdeck", "oncall"})),
         91: User("opsdeck-steps", frozenset({"oncall"}))}


def gatekeeper(mode: Mode = "system", *, owner: int = 90, config: Config = ROLES,
               sessions: set[int] | None = None) -> Gatekeeper:
    return Gatekeeper(homes.at(Path("/nowhere/home"), mode), config, lambda: sessions or set(),
                      owner=owner, steps_uid=91, look_up=USERS.__getitem__)


def caller(uid: int, mode: Mode = "system", pid: int | None = None, owner: int = 90) -> Caller:
    return gatekeeper(mode, owner=owner).caller(Peer(os.getpid() if pid is None else pid, uid, uid))


def may(gate: Gatekeeper, who: Caller, verb: Verb, *, break_glass: bool = False) -> bool:
    try:
        gate.may_act(who, verb, break_glass=break_glass)
    except NotPermitted:
        return False
    return True


@pytest.mark.parametrize(("uid", "roles"), [
    (10, {"viewer", "operator"}), (11, {"viewer", "approver"}), (12, set()),
    (0, {"viewer", "operator", "approver", "admin"})])
def test_roles_come_from_names_and_from_every_group(uid: int, roles: set[str]) -> None:
    assert caller(uid).roles == roles


def test_root_has_no_role_in_a_system_engine_that_does_not_name_it() -> None:
    config = ROLES.model_copy(update={"roles": {}})
    who = gatekeeper(config=config).caller(Peer(1, 0, 0))
    assert who.roles == frozenset()
    with pytest.raises(NotPermitted, match="and you have none"):
        gatekeeper(config=config).needs(who, "viewer", to="look at this engine")


def test_the_owner_of_a_single_user_engine_has_every_role_and_others_only_what_is_mapped() -> None:
    assert caller(12, "single-user", owner=12).roles == {"viewer", "operator", "approver", "admin"}
    assert caller(0, "single-user", owner=12).roles == caller(0).roles
    config = ROLES.model_copy(update={"roles": {}})
    gate = gatekeeper("single-user", owner=12, config=config)
    assert gate.caller(Peer(1, 0, 0)).roles == frozenset()


@pytest.mark.parametrize(("verb", "alice", "bob", "eve"), [
    ("confirm", True, False, False), ("answer", True, False, False), ("settle", True, False, False),
    ("retry", True, False, False), ("skip", True, False, False), ("pause", True, False, False),
    ("resume", True, False, False), ("approve", False, True, False), ("reject", True, True, False),
    ("promote", False, True, False), ("promote-full", False, True, False), ("abort", True, True, False)])
def test_each_verb_belongs_to_a_role(verb: Verb, alice: bool, bob: bool, eve: bool) -> None:
    gate = gatekeeper()
    assert [may(gate, caller(uid), verb) for uid in (10, 11, 12)] == [alice, bob, eve]
    assert may(gate, caller(0), verb), "an admin that is mapped may do everything"


def test_every_verb_of_the_api_has_a_rule() -> None:
    assert set(VERB_ROLES) == set(VERBS)


@pytest.mark.parametrize(("verb", "uid"), [*itertools.product(sorted(PEOPLE_ONLY), (90, 91))])
def test_the_engines_and_the_steps_users_answer_for_nobody(verb: Verb, uid: int) -> None:
    users = {"users": ["opsdeck", "opsdeck-steps"]}
    everything = {"roles": {"operator": users, "approver": users, "admin": users}}
    gate = gatekeeper(config=Config.model_validate(everything))
    who = gate.caller(Peer(os.getpid(), uid, uid))
    with pytest.raises(NotPermitted, match="may not"):
        gate.may_act(who, verb)
    assert may(gate, who, "abort"), "the safe direction is never blocked"


def test_who_may_not_promote_a_rollout_hears_which_role_may() -> None:
    with pytest.raises(NotPermitted, match="alice may not promote-full a rollout"):
        gatekeeper().may_act(caller(10), "promote-full")


def test_breaking_the_glass_wants_a_role_that_the_policy_names() -> None:
    gate = gatekeeper()
    assert may(gate, caller(10), "approve", break_glass=True)
    assert not may(gate, caller(11), "approve", break_glass=True)
    none = gatekeeper(config=ROLES.model_copy(update={"policy": Config().policy}))
    with pytest.raises(NotPermitted, match="nobody may approve with --break-glass"):
        none.may_act(caller(0), "approve", break_glass=True)


def test_a_session_of_a_running_step_may_abort_but_not_answer() -> None:
    mine = os.getsid(0)
    gate = gatekeeper("single-user", owner=12, sessions={mine})
    who = gate.caller(Peer(os.getpid(), 12, 12))
    for verb in PEOPLE_ONLY:
        with pytest.raises(NotPermitted, match="a running step may not"):
            gate.may_act(who, verb)
    assert may(gate, who, "abort")
    assert may(gatekeeper("single-user", owner=12), who, "approve")


@pytest.mark.parametrize("pid", [0, 2**22 + 1])
def test_a_process_that_cannot_be_seen_counts_as_a_steps(pid: int) -> None:
    who = caller(12, "single-user", pid=pid, owner=12)
    with pytest.raises(NotPermitted, match="cannot be seen from here"):
        gatekeeper("single-user", owner=12).may_act(who, "confirm")


def test_a_changed_membership_counts_after_a_moment() -> None:
    now, users = 0.0, dict(USERS)
    gate = Gatekeeper(homes.at(Path("/nowhere/home"), "system"), ROLES, set, owner=90,
                      look_up=lambda uid: users[uid], clock=lambda: now)
    assert "operator" in gate.caller(Peer(1, 10, 10)).roles
    users[10] = User("alice", frozenset({"staff"}))
    assert "operator" in gate.caller(Peer(1, 10, 10)).roles
    now = 11.0
    assert gate.caller(Peer(1, 10, 10)).roles == {"viewer"}


def test_a_uid_without_a_name_has_one_and_no_groups() -> None:
    assert look_up(3_999_999_999 % 2**31) == User(f"uid {3_999_999_999 % 2**31}", frozenset())


def test_an_embedded_caller_approves_only_by_a_config_it_cannot_write() -> None:
    user = look_up(os.getuid()).name
    config = Config.model_validate({"roles": {"approver": {"users": [user]}}})
    home = homes.at(Path("/nowhere/home"))
    assert "approver" not in embedded_caller(home, config, trusted=False).roles
    assert "approver" in embedded_caller(home, config, trusted=True).roles
    assert mapped_roles(User(user, frozenset()), config.roles) == {"approver", "viewer"}


def test_a_process_is_known_by_more_than_its_pid() -> None:
    me = identity(os.getpid())
    assert me is not None
    assert me.alive()
    other = type(me)(me.pid, me.ticks + 1, me.boot)
    assert not other.alive()
    assert os.getppid() in list(ancestors(os.getpid()))
    assert identity(2**22 + 1) is None
