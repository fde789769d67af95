"""`opsdeck audit`: verify the journal, export it, or seal it after a corruption.

Verifying and exporting read the home's journal file directly, whether an engine runs or not.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.api import wire
    from engine.api.backend import AuditVerdict
    from engine.home import Home
    from engine.journal.journal import Verdict
    from engine.journal.sqlite import SqliteJournal

NAME = "audit"
HELP = "verify the journal, export it, or seal it after a corruption"

EXAMPLES = """\
examples:
  opsdeck audit verify                         recompute every hash; exit 1 if something is broken
  opsdeck audit export --run 184 > 184.jsonl   one run's events as JSON lines, archived or not
  opsdeck audit seal --reason "bad sector, INC-7"
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    verbs = parser.add_subparsers(dest="audit", required=True, metavar="verify|export|seal")
    verify = verbs.add_parser("verify", help="recompute every hash and anchor, archives included")
    verify.add_argument("--json", action="store_true", help="print the verdict as JSON")
    export = verbs.add_parser("export", help="print events, oldest first, even of a broken journal")
    export.add_argument("--run", metavar="ID", help="only this run (`engine`: the engine's own chain)")
    export.add_argument("--format", choices=["jsonl"], default="jsonl", help="one JSON object a line")
    seal = verbs.add_parser("seal", help="go on after a corruption: name each break, start new segments")
    seal.add_argument("--reason", required=True, metavar="TEXT", help="why, for whoever reads it later")
    seal.add_argument("--json", action="store_true", help="print the seal's event as JSON")


def run(args: argparse.Namespace) -> int:
    """Returns 0 when the journal holds, 1 when it is broken."""
    home: Home = args.home
    if args.audit == "verify":
        return _verify(home, as_json=args.json)
    if args.audit == "export":
        return _export(home, args.run)
    return _seal(home, args.reason, as_json=args.json)


def _open(home: Home) -> SqliteJournal:
    from engine.journal.sqlite import SqliteJournal

    return SqliteJournal.open_readonly(home.journal)


def _verify(home: Home, *, as_json: bool) -> int:
    import time

    from engine.api.backend import AuditVerdict
    from engine.cli.text import emit, plain, say
    from engine.errors import JournalCorrupt
    from engine.journal.faults import SEAL_HINT

    at = time.time()
    try:
        journal = _open(home)
        found, newest = journal.verify(), journal.newest_anchor()
        journal.close()
    except JournalCorrupt as error:
        if as_json:
            emit(AuditVerdict(at, 0, 0, 0, 0, [error.message], []))
            return 1
        raise
    verdict = _verdict(found, at)
    if as_json:
        emit(verdict)
        return 1 if verdict.breaks else 0
    anchored = f"; the newest anchor is {newest.id}, {newest.hash}" if newest else ""
    lines = [f"{verdict.events:,} events in {verdict.chains:,} chains, {verdict.archived:,} of them "
             f"archived, {verdict.anchors:,} anchors{anchored}"]
    lines += [f"known   {plain(text)}" for text in verdict.seals]
    lines += [f"broken  {plain(text)}" for text in verdict.breaks]
    lines.append(f"the journal is broken: {SEAL_HINT.split('; ')[1]}" if verdict.breaks
                 else "the journal holds")
    say(lines)
    return 1 if verdict.breaks else 0


def _verdict(found: Verdict, at: float) -> AuditVerdict:
    import msgspec

    from engine.api.backend import AuditVerdict

    return AuditVerdict(at=at, **msgspec.structs.asdict(found))


def _export(home: Home, run: str | None) -> int:
    import sys

    import msgspec

    from engine.errors import NotFound

    journal = _open(home)
    encode = msgspec.json.Encoder().encode
    count = 0
    for event in journal.export(run):
        sys.stdout.write(encode(event).decode() + "\n")
        count += 1
    journal.close()
    if run is not None and not count:
        raise NotFound(f"the journal has no events of run {run}", where=str(home.journal),
                       hint="`opsdeck runs` lists the runs")
    return 0


def _seal(home: Home, reason: str, *, as_json: bool) -> int:
    from engine.api.light import connect
    from engine.cli.text import emit, plain, say
    from engine.errors import HomeBusy

    try:
        event = _seal_offline(home, reason)
    except HomeBusy:
        event = connect(home).seal(reason)
    if as_json:
        emit(event)
    else:
        say([plain(event.text)])
    return 0


def _seal_offline(home: Home, reason: str) -> wire.Event:
    """Seal with the home's lock held; a file that cannot be used at all is set aside."""
    import os
    import time

    from engine.errors import JournalCorrupt, NotFound
    from engine.journal import lease
    from engine.journal.aside import set_aside
    from engine.journal.events import ENGINE, Actor, NewEvent
    from engine.journal.rows import SEAL
    from engine.journal.sqlite import SqliteJournal
    from engine.timeline import wire_event

    if not home.journal.exists():
        raise NotFound(f"there is no journal at {home.journal}",
                       hint="name the engine's home with --home or $OPSDECK_HOME")
    who = Actor(_user(), os.getuid(), "command line")
    asked = NewEvent(run=ENGINE, kind=SEAL, at=time.time(), actor=who, data={"reason": reason})
    engine_id = f"audit-{os.getpid()}"
    with lease.take(home.lock, engine="opsdeck audit seal"):
        try:
            journal = SqliteJournal.open(home.journal, engine_id=engine_id)
            try:
                event = journal.seal(asked)
            finally:
                journal.close()
        except JournalCorrupt:
            event = set_aside(home.journal, asked, engine_id=engine_id, clock=time.time)
    return wire_event(event)


def _user() -> str:
    import os
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
