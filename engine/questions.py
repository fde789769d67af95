"""What is sent when a run asks for an approval: a question with the command to paste. Pure.

A message tells and never decides: it has no button, no link and nothing else that could open the gate.
Whoever pastes the command does so as the Unix user they are, and the engine looks at their roles. The
digest in it is no secret: it makes the engine refuse a command whose gate asks for something else by now.

Values that people or programs wrote (titles, commands) are put where neither Slack nor Teams looks for
markup, mentions or links, or are escaped.
"""

from __future__ import annotations

import datetime as dt
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from engine.procedures.output import harmless

Format = Literal["slack", "teams", "json"]
LONGEST = 1500  # characters of a command or of the evidence
SHORTEST = 140  # of a title: a header of Slack's has at most 150
FIELD = 1900  # of an escaped text in a field of Slack's, which has at most 2,000
_CARD = "application/vnd.microsoft.card.adaptive"


@dataclass(frozen=True)
class Question:
    """One open gate. `evidence` is a sentence or two; `home` is named in the commands unless it is None.

    `written`: who wrote what it puts into production, and may not approve it. `expires`: UTC seconds.
    `again`: the engine ended before it knew whether the question had arrived.
    """

    run: str
    procedure: str
    title: str
    step: str
    step_title: str
    service: str | None
    command: str
    evidence: str | None
    starter: str
    roles: tuple[str, ...]
    not_initiator: bool
    wanted: int
    given: tuple[str, ...]
    expires: float | None
    digest: str
    host: str
    home: str | None = None
    again: bool = False
    written: str = ""

    @property
    def id(self) -> str:
        """The same for the same question, so that a receiver can leave out a second one."""
        return f"{self.run}/{self.step}/{self.digest}"

    @property
    def approve(self) -> str:
        """The command that says yes to exactly this."""
        return self._verb("approve", "--digest", self.digest)

    @property
    def reject(self) -> str:
        return self._verb("reject")

    @property
    def who(self) -> str:
        """Who may answer, in words."""
        people = "1 person" if self.wanted == 1 else f"{self.wanted} people"
        roles = " or ".join(self.roles)
        other = f", not {self.starter}, who started it" if self.not_initiator else ""
        other += ", nor one who wrote it" if self.written else ""
        given = f"; given by {', '.join(self.given)}" if self.given else ""
        return f"{people} with the role {roles}{other}{given}"

    @property
    def headline(self) -> str:
        about = f" ({self.service})" if self.service else ""
        return _cut(" ".join(f"Approval wanted: {self.title}{about}".split()), SHORTEST)

    @property
    def until(self) -> str:
        if self.expires is None:
            return "does not expire"
        return dt.datetime.fromtimestamp(self.expires, dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")

    def facts(self) -> list[tuple[str, str]]:
        """What there is to know, each with its label."""
        found = [("Procedure", f"{self.procedure}, run {self.run}, started by {self.starter}"),
                 ("Step", f"{self.step}: {self.step_title}"),
                 ("Service", self.service or ""), ("Authors", _cut(self.written, LONGEST)),
                 ("Evidence", _cut(self.evidence or "", LONGEST)),
                 ("Who may", self.who), ("Expires", self.until), ("Host", self.host)]
        if self.again:
            found.append(("Note", "this may be the second time: the engine ended while it asked"))
        return [(label, harmless(text)) for label, text in found if text]

    @property
    def shown_command(self) -> str:
        return _cut(harmless(self.command), LONGEST)

    def _verb(self, verb: str, *options: str) -> str:
        home = ("--home", self.home) if self.home is not None else ()
        return shlex.join(["opsdeck", verb, self.run, self.step, *options, *home])


def render(format: Format, question: Question) -> dict[str, Any]:
    """The body of the POST."""
    return _RENDERERS[format](question)


def as_json(question: Question) -> dict[str, Any]:
    """`{"kind": "gate.asked", "id", "text", …, "commands": {"approve", "reject"}}`."""
    return {
        "kind": "gate.asked", "id": question.id, "text": question.headline,
        "run": question.run, "procedure": question.procedure, "title": _cut(question.title, LONGEST),
        "step": question.step, "step_title": _cut(question.step_title, LONGEST),
        "service": question.service, "command": question.shown_command,
        "evidence": question.evidence and _cut(question.evidence, LONGEST), "started_by": question.starter,
        "written": _cut(question.written, LONGEST),
        "wanted": question.wanted, "roles": list(question.roles), "not_initiator": question.not_initiator,
        "approved_by": list(question.given), "expires": question.expires, "host": question.host,
        "again": question.again,
        "commands": {"approve": question.approve, "reject": question.reject}}


def slack(question: Question) -> dict[str, Any]:
    """Blocks of Slack's Block Kit, with `text` for notifications and for clients without blocks.

    Commands are `rich_text_preformatted`, which has no markup at all.
    https://docs.slack.dev/reference/block-kit/blocks
    """
    fields = [{"type": "mrkdwn", "verbatim": True, "text": f"*{label}*\n{_slack_field(text)}"}
              for label, text in question.facts()]
    will_run = [_slack_code("It will run", question.shown_command)] if question.shown_command else []
    return {
        "text": _slack_escaped(f"{question.headline}: {question.approve}"),
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "emoji": False, "text": question.headline}},
            {"type": "section", "fields": fields},
            *will_run,
            _slack_code("To approve, on that host", question.approve),
            _slack_code("To reject", question.reject)]}


def teams(question: Question) -> dict[str, Any]:
    """An Adaptive Card in the envelope that Teams' workflows take (MessageCards they do not show).

    Its texts are `TextRun`s, which have no markup. https://adaptivecards.io/explorer/TextRun.html
    """
    body: list[dict[str, Any]] = [_teams_text(question.headline, weight="Bolder", size="Medium")]
    body += [_teams_fact(label, text) for label, text in question.facts()]
    for label, command in (("It will run", question.shown_command),
                           ("To approve, on that host", question.approve),
                           ("To reject", question.reject)):
        if command:
            body += [_teams_text(label, weight="Bolder"), _teams_text(command, fontType="Monospace")]
    return {
        "type": "message", "summary": question.headline,
        "attachments": [{"contentType": _CARD, "contentUrl": None, "content": {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard",
            "version": "1.4", "fallbackText": f"{question.headline}: {question.approve}",
            "msteams": {"width": "Full"}, "body": body}}]}


def _slack_escaped(text: str) -> str:
    """https://docs.slack.dev/messaging/formatting-message-text#escaping"""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _slack_field(text: str) -> str:
    """An escaped text for a section's field, which takes 2,000 characters with its label."""
    while len(escaped := _slack_escaped(text)) > FIELD:
        text = _cut(text, len(text) * 2 // 3)
    return escaped


def _slack_code(label: str, command: str) -> dict[str, Any]:
    return {"type": "rich_text", "elements": [
        {"type": "rich_text_section",
         "elements": [{"type": "text", "text": label, "style": {"bold": True}}]},
        {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": command}]}]}


def _teams_text(text: str, **style: str) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **style}]}


def _teams_fact(label: str, text: str) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [
        {"type": "TextRun", "text": f"{label}: ", "weight": "Bolder"}, {"type": "TextRun", "text": text}]}


def _cut(text: str, most: int) -> str:
    text = harmless(text)
    return text if len(text) <= most else f"{text[:most - 1]}…"


_RENDERERS: dict[str, Callable[[Question], dict[str, Any]]] = {
    "slack": slack, "teams": teams, "json": as_json}
