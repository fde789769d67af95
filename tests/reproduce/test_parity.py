"""A release runs what staging tested, or it is refused."""

from __future__ import annotations

import pytest

from engine.errors import Conflict
from engine.reproduce.parity import Side, require
from engine.reproduce.parts import Image, Lock

LOCK, IMAGE = Lock("uv.lock", "a" * 64), Image("example/train:3", "sha256:" + "b" * 64)


def test_the_same_digests_under_other_names_are_the_same() -> None:
    other = Side(Lock("requirements.lock", "a" * 64), Image("example/serve", IMAGE.digest))
    require(Side(LOCK, IMAGE), other)
    require(Side(LOCK, None), Side(LOCK, None))


@pytest.mark.parametrize(("production", "what"), [
    (Side(Lock("uv.lock", "c" * 64), IMAGE), "its lock is cccccccccccc, and staging's aaaaaaaaaaaa"),
    (Side(LOCK, Image("example/train:3", "sha256:" + "d" * 64)), "its image is dddddddddddd"),
    (Side(LOCK, None), "its image is none"), (Side(None, IMAGE), "its lock is none")])
def test_another_lock_or_image_is_refused_by_name(production: Side, what: str) -> None:
    with pytest.raises(Conflict, match=what) as refused:
        require(Side(LOCK, IMAGE), production)
    assert refused.value.hint
