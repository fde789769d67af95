"""The prediction log: private, whole lines, rotated, and never in the way of serving."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.serving import prediction_log
from engine.serving.log_file import LogFile
from engine.serving.prediction_log import Entry, LogSettings, PredictionLog
from tests.serving.harness import is_root

NOW = 1_795_000_000.0


def log_file(path: Path, **limits: Any) -> LogFile:
    return LogFile(path, **{"max_bytes": 1000, "max_age_s": 3600.0, "keep": 3,
                            "keep_age_s": 1e6, **limits})


def line(i: int, size: int = 100) -> bytes:
    return (b'{"at":%.1f,"i":%d,"x":"' % (NOW + i, i)).ljust(size - 3, b"x") + b'"}\n'


def entry(i: int = 0, **more: Any) -> Entry:
    fields: dict[str, Any] = {
        "at": NOW + i, "correlation_id": f"id-{i}", "trace_id": "t" * 32, "variant": "champion",
        "version": "3", "key_hash": 255, "latency_s": 0.0125, "status": 200, "error_type": "",
        "content_type": "application/json",
        "request": b'{"inputs": {"carrier": ["UA"], "hour": [7]}}',
        "response": b'{"predictions": [{"p": 0.5}]}'}
    return Entry(**fields | more)


def records(path: Path) -> list[Any]:
    return [json.loads(text) for text in path.read_text().splitlines()]


async def written(settings: LogSettings, *entries: Entry) -> PredictionLog:
    log = PredictionLog(settings, "flights")
    for one in entries:
        log.append(one)
    await log.close()
    return log


async def test_a_record_says_everything_that_is_needed_to_judge_a_request(tmp_path: Path) -> None:
    path = tmp_path / "new" / "p.jsonl"
    await written(LogSettings(path, redact=("hour",)), entry())
    assert records(path) == [{
        "at": NOW, "correlation_id": "id-0", "trace_id": "t" * 32, "service": "flights",
        "variant": "champion", "version": "3", "key_hash": "00000000000000ff", "latency_ms": 12.5,
        "status": 200, "error_type": "", "features": {"carrier": ["UA"]},
        "predictions": [{"p": 0.5}], "omitted": None}]


@pytest.mark.parametrize(("more", "features", "says"), [
    ({"request": b"nonsense"}, None, "unreadable"),
    ({"request": b'{"instances": [[1]]}'}, None, "no names"),
    ({"request": b'{"inputs": {"a": ["' + b"x" * 70_000 + b'"]}}'}, None, "request has"),
    ({"response": b"x" * 70_000}, {"carrier": ["UA"]}, "response has 70000 bytes"),
    ({"error_type": "timeout", "response": b"{}"}, {"carrier": ["UA"]}, None)])
async def test_what_a_record_leaves_out_it_names(tmp_path: Path, more: dict[str, Any],
                                                 features: Any, says: str | None) -> None:
    path = tmp_path / "p.jsonl"
    await written(LogSettings(path, redact=("hour",)), entry(**more))
    [record] = records(path)
    assert record["features"] == features
    assert record["omitted"] is None if says is None else says in record["omitted"]


async def test_what_it_reads_it_hands_on_and_a_large_answer_it_does_not_read(tmp_path: Path) -> None:
    seen: list[tuple[str, Any]] = []
    log = PredictionLog(LogSettings(tmp_path / "p.jsonl"), "flights",
                        lambda variant, predictions: seen.append((variant, predictions)))
    large = b'{"predictions": [%s]}' % b",".join([b"0.123456"] * 10_000)
    for one in (entry(), entry(variant="canary", response=b"<html>"), entry(error_type="timeout"),
                entry(response=large)):
        log.append(one)
    await log.close()
    assert seen == [("champion", [{"p": 0.5}]), ("canary", None)]


async def test_without_fields_no_feature_is_kept(tmp_path: Path) -> None:
    await written(LogSettings(tmp_path / "p.jsonl", fields=False), entry())
    [record] = records(tmp_path / "p.jsonl")
    assert record["features"] is None and record["predictions"] == [{"p": 0.5}]


async def test_the_files_can_be_read_by_their_owner_alone_even_where_they_were_not(
        tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.touch(mode=0o644)
    path.chmod(0o644)
    await written(LogSettings(path, redact=("hash:carrier",)), entry())
    assert {oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()} == {"0o600"}


async def test_hashed_values_are_the_same_after_a_restart(tmp_path: Path) -> None:
    settings = LogSettings(tmp_path / "p.jsonl", redact=("hash:carrier",), max_age_s=1e9)
    await written(settings, entry())
    await written(settings, entry(1))
    one, two = records(settings.path)
    assert one["features"]["carrier"] == two["features"]["carrier"] != ["UA"]


async def test_a_link_in_the_logs_place_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    (tmp_path / "p.jsonl").symlink_to(target)
    log = await written(LogSettings(tmp_path / "p.jsonl"), entry())
    assert target.read_bytes() == b"" and log.dropped == 1


async def test_more_than_can_wait_is_dropped_and_counted(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_log, "_WAITING_RECORDS", 10)
    log = await written(LogSettings(tmp_path / "p.jsonl"), *(entry(i) for i in range(25)))
    assert log.dropped == 15 and len(records(tmp_path / "p.jsonl")) == 10


async def test_records_reach_the_disk_while_the_gateway_runs(tmp_path: Path) -> None:
    log = PredictionLog(LogSettings(tmp_path / "p.jsonl"), "flights")
    for i in range(500):
        log.append(entry(i))
    async with asyncio.timeout(5):
        while not (tmp_path / "p.jsonl").exists() or len(records(tmp_path / "p.jsonl")) < 500:
            await asyncio.sleep(0.01)
    await log.close()
    assert [r["correlation_id"] for r in records(tmp_path / "p.jsonl")] == [
        f"id-{i}" for i in range(500)]


def test_it_rotates_by_size_and_keeps_only_so_many(tmp_path: Path) -> None:
    file = log_file(tmp_path / "p.jsonl", keep=2)
    for i in range(45):
        file.write(line(i), 1, NOW + i)
    file.close()
    rotated = file.rotated()
    assert len(rotated) == 2 and all(f.stat().st_size == 1000 for f in rotated)
    kept = [json.loads(text)["i"] for f in [*rotated, tmp_path / "p.jsonl"]
            for text in f.read_text().splitlines()]
    assert kept == list(range(20, 45))


def test_it_rotates_by_age_also_when_nothing_is_written_and_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    first = log_file(path)
    first.write(line(0), 1, NOW)
    first.close()
    second = log_file(path)
    second.tick(NOW + 3599)
    assert path.exists()
    second.tick(NOW + 3601)
    assert not path.exists() and len(second.rotated()) == 1


def test_rotations_within_one_second_or_on_a_clock_set_back_keep_the_newest(tmp_path: Path) -> None:
    file = log_file(tmp_path / "p.jsonl", keep=9)
    for i in range(30):
        file.write(line(i, 600), 1, NOW - i % 2)
    assert [json.loads(f.read_text())["i"] for f in file.rotated()] == list(range(20, 29))


def test_rotated_files_are_deleted_when_they_are_too_old(tmp_path: Path) -> None:
    file = log_file(tmp_path / "p.jsonl", keep_age_s=100.0)
    for i in range(25):
        file.write(line(i), 1, NOW)
    old, fresh = file.rotated()
    os.utime(old, (NOW, NOW))
    os.utime(fresh, (NOW + 50, NOW + 50))
    file.tick(NOW + 101)
    assert file.rotated() == [fresh]


def test_a_line_that_a_killed_process_left_half_written_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(line(0) + line(1)[:50])
    file = log_file(path)
    file.write(line(2), 1, NOW)
    assert [record["i"] for record in records(path)] == [0, 2]


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    file = log_file(path)
    file.write(line(0), 1, NOW)
    path.rename(tmp_path / "elsewhere")
    file.tick(NOW)
    file.write(line(1), 1, NOW)
    assert [record["i"] for record in records(path)] == [1]


def test_a_directory_that_cannot_be_written_is_said_once_and_tried_again(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").write_text("a file in the directory's place")
    file = log_file(tmp_path / "log" / "p.jsonl")
    for i in range(3):
        file.write(line(i), 1, NOW)
    assert file.dropped == 3 and capsys.readouterr().err.count("cannot be written") == 1
    (tmp_path / "log").unlink()
    file.write(line(3), 1, NOW)
    assert "3 records were dropped" in capsys.readouterr().err
    assert [record["i"] for record in records(tmp_path / "log" / "p.jsonl")] == [3]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 64 KiB."""
    if not is_root():
        pytest.skip("needs root to mount a small tmpfs")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)],
                             capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_drops_whole_records_only_and_goes_on_when_there_is_room(
        small_disk: Path) -> None:
    file = log_file(small_disk / "p.jsonl", max_bytes=1 << 20)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 40_000)
    for i in range(40):
        file.write(line(i, 1000), 1, NOW)
    assert 10 < file.dropped < 40
    kept = [record["i"] for record in records(small_disk / "p.jsonl")]
    assert kept == list(range(40 - file.dropped))
    filler.unlink()
    file.write(line(99, 1000), 1, NOW)
    assert records(small_disk / "p.jsonl")[-1]["i"] == 99
    file.close()


def test_the_gateway_imports_nothing_of_the_engine_but_serving_and_errors_and_nothing_heavy() -> None:
    code = ("import sys, engine.serving.gateway; bad = [m for m in sys.modules if m in ('numpy', "
            "'pandas', 'mlflow', 'onnxruntime', 'pydantic') or (m.startswith('engine.') and not "
            "m.startswith('engine.serving') and m != 'engine.errors')]; print(bad)")
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout.strip() == "[]", shown.stderr
