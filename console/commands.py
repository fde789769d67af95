"""The one table of what the console can do: bindings, the `:` prompt, hints and help come from it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from textual.binding import Binding, BindingType

EVERYWHERE = "*"
LISTS = ("fleet", "runbooks", "runs", "run", "page", "rollouts", "approvals", "audit")
PAGED = ("fleet", "runbooks", "runs", "page", "rollouts", "rollout", "approvals", "audit")
ROLLS = ("rollouts", "rollout")


class Command(msgspec.Struct, frozen=True):
    """One thing a person can do.

    `action` is the method `action_…` of a view or the app; `keys` are Textual's names, `show` is
    how help writes them; `views` are where it works. `hint` is the word in the bottom line, if it
    deserves a place there. `acts` marks what changes something in the world.
    """

    action: str
    keys: tuple[str, ...]
    show: str
    help: str
    views: tuple[str, ...] = (EVERYWHERE,)
    hint: str = ""
    acts: bool = False


COMMANDS: tuple[Command, ...] = (
    Command("open", ("enter",), "enter", "Open the service", ("fleet",), "service"),
    Command("open", ("enter",), "enter", "Fill in and start it", ("runbooks",),
            "start", acts=True),
    Command("open", ("enter",), "enter", "Open the run", ("runs", "approvals"), "open"),
    Command("open", ("enter",), "enter", "Answer what the run waits for", ("run",), "answer", acts=True),
    Command("open", ("enter",), "enter", "Show the whole event", ("audit",), "details"),
    Command("open", ("enter",), "enter", "Open the rollout", ("rollouts",), "open"),
    Command("suggest", ("r",), "r", "Runbooks for what fires here",
            ("fleet", "service"), "runbook"),
    Command("span", ("h",), "h", "5 minutes, 1 hour, 24 hours", ("service",),
            "5 min/1 h/24 h"),
    Command("approve", ("A",), "A", "Approve what waits", ("run", "page", "approvals", *ROLLS),
            "approve", True),
    Command("follow", ("f",), "f", "Follow the output", ("run",), "follow"),
    Command("timeline", ("t",), "t", "Events instead of output", ("run",),
            "timeline"),
    Command("rollout", ("o",), "o", "The rollout's evidence", ("run",), "evidence"),
    Command("page", ("e",), "e", "A pipeline's page of evidence", ("run",), "evidence"),
    Command("open", ("enter",), "enter", "Its run: steps and output", ("page",), "run"),
    Command("heading", ("n",), "n", "To the next heading", ("page",), "next part"),
    Command("heading_back", ("N",), "N", "To the heading before", ("page",)),
    Command("rollout", ("o",), "o", "The rollout here, or the last", ("fleet", "service"), "rollout"),
    Command("abort", ("x",), "x", "Abort (then y), read-only too",
            ("run", "fleet", "runs", "approvals"), "abort", True),
    Command("pause", ("p",), "p", "Pause the run, or resume it", ("run",), "pause", True),
    Command("pause", ("p",), "p", "Pause the rollout, or resume it", ("rollout",), "pause", True),
    Command("promote", ("P",), "P", "Promote: skip this watching", ("rollout",), "skip watching", True),
    Command("promote_full", ("F",), "F", "Promote-full: skip them all", ("rollout",), "skip all", True),
    Command("abort", ("x", "X"), "x", "Abort (then y), read-only too", ROLLS, "abort", True),
    Command("way_back", ("u",), "u", "Start the way back", ("rollout",), "way back", True),
    Command("retry", ("R",), "R", "Try again, same parameters", ("rollout",), "try again", True),
    Command("evidence", ("e",), "e", "Evidence over time, or numbers", ("rollout",), "evidence"),
    Command("diff", ("d",), "d", "How the versions differ", ("rollout",), "diff"),
    Command("open", ("enter",), "enter", "Its run: steps and output", ("rollout",), "steps"),
    Command("timeline", ("t",), "t", "Its run's events", ("rollout",)),
    Command("output_up", ("pageup", "ctrl+u"), "PgUp", "Scroll the output up", ("run",)),
    Command("output_down", ("pagedown", "ctrl+d"), "PgDn", "Scroll the output down", ("run",)),
    Command("down", ("j", "down"), "j", "Down", LISTS),
    Command("up", ("k", "up"), "k", "Up", LISTS),
    Command("top", ("g", "home"), "g", "To the first", LISTS),
    Command("bottom", ("G", "end"), "G", "To the last", LISTS),
    Command("page_down", ("pagedown", "ctrl+f"), "PgDn", "A page down", PAGED),
    Command("page_up", ("pageup", "ctrl+b"), "PgUp", "A page up", PAGED),
    Command("more", ("m",), "m", "Fetch older events", ("audit",), "older"),
    Command("approvals", ("a",), "a", "What waits for a person", hint="approvals"),
    Command("goto", ("colon",), ":", "Go to a view, service or run", hint="go to"),
    Command("filter", ("slash",), "/", "Filter; ! in front inverts",
            ("fleet", "runbooks", "runs", "rollouts", "approvals", "audit"), "filter"),
    Command("step_back", ("escape",), "esc", "Back; a message goes first"),
    Command("last", ("minus",), "-", "The view before this one"),
    Command("write_mode", ("w",), "w", "Write mode on or off"),
    Command("copy", ("y",), "y", "Copy the line or the output"),
    Command("save", ("ctrl+s",), "^S", "Save the view (SVG and text)"),
    Command("redraw", ("ctrl+l",), "^L", "Paint the screen anew"),
    Command("suspend_process", ("ctrl+z",), "^Z", "To the shell; fg comes back"),
    Command("keys", ("question_mark",), "?", "The keys that work here", hint="keys"),
    Command("leave", ("q", "ctrl+c"), "q", "Leave; runs go on"),
)

PROMPT: tuple[tuple[str, str], ...] = (
    ("fleet", "all services, worst first"), ("service NAME", "one service over time"),
    ("runbooks [TEXT]", "the library, filtered by TEXT"), ("runs", "every run"),
    ("run ID", "one run"), ("page ID", "the evidence of a pipeline's run"),
    ("rollouts", "what is being rolled out"),
    ("rollout SERVICE", "one rollout with its evidence"), ("approvals", "what waits for a person"),
    ("audit", "the journal's events"), ("write", "write mode on or off"),
    ("help", "the keys that work here"), ("q", "leave"))


def own(view: str) -> list[Command]:
    """The commands that belong to `view`."""
    return [c for c in COMMANDS if view in c.views]


def here(view: str) -> list[Command]:
    """The commands that work in `view`, its own first."""
    return own(view) + [c for c in COMMANDS if EVERYWHERE in c.views]


def bindings(view: str) -> list[BindingType]:
    """Textual's bindings for `view`; the commands for everywhere belong to `EVERYWHERE`."""
    return [Binding(key, command.action, command.help, show=False)
            for command in COMMANDS if view in command.views for key in command.keys]


def hints(view: str) -> list[tuple[str, str]]:
    """(key, word) pairs for the bottom line, most useful first."""
    return [(c.show, c.hint) for c in here(view) if c.hint]


class Context(msgspec.Struct, frozen=True):
    """What the prompt can complete."""

    services: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    procedures: tuple[str, ...] = ()


def complete(text: str, context: Context) -> list[str]:
    """Whole lines that `text` may become, best first; [] when nothing fits."""
    word, space, rest = text.lstrip().partition(" ")
    if not space:
        names = [usage.split()[0] for usage, _ in PROMPT]
        return [name for name in names if name.startswith(word)]
    choices: Iterable[str] = {"service": context.services, "rollout": context.services,
                              "run": context.runs, "page": context.runs,
                              "runbooks": context.procedures}.get(word, ())
    rest = rest.strip()
    starts = [f"{word} {c}" for c in choices if c.startswith(rest)]
    inside = [f"{word} {c}" for c in choices if rest in c and not c.startswith(rest)]
    return starts + inside


class Goto(msgspec.Struct, frozen=True):
    """A parsed prompt line: a `place`, with its argument, or the `problem` as a sentence."""

    place: str = ""
    argument: str = ""
    problem: str | None = None


def parse(text: str, context: Context) -> Goto:
    """What a line typed after `:` means. An unambiguous beginning of a name counts as the name."""
    word, _, rest = text.strip().lstrip(":").partition(" ")
    rest = rest.strip()
    names = [usage.split()[0] for usage, _ in PROMPT]
    exact = [name for name in names if name == word] or [n for n in names if n.startswith(word)]
    if not word:
        return Goto()
    if len(exact) != 1:
        which = "could be " + ", ".join(exact) if exact else "is not a place here"
        return Goto(problem=f":{word} {which}. There are: {', '.join(names)}.")
    place = exact[0]
    if place == "rollout" and rest.lstrip("#").isdigit():
        return Goto(place, rest.lstrip("#"))
    if place in ("service", "rollout") and rest not in context.services:
        near = [name for name in context.services if rest and rest in name]
        if len(near) == 1:
            return Goto(place, near[0])
        return Goto(problem=f"There is no service {rest}." if rest else
                    f"Which service? Type for example :{place} flights.")
    if place in ("run", "page") and not rest.lstrip("#").isdigit():
        return Goto(problem=f"Which run? Type its number, for example :{place} 184.")
    return Goto(place, rest.lstrip("#") if place in ("run", "page") else rest)
