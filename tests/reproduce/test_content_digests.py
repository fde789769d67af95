"""Digests of files and folders: of content alone, in a stable order, and of nothing outside."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ActionFailed, UsageError
from engine.reproduce import digests

names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=6
                ).filter(lambda one: one not in (".", ".."))
trees = st.dictionaries(names, st.binary(max_size=20), min_size=1, max_size=6)


def laid(root: Path, tree: dict[str, bytes], order: list[str]) -> Path:
    root.mkdir()
    for name in order:
        (root / name).write_bytes(tree[name])
    return root


@settings(max_examples=30, deadline=None)
@given(trees, st.randoms(use_true_random=False))
def test_a_folder_has_one_digest_in_whatever_order_it_was_written(
        tmp_path_factory: pytest.TempPathFactory, tree: dict[str, bytes], shuffler: random.Random) -> None:
    root = tmp_path_factory.mktemp("trees")
    other = list(tree)
    shuffler.shuffle(other)
    one, two = laid(root / "1", tree, list(tree)), laid(root / "2", tree, other)
    os.utime(next(two.iterdir()), (0, 0))
    assert digests.folder(one) == digests.folder(two)
    changed = {**tree, other[0]: tree[other[0]] + b"!"}
    assert digests.folder(laid(root / "3", changed, other)).sha256 != digests.folder(one).sha256
    renamed = {("new " + name if name == other[0] else name): data for name, data in tree.items()}
    assert digests.folder(laid(root / "4", renamed, list(renamed))).sha256 != digests.folder(one).sha256


def test_a_file_has_the_sha256_that_everybody_computes(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(3_000_001)
    (tmp_path / "f").write_bytes(data)
    found = digests.file(tmp_path / "f")
    assert found == digests.Digest(hashlib.sha256(data).hexdigest(), len(data))
    told = subprocess.run(["sha256sum", tmp_path / "f"], capture_output=True, text=True, check=True)
    assert told.stdout.split()[0] == found.sha256


def test_names_and_contents_cannot_be_taken_for_each_other(tmp_path: Path) -> None:
    one = laid(tmp_path / "1", {"a": b"b", "c": b"d"}, ["a", "c"])
    two = laid(tmp_path / "2", {"ab": b"", "cd": b""}, ["ab", "cd"])
    assert digests.folder(one).sha256 != digests.folder(two).sha256


def test_a_links_name_and_target_cannot_be_taken_for_each_other(tmp_path: Path) -> None:
    sums = set()
    for at, (name, target) in enumerate([("a", "bc"), ("ab", "c")]):
        folder = laid(tmp_path / str(at), {"z": b""}, ["z"])
        (folder / name).symlink_to(target)
        sums.add(digests.folder(folder).sha256)
    assert len(sums) == 2


def test_entries_come_in_the_order_of_their_names_bytes(tmp_path: Path) -> None:
    (tmp_path / "é").mkdir()
    for name in ("b", "a.b", "a", "Z", "é/x", "ab", *(f"{at}" for at in range(50))):
        (tmp_path / name).write_text("")
    (tmp_path / "a!").symlink_to("b")
    paths = [one.path for one in digests.entries(tmp_path)]
    assert paths == sorted(paths) and len(paths) == 57


def test_a_name_that_is_not_unicode_has_its_place(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    before = digests.folder(tmp_path / "d").sha256
    Path(os.fsdecode(os.fsencode(tmp_path / "d") + b"/\xff")).write_bytes(b"x")
    assert digests.folder(tmp_path / "d").sha256 != before


def test_empty_folders_and_modes_do_not_count(tmp_path: Path) -> None:
    one = laid(tmp_path / "1", {"a": b"x"}, ["a"])
    before = digests.folder(one)
    (one / "empty").mkdir()
    (one / "a").chmod(0o700)
    assert digests.folder(one) == before


def test_excluded_names_and_paths_are_left_out_with_all_below(tmp_path: Path) -> None:
    one = laid(tmp_path / "1", {"a.py": b"x"}, ["a.py"])
    before = digests.folder(one)
    for path in ("__pycache__/a.pyc", "data/raw/big.bin", "b.pyc"):
        (one / path).parent.mkdir(parents=True, exist_ok=True)
        (one / path).write_bytes(b"x")
    assert digests.folder(one, ["__pycache__", "data/raw", "*.pyc"]) == before


def test_a_link_that_stays_inside_counts_by_its_target_and_is_not_followed(tmp_path: Path) -> None:
    one = laid(tmp_path / "1", {"a": b"x", "b": b"x"}, ["a", "b"])
    (one / "link").symlink_to("a")
    found = digests.folder(one)
    assert (found.files, found.bytes) == (3, 2)
    (one / "link").unlink()
    (one / "link").symlink_to("b")
    assert digests.folder(one).sha256 != found.sha256
    (one / "link").unlink()
    shutil.copy(one / "a", one / "link")
    assert digests.folder(one).sha256 != found.sha256


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "sub/../../outside"])
def test_a_link_that_leads_out_is_refused_and_not_followed(tmp_path: Path, target: str) -> None:
    (tmp_path / "outside").write_text("secret")
    one = laid(tmp_path / "1", {"a": b"x"}, ["a"])
    (one / "sub").mkdir()
    (one / "link").symlink_to(target)
    with pytest.raises(UsageError, match="leads out of its folder") as refused:
        digests.folder(one)
    assert str(refused.value.where).endswith("1/link") and refused.value.hint


def test_a_circle_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("y")
    (tmp_path / "y").symlink_to("x")
    with pytest.raises(UsageError, match="circle"):
        digests.folder(tmp_path)


def test_a_folder_that_links_to_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(".")
    assert digests.folder(tmp_path).files == 1


def test_a_pipe_is_refused_at_once_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a regular file"):
        digests.file(tmp_path / "pipe")
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        digests.folder(tmp_path)


def test_a_file_that_grows_while_it_is_read_is_not_given_a_digest(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "growing"
    file.write_bytes(b"x" * 100)
    real = os.fstat
    calls = []

    def fstat(handle: int) -> os.stat_result:
        calls.append(handle)
        if len(calls) > 1:
            with file.open("ab") as more:
                more.write(b"y")
        return real(handle)

    monkeypatch.setattr(digests.os, "fstat", fstat)
    with pytest.raises(ActionFailed, match="changed while"):
        digests.file(file)


def test_what_is_missing_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        digests.file(tmp_path / "none")
    with pytest.raises(UsageError, match="no such folder"):
        digests.folder(tmp_path / "none")


def test_a_large_sparse_file_is_digested_in_little_memory(tmp_path: Path) -> None:
    file = tmp_path / "sparse"
    with file.open("wb") as hole:
        hole.seek(1 << 28)
        hole.write(b"end")
    assert file.stat().st_blocks * 512 < 1 << 20
    code = ("import resource, sys; from pathlib import Path; from engine.reproduce import digests\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "found = digests.file(Path(sys.argv[1]))\n"
            "print(found.bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)")
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True)
    size, grown_kib = map(int, done.stdout.split())
    assert size == (1 << 28) + 3 and grown_kib < 8 << 10


def test_a_local_data_set_is_named_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    one = digests.local(tmp_path / "a.csv", "data/a.csv")
    assert (one.uri, one.kind, one.bytes, one.files, one.versioned) == ("data/a.csv", "file", 4, 1, True)
    many = digests.local(tmp_path)
    assert many.kind == "folder" and many.uri == tmp_path.as_uri() and many.sha256 != one.sha256
