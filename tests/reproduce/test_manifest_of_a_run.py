"""A manifest holds everything, says nothing it does not know, and keeps what it does not understand."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UsageError
from engine.reproduce import canonical, manifest, parts
from engine.reproduce.parts import Code, Known, Run
from tests.reproduce.manifests import ENVIRONMENT, changed, made

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


def test_a_manifest_reads_back_as_itself() -> None:
    one = made()
    again = manifest.read(one.encode())
    assert again == one and again.encode() == one.encode() and again.sha256 == one.sha256
    assert again.known.data["flights"].sha256 == "d" * 64


def test_a_manifest_is_of_format_1() -> None:
    assert made().content["format"] == 1


@given(st.dictionaries(texts, st.floats()), st.none() | st.floats(), st.dictionaries(texts, st.integers(0)))
def test_any_loss_metric_and_seed_can_be_kept(metrics: dict[str, float], loss: float | None,
                                              seeds: dict[str, int]) -> None:
    again = manifest.read(made(metrics=metrics, loss=loss, seeds=seeds).encode()).known
    for name, value in metrics.items():
        kept = canonical.as_number(again.metrics[name])
        assert kept == value or (math.isnan(kept) and math.isnan(value))
    assert {name: int(seed) for name, seed in again.seeds.items()} == seeds
    assert (again.loss is None) == (loss is None)


@given(st.recursive(st.integers(0, 9) | texts, lambda inner: st.dictionaries(texts, inner, max_size=3)),
       st.sampled_from(["", "code", "environment.cpu", "data.flights", "artifacts.model"]), texts)
def test_unknown_fields_at_any_depth_are_kept(value: Any, place: str, name: str) -> None:
    path = f"{place}.later {name}".removeprefix(".").replace(name, name.replace(".", "_"))
    later = changed(made(), path, value)
    again = manifest.read(later.encode())
    assert again.encode() == later.encode()
    at: Any = again.content
    for key in path.split("."):
        at = at[key]
    assert at == value


def test_two_manifests_of_the_same_parts_have_the_same_digest_whatever_the_order_of_names() -> None:
    assert made(metrics={"a": 1.0, "b": 2.0}).sha256 == made(metrics={"b": 2.0, "a": 1.0}).sha256
    assert made(metrics={"a": 1.0}).sha256 != made(metrics={"a": 2.0}).sha256


def test_what_is_not_known_is_null() -> None:
    bare = manifest.assemble(run=Run("r", "p", "2026-11-24T12:00:00Z"), code=Code(), environment=ENVIRONMENT)
    assert bare.content["lock"] is None and bare.content["image"] is None and bare.content["loss"] is None
    assert bare.content["code"]["commit"] is None


@pytest.mark.parametrize(("data", "why"), [
    (b"", "is not JSON"), (b"[1]", "no format number"), (b'{"a":1}', "no format number"),
    (b'{"format":"1"}', "no format number"), (b"\xff", "is not JSON"), (b"[" * 100_000, "is not JSON"),
    (b'{"format":2}', "is of format 2; this version reads 1"),
    (b'{"format":1}', "A field of this manifest is not what it must be"),
    (b" " * (16 << 20) + b"{}", "larger than 16 MiB"),
])
def test_what_is_no_manifest_is_refused_in_a_sentence(data: bytes, why: str) -> None:
    with pytest.raises(UsageError, match=why) as refused:
        manifest.read(data, "run 7's manifest")
    assert refused.value.where == "run 7's manifest" and refused.value.hint


def test_a_metric_that_is_some_other_text_is_refused() -> None:
    with pytest.raises(UsageError, match="'good' is not a number"):
        changed(made(), "metrics.auc", "good")


def test_data_is_unversioned_without_digest_version_and_derivation() -> None:
    assert not parts.Dataset("s3://b/k", "s3").versioned
    assert parts.Dataset("s3://b/k", "s3", version="v").versioned


def test_every_field_says_what_it_holds() -> None:
    lines = Path(parts.__file__).read_text().splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            assert "#" in lines[node.lineno - 1], node.target.id
    assert {one.name for one in msgspec.structs.fields(Known)} >= {"data", "config", "seeds", "metrics"}
