"""The places of the console and the way back from them.

Only the view in front exists. The trail remembers how one came here, and each place left behind
keeps its selection and its filter.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from console.screens.view import View

if TYPE_CHECKING:
    from console.app import OpsdeckApp

Place = tuple[str, str]
FLEET: Place = ("fleet", "")
LONGEST = 50
VIEWS = {"fleet": "fleet:FleetView", "service": "service:ServiceView",
         "runbooks": "runbooks:RunbooksView", "start": "start:StartView", "runs": "runs:RunsView",
         "run": "run:RunScreen", "page": "page:PageScreen", "approvals": "approvals:ApprovalsView",
         "audit": "audit:AuditView", "rollouts": "rollouts:RolloutsView",
         "rollout": "rollout:RolloutScreen"}


def make(place: Place) -> View:
    """A new view of a place; its module is imported only now."""
    module, _, name = VIEWS[place[0]].partition(":")
    view = getattr(importlib.import_module(f"console.screens.{module}"), name)(place[1])
    assert isinstance(view, View)
    return view


class Trail:
    """Where one is, how one came there, and what each place remembers."""

    def __init__(self, first: Place) -> None:
        self.places: list[Place] = [FLEET] if first == FLEET else [FLEET, first]
        self.before: Place = FLEET
        self._memory: dict[Place, tuple[str | None, str]] = {}

    @property
    def here(self) -> Place:
        return self.places[-1]

    def go(self, place: Place) -> bool:
        """Step to a place, back along the trail if it lies on it. False if that is where one is."""
        if place == self.here:
            return False
        self.before = self.here
        if place in self.places:
            del self.places[self.places.index(place) + 1:]
        else:
            self.places.append(place)
            if len(self.places) > LONGEST:
                del self.places[1]
        return True

    def back(self) -> bool:
        """One step back; False at the beginning."""
        return len(self.places) > 1 and self.go(self.places[-2])

    def keep(self, place: Place, view: View) -> None:
        table = view.table()
        self._memory[place] = (table.selected if table else None, view.filter)

    def recall(self, view: View) -> None:
        """Give a new view the selection and filter that its place had."""
        if (view.place, view.argument) not in self._memory:
            return
        selected, view.filter = self._memory[view.place, view.argument]
        table = view.table()
        if table is not None and selected is not None:
            table.selected = selected


def show(app: OpsdeckApp) -> None:
    """Put the view of the trail's last place in front, without any dialog."""
    while app.screen_stack and not isinstance(app.screen, View):
        app.pop_screen()
    app.settling = app.switch_screen(make(app.trail.here))
