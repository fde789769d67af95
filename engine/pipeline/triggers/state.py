"""All that is known of triggers, folded from the events of their chain. Pure.

Beside the models' machines: `asked`, what was heard and not yet looked at; `marks`, how far each source was
read, so that nothing is heard twice nor missed while no engine ran; `blind`, the sources that cannot look;
`nonces` of requests that were taken.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.pipeline.triggers.deciding import Fact, Kind, Model, fold

MOST_ASKED = 100  # of a project
MOST_NONCES = 4096


class Asked(msgspec.Struct, frozen=True):
    """A cause before it is known what would be built."""

    id: str
    kind: Kind
    project: str
    at: float
    text: str
    by: str = "engine"
    uid: int = -1


class Blind(msgspec.Struct, frozen=True):
    """A source that cannot look: since when and why. `ticket`: whether people were told."""

    since: float
    text: str
    ticket: bool = False


class State(msgspec.Struct, frozen=True):
    models: dict[str, Model] = {}
    asked: dict[str, Asked] = {}
    marks: dict[str, str] = {}
    blind: dict[str, Blind] = {}
    nonces: dict[str, float] = {}

    def model(self, name: str) -> Model:
        return self.models.get(name, Model())

    def asked_of(self, project: str) -> list[Asked]:
        """Oldest first."""
        return [one for one in self.asked.values() if one.project == project]


def key(project: str, source: str) -> str:
    """How a project's source is called in `marks` and `blind`."""
    return f"{project}/{source}"


def apply(state: State, fact: Fact) -> State:
    """The state after an event, whichever it is. An event that this version does not know changes nothing.

    `asked`: {"asked": Asked, "mark": [key, value] or None, "nonce": [nonce, at] or None}; `seen`: {"mark"};
    `blind`, `ticket`, `sees`: {"source": key, "text"}; `state`: {"state": all of it}; the others are the
    machine's, with the `model` they are of.
    """
    data = fact.data
    change = msgspec.structs.replace
    match fact.kind:
        case "state":
            return msgspec.convert(data["state"], State)
        case "asked":
            one = msgspec.convert(data["asked"], Asked)
            return _marked(change(state, asked={**state.asked, one.id: one}), data)
        case "seen":
            return _marked(state, data)
        case "blind":
            found = Blind(data["since"], data["text"])
            return change(state, blind={**state.blind, data["source"]: found})
        case "ticket":
            known = state.blind.get(data["source"])
            if known is None:
                return state
            return change(state, blind={**state.blind, data["source"]: change(known, ticket=True)})
        case "sees":
            return change(state, blind={k: v for k, v in state.blind.items() if k != data["source"]})
    if "model" not in data:
        return state
    name = data["model"]
    models = {**state.models, name: fold(state.model(name), fact)}
    id = data["cause"]["id"]
    answered = fact.kind in ("heard", "nothing") and id in state.asked
    asked = {k: v for k, v in state.asked.items() if k != id} if answered else state.asked
    return change(state, models=models, asked=asked)


def _marked(state: State, data: dict[str, Any]) -> State:
    if data.get("mark"):
        where, value = data["mark"]
        state = msgspec.structs.replace(state, marks={**state.marks, where: value})
    if data.get("nonce"):
        nonce, at = data["nonce"]
        nonces = {**state.nonces, nonce: at}
        for old in list(nonces)[:max(0, len(nonces) - MOST_NONCES)]:
            del nonces[old]
        state = msgspec.structs.replace(state, nonces=nonces)
    return state
