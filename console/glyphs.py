"""The characters the console draws with: a Unicode set and an ASCII one for poor terminals.

State is always told by a glyph and a word, so that it survives without colour.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec


class Glyphs(msgspec.Struct, frozen=True):
    """One set. `spark` has eight levels, lowest first; `steps` maps a step's state to its mark."""

    page: str
    wait: str
    ticket: str
    well: str
    stale: str
    arrow: str
    here: str
    rule: str
    dot: str
    more: str
    spark: str
    bar: str
    bar_rest: str
    axis: str
    tick: str
    steps: Mapping[str, str]
    runs: Mapping[str, str]
    braille: bool


UNICODE = Glyphs(
    page="▲", wait="◆", ticket="△", well="●", stale="○", arrow="▸", here="▶", rule="─", dot="·", more="…",
    spark="▁▂▃▄▅▆▇█", bar="█", bar_rest="░", axis="│", tick="┤",
    steps={"planned": "·", "waiting": "▶", "intent": "▶", "done": "✔", "failed": "✘",
           "aborted": "■", "unknown": "?", "skipped": "-", "undone": "↶"},
    runs={"running": "▶", "waiting": "◆", "paused": "=", "done": "✔", "failed": "✘",
          "rolled_back": "↶", "aborted": "■"},
    braille=True)

ASCII = Glyphs(
    page="#", wait="*", ticket="+", well="-", stale="?", arrow=">", here=">", rule="-", dot=".", more="~",
    spark="_.:-=+*#", bar="#", bar_rest=".", axis="|", tick="+",
    steps={"planned": ".", "waiting": ">", "intent": ">", "done": "v", "failed": "x",
           "aborted": "%", "unknown": "?", "skipped": "-", "undone": "<"},
    runs={"running": ">", "waiting": "*", "paused": "=", "done": "v", "failed": "x",
          "rolled_back": "<", "aborted": "%"},
    braille=False)

# What text from elsewhere becomes in ASCII mode; anything not here becomes "?".
ASCII_FOR: Mapping[str, str] = {
    "…": "~", "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "→": ">", "←": "<",
    "▸": ">", "▶": ">", "·": ".", "•": "*", "●": "o", "○": "o", "▲": "#", "△": "+", "✔": "v",
    "✘": "x", "■": "%", "─": "-", "│": "|", "≤": "<", "≥": ">", "×": "x", "µ": "u", "°": "o", "\u00a0": " "}


def utf8_locale(environ: Mapping[str, str] | None = None) -> bool:
    """Whether the locale says that the terminal takes UTF-8.

    Python coerces the C locale to C.UTF-8 by setting LC_CTYPE itself (PEP 538), so that value
    counts only where LANG does not say C.
    """
    env = os.environ if environ is None else environ
    coerced = env.get("LC_CTYPE") == "C.UTF-8" and env.get("LANG") in ("C", "POSIX")
    value = env.get("LC_ALL") or ("" if coerced else env.get("LC_CTYPE")) or env.get("LANG") or ""
    if not value:
        return True
    return value.lower().replace("-", "").endswith("utf8")
