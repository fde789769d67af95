"""What can be known to be wrong with a run before there is one: what its actions were told of."""

from __future__ import annotations

import json

from engine.errors import OpsdeckError
from engine.procedures import rendering
from engine.procedures.executor import Executor
from engine.procedures.run import RunProgress


async def check(executor: Executor, run: RunProgress) -> None:
    """Ask each action that can tell, for the steps that depend on the run's parameters alone. Raises its
    OpsdeckError. What other steps must first come to is looked at when it is their turn."""
    asked = set()
    for step in run.plain_steps():
        action = executor.registry.get(step.spec.use or "")
        if action is None or action.ready is None:
            continue
        try:
            op = rendering.render(run, step, executor.registry, executor.home).op
            args = rendering.parse_args(action, op["with"], step.id)
        except OpsdeckError:
            continue  # it cannot be told yet; the step itself says what is wrong with it
        question = (action.ready, json.dumps(op["with"], sort_keys=True, default=str))
        if question not in asked:
            asked.add(question)
            await action.ready(executor.performer.context(run.id, step), args)
