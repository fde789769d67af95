"""The key of a stage: every field counts, and nothing else does."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import OpsdeckError, UsageError
from engine.pipeline.building import cache, fields, listing
from engine.pipeline.building.memo import Memo
from engine.pipeline.project.reading import read
from engine.pipeline.stages.table import STAGES
from tests.pipeline.project.written import project

NAMES = st.text("abcxyz._-", min_size=1, max_size=6)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-2**40, 2**40), st.text(max_size=8),
                   st.floats(allow_nan=False, allow_infinity=False))
TREES = st.recursive(LEAVES, lambda inner: st.one_of(
    st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=4)), max_leaves=12)
FIELDS = st.dictionaries(NAMES, TREES, min_size=1, max_size=5)


def shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(name, shuffled(item, rng)) for name, item in value.items()]
        rng.shuffle(items)
        return dict(items)
    return [shuffled(item, rng) for item in value] if isinstance(value, list) else value


@given(FIELDS, st.randoms(use_true_random=False))
def test_the_order_of_an_objects_keys_does_not_count(found: dict[str, Any], rng: random.Random) -> None:
    assert cache.key(shuffled(found, rng)) == cache.key(found)
    assert cache.differing(found, shuffled(found, rng)) is None


@given(FIELDS, FIELDS)
def test_two_keys_are_equal_exactly_where_no_field_differs(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert (cache.key(one) == cache.key(two)) == (cache.differing(one, two) is None)


@given(FIELDS, LEAVES, st.data())
def test_another_value_anywhere_is_another_key_and_is_named(found: dict[str, Any], leaf: Any,
                                                            data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(found)))
    now = {**found, path: {"was": found[path], "leaf": leaf}}
    differing = cache.differing(found, now)
    assert cache.key(now) != cache.key(found)
    assert differing is not None and differing.path.startswith(path)
    assert len(differing.before) <= 40 and len(differing.now) <= 40


def test_the_first_difference_is_a_dotted_path_with_both_values() -> None:
    old = {"settings": {"train": {"params": {"lr": 0.1}}}, "inputs": {"data": {"train.parquet": "a" * 64}}}
    new = {"settings": {"train": {"params": {"lr": 0.2}}}, "inputs": {"data": {"train.parquet": "b" * 64}}}
    assert str(cache.differing(old, new)) == "settings.train.params.lr: 0.1 → 0.2"
    new["settings"] = old["settings"]
    assert str(cache.differing(old, new)) == f"inputs.data.train.parquet: {'a' * 12} → {'b' * 12}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = project(tmp_path / "delays")
    (made / "tests" / "test_it.py").write_text("")
    (made / "cases").mkdir()
    (made / "cases" / "hard.yaml").write_text("id: hard\n")
    return made


def keys(folder: Path) -> dict[str, str]:
    memo, read_project = Memo(folder.parent / "memo.json"), read(folder)
    return {name: cache.key(fields.of(stage, read_project, folder, memo, {})[0])
            for name, stage in STAGES.items() if stage.cached}


@pytest.mark.parametrize(("path", "text", "stages"), [
    ("train.py", "def main(inputs, output, params): ...\n", {"tests", "train", "evaluate", "robustness"}),
    ("more.py", "", {"tests", "train", "evaluate", "robustness"}),
    ("tests/test_it.py", "assert True\n", {"tests", "train", "evaluate", "robustness"}),
    ("tests/given.csv", "1\n", {"tests"}),
    ("data/rows.csv", "id\n", {"data"}),
    ("expectations.yaml", "{}\n", {"data"}),
    ("cases/hard.yaml", "id: harder\n", {"robustness"}),
    ("uv.lock", "version = 2\n", {"tests", "train", "evaluate", "robustness"}),
    ("README.md", "words\n", set()),
    ("config.json", "{}", set()),
    ("pytest.ini", "[pytest]\naddopts = -x\n", {"tests"}),
    ("pyproject.toml", "[tool.pytest.ini_options]\n", {"tests", "train", "evaluate", "robustness"}),
    ("__pycache__/train.cpython-311.pyc", "x", set()),
    (".venv/lib/other.py", "x", set()),
    ("contract.json", '{"type": "array"}', set()),
])
def test_a_file_counts_for_the_stages_that_read_it(folder: Path, path: str, text: str,
                                                   stages: set[str]) -> None:
    before = keys(folder)
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)
    now = keys(folder)
    assert {name for name in now if now[name] != before[name]} == stages


@pytest.mark.parametrize(("old", "new", "stages"), [
    ("owner: ml-platform", "owner: somebody", set()),
    ("task: binary", "task: binary\nseed: 7", {"data", "train", "evaluate", "robustness"}),
    ("function: \"train:main\"}", "function: \"train:main\"}\n  params: {lr: 0.1}", {"train"}),
    ("metrics: [log_loss]", "metrics: [roc_auc]", {"evaluate", "robustness"}),
    ("mean_shift: 0.1", "mean_shift: 0.2", {"robustness"}),
    ("paths: [tests]", "paths: [tests]\n  args: [-x]", {"tests"}),
    ("margin: 0.005", "margin: 0.001", set()),
])
def test_a_setting_counts_for_the_stages_that_depend_on_it(folder: Path, old: str, new: str,
                                                           stages: set[str]) -> None:
    before = keys(folder)
    file = folder / "opsdeck.pipeline.yaml"
    file.write_text(file.read_text().replace(old, new, 1))
    now = keys(folder)
    assert {name for name in now if now[name] != before[name]} == stages


def test_where_the_project_lies_and_when_its_files_were_written_does_not_count(
        folder: Path, tmp_path: Path) -> None:
    other = project(tmp_path / "elsewhere" / "copy")
    (other / "tests" / "test_it.py").write_text("")
    (other / "cases").mkdir()
    (other / "cases" / "hard.yaml").write_text("id: hard\n")
    os.utime(other / "train.py", (1, 1))
    assert keys(other) == keys(folder)


@pytest.mark.parametrize(("before", "now", "same"), [
    ("", "failed_at: 2026-11-24T10:00:00Z\n", False),
    ("failed_at: 2026-11-24T10:00:00Z\n", "failed_at: '2026-11-25T10:00:00Z'\n", True),
    ("failed_at: null\n", "", True),
    ("failed_at: 2026-11-24T10:00:00Z\n",
     "failed_at: 2026-11-24T10:00:00Z\nfixed_at: 2026-11-25T10:00:00Z\n", False),
    ("failed_at: 2026-11-26T10:00:00Z\nfixed_at: 2026-11-25T10:00:00Z\n",
     "failed_at: 2026-11-24T10:00:00Z\nfixed_at: 2026-11-25T10:00:00Z\n", False),
])
def test_of_a_hard_case_its_standing_counts_and_not_when_it_was_last_looked_at(
        folder: Path, before: str, now: str, same: bool) -> None:
    case = folder / "cases" / "hard.yaml"
    case.write_text("id: hard\n" + before)
    first = keys(folder)["robustness"]
    case.write_text("id: hard\n" + now)
    assert (keys(folder)["robustness"] == first) == same


def test_data_that_is_not_there_is_an_error_with_its_path(folder: Path) -> None:
    (folder / "data" / "rows.csv").unlink()
    with pytest.raises(OpsdeckError, match=r"data/rows\.csv is not there"):
        keys(folder)


FILES = ["a.py", "b/a.py", "b/c/a.py", "b/c/a.txt", "ab.py", "b/[x].py"]


@given(st.lists(st.sampled_from(FILES), unique=True))
def test_patterns_name_what_people_mean(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    folder = tmp_path_factory.mktemp("listing")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    assert listing.listed(folder, ["**/*.py"]) == sorted(n for n in names if n.endswith(".py"))
    assert listing.listed(folder, ["*.py"]) == sorted(n for n in names if n.endswith(".py") and "/" not in n)
    assert listing.listed(folder, ["b"]) == sorted(n for n in names if n.startswith("b/"))
    assert listing.listed(folder, ["b/**/*.py", "a.py"]) == sorted(
        n for n in names if n == "a.py" or (n.startswith("b/") and n.endswith(".py")))


class Clock:
    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self) -> int:
        return self.at


def test_a_file_that_changed_just_now_is_read_again_though_it_looks_the_same(tmp_path: Path) -> None:
    """Two writes within one tick of the file system's clock: the size and both times are the same."""
    file, path = tmp_path / "a.csv", tmp_path / "memo.json"
    file.write_text("one")
    clock = Clock(time.time_ns())
    memo = Memo(path, clock)
    first = memo.digest(file)
    memo.save()
    assert not path.exists()
    clock.at += 3_000_000_000
    assert memo.digest(file) == first
    memo.save()
    known = path.read_text()
    assert first in known
    file.write_text("two")
    assert Memo(path, clock).digest(file) != first


def test_a_file_whose_content_changed_and_whose_time_was_set_back_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("one")
    looked = file.stat()
    memo = Memo(tmp_path / "memo.json", lambda: time.time_ns() + 10_000_000_000)
    first = memo.digest(file)
    file.write_text("two")
    os.utime(file, ns=(looked.st_atime_ns, looked.st_mtime_ns))
    assert memo.digest(file) != first


@pytest.mark.parametrize("text", ["", "[]", "{\"/a\": 3}", "{\"/a\": [[1], \"x\"]", "\x00"])
def test_a_memo_that_cannot_be_read_is_an_empty_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "memo.json").write_text(text)
    (tmp_path / "a").write_text("a")
    assert len(Memo(tmp_path / "memo.json").digest(tmp_path / "a")) == 64


@pytest.mark.parametrize("target", ["outside", "inside/.hidden"])
def test_code_behind_a_link_to_a_folder_is_refused_rather_than_missed(tmp_path: Path, target: str) -> None:
    folder, real = tmp_path / "inside", tmp_path / target
    folder.mkdir(exist_ok=True)
    real.mkdir(parents=True)
    (real / "parts.py").write_text("x = 1\n")
    (folder / "libs").symlink_to(real)
    with pytest.raises(UsageError, match="libs is a link to a folder") as refused:
        listing.listed(folder, ["**/*.py"])
    assert "libs/parts.py" in str(refused.value) and refused.value.hint
    assert listing.listed(folder, ["libs", "**/*.py"]) == ["libs/parts.py"]
    (real / "parts.py").rename(real / "rows.csv")
    assert listing.listed(folder, ["**/*.py"]) == []


def test_what_an_entry_names_is_code_and_what_a_command_makes_data_from_counts_with_its_lock(
        tmp_path: Path) -> None:
    folder = project(tmp_path / "delays", ("{path: data/rows.csv}", "{command: [sh, make.sh, --rows, '9'], "
                                           "sources: [raw.csv]}"),
                     ('{function: "train:main"}', "{command: [./fit.sh, train.py]}"))
    for name in ("make.sh", "raw.csv", "fit.sh", "train.R"):
        (folder / name).write_text("1")
    before = keys(folder)
    for name, stages in (("make.sh", {"data"}), ("raw.csv", {"data"}), ("train.R", set()),
                         ("fit.sh", {"tests", "train", "evaluate", "robustness"}), ("uv.lock", set(before))):
        (folder / name).write_text("2")
        now = keys(folder)
        assert {one for one in now if now[one] != before[one]} == stages, name
        before = now
