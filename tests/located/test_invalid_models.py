"""What a model refuses is said in plain sentences, at the line, with the nearest known name."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from engine.config import Config
from engine.located import did_you_mean, fields_at, load, nearest, problems_of, validate


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    hold: float = Field(default=1.0, alias="for")
    level: Literal["page", "ticket"] = "page"


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=5)
    count: int = Field(default=1, gt=0, le=9)
    on: dt.date | None = None
    flag: bool = False
    either: Literal["none"] | Inner = "none"
    shell: str | list[str] = ""
    by_name: dict[str, Inner] = {}
    several: list[Inner] = []


def told(text: str) -> list[tuple[int, str, str | None]]:
    value, problems = validate(Outer, load(text, "f.yaml"))
    assert (value is None) == bool(problems)
    return [(p.line, p.message, p.hint) for p in problems]


@pytest.mark.parametrize(("text", "line", "message", "hint"), [
    ("count: 2", 1, "`name` is missing", None),
    ("name: a\nnmae: b", 2, "unknown key `nmae`", "did you mean `name`?"),
    ("name: 1.10", 1, "`name` must be text, not 1.10", 'put it in quotes: "1.10"'),
    ("name:", 1, "`name` must be text, not empty", None),
    ('name: ""', 1, "`name` must be something, not empty", None),
    ("name: abcdefg", 1, '`name` must be at most 5 characters long, not "abcdefg"', None),
    ("name: a\ncount: x", 2, '`count` must be a whole number, not "x"', None),
    ("name: a\ncount: 0", 2, "`count` must be more than 0, not 0", None),
    ("name: a\ncount: 10", 2, "`count` must be at most 9, not 10", None),
    ("name: a\non: soon", 2, '`on` must be a date such as 2026-11-20, not "soon"', None),
    ("name: a\nflag: maybe", 2, '`flag` must be true or false, not "maybe"', None),
    ("name: a\neither: noen", 2, '`either` must be `none` or a map (`key: value`), not "noen"',
     "did you mean `none`?"),
    ("name: a\neither: {fro: 1}", 2, "unknown key `fro`", "did you mean `for`?"),
    ("name: a\neither:\n  level: paeg", 3, '`level` must be `page` or `ticket`, not "paeg"',
     "did you mean `page`?"),
    ("name: a\nshell: 5", 2, "`shell` must be text or a list, not 5", 'put it in quotes: "5"'),
    ("name: a\nshell: [x, 5]", 2, "item 2 of `shell` must be text, not 5",
     'put it in quotes: "5"'),
    ("name: a\nby_name:\n  x: {lvl: page}", 3, "unknown key `lvl`", "did you mean `level`?"),
    ("name: a\nby_name: [x]", 2, "`by_name` must be a map (`key: value`), not a list", None),
    ("name: a\nseveral:\n  - for: 1\n  - page", 4,
     'item 2 of `several` must be a map (`key: value`), not "page"', None),
    ("just text", 1, 'the file must be a map (`key: value`), not "just text"', None),
])
def test_each_refusal_is_one_sentence(text: str, line: int, message: str, hint: str | None) -> None:
    found = told(text)
    assert found[0][:2] == (line, message), found
    assert hint is None or found[0][2] == hint


def test_every_refusal_is_told_at_once_in_the_order_of_the_lines() -> None:
    lines = [line for line, _, _ in told("name: 5\ncount: 0\nflag: x\nnope: 1\neither: {a: 1}")]
    assert lines == [1, 2, 3, 4, 5]


def test_the_keys_of_a_model_are_those_that_are_written_in_files() -> None:
    assert fields_at(Outer, ("either",)) == ["for", "level"]
    assert fields_at(Outer, ("by_name", "x")) == ["for", "level"]
    assert fields_at(Outer, ("several", 3)) == ["for", "level"]
    assert fields_at(Outer, ("nope",)) == []


def test_the_config_tells_its_mistakes_the_same_way() -> None:
    _, problems = validate(Config, load(
        "engine: {window: 5 parsecs}\nroles: {oprator: {users: [a]}}\n"
        "services:\n  flights:\n    limits: {p99: {above: 5}}\nsevices: {}\n", "opsdeck.yaml"))
    assert [(p.line, p.hint) for p in problems] == [
        (1, None), (2, "did you mean `operator`?"), (5, "did you mean `p99_ms`?"),
        (6, "did you mean `services`?")]


def test_errors_below_a_prefix_and_errors_to_ignore() -> None:
    located = load("a:\n  b: {name: 5, count: x}\n", "f.yaml")
    with pytest.raises(Exception, match="validation") as error:
        Outer.model_validate(located.at(("a", "b")))
    wrong: Any = error.value
    assert len(problems_of(wrong, located, Outer, ("a", "b"))) == 2
    kept = problems_of(wrong, located, Outer, ("a", "b"), ignore=lambda at, kind: at == ("count",))
    assert [(p.line, p.message) for p in kept] == [(2, "`name` must be text, not 5")]


def test_the_nearest_name_may_differ_in_dashes_and_case() -> None:
    assert nearest("Max_Age", ["min-age", "max-age"]) == "max-age"
    assert nearest("zzz", ["alpha"]) is None
    assert did_you_mean("zzz", ["b", "a"]) == "known: `a`, `b`"
    assert did_you_mean("zzz", []) == "there is none"
