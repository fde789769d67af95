"""Gates: what a step wants from people before it may run, and whether it has it. Pure.

The requirement is the document's, made stricter by the policy, never weaker. Each answer carries
the digest of what was shown (`binding`), so that a yes to one thing is not a yes to another.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.config import Rule
from engine.fields import Approvals, Typed
from engine.journal.events import canonical
from engine.procedures.authors import Authors, commits, named
from engine.procedures.document import Step

ConfirmKind = Literal["none", "yes", "typed"]
_ORDER: dict[str, int] = {"none": 0, "yes": 1, "typed": 2}


@dataclass(frozen=True)
class Requirement:
    """What one step wants: a confirmation of `confirm` kind (typed: `expected`), and approvals. `authors`
    wrote what it puts into production, where that is known and the approvals want another person."""

    confirm: ConfirmKind = "none"
    expected: str | None = None
    approvals: Approvals | None = None
    authors: Authors | None = None

    @property
    def nothing(self) -> bool:
        return self.confirm == "none" and self.approvals is None


@dataclass(frozen=True)
class Answer:
    """One person's yes: a confirmation or an approval, at `at`, to what `digest` stands for."""

    user: str
    uid: int
    at: float
    digest: str
    break_glass: str | None = None


def requirement(step: Step, *, action: str, service: str | None,
                rules: Sequence[Rule]) -> Requirement:
    """The document's gate and every matching rule's, the strictest of each part.

    `action` is the name that rules match ("traffic.shift", "shell", "manual"); `expected` is still
    a template here.
    """
    confirm, expected = _confirm(step.confirm)
    approvals = step.approvals
    for rule in rules:
        if not (fnmatch.fnmatchcase(action, rule.action)
                and fnmatch.fnmatchcase(service or "", rule.service)):
            continue
        kind, text = _confirm(rule.confirm)
        if _ORDER[kind] > _ORDER[confirm]:
            confirm, expected = kind, text
        if rule.approvals is not None:
            approvals = _stricter(approvals, rule.approvals)
    return Requirement(confirm, expected, approvals)


def _confirm(confirm: Literal["none", "yes"] | Typed) -> tuple[ConfirmKind, str | None]:
    if isinstance(confirm, Typed):
        return "typed", confirm.typed
    return confirm, None


def _stricter(one: Approvals | None, other: Approvals) -> Approvals:
    if one is None:
        return other
    both = [role for role in one.roles if role in other.roles]
    return Approvals(min=max(one.min, other.min), roles=both or other.roles,
                     not_initiator=one.not_initiator or other.not_initiator,
                     expires=min(one.expires, other.expires),
                     max_age=min(one.max_age, other.max_age))


def binding(*, run: str, document_sha256: str, params: Mapping[str, Any], command: str, step: str,
            attempt: int, requirement: Mapping[str, Any]) -> str:
    """The digest of what a person is asked to agree to: 16 hex digits of SHA-256."""
    parts = [run, document_sha256, dict(params), command, step, attempt, dict(requirement)]
    return hashlib.sha256(canonical(parts)).hexdigest()[:16]


def counting(answers: Iterable[Answer], *, wanted: Requirement, initiator_uid: int,
             digest: str, now: float) -> list[Answer]:
    """The approvals that count: for this digest, one per person, not too old, not the initiator's and not an
    author's. None count where none are wanted.

    A break-glass approval counts for everybody's; it is the caller's to allow and to report.
    """
    if wanted.approvals is None:
        return []
    people: dict[int, Answer] = {}
    for answer in answers:
        if answer.digest != digest or now - answer.at > wanted.approvals.max_age:
            continue
        if not answer.break_glass and concerned(wanted, answer.user, answer.uid, initiator_uid):
            continue
        people[answer.uid] = answer
    return list(people.values())


def concerned(wanted: Requirement, user: str, uid: int, initiator_uid: int) -> bool:
    """Whether it is somebody's own work, where another person is wanted: they started the run, or wrote what
    the step puts into production."""
    if wanted.approvals is None or not wanted.approvals.not_initiator:
        return False
    return uid == initiator_uid or (wanted.authors is not None and wanted.authors.of(user) is not None)


def objection(wanted: Requirement, *, user: str, uid: int, roles: Collection[str], initiator_uid: int,
              you: bool = False) -> str | None:
    """Why somebody's approval does not count, as a clause that says "you" of them if so asked; None if it
    may count."""
    rule = wanted.approvals
    if rule is None:
        return None
    who = "you" if you else user
    if not set(roles) & set(rule.roles):
        return f"{who} {'have' if you else 'has'} none of the roles that may approve this"
    if rule.not_initiator and uid == initiator_uid:
        return f"{who} started this run, and may not approve it too"
    author = wanted.authors.of(user) if rule.not_initiator and wanted.authors is not None else None
    if author is None:
        return None
    taken = "" if author.by == "people" else f", taken for {'yours' if you else user} by the e-mail or name"
    return (f"{who} wrote what this step puts into production ({commits(author)}, by {named(author)}"
            f"{taken}), and may not approve it too")


def ways(wanted: Requirement, alone: Sequence[str]) -> str:
    """What somebody whose approval does not count can do. `alone`: the roles that may break the glass."""
    roles = " or ".join(wanted.approvals.roles) if wanted.approvals is not None else ""
    broken = (f"{' or '.join(alone)} may open it alone with a reason, which is recorded, paged and reviewed: "
              "approve --break-glass REASON" if alone else
              "nobody may break the glass here (policy: break_glass: in opsdeck.yaml)")
    return f"another person with the role {roles} approves it; {broken}"


def satisfied(wanted: Requirement, *, confirmation: Answer | None, approvals: Sequence[Answer],
              initiator_uid: int, digest: str, now: float) -> bool:
    """Whether the step may run now."""
    if wanted.confirm != "none" and not confirmed(wanted, confirmation, digest, now):
        return False
    if wanted.approvals is None:
        return True
    good = counting(approvals, wanted=wanted, initiator_uid=initiator_uid, digest=digest, now=now)
    return any(a.break_glass for a in good) or len(good) >= wanted.approvals.min


def confirmed(wanted: Requirement, confirmation: Answer | None, digest: str, now: float) -> bool:
    """Whether the confirmation is there, for this digest, and not older than its `max_age`."""
    if wanted.confirm == "none":
        return True
    max_age = wanted.approvals.max_age if wanted.approvals else Approvals().max_age
    return (confirmation is not None and confirmation.digest == digest
            and now - confirmation.at <= max_age)
