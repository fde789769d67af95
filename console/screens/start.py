"""Start: the parameters of one procedure, checked while typed; then what will start, spelled out."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any, ClassVar

from textual.widget import Widget

from console import acting, asks, format, safety
from console.asks import Ask, Choice
from console.form import Form, wanted
from console.screens.dialog import Dialog
from console.screens.view import View
from console.widgets.lines import BLANK, Line, Lines, line
from engine.api import wire
from engine.errors import OpsdeckError

LABEL = 14


class StartView(View):
    """The argument is the procedure's id, then what to fill in: a service, or NAME=VALUE as a shell
    would quote it."""

    place: ClassVar[str] = "start"

    def __init__(self, argument: str = "") -> None:
        super().__init__(argument)
        self.name_of, *rest = shlex.split(argument) or [""]
        self.given: dict[str, str] = {}
        for part in rest:
            name, equals, value = part.partition("=")
            self.given[name if equals else "service"] = value if equals else part
        self.procedure: wire.Procedure | None = None
        self.form = Form([])
        self.tried = False
        self.problem = "Reading the procedure."

    def crumbs(self) -> list[str]:
        return ["Runbooks", f"start {self.name_of}"]

    def body(self) -> Iterable[Widget]:
        yield Lines(id="form")

    def hints(self) -> list[tuple[str, str]]:
        return [("enter", "next field, then start"), ("tab", "other field"), ("esc", "leave it")]

    def on_mount(self) -> None:
        self.deck.begin(self._fetch(), settle=True)

    async def _fetch(self) -> None:
        try:
            found = await self.deck.source.library()
        except OpsdeckError as error:
            self.problem = acting.sentence(error, self.deck.state.user)
        else:
            self.procedure = next((p for p in found if p.id == self.name_of), None)
            self.problem = "" if self.procedure else f"There is no procedure {self.name_of}."
            if self.procedure is not None:
                self.form = Form(self.procedure.params, self.given)
        if self.is_attached:
            self.renew()

    def update(self) -> None:
        width, height = self.size.width, self.query_one("#form", Lines).size.height
        self.query_one("#form", Lines).show(self.lines(width, height))

    def lines(self, width: int, height: int) -> list[Line]:
        """The title, then for each field its text and what is wrong with it or wanted.

        The active field says all of that, the others as much as one line holds.
        """
        if self.procedure is None:
            return [line((f" {self.problem}", "warn"))]
        lines: list[Line] = [line((f" {self.procedure.title}", "strong")), BLANK]
        if not self.form.params:
            lines.append(line((" It takes no parameters. enter shows what will start.", "text")))
        fields: list[Line] = []
        for index, param in enumerate(self.form.params):
            active = index == self.form.at
            edit = self.form.edits[index]
            name = f"{param.name}{' *' if param.required else ''}"
            mark = self.deck.glyphs.here if active else " "
            fields.append(line((f" {mark} {format.left(name, LABEL)} ", "strong" if active else "text"),
                               *edit.spans(width - LABEL - 6, active=active)))
            problem = self.form.problem(index) if edit.text or self.tried else None
            pieces = format.wrap(problem or wanted(param), width - LABEL - 6)
            if not active and len(pieces) > 1:
                pieces = [format.clip(f"{pieces[0]} {pieces[1]}", width - LABEL - 6,
                                      self.deck.glyphs.more)]
            fields += [line((" " * (LABEL + 4), "text"), (piece, "warn" if problem else "dim"))
                       for piece in pieces]
        room = max(2, height - len(lines))
        first = max(0, min(self.form.at * 2 - room // 2, len(fields) - room))
        return lines + fields[first:first + room]

    async def press(self, key: str, character: str | None) -> None:
        if key == "escape":
            self.deck.action_step_back()
        elif key == "enter":
            self._next()
        elif key == "ctrl+l":
            self.deck.action_redraw()
        elif self.form.press(key, character):
            self.update()

    def paste(self, text: str) -> None:
        if self.form.params:
            self.form.edits[self.form.at].insert(text)
            self.update()

    def _next(self) -> None:
        problems = self.form.problems
        if self.procedure is None:
            return
        if problems:
            later = [i for i, _ in problems if i > self.form.at]
            here = any(i == self.form.at for i, _ in problems)
            self.tried = True
            if not here:
                self.form.at = later[0] if later else problems[0][0]
            self.update()
            return
        if self.form.at + 1 < len(self.form.params) and not self.tried:
            self.form.at += 1
            self.update()
            return
        self._confirm(self.procedure, self.form.values())

    def _confirm(self, procedure: wire.Procedure, values: dict[str, Any]) -> None:
        if refused := safety.refusal("start", self.deck.state):
            self.deck.say(refused, "warn")
            return

        def answered(_ask: Ask, choice: Choice, _text: str) -> None:
            self.deck.begin(acting.start(self.deck, procedure, values, choice.dry_run))

        self.deck.open(Dialog(asks.start(procedure, values, self.deck.state.services), answered))
