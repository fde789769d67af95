"""Verification: every stored row in, every break out. Pure, one pass, constant memory per chain.

What is checked: each chain's order, links and hashes; each anchor's own hash and its fold over the
events it covers, which shows removed events and removed runs; the tail behind the newest anchor; the
index of runs against the events it sums up. A break that a seal has accepted is *known*, as long as
what was found is still exactly what was sealed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from engine.journal import anchors as anchoring
from engine.journal.anchors import Anchor
from engine.journal.events import ENGINE, GENESIS
from engine.journal.faults import utc
from engine.journal.journal import Verdict
from engine.journal.ledger import ArchiveInfo, Ledger, index_sum
from engine.journal.rows import (
    ARCHIVED,
    SEAL,
    Row,
    chain_name,
    evidence,
    row_fault,
    starts_segment,
)


class Break(msgspec.Struct, frozen=True):
    """Something that does not hold. `key` names the place and `evidence` what was found there.

    `runs` are the chains that it is about, as far as that is known.
    """

    key: str
    evidence: str
    text: str
    run: str | None = None
    runs: tuple[str, ...] = ()
    first_seq: int = 0
    last_seq: int = 0
    kind: str = "chain"


class Findings(msgspec.Struct, frozen=True):
    """What was found. `breaks` are unknown to any seal; `blocked` are the chains not to append to."""

    events: int
    chains: int
    anchors: int
    archived: int
    breaks: list[Break]
    known: list[Break]
    seals: list[str]
    blocked: frozenset[str]

    def verdict(self) -> Verdict:
        return Verdict(events=self.events, chains=self.chains, anchors=self.anchors,
                       archived=self.archived, breaks=[b.text for b in first_causes(self.breaks)],
                       seals=self.seals)


@dataclass
class _Chain:
    n: int = 0
    prev: str = GENESIS
    seq: int = 0
    fault: str | None = None
    fault_key: str = ""
    fault_from: int = 0
    damaged: str = ""


@dataclass
class _Window:
    """The fold over the events of one anchor, or of the tail, as they are stored now."""

    first: int
    last: int
    digest: str
    next: int
    count: int = 0
    gaps: list[str] = field(default_factory=list)

    def take(self, seq: int, hash: str) -> None:
        self.gap_until(seq)
        self.digest = anchoring.fold(self.digest, seq, hash)
        self.next, self.count = seq + 1, self.count + 1

    def gap_until(self, seq: int) -> None:
        if seq > self.next and len(self.gaps) < 5:
            last = seq - 1
            self.gaps.append(str(last) if last == self.next else f"{self.next} to {last}")


def examine(rows: Iterable[Row], ledger: Ledger) -> Findings:
    """Check `rows` (all events, archived ones too, in order of seq) against the ledger."""
    examination = _Examination(ledger)
    for row in rows:
        examination.take(row)
    return examination.finish()


class _Examination:
    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.chains: dict[str, _Chain] = {}
        self.breaks: list[Break] = []
        self.accepted: dict[str, set[str]] = {}
        self.seals: list[str] = []
        self.said_archives: dict[int, object] = {}
        self.events = 0
        self.blocked: set[str] = set()
        self.index = {entry.row.id: entry for entry in ledger.index}
        self.index_hash: dict[str, str] = {}
        self.lost = {(s.run, s.first_n): s for a in ledger.archives if a.fault for s in a.spans}
        self.windows = [a for a in ledger.anchors if anchoring.sound(a)]
        self.at = 0
        self.window = self._open()

    # ---- one row

    def take(self, row: Row) -> None:
        self.events += 1
        self._fold(row)
        chain = self.chains.get(row.run)
        if chain is None:
            chain = self.chains[row.run] = _Chain()
        if chain.fault is not None:
            if starts_segment(row):
                self._close_fault(row.run, chain, row.seq)
                chain.n, chain.prev = row.n, row.hash
            else:
                chain.damaged = evidence(chain.damaged, *row)
            chain.seq = row.seq
            return
        lost = self.lost.get((row.run, chain.n + 1))
        if lost is not None and type(row.n) is int and row.n > lost.last_n:
            chain.n, chain.prev = lost.last_n, lost.last_hash
        fault = row_fault(row, chain.n, chain.prev)
        chain.seq = row.seq
        if fault is not None:
            chain.fault, chain.fault_from = fault, row.seq
            chain.fault_key = f"chain:{row.run}:{chain.n + 1}"
            chain.damaged = evidence(*row)
            return
        chain.n, chain.prev = row.n, row.hash
        entry = self.index.get(row.run)
        if entry is not None and entry.n == row.n:
            self.index_hash[row.run] = row.hash
        if row.run == ENGINE:
            if row.kind == SEAL:
                self._accept(row)
            elif row.kind == ARCHIVED:
                data = msgspec.json.decode(row.data)
                self.said_archives[data.get("id")] = (data.get("file"), data.get("sha256"))

    def _accept(self, row: Row) -> None:
        data = msgspec.json.decode(row.data)
        causes = data.get("breaks", [])
        for entry in [*causes, *data.get("repeats", [])]:
            self.accepted.setdefault(entry["key"], set()).add(entry["evidence"])
        texts = "; ".join(entry["text"] for entry in causes) or str(data.get("aside", ""))
        self.seals.append(f"sealed {utc(row.at)} by {row.user} ({data.get('reason', '')}): {texts}")

    def _close_fault(self, run: str, chain: _Chain, until: int) -> None:
        if chain.fault is not None:
            self.breaks.append(Break(key=chain.fault_key, evidence=chain.damaged, text=chain.fault,
                                     run=run, first_seq=chain.fault_from, last_seq=until))
        chain.fault = None

    # ---- anchors and the tail

    def _open(self) -> _Window | None:
        """The next window to fill: an anchor's, then the tail's."""
        if self.at < len(self.windows):
            anchor = self.windows[self.at]
            return _Window(anchor.first_seq, anchor.last_seq, anchor.prev, anchor.first_seq)
        tail, newest = self.ledger.tail, self.ledger.anchors[-1] if self.ledger.anchors else None
        if tail is None or self.at > len(self.windows):
            return None
        if newest is not None and (newest.id != tail.anchor or not anchoring.sound(newest)):
            return None
        start = GENESIS if newest is None else newest.hash
        return _Window(tail.first, 1 << 62, start, tail.first)

    def _fold(self, row: Row) -> None:
        while self.window is not None and row.seq > self.window.last:
            self._close_window()
        if self.window is not None and row.seq >= self.window.first:
            self.window.take(row.seq, row.hash)

    def _close_window(self) -> None:
        window = self.window
        assert window is not None
        is_tail = self.at >= len(self.windows)
        if not self._archive_lost(window.first, window.last):
            if is_tail:
                self._check_tail(window)
            else:
                self._check_window(window, self.windows[self.at])
        self.at += 1
        self.window = None if is_tail else self._open()

    def _archive_lost(self, first: int, last: int) -> bool:
        return any(a.fault and a.first_seq <= last and a.last_seq >= first
                   for a in self.ledger.archives)

    def _check_window(self, window: _Window, anchor: Anchor) -> None:
        window.gap_until(anchor.last_seq + 1)
        missed: dict[str, str] = {}
        for run, n, hash in anchor.known_heads():
            chain = self.chains.get(run)
            if chain is None:
                missed[run] = f"{chain_name(run)} is gone, anchor {anchor.id} knew {n} events of it"
            elif chain.fault is None and chain.n < n:
                missed[run] = (f"the newest events of {chain_name(run)} are gone: anchor {anchor.id} "
                               f"knew event {n}, it ends at event {chain.n}")
            elif chain.fault is None and chain.n == n and chain.prev != hash:
                missed[run] = f"event {n} of {chain_name(run)} is not the one anchor {anchor.id} knew"
        if window.digest == anchor.digest and not missed:
            return
        text = (f"the events of seq {anchor.first_seq} to {anchor.last_seq} are not those of "
                f"anchor {anchor.id}")
        if missed:
            text = "; ".join(missed.values())
        elif window.gaps:
            text = f"events are gone: seq {', '.join(window.gaps)} (anchor {anchor.id})"
        self.breaks.append(Break(key=f"window:{anchor.id}", evidence=evidence(window.digest, text),
                                 text=text, first_seq=anchor.first_seq, last_seq=anchor.last_seq,
                                 runs=tuple(missed), kind="window"))

    def _check_tail(self, window: _Window) -> None:
        tail = self.ledger.tail
        assert tail is not None
        if (window.digest, window.count) == (tail.digest, tail.count):
            return
        window.gap_until(tail.last + 1)
        gone = [run for run, entry in self.index.items()
                if entry.n > (self.chains[run].n if run in self.chains else 0)
                and (run not in self.chains or self.chains[run].fault is None)]
        if window.gaps:
            text = f"the newest events are not complete: seq {', '.join(window.gaps)} are gone"
            text += f" ({', '.join(map(chain_name, gone))})" if gone else ""
        else:
            text = f"the events from seq {tail.first} on are not those that were recorded"
        self.breaks.append(Break(key=f"tail:{tail.anchor}", evidence=evidence(window.digest, tail.digest),
                                 text=text, first_seq=tail.first, last_seq=1 << 62,
                                 runs=tuple(gone), kind="window"))

    # ---- the end

    def finish(self) -> Findings:
        while self.window is not None:
            self._close_window()
        tail, newest = self.ledger.tail, len(self.ledger.anchors) and self.ledger.anchors[-1].id
        if tail is None:
            self.breaks.append(Break("tail", "gone", "the record of the newest events is gone",
                                     kind="anchor"))
        elif tail.anchor < newest:
            self.breaks.append(Break("tail", evidence(tail), f"anchor {newest} was not made by the "
                                     "journal", kind="anchor"))
        for run, chain in self.chains.items():
            if chain.fault is not None:
                self.blocked.add(run)
                self._close_fault(run, chain, chain.seq)
        for fault in anchoring.faults(self.ledger.anchors, self.ledger.tail):
            self.breaks.append(Break(f"anchor:{fault.id}", fault.evidence, fault.text, kind="anchor"))
        self._check_archives()
        self._check_index()
        self.breaks.extend(Break("file", evidence(*self.ledger.file_faults), text, kind="file")
                           for text in self.ledger.file_faults[:1])
        unknown = [self._again(b) for b in self.breaks
                   if b.evidence not in self.accepted.get(b.key, ())]
        known = [b for b in self.breaks if b.evidence in self.accepted.get(b.key, ())]
        return Findings(
            events=self.events, chains=len(self.chains), anchors=len(self.ledger.anchors),
            archived=sum(a.events for a in self.ledger.archives if not a.fault), breaks=unknown,
            known=known, seals=self.seals, blocked=frozenset(self.blocked))

    def _again(self, found: Break) -> Break:
        if found.key not in self.accepted:
            return found
        return msgspec.structs.replace(found, text=f"{found.text}; it was sealed, and changed since")

    def _check_archives(self) -> None:
        listed: Mapping[int, ArchiveInfo] = {a.id: a for a in self.ledger.archives}
        for id, said in self.said_archives.items():
            info = listed.get(id) if isinstance(id, int) else None
            if info is None or (info.file, info.sha256) != said:
                text = f"archive {id} is not listed as it was recorded in the engine's chain"
                self.breaks.append(Break(f"archive:{id}:listed", evidence(info), text, kind="archive"))
        records_lost = any(run == ENGINE for run, _ in self.lost)
        for info in self.ledger.archives:
            if info.id not in self.said_archives and not records_lost:
                text = f"archive {info.id} is listed but was never recorded in the engine's chain"
                self.breaks.append(Break(f"archive:{info.id}:listed", evidence(info), text,
                                         kind="archive"))
            if info.fault:
                self.breaks.append(Break(f"archive:{info.id}", info.fault_evidence, info.fault,
                                         kind="archive", first_seq=info.first_seq,
                                         last_seq=info.last_seq))

    def _check_index(self) -> None:
        lost = {span.run for span in self.lost.values()}
        for run, entry in self.index.items():
            chain = self.chains.get(run, _Chain())
            hash = GENESIS if entry.n == 0 else self.index_hash.get(run)
            try:
                holds = hash is not None and entry.sum == index_sum(entry.row, entry.n, hash)
            except (TypeError, ValueError):
                holds = False
            if holds or run in lost:
                continue
            if run in self.blocked:
                text = f"the index entry of run {run} cannot be checked against its broken chain"
            elif entry.n > chain.n:
                text = (f"the newest events of run {run} are gone: its index knows event {entry.n}, "
                        f"it ends at event {chain.n}")
            else:
                text = f"the index entry of run {run} does not match its events"
            self.breaks.append(Break(f"index:{run}", evidence(entry), text, run=run, kind="index"))


def first_causes(breaks: Sequence[Break]) -> list[Break]:
    """Leave out what only repeats another break: a window around a broken chain, an index entry of a
    run that is broken or cut short anyway, an anchor's events once the anchor itself is wrong."""
    chains = [b for b in breaks if b.kind == "chain"]
    broken = {b.run for b in chains}
    cut_short = {run for b in breaks if b.kind == "window" for run in b.runs}
    told = []
    for found in breaks:
        if found.kind == "window":
            around = any(found.first_seq <= b.first_seq <= found.last_seq for b in chains)
            repeats = around or (bool(found.runs) and broken.issuperset(found.runs))
        else:
            repeats = found.kind == "index" and found.run in broken | cut_short
        if not repeats:
            told.append(found)
    return told
