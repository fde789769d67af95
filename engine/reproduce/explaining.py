"""Which recorded field can explain which difference between two runs: a table. Pure.

A field's *reach* says how far what it changes can go:

    everything   another program, other data or other packages: any result can come out
    rounding     the same arithmetic in another order or with other kernels: the last digits of numbers,
                 so that checksums differ and metrics hardly do (IEEE 754 addition is not associative)
    unknown      a field of a later version, of which this one cannot say
    nothing      names, times and places

Fields are looked at in the table's order: first those that say one thing. The commit comes after them, since
settings and locks are files in it: of two runs that differ in a seed the commit differs as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Reach = Literal["everything", "rounding", "unknown", "nothing"]


@dataclass(frozen=True)
class Rule:
    """`fields` are paths of a manifest; one covers all below it. `why` completes "… differs: {why}"."""

    topic: str
    fields: tuple[str, ...]
    reach: Reach
    why: str


RULES = (
    Rule("data", ("data",), "everything", "it learned from other data"),
    Rule("configuration", ("config",), "everything", "it was given other settings"),
    Rule("seeds", ("seeds",), "everything", "other random numbers were drawn"),
    Rule("lock", ("lock.sha256",), "everything", "other packages may have been installed"),
    Rule("code", ("code.commit", "code.dirty", "code.sources", "code.folder"), "everything",
         "another program was run"),
    Rule("packages", ("environment.packages",), "everything", "another version of a package did the work"),
    Rule("image", ("image.digest",), "everything", "it ran in another container image"),
    Rule("Python", ("environment.python.version", "environment.python.implementation"), "everything",
         "another Python did the work"),
    Rule("hash seed", ("environment.variables.PYTHONHASHSEED",), "everything",
         "sets and text hashes come in another order"),
    Rule("variables", ("environment.variables",), "rounding", "a library was told to work in another way"),
    Rule("threads", ("environment.threads",), "rounding", "parallel sums were added in another order"),
    Rule("BLAS", ("environment.blas",), "rounding", "linear algebra was done by other kernels or threads"),
    Rule("GPU", ("environment.gpus",), "rounding", "another card or driver did the work"),
    Rule("CPU", ("environment.cpu",), "rounding", "libraries choose their kernels by the processor"),
    Rule("system", ("environment.system.machine", "environment.system.libc", "environment.python.compiler"),
         "rounding", "mathematical functions round in another way"),
    Rule("command", ("run.command",), "nothing", "the command is told apart from the settings it carries"),
    Rule("system", ("environment.system",), "nothing", "a kernel's or system's name changes no arithmetic"),
    Rule("names", ("format", "run", "code.remote", "code.changed", "code.patch", "lock.path",
                   "image.reference"), "nothing", "it is a name, a time or a place"),
)
RESULTS = ("artifacts", "loss", "metrics")
# Within these the data's digest or version decides; an address or a count adds nothing.
OF_DATA = ("sha256", "version", "derived", "objects")
# Settings by which what came out is judged, shown or put to use; no result depends on them.
JUDGING = (("gates",), ("robustness",), ("tests",), ("staging",), ("release",), ("triggers",), ("title",),
           ("owner",), ("tracking",), ("train", "limits"), ("evaluate", "limits"))
JUDGES = Rule("configuration", (), "nothing", "it judges or uses what came out, and changes nothing of it")
UNKNOWN = Rule("unknown field", (), "unknown", "this version does not know the field")


def rule(path: tuple[str, ...]) -> tuple[int, Rule]:
    """The first rule that covers the path of an input, with its rank. A path is a tuple, since names of data
    and settings hold dots."""
    if path[0] == "data" and len(path) > 2 and path[2] not in OF_DATA:
        if path[2] in ("uri", "kind", "bytes", "files"):
            return len(RULES), RULES[-1]
        return len(RULES), UNKNOWN
    if path[0] == "config" and (path[1:2] in JUDGING or path[1:3] in JUDGING):
        return len(RULES), JUDGES
    for rank, one in enumerate(RULES):
        for field in one.fields:
            named = tuple(field.split("."))
            if path[:len(named)] == named or path == named[:len(path)]:
                return rank, one
    return len(RULES), UNKNOWN
