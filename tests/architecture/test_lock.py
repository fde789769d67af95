"""One set of versions: pyproject.toml, the locks and what is installed agree."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
APART = (ROOT / "requirements-dev.lock").read_text()
SERVING = (ROOT / "engine" / "reproduce" / "rendering" / "serving.lock").read_text()


def pins(requirements: list[str]) -> dict[str, str]:
    """Name to version; anything but one exact version is an error."""
    found = {}
    for text in requirements:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[a-z0-9,]+\])?==([^*;\s]+)", text)
        assert match, f"{text} is not pinned to one version"
        found[match[1].lower()] = match[2]
    return found


PRODUCTION = PROJECT["project"]["dependencies"]
TOOLS = PROJECT["dependency-groups"]["dev"]
DIRECT = pins(PRODUCTION)
DEVELOPMENT = pins(TOOLS)
TRANSITIVE = pins(PROJECT["tool"]["uv"]["constraint-dependencies"])


def locked(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)(?:\[[a-z0-9,]+\])?==(\S+)", text, re.MULTILINE))


LOCKED, LOCKED_APART = locked(LOCK), locked(APART)


def needed(requirements: list[str]) -> set[str]:
    """Everything these need here, by the metadata of what is installed."""
    found: set[str] = set()
    todo = [(one.name.lower(), frozenset(one.extras)) for one in map(Requirement, requirements)]
    seen = set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found.add(name)
        for text in importlib.metadata.requires(name) or []:
            wanted = Requirement(text)
            holds = wanted.marker is None or any(
                wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras))
            if holds:
                todo.append((wanted.name.lower().replace("_", "-"), frozenset(wanted.extras)))
    return found


def test_the_lock_holds_exactly_what_production_needs() -> None:
    assert set(LOCKED) == needed(PRODUCTION)


def test_every_locked_version_is_the_pinned_one() -> None:
    everything = DIRECT | DEVELOPMENT | TRANSITIVE
    assert {name: everything.get(name) for name in LOCKED} == LOCKED


def test_every_pin_is_used_and_everything_used_is_pinned() -> None:
    assert set(DIRECT | DEVELOPMENT | TRANSITIVE) == needed(PRODUCTION + TOOLS)


def test_what_development_needs_is_locked_apart_from_production() -> None:
    assert set(LOCKED_APART) == needed(TOOLS)
    assert {name: LOCKED_APART.get(name) for name in DEVELOPMENT} == DEVELOPMENT
    assert {name: LOCKED.get(name) for name in DIRECT} == DIRECT
    assert not set(DEVELOPMENT) & set(LOCKED), "production would install a tool of development"


def test_a_package_in_both_locks_has_one_version() -> None:
    both = set(LOCKED) & set(LOCKED_APART)
    assert both and {name: LOCKED_APART[name] for name in both} == {name: LOCKED[name] for name in both}


def test_what_serves_in_a_container_is_the_part_of_production_that_it_needs() -> None:
    direct = ("numpy", "onnxruntime", "uvloop")
    assert set(locked(SERVING)) == needed([f"{name}=={DIRECT[name]}" for name in direct])
    assert locked(SERVING).items() <= LOCKED.items()


@pytest.mark.parametrize("lock", [LOCK, APART, SERVING], ids=["production", "development", "serving"])
def test_every_locked_version_has_hashes(lock: str) -> None:
    entries = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)[1:]
    assert entries and all("--hash=sha256:" in entry for entry in entries)


def test_what_is_installed_is_what_is_pinned() -> None:
    for name, version in (DIRECT | TRANSITIVE).items():
        assert importlib.metadata.version(name) == version


def test_no_file_names_an_index() -> None:
    for path in (ROOT / "pyproject.toml", ROOT / "requirements.lock", ROOT / "requirements-dev.lock",
                 ROOT / "engine" / "reproduce" / "rendering" / "serving.lock", ROOT / ".ci" / "run"):
        text = path.read_text()
        assert "index-url" not in text.replace("--no-emit-index-url", "") and "://" not in text, path


def test_python_is_fixed_to_one_minor() -> None:
    assert (ROOT / ".python-version").read_text().strip() == "3.11"
    assert PROJECT["project"]["requires-python"] == "==3.11.*"
