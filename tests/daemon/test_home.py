"""Which engine a command means, and where its socket is."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import home as homes
from engine.errors import NotPermitted, UsageError
from engine.home import SOCKET_LIMIT, at, checked_directory, find, prepare, short_socket

NOWHERE = Path("/nonexistent/etc")


def test_the_option_wins_over_the_environment_and_that_over_the_system(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "opsdeck.yaml").write_text("")
    env = {"OPSDECK_HOME": str(tmp_path / "env"), "HOME": "/home/a"}
    assert find(tmp_path / "named", env, system=etc).path == tmp_path / "named"
    assert find(None, env, system=etc).path == tmp_path / "env"
    system = find(None, {"HOME": "/home/a"}, system=etc)
    assert (system.mode, system.config) == ("system", etc / "opsdeck.yaml")
    assert system.socket == Path("/run/opsdeck/engine.sock")
    assert find(etc, env, system=etc) == system, "the system's config directory names its engine"


def test_a_single_user_engine_lives_in_the_xdg_state_directory() -> None:
    assert find(None, {"HOME": "/home/a"}, system=NOWHERE).path == Path(
        "/home/a/.local/state/opsdeck")
    assert find(None, {"HOME": "/home/a", "XDG_STATE_HOME": "/state"},
                system=NOWHERE).path == Path("/state/opsdeck")
    relative = {"HOME": "/home/a", "XDG_STATE_HOME": "state"}
    assert find(None, relative, system=NOWHERE).path == Path("/home/a/.local/state/opsdeck")


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("here", {}, system=NOWHERE).path == tmp_path / "here"


@given(st.integers(1, 400))
def test_every_socket_path_can_be_bound_and_a_short_one_stays(length: int) -> None:
    path = Path("/" + "x" * length)
    short = short_socket(path)
    assert len(os.fsencode(short)) <= SOCKET_LIMIT
    assert (short == path) == (length + 1 <= SOCKET_LIMIT)
    assert short_socket(path) == short


def test_bytes_count_not_characters() -> None:
    assert short_socket(Path("/" + "é" * 60)) != Path("/" + "é" * 60)


def test_a_runtime_directory_that_is_not_private_is_not_used(
        monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        use_runtime_directories(Path(folder), monkeypatch)


def use_runtime_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_to_all, private = tmp_path / "open", tmp_path / "private"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    private.mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(private)
    long = tmp_path / ("a" * 120) / "engine.sock"
    for folder, used in ((open_to_all, False), (link, False), (private, True)):
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        assert (short_socket(long).parent == folder) == used
    assert not checked_directory(private, os.getuid() + 1)


def test_a_squatted_last_resort_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squatted = tmp_path / "opsdeck-0"
    squatted.mkdir()
    squatted.chmod(0o777)
    monkeypatch.setattr(homes, "fallback_directory", lambda uid: squatted)
    monkeypatch.setattr(homes, "checked_directory", lambda path, uid: False)
    with pytest.raises(NotPermitted, match="somebody else made the directory"):
        short_socket(tmp_path / ("a" * 120) / "engine.sock")


def test_a_home_is_made_private_and_an_existing_one_is_left_as_it_is(tmp_path: Path) -> None:
    home = at(tmp_path / "one" / "two")
    prepare(home)
    assert home.path.stat().st_mode & 0o777 == 0o700
    home.path.chmod(0o755)
    prepare(home)
    assert home.path.stat().st_mode & 0o777 == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a home that is another user's")
def test_somebody_elses_home_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    os.chown(other, 1, 1)
    with pytest.raises(NotPermitted, match="belongs to uid 1"):
        prepare(at(other))


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="the home"):
            prepare(at(path))
