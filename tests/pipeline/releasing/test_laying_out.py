"""A served folder is replaced while servers start from it: each finds the old model or the new one."""

from __future__ import annotations

import threading
from pathlib import Path

from engine.pipeline.releasing import files


def test_a_folder_that_is_replaced_is_there_at_every_moment(tmp_path: Path) -> None:
    target, fresh = tmp_path / "model", tmp_path / ".model.fresh"
    for folder, text in ((target, "old"), (fresh, "new")):
        folder.mkdir()
        (folder / "version").write_text(text)
    seen, missing, done = set(), [], threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                seen.add((target / "version").read_text())
            except OSError as error:
                missing.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    while seen != {"old", "new"}:
        files._exchange(fresh, target)
    done.set()
    reader.join()
    assert missing == []


def test_where_nothing_stood_it_is_put_in_place(tmp_path: Path) -> None:
    (tmp_path / "fresh").mkdir()
    files._exchange(tmp_path / "fresh", tmp_path / "model")
    assert (tmp_path / "model").is_dir() and not (tmp_path / "fresh").exists()
