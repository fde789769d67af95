"""Anchors: at times, one hash over everything recorded since the anchor before, in every chain.

A run's chain cannot show that its newest events, or the whole run, were removed. An anchor can: it
folds every event since the last one, in order, and remembers where each chain stood. The *tail* is
the same fold for the events that no anchor covers yet, written with each append. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from engine.journal.events import GENESIS, canonical
from engine.journal.rows import evidence

COLUMNS = "id, at, first_seq, last_seq, digest, heads, prev, hash"
EVERY = 256  # events


class Anchor(NamedTuple):
    """A row of `anchors`: events `first_seq` to `last_seq` fold to `digest`, starting from `prev`.

    `heads` is the canonical JSON of [[run, n, hash], …]: the newest event of each chain that changed.
    """

    id: int
    at: float
    first_seq: int
    last_seq: int
    digest: str
    heads: str
    prev: str
    hash: str

    def known_heads(self) -> list[tuple[str, int, str]]:
        return msgspec.json.decode(self.heads, type=list[tuple[str, int, str]])


class Tail(msgspec.Struct, frozen=True, array_like=True):
    """The events after `anchor`: `count` of them from `first` to `last`, folded to `digest`."""

    anchor: int
    first: int
    last: int
    count: int
    digest: str

    def add(self, seq: int, hash: str) -> Tail:
        return Tail(self.anchor, self.first, seq, self.count + 1, fold(self.digest, seq, hash))


EMPTY = Tail(anchor=0, first=1, last=0, count=0, digest=GENESIS)


def fold(before: str, seq: int, hash: str) -> str:
    return hashlib.sha256(f"{before}{seq}:{hash}".encode("utf-8", "backslashreplace")).hexdigest()


def anchor_hash(*, id: int, at: float, first_seq: int, last_seq: int, digest: str, heads: str,
                prev: str) -> str:
    columns: list[Any] = [id, at, first_seq, last_seq, digest, heads, prev]
    return hashlib.sha256(canonical(columns)).hexdigest()


def make(tail: Tail, prev: str, heads: Iterable[tuple[str, int, str]], at: float) -> Anchor:
    """The anchor that closes `tail`, after the anchor with hash `prev`."""
    text = canonical(sorted(heads)).decode()
    columns: dict[str, Any] = {
        "id": tail.anchor + 1, "at": float(at), "first_seq": tail.first, "last_seq": tail.last,
        "digest": tail.digest, "heads": text, "prev": prev}
    return Anchor(**columns, hash=anchor_hash(**columns))


def after(anchor: Anchor) -> Tail:
    """The empty tail behind an anchor."""
    return Tail(anchor.id, anchor.last_seq + 1, anchor.last_seq, 0, anchor.hash)


class AnchorFault(NamedTuple):
    id: int
    evidence: str
    text: str


def faults(anchors: list[Anchor], tail: Tail | None) -> list[AnchorFault]:
    """Anchors that do not match their own hash, do not follow the one before, or are gone.

    `anchors` are in order of id. One fault an anchor, one for each row of missing ones.
    """
    found: list[AnchorFault] = []
    newest, prev = 0, GENESIS
    for anchor in anchors:
        if anchor.id != newest + 1:
            found.append(_gone(newest + 1, anchor.id - 1))
            prev = anchor.prev
        if not sound(anchor):
            text = f"anchor {anchor.id} does not match its hash"
            found.append(AnchorFault(anchor.id, evidence(*anchor), text))
        elif anchor.prev != prev:
            text = f"anchor {anchor.id} does not follow anchor {newest}"
            found.append(AnchorFault(anchor.id, evidence(*anchor), text))
        newest, prev = anchor.id, anchor.hash
        if found and found[-1].id == anchor.id:  # one that is wrong says nothing about the next
            prev = next((a.prev for a in anchors if a.id == anchor.id + 1), prev)
    if tail is not None and tail.anchor > newest:
        found.append(_gone(newest + 1, tail.anchor))
    return found


def _gone(first: int, last: int) -> AnchorFault:
    text = f"anchor {first} is gone" if first == last else f"anchors {first} to {last} are gone"
    return AnchorFault(first, f"{first}-{last}", text)


def sound(anchor: Anchor) -> bool:
    try:
        anchor.known_heads()
        return anchor.hash == anchor_hash(**{k: v for k, v in anchor._asdict().items() if k != "hash"})
    except (TypeError, ValueError, msgspec.MsgspecError):
        return False
