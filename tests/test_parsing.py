"""Code is parsed by any number of threads, and what cannot be parsed is one of two errors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.parsing import parse


@pytest.mark.parametrize("source", ["x = " + "-" * 200_000 + "1", "x = " + "(" * 5_000 + ")" * 5_000, "a\0b"])
def test_what_is_nested_too_deep_or_no_text_is_an_error_of_its_own(source: str) -> None:
    with pytest.raises((SyntaxError, ValueError)):
        parse(source)


def test_many_threads_parse_at_once() -> None:
    source = "def f(x):\n    return " + "(" * 60 + "x" + ")" * 60 + "\n"
    with ThreadPoolExecutor(8) as threads:
        assert all(tree.body for tree in threads.map(parse, [source] * 200))
