"""The rollout of a service that a run of a pipeline is about to start: which run, and what it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from engine.api import wire
from engine.api.light import Client
from engine.cli.show import answer_command
from engine.errors import NotFound

LOOK = 0.5  # seconds between two looks


@dataclass(frozen=True)
class Coming:
    """A run that will release to `service`, and the step that it is at; None between two."""

    service: str
    run: wire.RunView
    step: wire.StepView | None

    @property
    def under_way(self) -> bool:
        """Whether nobody has to do anything for it to go on."""
        return self.run.state == "running" and (self.step is None or self.step.gate is None)

    def says(self) -> str:
        at = f" and is at {self.step.id} ({self.step.title})" if self.step is not None else ""
        return f"run {self.run.id} ({self.run.procedure}) is to start a rollout of {self.service}{at}"

    def hint(self) -> str:
        gate = self.step.gate if self.step is not None else None
        answer = answer_command(gate, self.run.id, self.step.id) if gate and self.step is not None else None
        return f"`{answer}` lets it go on" if answer else f"`opsdeck show {self.run.id}` tells how it goes"


def coming(client: Client, service: str, last: wire.Rollout | None = None) -> Coming | None:
    """The newest run that has not ended and has registered a model for the service, since the `last` rollout
    of it began: it starts the next."""
    for one in client.runs(limit=50):
        if one.ended is None and one.service is None and not one.dry_run:
            view = client.run(one.id)
            ready = [step for step in view.steps
                     if isinstance(step.result, dict) and step.result.get("service") == service]
            if ready and (last is None or last.started < (ready[-1].ended or view.at)):
                here = [step for step in view.steps
                        if step.gate is not None or step.state in ("intent", "unknown")]
                return Coming(service, view, here[-1] if here else None)
    return None


def awaited(client: Client, service: str, found: wire.Rollout | None, tell: Callable[[str], None],
            sleep: Callable[[float], None] = time.sleep) -> wire.Rollout | None:
    """The rollout that runs: `found`, or the one that a run on its way starts. None where none is on its way.
    Raises NotFound, saying what the run waits for, where a person must let it go on."""
    said = False
    while found is None or found.ended is not None:
        on_its_way = coming(client, service, found)
        if on_its_way is None:
            return found
        if not on_its_way.under_way:
            raise NotFound(f"{on_its_way.says()} and waits for a person", hint=on_its_way.hint())
        if not said:
            said = True
            tell(f"{on_its_way.says()}; waiting for it")
        sleep(LOOK)
        found = newest(client, service) or found
    return found


def newest(client: Client, service: str) -> wire.Rollout | None:
    try:
        return client.rollout(service)
    except NotFound:
        return None
