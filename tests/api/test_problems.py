"""An error raised in the engine arrives in the command as the same error."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from engine import errors
from engine.api import wire
from engine.api.problems import from_wire, to_wire


def tree(kind: type[errors.OpsdeckError]) -> Iterator[type[errors.OpsdeckError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


@pytest.mark.parametrize("kind", list(tree(errors.OpsdeckError)), ids=lambda k: k.__name__)
def test_every_error_survives_the_wire(kind: type[errors.OpsdeckError]) -> None:
    sent = kind("the disk is full", where="run 3, step drain", hint="make room")
    body = msgspec.json.encode(to_wire(sent, at=12.0))
    got = from_wire(msgspec.json.decode(body, type=wire.Problem))
    assert type(got) is kind
    assert str(got) == str(sent)
    assert got.exit_code == sent.exit_code


def test_a_documents_problems_come_along() -> None:
    sent = errors.DocumentError("it has 2 problems", ["a.yaml:3: one", "a.yaml:9: two"])
    got = from_wire(to_wire(sent, at=0.0))
    assert isinstance(got, errors.DocumentError)
    assert got.problems == ["a.yaml:3: one", "a.yaml:9: two"]


def test_a_code_of_a_newer_engine_keeps_its_sentence_and_exit_code() -> None:
    got = from_wire(wire.Problem("quota", "too many runs", 9, 0.0, hint="wait"))
    assert (got.message, got.hint, got.exit_code, got.code) == ("too many runs", "wait", 9, "quota")
    assert errors.OpsdeckError.exit_code == 1
