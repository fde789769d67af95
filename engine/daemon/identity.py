"""Who is calling, what they may do, and which calls a running step may never make.

Nobody says who they are: the kernel reports the peer's uid and pid (SO_PEERCRED), the user database
says the name and the groups, `roles:` in opsdeck.yaml maps users and groups to roles.
"""

from __future__ import annotations

import grp
import os
import pwd
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from engine.api.backend import Caller, Verb
from engine.config import Config, Members, Role
from engine.daemon.processes import Peer, ancestors, holds_open, session_of
from engine.errors import NotPermitted, UsageError
from engine.home import Home

INCLUDES: Mapping[Role, frozenset[str]] = {
    "viewer": frozenset({"viewer"}),
    "operator": frozenset({"operator", "viewer"}),
    "approver": frozenset({"approver", "viewer"}),
    "admin": frozenset({"admin", "approver", "operator", "viewer"}),
}
EVERY_ROLE = INCLUDES["admin"]
VERB_ROLES: Mapping[Verb, tuple[Role, ...]] = {
    "approve": ("approver",), "reject": ("approver", "operator"),
    "abort": ("operator", "approver"),
    "confirm": ("operator",), "answer": ("operator",), "settle": ("operator",),
    "retry": ("operator",), "skip": ("operator",), "pause": ("operator",), "resume": ("operator",),
    "promote": ("approver",), "promote-full": ("approver",),
}
_OF_A_ROLLOUT: frozenset[Verb] = frozenset({"promote", "promote-full"})
PEOPLE_ONLY: frozenset[Verb] = frozenset({"confirm", "approve", "answer", "settle", "reject",
                                          *_OF_A_ROLLOUT})
_REMEMBERED = 10.0  # seconds: a change of somebody's groups counts after that


@dataclass(frozen=True)
class User:
    """A user and the groups the user database puts them in, all of them."""

    name: str
    groups: frozenset[str]


def look_up(uid: int) -> User:
    """Ask the user database; a uid that is not in it has a name like `uid 4711` and no groups."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return User(f"uid {uid}", frozenset())
    names = set()
    for gid in os.getgrouplist(entry.pw_name, entry.pw_gid):
        try:
            names.add(grp.getgrgid(gid).gr_name)
        except KeyError:
            continue
    return User(entry.pw_name, frozenset(names))


def mapped_roles(user: User, roles: Mapping[Role, Members]) -> frozenset[str]:
    """The roles that `roles:` gives a user by name or by group, with those they include."""
    given: set[str] = set()
    for role, members in roles.items():
        if user.name in members.users or not user.groups.isdisjoint(members.groups):
            given |= INCLUDES[role]
    return frozenset(given)


@dataclass
class Gatekeeper:
    """Turns a peer into a Caller and says what that caller may do.

    `sessions` gives the session ids of the steps that run now; `steps_uid` is the user that a
    system engine runs them as. `owner` is the engine's own uid.
    """

    home: Home
    config: Config
    sessions: Callable[[], Collection[int]]
    owner: int = field(default_factory=os.geteuid)
    steps_uid: int | None = None
    look_up: Callable[[int], User] = look_up
    clock: Callable[[], float] = time.monotonic
    _known: dict[int, tuple[float, User]] = field(default_factory=dict)

    def use_config(self, config: Config) -> None:
        """Judge by the roles and the policy of another config from now on."""
        self.config = config

    def caller(self, peer: Peer) -> Caller:
        """Who a connection belongs to. May block on the user database: call it in a thread."""
        known = self._known.get(peer.uid)
        if known is None or self.clock() - known[0] > _REMEMBERED:
            known = self.clock(), self.look_up(peer.uid)
            self._known[peer.uid] = known
        user = known[1]
        roles = mapped_roles(user, self.config.roles)
        if self.home.mode == "single-user" and peer.uid == self.owner:
            roles = EVERY_ROLE
        return Caller(user=user.name, uid=peer.uid, pid=peer.pid, roles=roles,
                      origin=f"socket pid {peer.pid}")

    def needs(self, caller: Caller, *roles: Role, to: str) -> None:
        """Raise NotPermitted unless the caller has one of the roles."""
        if caller.roles.isdisjoint(roles):
            has = ", ".join(sorted(caller.roles)) or "none"
            raise NotPermitted(
                f"{caller.user} may not {to}: that wants the role {' or '.join(roles)}, and you "
                f"have {has}", hint="`roles:` in the engine's opsdeck.yaml gives roles to users "
                                    "and groups")

    def may_act(self, caller: Caller, verb: Verb, *, break_glass: bool = False) -> None:
        """Raise NotPermitted unless the caller may do `verb` and, is not a step.

        The safe direction, abort, is open to a step's own process too.
        """
        if verb == "approve" and break_glass:
            self._may_break_glass(caller)
        else:
            self.needs(caller, *VERB_ROLES[verb], to=f"{verb} a {_object(verb)}")
        if verb in PEOPLE_ONLY:
            self._is_a_person(caller, verb)

    def _may_break_glass(self, caller: Caller) -> None:
        roles = self.config.policy.break_glass
        if not roles:
            raise NotPermitted("nobody may approve with --break-glass here",
                               hint="`policy: break_glass:` in opsdeck.yaml names who may")
        self.needs(caller, *roles, to="approve with --break-glass")

    def _is_a_person(self, caller: Caller, verb: Verb) -> None:
        if self.home.mode == "system":
            if caller.uid in (self.owner, self.steps_uid):
                raise NotPermitted(
                    f"the engine's own user and the user of its steps may not {verb}",
                    hint="do it as the person you are")
            return
        reason = self._belongs_to_a_step(caller.pid)
        if reason:
            raise NotPermitted(f"a running step may not {verb}: {reason}",
                               hint="do it from a terminal of your own")

    def _belongs_to_a_step(self, pid: int) -> str | None:
        """Why a process counts as a step's, or None. A process that is gone counts as one."""
        session = session_of(pid) if pid > 0 else None
        if session is None:
            return "the process that asked has ended, or cannot be seen from here"
        running = set(self.sessions())
        for ancestor in ancestors(pid):
            if session_of(ancestor) in running:
                return f"process {pid} was started by a step that runs"
            if holds_open(ancestor, "lock", self.home.path):
                return f"process {pid} holds the lock that a step left to it"
        return None


def _object(verb: Verb) -> str:
    if verb in _OF_A_ROLLOUT:
        return "rollout"
    return "step" if verb in PEOPLE_ONLY else "run"


def steps_uid(config: Config) -> int | None:
    """The uid of `engine: steps_user:`. Raises UsageError if there is no such user."""
    name = config.engine.steps_user
    if name is None:
        return None
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise UsageError(f"`engine: steps_user:` names {name}, and there is no such user") from None


def embedded_caller(home: Home, config: Config, *, trusted: bool) -> Caller:
    """The caller of a run in its own process (`--embedded`), who may run documents by path.

    `trusted`: the config cannot be written by the caller. Only then do its roles count; otherwise
    the caller operates alone, and cannot approve.
    """
    uid = os.getuid()
    user = look_up(uid)
    roles = frozenset({"viewer", "operator", "admin"})
    if trusted:
        roles |= mapped_roles(user, config.roles)
    return Caller(user=user.name, uid=uid, pid=os.getpid(), roles=roles, origin="embedded")
