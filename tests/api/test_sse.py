"""Server-sent events survive any cut of the bytes that carry them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import sse
from engine.api.sse import Decoder, Message, encode

messages = st.lists(st.builds(
    Message, event=st.sampled_from(["snapshot", "run", "output", "ping"]),
    data=st.builds(msgspec.json.encode, st.dictionaries(st.text(), st.text())),
    id=st.none() | st.integers(0).map(str)), max_size=8)


@given(messages, st.integers(1, 50))
def test_messages_come_back_whole_however_they_are_cut(sent: list[Message], size: int) -> None:
    stream = b"".join(encode(m) for m in sent)
    decoder = Decoder()
    got = [m for at in range(0, len(stream), size) for m in decoder.feed(stream[at:at + size])]
    assert got == sent


def test_comments_and_unknown_fields_are_passed_over() -> None:
    got = list(Decoder().feed(b": hello\nretry: 3\n\nevent: run\nfoo: bar\ndata: {}\n\n"))
    assert got == [Message("run", b"{}")]


def test_a_message_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "LIMIT", 100)
    with pytest.raises(ValueError, match="without an end"):
        list(Decoder().feed(b"data: " + b"x" * 200))
