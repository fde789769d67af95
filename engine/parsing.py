"""Python code parsed, never run: one parse at a time, and every refusal of one of two kinds."""

from __future__ import annotations

import ast
import threading

# CPython 3.11 keeps the depth of the tree it builds for the interpreter, not for the thread: of two threads
# that parse at once, one was seen to end with a SystemError.
_ALONE = threading.Lock()


def parse(source: bytes | str, name: str = "<source>") -> ast.Module:
    """The tree. Raises SyntaxError, or ValueError for what is no text or is nested too deep."""
    with _ALONE:
        try:
            return _parsed(source, name)
        except SystemError:  # of a thread of somebody else's that parses
            return _parsed(source, name)


def _parsed(source: bytes | str, name: str) -> ast.Module:
    try:
        return ast.parse(source, name)
    except (RecursionError, MemoryError) as error:  # what CPython's parser says of it
        raise ValueError("it is nested too deep to be read") from error
