"""Every error Opsdeck raises on purpose.

    OpsdeckError                 exit
    ├── UsageError                 2   a command, a parameter or an argument is wrong
    ├── DocumentError              2   a procedure or a config has problems (all of them, with lines)
    ├── NotFound                   2   a run, step, service or procedure that is not there
    ├── HomeBusy                   2   another engine holds this home
    ├── Conflict                   1   the state changed since the caller looked; carries the new one
    ├── NotPermitted               8   the caller's roles, uid or process may not do this
    ├── EngineUnreachable          7   no engine answers, or one that speaks another protocol
    ├── ActionFailed               1   an action did not take effect, and is known not to have
    ├── OutcomeUnknown             4   an action may or may not have taken effect
    └── JournalError               1   the journal cannot be read or written
        ├── JournalCorrupt             a row does not match its hash
        ├── JournalUnavailable         locked, full, or read-only
        └── FenceLost                  a newer engine owns this journal

An error says what happened (`message`), where (`where`: file:line, step or host) and what to do next
(`hint`). The command prints it as text and exits with `exit_code`; the API sends it as JSON.
"""

from __future__ import annotations


class OpsdeckError(Exception):
    """Base of all: `message`, `where` and `hint` are sentences for a person."""

    exit_code = 1
    code = "error"

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  {self.hint}" if self.hint else text


class UsageError(OpsdeckError):
    exit_code = 2
    code = "usage"


class DocumentError(OpsdeckError):
    """One document with its problems, each already a printable `file:line: text` with a hint."""

    exit_code = 2
    code = "document"

    def __init__(self, message: str, problems: list[str] | None = None, *,
                 where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, where=where, hint=hint)
        self.problems = problems or []


class NotFound(OpsdeckError):
    exit_code = 2
    code = "not_found"


class HomeBusy(OpsdeckError):
    exit_code = 2
    code = "home_busy"


class Conflict(OpsdeckError):
    code = "conflict"


class NotPermitted(OpsdeckError):
    exit_code = 8
    code = "not_permitted"


class EngineUnreachable(OpsdeckError):
    exit_code = 7
    code = "unreachable"


class ActionFailed(OpsdeckError):
    code = "action_failed"


class Decided(ActionFailed):
    """It came to an end that trying again would not change: there is nothing to ask a person about."""

    code = "decided"


class OutcomeUnknown(OpsdeckError):
    exit_code = 4
    code = "outcome_unknown"


class JournalError(OpsdeckError):
    code = "journal"


class JournalCorrupt(JournalError):
    code = "journal_corrupt"


class JournalUnavailable(JournalError):
    code = "journal_unavailable"


class FenceLost(JournalError):
    code = "fence_lost"
