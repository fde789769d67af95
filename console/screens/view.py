"""What every view shares: header, body, message and hints, and how it hears of news."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.screen import Screen
from textual.widget import Widget

from console import commands
from console.widgets.bars import Bar, Notice, header_line, hints_line
from console.widgets.prompt import Prompt
from console.widgets.table import Table
from engine.api import wire
from engine.errors import NotFound, OpsdeckError

if TYPE_CHECKING:
    from console.app import OpsdeckApp


class View(Screen[None], inherit_bindings=False):
    """One place to be. Subclasses set `place`, compose `body` and write `update`."""

    place: ClassVar[str] = ""
    AUTO_FOCUS = ""

    def __init__(self, argument: str = "") -> None:
        super().__init__()
        self.argument = argument
        self.filter = ""

    @property
    def deck(self) -> OpsdeckApp:
        return cast("OpsdeckApp", self.app)

    def compose(self) -> ComposeResult:
        yield Bar(id="header")
        yield from self.body()
        yield Notice(id="notice")
        yield Prompt(id="prompt")
        yield Bar(id="hints")

    def body(self) -> Iterable[Widget]:
        raise NotImplementedError

    def crumbs(self) -> list[str]:
        raise NotImplementedError

    def update(self) -> None:
        """Bring the body up to the state; called at each tick, after keys and on resize."""
        raise NotImplementedError

    def hints(self) -> list[tuple[str, str]]:
        return commands.hints(self.place)

    @property
    def run_id(self) -> str | None:
        """The run that is shown, if it is one."""
        return None

    def take(self, run: wire.RunView) -> None:
        """A newer state of a run: of interest to the view of that run alone."""

    def copyable(self) -> str:
        """What `y` copies."""
        return ""

    def table(self) -> Table | None:
        """The list that j, k, g and G move in, if there is one."""
        return None

    def on_mount(self) -> None:
        self.query_one(Notice).display = False
        self.query_one(Prompt).display = False
        self.deck.trail.recall(self)

    def on_unmount(self) -> None:
        self._styles_cache.clear()  # see widgets.lines.Drawn

    def on_resize(self) -> None:
        self.call_after_refresh(self.renew)

    def on_screen_resume(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Draw everything from the state as it is now."""
        if not self.is_mounted or self._pruning or self._closing or not self.size.width:
            return  # not composed yet, or being taken down while a tick arrives
        deck, width = self.deck, self.size.width
        self.query_one("#header", Bar).show(
            [header_line(self.crumbs(), deck.state, deck.glyphs, width)])
        hints = self.hints()
        if self.filter:
            hints = [("/", f"filter: {self.filter}"), *(h for h in hints if h[0] != "/")]
        self.query_one("#hints", Bar).show([hints_line(hints, width)])
        notice, (text, role) = self.query_one(Notice), deck.message
        if notice.text != text:
            notice.say(text, role, dismissable=bool(deck.notice) and not deck.notice_passing)
        self.update()

    async def press(self, key: str, character: str | None) -> None:
        """One key: to the prompt while it is open, else to what it is bound to here or everywhere."""
        prompt = self.query_one(Prompt)
        if not prompt.display:
            await self.deck.run_key(key)
            return
        outcome = prompt.press(key, character)
        if outcome == "typing":
            self._filtered(prompt)
            return
        self.query_one("#hints").display = True
        text = prompt.edit.text if outcome == "entered" else ""
        if prompt.sign == "/":
            self.filter = text
        self.renew()
        if prompt.sign == ":" and text:
            self.deck.go_to_line(text)

    def paste(self, text: str) -> None:
        prompt = self.query_one(Prompt)
        if prompt.display:
            prompt.paste(text)
            self._filtered(prompt)

    def _filtered(self, prompt: Prompt) -> None:
        if prompt.sign == "/":
            self.filter = prompt.edit.text
            self.update()

    def action_down(self) -> None:
        self._move(1)

    def action_up(self) -> None:
        self._move(-1)

    def action_top(self) -> None:
        self._move(-10**9)

    def action_bottom(self) -> None:
        self._move(10**9)

    def action_page_down(self) -> None:
        table = self.table()
        self._move(table.page if table else 0)

    def action_page_up(self) -> None:
        table = self.table()
        self._move(-table.page if table else 0)

    def _move(self, by: int) -> None:
        table = self.table()
        if table is not None:
            table.move(by)
            self.selection_moved()

    def selection_moved(self) -> None:
        """What follows the selection is drawn anew; the list has drawn itself."""
        self.update()

    def show_rollout(self, service: str) -> None:
        """Go to the rollout that runs on a service, else to its last one."""
        found = self.deck.state.service(service)
        if found is not None and found.rollout:
            self.deck.go("rollout", service)
        elif not service:
            self.deck.say("No service is selected.", passing=True)
        else:
            self.deck.begin(self._last_rollout(service), settle=True)

    async def _last_rollout(self, service: str) -> None:
        try:
            await self.deck.source.rollout(service)
        except NotFound:
            self.deck.say(f"No rollout runs on {service}, and none is known that has ended.", passing=True)
        except OpsdeckError as error:
            self.deck.complain(error)
        else:
            self.deck.go("rollout", service)

    def rolls(self, service: str) -> bool:
        """Whether a rollout runs on a service."""
        found = self.deck.state.service(service)
        return found is not None and bool(found.rollout)

    def rolled(self, service: str) -> bool:
        """Whether a rollout runs on a service or ended within the hour: then `o` is worth a hint."""
        found = self.deck.state.service(service)
        return found is not None and (bool(found.rollout) or self.deck.state.just_ended(found) is not None)

    def action_filter(self) -> None:
        self._ask("/", self.filter)

    def ask_goto(self) -> None:
        self._ask(":", "")

    def _ask(self, sign: str, text: str) -> None:
        context = self.deck.context()
        self.query_one("#hints").display = False
        self.query_one(Prompt).open(
            sign, text, (lambda t: commands.complete(t, context)) if sign == ":" else lambda _t: [])
