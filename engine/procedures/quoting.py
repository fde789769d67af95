"""Where a value may be put into a `sh` script so that quoting it is enough. Pure.

Quoting protects a value only where the shell itself would read quotes as quotes. Inside quotes of
the script, a comment, a here-document, backquotes, `${…}` or arithmetic it does not, and the value
could run commands. Those places are refused rather than guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.procedures.scanner import Expression, TemplateError, parts

_PARAMETER = re.compile(r"\$\{[#!]?[A-Za-z_0-9@*#?$!-]+\}")
_AGAIN = re.compile(r"(?:^|[\s;&|(])(eval|ssh|(?:ba|da|k|z)?sh\s+-\w*c)\b")
ADVICE = ("take it out of there, or hand the value over in `env:` and read it as \"$NAME\", "
          "or write the command as a list of arguments")


def quote(value: str) -> str:
    """One word of `sh`, always in single quotes.

    As `shlex.quote`, which leaves harmless-looking words bare: `2` before `>` or `if` would then
    not be a word.
    """
    return "'" + value.replace("'", "'\"'\"'") + "'"


def placed(script: str) -> list[str | Expression]:
    """The script's parts, as `scanner.parts`; raises TemplateError for an interpolation in a place
    where quoting would not protect its value."""
    found = parts(script)
    for error in _misplaced(found):
        raise error
    return found


def misplaced(script: str) -> list[TemplateError]:
    """Every interpolation that `placed` refuses. Raises TemplateError as `scanner.parts` does."""
    return list(_misplaced(parts(script)))


def _misplaced(found: list[str | Expression]) -> Iterator[TemplateError]:
    state = _Shell()
    for part in found:
        if isinstance(part, str):
            state.read(part)
        elif (where := state.interpolate()) is not None:
            yield TemplateError(f"a value {where} cannot be quoted safely", part.at)


def parsed_again(script: str) -> tuple[str, int] | None:
    """The command in the script that would parse a value a second time (`eval`, `sh -c`, `ssh`),
    and where it is."""
    found = _AGAIN.search(script)
    return (found.group(1), found.start(1)) if found else None


class _Shell:
    """How far a script has been read: inside which quotes, or in something not followed further."""

    def __init__(self) -> None:
        self.quote = ""
        self.lost = ""
        self.word = False   # whether a word has begun, so that `#` is no comment
        self.last = ""

    def interpolate(self) -> str | None:
        """Put a quoted word here; where it is, if quoting would not protect it."""
        where = {"'": "inside single quotes", '"': "inside double quotes",
                 "#": "inside a comment", "\\": "after a backslash", "$": "right after a `$`",
                 }.get(self.quote or self.last)
        if self.lost:
            where = f"after {self.lost}"
        self.word, self.last = True, ""
        return where

    def read(self, text: str) -> None:
        at = 0
        while at < len(text) and not self.lost:
            at = self._step(text, at)

    def _step(self, text: str, at: int) -> int:
        char, pending = text[at], self.last
        self.last = ""
        if pending == "\\":
            self.word = True
            return at + 1
        if self.quote == "'" or self.quote == "#":
            if char == ("'" if self.quote == "'" else "\n"):
                self.quote, self.word = "", self.quote == "'"
            return at + 1
        if char == "\\":
            self.last = "\\"
            return at + 1
        if char == "`" or text.startswith("$((", at):
            self.lost = "a backquote" if char == "`" else "the arithmetic `$((`"
            return at
        if char == "$":
            return self._dollar(text, at)
        if self.quote == '"':
            if char == '"':
                self.quote = ""
            return at + 1
        return self._plain(text, at)

    def _dollar(self, text: str, at: int) -> int:
        following = text[at + 1:at + 2]
        if following == "(":
            if self.quote:
                self.lost = "a `$(` inside double quotes"
            self.word = False
            return at + 2
        if following == "{":
            simple = _PARAMETER.match(text, at)
            if simple is None:
                self.lost = "a `${` that is more than a name"
                return at
            self.word = True
            return simple.end()
        if following and following in "'\"" and not self.quote:
            self.lost = f"a `${following}`"
            return at
        self.word = True
        if following == "$":
            return at + 2
        self.last = "$" if not following else ""
        return at + 1

    def _plain(self, text: str, at: int) -> int:
        char = text[at]
        if char == "#" and not self.word:
            self.quote = "#"
            return at + 1
        if char in "'\"":
            self.quote, self.word = char, True
            return at + 1
        if text.startswith("<<", at):
            self.lost = "a here-document"
            return at
        for murky in ("((", ")#"):  # arithmetic; a comment or not, depending on what is closed
            if text.startswith(murky, at):
                self.lost = f"a `{murky}`"
                return at
        self.word = not (char.isspace() or char in ";&|()<>")
        return at + 1
