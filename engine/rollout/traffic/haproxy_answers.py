"""What HAProxy says on its stats socket, read. Pure.

    show servers state BACKEND     "1", a line of column names after "#", a line for each server
    show stat BACKEND 4 -1         comma-separated, the names in a first line after "#"
    set server BACKEND/NAME weight nothing, or a sentence that says why not

Sources: HAProxy's management guide 2.6, sections 9.1 (the columns of `show stat`) and 9.3 (the commands);
`enum srv_admin` in its include/haproxy/server-t.h for the bits.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MOST = 256
FORMAT = "1"
_MAINTENANCE = 0x01 | 0x02 | 0x20 | 0x40  # forced, inherited, its name does not resolve
_DRAINING = 0x08 | 0x10                   # forced, inherited
_STATE = ("be_name", "srv_name", "srv_admin_state", "srv_uweight")
_STAT = ("svname", "bck", "stot")


class Refused(Exception):
    """HAProxy answered with a sentence instead; `str` is that sentence."""


@dataclass(frozen=True)
class Server:
    """`weight`: 0 to 256, as set. `backup`: it gets requests only when no other can. `sent`: how many
    requests (in mode tcp: connections) it got since HAProxy started."""

    name: str
    weight: int
    maintenance: bool
    draining: bool
    backup: bool
    sent: int

    @property
    def takes(self) -> int:
        """The weight by which it gets new requests now."""
        return 0 if self.maintenance or self.draining or self.backup else self.weight


def ask(backend: str) -> str:
    """The commands whose answer `servers` reads."""
    return f"show servers state {backend};show stat {backend} 4 -1"


def weigh(backend: str, weights: Iterable[tuple[str, int]]) -> str:
    """The commands that set weights in this order and then ask how it stands."""
    sets = [f"set server {backend}/{name} weight {weight}" for name, weight in weights]
    return ";".join([*sets, ask(backend)])


def complaints(text: str) -> str:
    """What HAProxy said before it showed the state, in one line; "" where it set all there was to set."""
    said: list[str] = []
    for line in text.splitlines():
        if line.strip() == FORMAT or line.startswith("# "):
            break
        if line.strip() and line.strip() not in said:
            said.append(line.strip())
    return " ".join(said)


def servers(text: str) -> dict[str, Server]:
    """The servers by name in the answer to `ask` or `weigh`.

    Raises Refused where HAProxy did not know the backend or did not allow the question, ValueError
    where this is no answer of HAProxy's, or one of a version that says it in another way.
    """
    before, header, after = text.partition("# be_id")
    if not header:
        said = complaints(text)
        if _is_sentence(said):
            raise Refused(said)
        raise ValueError("this is not what HAProxy says of its servers")
    spoken = before.split()[-1] if before.split() else ""
    if spoken != FORMAT:
        raise ValueError(f"HAProxy shows its servers in format {spoken or '?'}; known is {FORMAT}")
    state, stat, rest = (header + after).partition("# pxname")
    if not stat:
        raise ValueError("HAProxy shows no statistics of its servers")
    counted = {row["svname"]: row for row in _rows(csv.reader((stat + rest).splitlines()), _STAT)}
    found = {}
    for row in _rows((line.split() for line in state.splitlines()), _STATE):
        name, admin = row["srv_name"], int(row["srv_admin_state"])
        if name not in counted:
            raise ValueError(f"HAProxy has no statistics of its server {name}")
        found[name] = Server(name=name, weight=int(row["srv_uweight"]),
                             maintenance=bool(admin & _MAINTENANCE), draining=bool(admin & _DRAINING),
                             backup=counted[name]["bck"] == "1", sent=int(counted[name]["stot"] or 0))
    return found


def _rows(lines: Iterable[list[str]], needed: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows as maps by column name; columns come and go with HAProxy's versions."""
    columns: list[str] = []
    rows: list[Mapping[str, str]] = []
    for cells in lines:
        if not cells:
            continue
        if not columns:
            columns = [cell.removeprefix("#").strip() for cell in cells]
            columns = [cell for cell in columns if cell]
            missing = [name for name in needed if name not in columns]
            if missing:
                raise ValueError(f"HAProxy does not show {', '.join(missing)}")
        elif len(cells) >= len(needed):
            rows.append(dict(zip(columns, cells, strict=False)))
    short = [row for row in rows if any(name not in row for name in needed)]
    if short:
        raise ValueError("a line of HAProxy's answer is cut short")
    return [dict(row) for row in rows]


def _is_sentence(said: str) -> bool:
    return bool(said) and said[0].isalpha() and " " in said
