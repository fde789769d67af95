"""`opsdeck audit`: what it prints, its exit codes, with and without an engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.api import light, wire
from engine.cli.main import main
from engine.errors import EngineUnreachable
from engine.journal import lease
from engine.journal.events import ENGINE
from tests.journal.kit import event, open_at, row, tamper, tell

Audit = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    journal = open_at(tmp_path / "home" / "journal.db")
    tell(journal)
    journal.close()
    return tmp_path / "home"


@pytest.fixture
def audit(home: Path, capsys: pytest.CaptureFixture[str]) -> Audit:
    def run(*words: str) -> tuple[int, str, str]:
        code = main(["--home", str(home), "audit", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def break_it(home: Path) -> None:
    tamper(home / "journal.db", "UPDATE events SET uid = 7 WHERE run = '2' AND n = 3")


def test_verify_says_that_the_journal_holds(audit: Audit) -> None:
    code, out, _ = audit("verify")
    assert code == 0
    assert out.startswith("25 events in 4 chains, 0 of them archived, 1 anchors; the newest anchor is 1, ")
    assert out.endswith("\nthe journal holds\n")


def test_verify_names_each_first_bad_event_and_exits_1(audit: Audit, home: Path) -> None:
    break_it(home)
    code, out, _ = audit("verify")
    assert code == 1
    assert "broken  event 3 of run 2 (seq 8, step.outcome) does not match its hash\n" in out
    assert "opsdeck audit seal" in out


def test_verify_prints_a_verdict_as_json(audit: Audit, home: Path) -> None:
    code, out, _ = audit("verify", "--json")
    verdict = json.loads(out)
    assert code == 0
    assert (verdict["events"], verdict["chains"], verdict["anchors"], verdict["breaks"]) == (25, 4, 1, [])
    break_it(home)
    code, out, _ = audit("verify", "--json")
    assert code == 1 and len(json.loads(out)["breaks"]) == 1


def test_verify_and_export_work_beside_an_engine_that_writes(audit: Audit, home: Path) -> None:
    with lease.take(home / "engine.lock", engine="engine-a"):
        engine = open_at(home / "journal.db")
        engine.append([event("1", "run.note")])
        assert audit("verify")[0] == 0
        assert len(audit("export")[1].splitlines()) == 26
        engine.append([event("1", "run.note")])
        engine.close()


def test_export_prints_every_event_as_a_line_of_json(audit: Audit) -> None:
    code, out, _ = audit("export")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [e["seq"] for e in events] == list(range(1, 26))
    assert events[1]["actor"] == {"user": "alice", "uid": 1000, "origin": "socket pid 4711"}


def test_export_of_one_run_reads_archives_too(audit: Audit, home: Path) -> None:
    journal = open_at(home / "journal.db")
    before = journal.read("2")
    journal.rotate(older_than_s=10.0, now=90000.0, at_least=1)
    journal.close()
    code, out, _ = audit("export", "--run", "2", "--format", "jsonl")
    assert code == 0
    assert [json.loads(line)["hash"] for line in out.splitlines()] == [e.hash for e in before]


def test_export_still_works_on_a_broken_journal(audit: Audit, home: Path) -> None:
    break_it(home)
    code, out, _ = audit("export")
    assert code == 0 and len(out.splitlines()) == 25


def test_an_unknown_run_and_a_home_without_a_journal_are_not_found(audit: Audit, home: Path) -> None:
    code, _, err = audit("export", "--run", "77")
    assert code == 2 and "no events of run 77" in err
    (home / "journal.db").unlink()
    for words in (["verify"], ["export"], ["seal", "--reason", "x"]):
        code, _, err = audit(*words)
        assert code == 2 and "no journal" in err
    assert not (home / "journal.db").exists()


def test_seal_without_an_engine_names_the_break_and_who_sealed_it(audit: Audit, home: Path) -> None:
    break_it(home)
    code, out, _ = audit("seal", "--reason", "bad sector, INC-7")
    assert code == 0
    assert "event 3 of run 2 (seq 8, step.outcome) does not match its hash" in out
    code, out, _ = audit("verify")
    assert code == 0 and "known   sealed " in out and "bad sector, INC-7" in out
    journal = open_at(home / "journal.db")
    sealed = next(e for e in journal.read(ENGINE) if e.kind == "journal.sealed")
    assert sealed.actor.uid == os.getuid()
    assert lease.holder(home / "engine.lock") is None
    journal.close()


def test_seal_prints_its_event_as_json(audit: Audit, home: Path) -> None:
    break_it(home)
    code, out, _ = audit("seal", "--reason", "bad sector", "--json")
    said = json.loads(out)
    assert code == 0 and said["kind"] == "journal.sealed" and said["data"]["reason"] == "bad sector"


def test_seal_where_nothing_is_broken_is_a_mistake(audit: Audit) -> None:
    code, _, err = audit("seal", "--reason", "just in case")
    assert code == 2 and "nothing to seal" in err


def test_seal_of_a_file_nobody_can_read_sets_it_aside(audit: Audit, home: Path) -> None:
    (home / "journal.db").write_bytes(b"\xff" * 9000)
    code, _, err = audit("verify")
    assert code == 1 and "sets the file aside" in err
    assert json.loads(audit("verify", "--json")[1])["breaks"] != []
    code, out, _ = audit("seal", "--reason", "the disk died")
    assert code == 0 and "set aside as journal.db.damaged-" in out
    assert audit("verify")[0] == 0
    assert len(list(home.glob("journal.db.damaged-*Z"))) == 1


def test_seal_asks_the_engine_that_holds_the_home(audit: Audit, home: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Engine:
        def seal(self, reason: str) -> wire.Event:
            asked.append(reason)
            return wire.Event(seq=30, at=1.0, kind="journal.sealed", by="alice", origin="socket pid 1",
                              run=None, step=None, attempt=None, text="sealed: one break", hash="0")

    monkeypatch.setattr(light, "connect", lambda _: Engine())
    with lease.take(home / "engine.lock", engine="engine-a"):
        code, out, _ = audit("seal", "--reason", "INC-7")
    assert (code, out, asked) == (0, "sealed: one break\n", ["INC-7"])


def test_an_engine_that_holds_the_home_and_does_not_answer_is_unreachable(audit: Audit, home: Path) -> None:
    break_it(home)
    with lease.take(home / "engine.lock", engine="engine-a"):
        code, _, err = audit("seal", "--reason", "INC-7")
    assert code == EngineUnreachable.exit_code and err


def test_a_closed_pipe_ends_an_export_quietly(home: Path) -> None:
    journal = open_at(home / "journal.db")
    journal.append([event("9", text="x" * 500) for _ in range(3000)], row=row("9"))
    journal.close()
    done = subprocess.run(
        f"{sys.executable} -m engine.cli.main --home {home} audit export | head -1",
        shell=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["seq"] == 1
    assert done.stderr == ""


def test_verifying_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, engine.journal.sqlite, engine.cli.audit; "
         "print(sorted({'pydantic', 'numpy', 'asyncio', 'yaml', 'httpx'} & set(sys.modules)))"],
        capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
