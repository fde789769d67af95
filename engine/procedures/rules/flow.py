"""The order of the steps: what each waits for, and where a failure may go on."""

from __future__ import annotations

from collections.abc import Iterator

from engine.located import Problem, did_you_mean
from engine.procedures.document import Goto
from engine.procedures.draft import Draft, DraftStep


def problems(draft: Draft) -> Iterator[Problem]:
    ids = draft.ids()
    for step in draft.steps:
        for index, need in enumerate(step.step.needs or []):
            if need == step.id:
                yield draft.located.problem(step.path("needs", index),
                                            f"step `{step.id}` cannot wait for itself")
            elif need not in ids:
                yield draft.located.problem(step.path("needs", index),
                                            f"there is no step `{need}`", did_you_mean(need, ids))
    circle = cycle(draft)
    if circle:
        first = draft.step(circle[0])
        assert first is not None
        where = first.path("needs") if first.step.needs is not None else first.path("id")
        way = " → ".join([*circle, circle[0]])
        yield draft.located.problem(where, f"these steps wait for one another: {way}",
                                    "a step without `needs` waits for the step before it")
    for step in draft.steps:
        if isinstance(step.step.on_failure, Goto):
            yield from _goto(draft, step, step.step.on_failure.goto)


def _goto(draft: Draft, step: DraftStep, target: str) -> Iterator[Problem]:
    path = step.path("on_failure", "goto")
    other = draft.step(target)
    if other is None:
        yield draft.located.problem(path, f"there is no step `{target}`",
                                    did_you_mean(target, draft.ids()))
        return
    if other.id == step.id:
        yield draft.located.problem(path, "a step cannot go to itself", "say `retry` to try again")
        return
    if other.index > step.index:
        return
    above = ancestors(draft)
    again = [s for s in draft.steps if draft.effect(s) == "once" and draft.effect_known(s) and (
        other.index <= s.index <= step.index or _beside(above, s, other, step))]
    if again:
        names = ", ".join(f"`{s.id}`" for s in again)
        yield draft.located.problem(path, f"going back to `{target}` would repeat {names}, which "
                                    "may run once only",
                                    "go back over steps with effect none or idempotent only")


def _beside(above: dict[str, set[str]], step: DraftStep, target: DraftStep,
            failing: DraftStep) -> bool:
    """Whether a step beside the failing one waits for the target, and so runs again too."""
    return target.id in above[step.id] and failing.id not in above[step.id]


def ancestors(draft: Draft) -> dict[str, set[str]]:
    """For each step the steps that have ended, one way or another, before it starts."""
    found: dict[str, set[str]] = {}
    for step in draft.steps:
        seen: set[str] = set()
        todo = list(draft.needs(step))
        while todo:
            need = draft.step(todo.pop())
            if need is not None and need.id not in seen:
                seen.add(need.id)
                todo.extend(draft.needs(need))
        found[step.id] = seen
    return found


def earlier(draft: Draft) -> dict[str, set[str]]:
    """For each step those that may have run before it: its ancestors, and what a `goto` leads back
    or ahead from."""
    above = ancestors(draft)
    result = {id: set(known) for id, known in above.items()}
    order = {step.id: step.index for step in draft.steps}
    for step in draft.steps:
        goto = step.step.on_failure
        if not isinstance(goto, Goto) or goto.goto not in order:
            continue
        ran = {step.id} | above[step.id] | {
            id for id, at in order.items() if order[goto.goto] <= at <= step.index}
        for id in order:
            if id == goto.goto or goto.goto in above[id]:
                result[id] |= ran
    return result


def cycle(draft: Draft) -> list[str]:
    """The ids of one circle of needs, in the order in which they wait; empty if there is none."""
    done: set[str] = set()
    for start in draft.steps:
        way: list[str] = []
        stack: list[tuple[str, Iterator[str]]] = [(start.id, iter(draft.needs(start)))]
        while stack:
            id, left = stack[-1]
            if id not in way:
                way.append(id)
            need = next(left, None)
            if need is None:
                done.add(id)
                way.pop()
                stack.pop()
            elif need in way:
                found = way[way.index(need):]
                return found if len(found) > 1 else []
            elif need not in done and (other := draft.step(need)) is not None:
                stack.append((need, iter(draft.needs(other))))
    return []
