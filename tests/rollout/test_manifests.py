"""What two versions say of themselves, and how they differ."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ActionFailed
from engine.rollout.manifests import MOST, differences, read

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner,
                                                                                max_size=4), max_leaves=12)


def test_a_difference_names_the_place_and_both_values() -> None:
    old = {"version": "7", "files": {"model.onnx": "aa"}, "inputs": [{"name": "hour"}], "threshold": 0.5}
    new = {"version": "8", "files": {"model.onnx": "bb"}, "inputs": [{"name": "hour"}, {"name": "temp"}]}
    assert differences(old, new) == [
        ("files.model.onnx", "aa", "bb"), ("inputs.1.name", "", "temp"), ("threshold", "0.5", ""),
        ("version", "7", "8")]


@given(JSON)
def test_equal_manifests_differ_in_nothing(value: object) -> None:
    assert differences(value, json.loads(json.dumps(value))) == []


@given(JSON, JSON)
def test_what_differs_one_way_differs_the_other_way_round(one: object, other: object) -> None:
    assert [(key, new, old) for key, old, new in differences(one, other)] == differences(other, one)


def test_a_huge_difference_is_cut() -> None:
    assert len(differences({}, {str(at): at for at in range(MOST + 50)})) == MOST


def test_a_manifest_is_read_with_the_digest_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text('{"version": "7"}')
    digests, contents = read({"champion": path})
    assert contents == {"champion": {"version": "7"}}
    path.write_text('{"version":  "7"}')
    again, _ = read({"champion": path})
    assert again != digests


@pytest.mark.parametrize(("content", "said"), [
    (None, "cannot be read: No such file or directory"), (b"{", "is not JSON"), (b"\xff\xfe", "is not JSON"),
    (b"[" * 100_000, "is not JSON"), (b" " * ((4 << 20) + 1), "is larger than 4 MiB")])
def test_one_that_cannot_be_read_says_which_and_why(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ActionFailed, match=f"the manifest of challenger {said}") as error:
        read({"challenger": path})
    assert error.value.where == str(path)
