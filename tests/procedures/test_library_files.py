"""The library shows every file, runs only sound ones, and trusts only what admins can change."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
from pathlib import Path

import pytest

from engine.errors import DocumentError, NotFound, NotPermitted
from engine.procedures.library import (
    Library,
    outline,
    review,
    shipped,
    writable_by_others,
)
from tests.procedures.language import GOOD, TODAY, check, registry


def library(*directories: Path, **options: bool) -> Library:
    return Library(directories, registry(), today=lambda: TODAY, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "runbooks"
    place.mkdir(mode=0o755)
    good = place / "rollback-model.yaml"
    good.write_text(GOOD)
    good.chmod(0o644)
    return place


def test_a_procedure_comes_with_its_exact_text_and_digest(folder: Path) -> None:
    entry = library(folder).get("rollback-model")
    assert entry.text == GOOD and entry.path == folder / "rollback-model.yaml"
    assert entry.sha256 == hashlib.sha256(GOOD.encode()).hexdigest()
    assert entry.report.where("drain", "undo").endswith("step drain")


def test_an_unknown_id_names_the_nearest(folder: Path) -> None:
    with pytest.raises(NotFound) as error:
        library(folder).get("rolback-model")
    assert error.value.hint == "did you mean `rollback-model`?"


def test_a_broken_file_is_listed_with_its_problem_and_breaks_nothing_else(folder: Path) -> None:
    (folder / "broken.yaml").write_text("opsdeck: [")
    (folder / "half.yaml").write_text(GOOD.replace("id: rollback-model", "id: half").replace(
        "timeout: 60s", "timout: 60s").replace("kind: runbook", "kind: x"))
    (folder / "notes.txt").write_text("not a procedure")
    found = {entry.id: entry for entry in library(folder).entries()}
    assert sorted(found) == ["broken", "half", "rollback-model"]
    assert found["rollback-model"].problem is None
    assert "broken.yaml:1" in (found["broken"].problem or "")
    assert "and 1 more" in (found["half"].problem or "")
    assert found["half"].title == "Roll a service back to the version before"
    with pytest.raises(DocumentError) as error:
        library(folder).get("half")
    assert len(error.value.problems) == 2


def test_an_entry_shows_what_a_run_would_do(folder: Path) -> None:
    entry = library(folder).entries()[0]
    assert [p.name for p in entry.params] == ["service", "weight", "ratio", "reason", "token"]
    look, drain, note, watch = entry.steps
    assert look.command == "traffic.read service=${{ params.service }}" and look.effect == "none"
    assert drain.command == "trafficctl set ${{ params.service }} champion=100"
    assert (drain.confirm, drain.approvals) == ("typed", 2)
    assert drain.undo == "trafficctl restore ${{ params.service }}"
    assert note.confirm == "yes" and note.undo is None
    assert watch.kind == "manual" and watch.effect == "none"


def test_a_step_that_does_not_say_its_effect_has_its_actions() -> None:
    document = check(GOOD.replace("    effect: none\n", "")).document
    assert document is not None
    assert outline(document, registry())[0].effect == "none"
    assert outline(document)[0].effect == "once"


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(folder: Path) -> None:
    shelf = library(folder)
    first = shelf.get("rollback-model")
    assert shelf.get("rollback-model").document is first.document
    path = folder / "rollback-model.yaml"
    path.write_text(GOOD.replace("timeout: 60s", "timeout: 61s"))
    assert shelf.get("rollback-model").document.step("drain").timeout == 61.0
    path.unlink()
    with pytest.raises(NotFound):
        shelf.get("rollback-model")


def test_an_id_in_two_directories_runs_from_neither(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "rollback-model.yaml").write_text(GOOD)
    shelf = library(folder, other)
    with pytest.raises(DocumentError, match="two files"):
        shelf.get("rollback-model")
    assert [e.problem is not None for e in shelf.entries()] == [True, True]


def test_a_link_that_leads_out_of_the_library_is_refused(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text(GOOD.replace("id: rollback-model", "id: outside"))
    (folder / "outside.yaml").symlink_to(outside)
    (folder / "inside.yaml").symlink_to(folder / "rollback-model.yaml")
    with pytest.raises(NotPermitted, match="leads out"):
        library(folder).get("outside")
    assert "leads out" in str({e.id: e.problem for e in library(folder).entries()}["outside"])


def test_what_is_no_plain_file_is_refused_without_waiting_for_it(folder: Path) -> None:
    os.mkfifo(folder / "pipe.yaml")
    (folder / "loop.yaml").symlink_to(folder / "loop.yaml")
    problems = {e.id: e.problem for e in library(folder).entries()}
    assert "not a plain file" in str(problems["pipe"])
    assert problems["loop"] is not None and problems["rollback-model"] is None


def test_a_system_engine_refuses_what_others_can_change(folder: Path) -> None:
    path = folder / "rollback-model.yaml"
    assert library(folder, system=True).get("rollback-model").document.id == "rollback-model"
    path.chmod(0o666)
    with pytest.raises(NotPermitted, match="can be changed by everyone"):
        library(folder, system=True).get("rollback-model")
    assert library(folder).get("rollback-model").document.id == "rollback-model"
    path.chmod(0o644)
    folder.chmod(0o775)
    with pytest.raises(NotPermitted, match="can be changed by its group"):
        library(folder, system=True).get("rollback-model")


def test_trust_is_taken_away_from_a_file_that_was_read_before(folder: Path) -> None:
    shelf = library(folder, system=True)
    shelf.get("rollback-model")
    (folder / "rollback-model.yaml").chmod(0o666)
    with pytest.raises(NotPermitted):
        shelf.get("rollback-model")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file to another user")
def test_a_file_of_another_user_is_not_trusted(folder: Path) -> None:
    os.chown(folder / "rollback-model.yaml", 12345, 12345)
    with pytest.raises(NotPermitted, match="belongs to another user"):
        library(folder, system=True).get("rollback-model")


def test_every_directory_above_counts_but_a_sticky_one_is_safe(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True, mode=0o755)
    assert writable_by_others(inner) is None  # pytest's own folder is below a sticky /tmp
    (tmp_path / "a").chmod(0o777)
    assert "can be changed by everyone" in str(writable_by_others(inner))
    (tmp_path / "a").chmod(0o1777)
    assert writable_by_others(inner) is None
    assert "cannot be looked at" in str(writable_by_others(inner / "nowhere"))


def test_the_review_is_a_sentence_once_it_is_overdue(folder: Path) -> None:
    document = library(folder).get("rollback-model").document
    assert review(document, TODAY) is None
    assert review(document, dt.date(2027, 3, 1)) == (
        "reviewed 2026-11-20, 101 days ago: past its 90 days")


def test_the_shipped_procedures_are_beside_the_package() -> None:
    assert shipped().name == "runbooks" and shipped().is_dir()
