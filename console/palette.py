"""Roles of text and their look in each theme.

A screen names what a text *is* (`warn`, `dim`, `accent` …); a theme says how that looks. `calm`
keeps to the terminal's own sixteen colours, so it suits dark and light backgrounds; `blind` uses a
blue, a yellow and an orange that people with any common colour blindness tell apart (after Okabe
and Ito, 2008); `mono` uses no colour at all, only bold, faint, underline and reverse.
"""

from __future__ import annotations

from typing import Literal, get_args

from rich.style import Style

from engine.errors import UsageError

ThemeName = Literal["calm", "blind", "mono"]
THEMES: tuple[ThemeName, ...] = get_args(ThemeName)

GREY = "color(245)"  # reads on black and on white

_ATTRIBUTES: dict[str, str] = {
    "text": "", "dim": "dim", "strong": "bold", "head": "bold", "accent": "bold",
    "ok": "", "warn": "bold", "bad": "bold", "over": "bold", "stale": "dim",
    "select": "reverse", "select.bad": "reverse bold", "write": "reverse bold", "ask": "bold",
    "spark": "", "caret": "reverse", "now": "bold", "title": "bold", "p99": "bold", "p95": "", "p50": "dim",
    "cut": "underline"}

_CALM: dict[str, str] = {
    **_ATTRIBUTES, "dim": GREY, "spark": GREY, "stale": GREY, "head": GREY,
    "accent": "cyan", "ok": "green", "warn": "yellow", "bad": "bold red", "over": "bold red",
    "now": "bold", "ask": "bold yellow", "p99": "bold", "p95": "cyan", "p50": GREY}

_BLIND: dict[str, str] = {
    **_CALM, "ok": "color(33)", "warn": "color(220)", "bad": "bold color(202)",
    "over": "bold color(202)", "accent": "bold", "ask": "bold color(220)", "p95": "color(33)"}

ROLES: dict[ThemeName, dict[str, str]] = {"calm": _CALM, "blind": _BLIND, "mono": _ATTRIBUTES}


class Palette:
    """One theme, parsed. `style(role)` raises KeyError for a role no theme knows.

    A terminal with sixteen colours has no grey that is safe to use; faint stands in for it.
    """

    def __init__(self, name: ThemeName, *, sixteen: bool = False) -> None:
        self.name = name
        self._styles = {role: Style.parse(text.replace(GREY, "dim") if sixteen else text)
                        for role, text in ROLES[name].items()}

    def style(self, role: str) -> Style:
        return self._styles[role]


def choose(theme: str | None, no_color: bool) -> ThemeName:
    """The theme to use: NO_COLOR (https://no-color.org) beats everything, `calm` is the default.

    Raises UsageError for a theme that is not there.
    """
    found = next((name for name in THEMES if name == (theme or "calm")), None)
    if found is None:
        raise UsageError(f"there is no theme {theme}", hint=f"there are {', '.join(THEMES)}")
    return "mono" if no_color else found
