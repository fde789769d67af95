"""The project's environment is made from its lock, once and whole; what stands in its way is one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.errors import OpsdeckError
from engine.pipeline.child import environments, process
from engine.pipeline.project.model import Project
from tests.pipeline.child import small_project
from tests.pipeline.child.wheels import wheel

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder whose index is a folder of wheels of its own."""
    made = tmp_path / "project"
    made.mkdir()
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(made / "wheels"))
    return made


def locked(folder: Path, lock: str, name: str = "requirements.lock") -> Project:
    return small_project.project(folder, {name: lock}, environment={"lock": name, "python": PYTHON})


def version(python: Path) -> str:
    return subprocess.run([str(python), "-c", "import tiny; print(tiny.VERSION)"], check=True, text=True,
                          capture_output=True).stdout.strip()


def quiet(line: str) -> None:
    pass


@pytest.mark.slow
def test_one_is_made_from_a_lock_kept_and_made_anew_after_a_kill(folder: Path, tmp_path: Path) -> None:
    lock = f"# by hand\ntiny==1.0 \\\n    --hash=sha256:{wheel(folder / 'wheels')}\n"
    given = locked(folder, lock)
    # What a builder that was killed has left: half an environment beside, and one in place without its mark.
    root = tmp_path / "places" / "environments"
    name = environments.digest(given, folder)
    for left in (root / f".{name}.1", root / name):
        (left / "bin").mkdir(parents=True)
    said: list[str] = []
    places: list[Path] = []
    both = [threading.Thread(target=lambda: places.append(
        environments.ensure(given, folder, tmp_path / "places", said.append))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert len(places) == 2 and places[0] == places[1] == root / name / "bin" / "python"
    assert said.count("making the environment from requirements.lock") == 1
    assert "this environment is being made by another run; waiting for it" in said
    assert version(places[0]) == "1.0"
    assert environments.has(places[0], "tiny") and not environments.has(places[0], "pytest")
    # Its scripts name the place where it is, not where it was made.
    assert str(root / f".{name}") not in (root / name / "bin" / "tiny").read_text()
    assert not list(root.glob(f".{name}.*"))
    again: list[str] = []
    assert environments.ensure(given, folder, tmp_path / "places", again.append) == places[0] and again == []
    other = locked(folder, lock.replace("by hand", "by another hand"))
    assert environments.digest(other, folder) != name


@pytest.mark.slow
def test_a_uv_lock_is_followed_with_its_groups(folder: Path, tmp_path: Path) -> None:
    wheel(folder / "wheels")
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "own"\nversion = "0"\nrequires-python = ">=3.9"\n'
        '[dependency-groups]\ndev = ["tiny"]\n')
    uv = process.tool("uv")
    subprocess.run([str(uv), "lock", "--quiet", "--project", str(folder)], check=True)
    given = small_project.project(folder, environment={"lock": "uv.lock", "python": PYTHON})
    python = environments.ensure(given, folder, tmp_path / "places", quiet)
    assert version(python) == "1.0" and not (folder / ".venv").exists()


def test_the_engines_own_is_inherited_where_it_is_said(tmp_path: Path) -> None:
    given = small_project.project(tmp_path)
    assert environments.ensure(given, tmp_path, tmp_path / "places", quiet) == Path(sys.executable)
    assert environments.has(Path(sys.executable), "pytest")
    assert not (tmp_path / "places").exists()


@pytest.mark.parametrize(("lock", "message", "line"), [
    ("tiny==1.0\n", "The lock pins tiny==1.0 without a hash.", 1),
    ("--index-url x\n-r more.txt\n", "The lock takes packages from elsewhere: -r more.txt", 2),
    ("# comment\n\ntiny>=1.0 --hash=sha256:00\n", "The lock does not pin tiny>=1.0 to one version.", 3),
])
def test_a_lock_that_pins_nothing_is_refused(folder: Path, tmp_path: Path, lock: str, message: str,
                                            line: int) -> None:
    with pytest.raises(OpsdeckError, match=message) as caught:
        environments.ensure(locked(folder, lock), folder, tmp_path / "places", quiet)
    assert str(caught.value.where).endswith(f"requirements.lock:{line}") and caught.value.hint


def test_a_lock_that_is_not_there_is_named_with_what_to_do(folder: Path, tmp_path: Path) -> None:
    given = small_project.project(folder, environment={"lock": "absent.lock"})
    with pytest.raises(OpsdeckError, match=r"The lock absent\.lock is not there") as caught:
        environments.ensure(given, folder, tmp_path / "places", quiet)
    assert "uv lock" in str(caught.value.hint)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "message"), [
    ("another hash", "What was fetched for tiny==1.0 has another hash than the lock."),
    ("no such package", "The package tiny==1.0 was not found where packages come from."),
    ("no network", "The package index cannot be reached for tiny"),
    ("no such python", "Python 3.99 is not on this machine."),
    ("no uv", "uv is not installed"),
])
def test_what_keeps_uv_from_making_it_is_one_sentence(folder: Path, tmp_path: Path, case: str, message: str,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    right = wheel(folder / "wheels")
    given = locked(folder, f"tiny==1.0 --hash=sha256:{'0' * 64 if case == 'another hash' else right}\n")
    if case == "no such package":
        (folder / "wheels" / "tiny-1.0-py3-none-any.whl").unlink()
    if case == "no network":
        for name in ("UV_NO_INDEX", "UV_FIND_LINKS"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("UV_INDEX_URL", "http://127.0.0.1:9/simple")
        monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    if case == "no such python":
        other = given.environment.model_copy(update={"python": "3.99"})
        given = given.model_copy(update={"environment": other})
    if case == "no uv":
        monkeypatch.setattr(process, "tool", lambda name: None)
    with pytest.raises(OpsdeckError) as caught:
        environments.ensure(given, folder, tmp_path / "places", quiet)
    assert message in caught.value.message, caught.value
    assert "requirements.lock" in str(caught.value.where) and caught.value.hint
    root = tmp_path / "places" / "environments"
    assert not (root / environments.digest(given, folder)).exists() and not list(root.glob(".*"))


@pytest.mark.slow
def test_a_builder_that_is_killed_frees_the_lock(folder: Path, tmp_path: Path) -> None:
    lock = f"tiny==1.0 --hash=sha256:{wheel(folder / 'wheels')}\n"
    given = locked(folder, lock)
    code = f"""
import sys, time
from pathlib import Path
from engine.pipeline.child import environments
from engine.pipeline.project.model import Project
environments._mark = lambda *_: (print("made", flush=True), time.sleep(600))
given = Project.model_validate_json(sys.stdin.read())
environments.ensure(given, Path({str(folder)!r}), Path({str(tmp_path / 'places')!r}), lambda line: None)
"""
    builder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True, env=dict(os.environ))
    assert builder.stdin is not None and builder.stdout is not None
    with builder.stdin, builder.stdout:
        builder.stdin.write(given.model_dump_json(by_alias=True, exclude_none=True))
        builder.stdin.close()
        assert builder.stdout.readline() == "made\n"
        builder.send_signal(signal.SIGKILL)
        builder.wait()
    root = tmp_path / "places" / "environments"
    assert len(list(root.glob(".*"))) == 1 and not (root / environments.digest(given, folder)).exists()
    assert version(environments.ensure(given, folder, tmp_path / "places", quiet)) == "1.0"
    assert not list(root.glob(".*"))
