"""A secret's value is fetched only from its reference and never appears in what a step prints."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.procedures import secret_sources
from engine.procedures.secret_sources import SecretError, resolve_secret
from engine.procedures.secrets import MASK, Masker, SecretRef, mask

SECRETS = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3)


def chunked(text: str, secrets: list[str], cuts: list[int]) -> str:
    masker = Masker(secrets)
    data = text.encode()
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    out = b"".join(masker.feed(data[a:b]) for a, b in itertools.pairwise(edges))
    return (out + masker.flush()).decode()


@given(st.text("abc", max_size=30), SECRETS, st.lists(st.integers(0, 40), max_size=6))
def test_masking_does_not_depend_on_where_chunks_end(
        text: str, secrets: list[str], cuts: list[int]) -> None:
    assert chunked(text, secrets, cuts) == mask(text, secrets)


@given(st.text("abc", max_size=30), SECRETS)
def test_no_secret_is_left_and_what_is_no_secret_stays(text: str, secrets: list[str]) -> None:
    masked = mask(text, secrets)
    assert not any(secret in masked for secret in secrets)
    covered = [any(text[i:i + len(s)] == s and i <= at < i + len(s) for s in secrets
                   for i in range(len(text))) for at in range(len(text))]
    assert masked.replace(MASK, "") == "".join(
        char for char, hidden in zip(text, covered, strict=True) if not hidden)


def test_a_secret_that_is_split_over_chunks_is_masked() -> None:
    masker = Masker(["hunter2"])
    out = masker.feed(b"pass=hun") + masker.feed(b"ter") + masker.feed(b"2 end") + masker.flush()
    assert out.decode() == f"pass={MASK} end"


def test_what_may_become_a_secret_is_held_back_and_no_more() -> None:
    masker = Masker(["hunter2"])
    assert masker.feed(b"see the hunt") == b"see the "
    assert masker.feed(b"ing lodge") == b"hunting lodge"
    assert masker.flush() == b""


def test_an_endless_overlap_is_one_mask_and_no_growing_buffer() -> None:
    masker = Masker(["aa"])
    out = b"".join(masker.feed(b"a" * 1000) for _ in range(50)) + masker.flush()
    assert out.decode() == MASK


def test_each_line_of_a_secret_of_several_lines_is_masked() -> None:
    key = "-----BEGIN-----\nMIIEvQIBADANBg\nab\n-----END-----"
    shown = mask("log: MIIEvQIBADANBg and ab\n", [key])
    assert shown == f"log: {MASK} and ab\n"


def test_ten_megabytes_are_masked_in_a_moment() -> None:
    masker = Masker(["s3cr3t-" * 40, "other"])
    block = b"x" * 65000 + b"other" + b"y" * 500
    started = time.process_time()
    out = b"".join(masker.feed(block) for _ in range(160)) + masker.flush()
    assert out.count(MASK.encode()) == 160 and b"other" not in out
    assert time.process_time() - started < 5


def test_a_reference_shows_where_a_secret_comes_from_and_no_more() -> None:
    assert str(SecretRef("env:TOKEN")) == f"{MASK} (from env:TOKEN)"
    assert "vault" not in str(SecretRef("command:vault read x"))


def test_each_source_gives_its_value_without_the_last_newline(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("t0k en\n")
    echo = f"command:{sys.executable} -c 'print(\"from me; $HOME\")'"
    assert resolve_secret("env:TOKEN", {"TOKEN": "abc"}) == "abc"
    assert resolve_secret(f"file:{file}", {}) == "t0k en"
    assert resolve_secret(echo, {}) == "from me; $HOME"


def test_what_cannot_be_had_is_said_without_saying_any_value(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_sources, "TIMEOUT", 0.2)
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_text("x" * 70000)
    python = sys.executable
    cases = {
        "hunter2": "not a reference", "env:NOPE": "no variable NOPE",
        f"file:{tmp_path}/nope": "no such file", f"file:{tmp_path}": "not a plain file",
        f"file:{tmp_path}/empty": "is empty", f"file:{tmp_path}/binary": "not text",
        f"file:{tmp_path}/large": "larger than 64 KiB", "command:nope-there-is-none": "no such program",
        f"command:{python} -c 'print(\"hunter2\"); exit(3)'": "ended with 3",
        f"command:{python} -c 'import time; time.sleep(9)'": "did not answer",
        "command:'unclosed": "cannot be read"}
    for reference, said in cases.items():
        with pytest.raises(SecretError, match=said) as error:
            resolve_secret(reference, {})
        assert "hunter2" not in str(error.value), reference
