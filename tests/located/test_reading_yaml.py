"""A YAML file is read into plain values with lines; every trap in it is a problem with its line."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.located import Problem, load, load_bytes
from engine.located.reading import MAX_BYTES, MAX_NODES


@pytest.mark.parametrize(("text", "line", "message", "hint"), [
    ("", 1, "the file is empty", None),
    ("# only a comment\n", 1, "the file is empty", None),
    ("a: 1\nb: 2\na: 3\n", 3, "the key `a` is given twice", "line 1"),
    ("a: 1\n---\nb: 2\n", 2, "a second document begins here", "one document"),
    ("a:\n\tb: 1\n", 2, "indented with a tab", "spaces"),
    ("a: b: c\n", 1, "a `:` here has no place", "quote"),
    ("a: 1\n b: 2\n", 2, "a `:` here has no place", "indentation"),
    ("a: 1\nb: 'never closed\nc: 2\n", 2, "a quote is never closed", None),
    ("a: [1, 2\nb: 3\n", 2, "a list in brackets is not closed", "]"),
    ("a: {b: 1\nc: 3\n", 2, "a map in braces is not closed", "}"),
    ("a: @x\n", 1, "a value cannot begin with `@`", "quotes"),
    ("a: 1\nb: *nope\n", 2, "nothing before this is anchored as `&nope`", None),
    ("a: &a [*a]\n", 1, "nothing before this is anchored as `&a`", None),
    ("a: !!python/object/apply:os.system [id]\n", 1, "the tag `!!python/object/apply:os.system`",
     "remove it"),
    ("a: !!str 5\n", 1, "the tag `!!str`", "quote"),
    ("x: &x {a: 1}\ny: {<<: *x}\n", 2, "merge keys", "write the keys out"),
    ("? [a, b]\n: 1\n", 1, "a key must be plain text", "quote"),
    ("a: 1\nmode: 0755\n", 2, "`0755` can be read as an octal", '"0755"'),
    ("a: x\u202ey\n", 1, "an invisible character here (U+202E)", "what people read"),
    ("a: 1\nb: x\x07\n", 2, "an invisible character here (U+0007)", None),
    ("a: zero\u200bwidth\n", 1, "U+200B", None),
    ("[" * 100 + "]" * 100, 1, "nested more than 40 levels", None),
    ("a: &a [1]\n" + "".join(f"k{i}: {'[' * 38}*a{']' * 38}\n" for i in range(2)), 2,
     "nested more than 40 levels", None),
    ("%YAML 9.9\n---\na: 1\n", 1, "this is not YAML", None),
])
def test_each_trap_is_a_problem_with_its_line(text: str, line: int, message: str,
                                              hint: str | None) -> None:
    found = load(text, "f.yaml").problems
    assert [p.line for p in found] == [line], found
    assert message in found[0].message
    if hint is not None:
        assert found[0].hint is not None and hint in found[0].hint
    assert str(found[0]).startswith(f"f.yaml:{line}: ")


def test_words_that_yaml_1_1_takes_for_booleans_and_dates_stay_the_text_that_was_written() -> None:
    value = load("on: yes\noff: no\ny: n\ndate: 2026-11-20\ntime: 12:30\nbig: 1_000\n"
                 "real: true\nnone: ~\nempty:\nquoted: 'true'\n8080: port\n").value
    assert value == {"on": "yes", "off": "no", "y": "n", "date": "2026-11-20", "time": "12:30",
                     "big": "1_000", "real": True, "none": None, "empty": None, "quoted": "true",
                     "8080": "port"}


@pytest.mark.parametrize(("written", "value"), [
    ("7", 7), ("-7", -7), ("0", 0), ("0o17", 15), ("0x1F", 31), ("1.5", 1.5), ("1e3", 1000.0),
    (".5", 0.5), (".inf", ".inf"), (".nan", ".nan"), ("1e999", "1e999"), ("9" * 50, "9" * 50)])
def test_numbers_are_finite_and_unmistakable(written: str, value: object) -> None:
    read = load(f"a: {written}").value["a"]
    assert read == value and type(read) is type(value)


def test_every_part_knows_its_line() -> None:
    text = ("a:\n  - b: 1\n    c: [x,\n        y]\n"   # lines 1 to 4
            "script: |\n  one\n  two ${{ x }}\nlast: 1.10\nfree:\n  deep: {k: v}\n")
    located = load(text, "f.yaml")
    lines = {(): 1, ("a",): 1, ("a", 0): 2, ("a", 0, "b"): 2, ("a", 0, "c", 1): 4, ("script",): 5,
             ("last",): 8, ("free",): 9, ("free", "deep", "k"): 10, ("free", "deep", "nope", 5): 10,
             ("nope",): 1}
    assert {path: located.line_of(path) for path in lines} == lines
    inside = located.value["script"].index("${{")
    assert located.problem(("script",), "x", offset=inside).line == 7
    assert located.raw(("last",)) == "1.10" and located.raw(("script",)) is None


def test_aliases_stand_for_their_values() -> None:
    located = load("a: &x {k: [1]}\nb: *x\n")
    assert located.value == {"a": {"k": [1]}, "b": {"k": [1]}} and located.problems == []


def test_an_alias_bomb_is_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    started = time.process_time()
    found = load("\n".join(lines), "bomb.yaml")
    assert time.process_time() - started < 1
    assert found.value is None and f"more than {MAX_NODES:,} values" in found.problems[0].message


def test_bytes_that_are_no_utf8_are_named_by_their_line() -> None:
    found = load_bytes(b"a: 1\nb: \xff\n", "f.yaml").problems
    assert (found[0].line, found[0].message) == (2, "this is not UTF-8")
    assert "UTF-16" in (load_bytes("a: 1".encode("utf-16"), "f").problems[0].hint or "")
    assert load_bytes(b"\xef\xbb\xbfa: 1", "bom").value == {"a": 1}


def test_a_file_that_is_too_large_or_not_there_is_a_problem_of_the_whole_file(
        tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"a: " + b"x" * MAX_BYTES)
    os.mkfifo(tmp_path / "pipe.yaml")
    for path, said in ((large, "larger than 1 MB"), (tmp_path / "pipe.yaml", "not a plain file"),
                       (tmp_path / "no.yaml", "no such file"), (tmp_path, "a directory")):
        found = load(path)
        assert found.value is None and said in found.problems[0].message
        assert str(found.problems[0]).startswith(f"{path}: ")


def test_a_warning_says_that_it_is_one() -> None:
    assert str(Problem("f.yaml", 3, 1, "old", "renew it", "warning")) == (
        "f.yaml:3: warning: old\n  renew it")


@given(st.text(max_size=80) | st.lists(st.sampled_from(
    ["a", ":", " ", "\n", "-", "[", "]", "{", "}", "&x", "*x", "!t", "|", ">", "'", '"', "#", "%", "?",
     "---", "\t", "<<", "0", ",", "\u2028", "\x00", "é"]), max_size=25).map("".join))
def test_reading_any_text_gives_a_value_or_problems(text: str) -> None:
    located = load(text, "f")
    assert located.value is not None or located.problems or text.strip("\ufeff \n") != ""
    for problem in located.problems:
        assert problem.line >= 0 and problem.message and "\n" not in problem.message


@given(st.binary(max_size=60))
def test_reading_any_bytes_gives_a_value_or_problems(data: bytes) -> None:
    load_bytes(data, "f")
