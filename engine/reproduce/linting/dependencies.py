"""Packages that are not pinned, in requirements files, pyproject.toml, conda and container files. Pure.

A lock beside them (uv.lock, poetry.lock, …) pins everything; then ranges in the other files are no finding.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

from engine.reproduce.linting.finding import MARK, Finding

LOCKS = frozenset({"uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "requirements.lock", "pylock.toml",
                   "conda-lock.yml", "conda-lock.yaml", "pixi.lock"})
REQUIREMENTS = re.compile(r"(?:.*[-_])?requirements(?:[-_.].*)?\.txt$")
CONDA = re.compile(r"(?:environment|conda)(?:[-_.].*)?\.ya?ml$")
CONTAINER = re.compile(r"(?:Dockerfile|Containerfile)(?:\..*)?$|.*\.dockerfile$")
PINNED = re.compile(r"===?\s*[^*\s,;]+$")
COMMIT = re.compile(r"@[0-9a-f]{40}\b")
HASHED = re.compile(r"#(?:.*&)?sha(?:256|384|512)=[0-9a-f]{64,}|--hash=sha(?:256|384|512):")
LOCAL = re.compile(r"(?:-e\s+|--editable[ =])?(?:\.{1,2}(?:/|$|\[)|file:)")
WHY = "A new version of it changes the result, or breaks the run, on a day nobody chose."


def requirements(path: str, text: str) -> Iterator[Finding]:
    """The lines of a requirements file that allow more than one version."""
    joined, start = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        start = start if joined else number
        joined += raw.rstrip("\\") if raw.endswith("\\") else raw
        if raw.endswith("\\"):
            joined += " "
            continue
        line, joined = joined, ""
        what = None if MARK in line else unpinned(re.sub(r"(?:^|\s)#.*", "", line).strip())
        if what:
            yield Finding("dependency", path, start, what, WHY,
                          "Pin it with ==, or compile the file: uv pip compile requirements.in "
                          "--generate-hashes -o requirements.txt")


def unpinned(requirement: str) -> str | None:
    """What is wrong with one requirement, or None if it means one version."""
    if not requirement or LOCAL.match(requirement) or HASHED.search(requirement):
        return None
    if requirement.startswith("-") and not requirement.startswith(("-e ", "--editable")):
        return None
    name = re.split(r"[\s\[<>=!~;@]", requirement, maxsplit=1)[0]
    if "://" in requirement:
        return None if COMMIT.search(requirement) else \
            f"{requirement.split()[0][:60]} is taken from an address, at no fixed commit or digest"
    version = requirement.partition(";")[0].strip()
    if PINNED.search(version) and "," not in version:
        return None
    return f"{name} is not pinned to one version" + (f" ({version[len(name):].strip()[:40]})"
                                                     if version[len(name):].strip() else "")


def pyproject(path: str, text: str, locked: bool) -> Iterator[Finding]:
    """One finding for the dependencies of a pyproject.toml that has no lock beside it and holds ranges."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        yield Finding("unreadable", path, 1, f"This is not TOML: {error}.", "Its dependencies are not known.",
                      "Mend the file.")
        return
    project, poetry = content.get("project", {}), content.get("tool", {}).get("poetry", {})
    if locked or not (isinstance(project, dict) and isinstance(poetry, dict)):
        return
    listed = [str(one) for one in project.get("dependencies", [])]
    loose = [re.split(r"[\s\[<>=!~;@]", one, maxsplit=1)[0] for one in listed if unpinned(one)]
    loose += [name for name, wanted in poetry.get("dependencies", {}).items()
              if name != "python" and not re.fullmatch(r"(?:==)?\d[\w.]*", str(wanted))]
    if loose:
        more = f" and {len(loose) - 4} more" if len(loose) > 4 else ""
        at = next((number for number, line in enumerate(text.splitlines(), 1)
                   if re.match(r"\s*(?:dependencies\s*=|\[tool\.poetry\.dependencies)", line)), 1)
        if MARK not in text.splitlines()[at - 1]:
            named = f"{', '.join(loose[:4])}{more}"
            yield Finding("dependency", path, at, f"no lock, and no one version of {named}", WHY,
                          "Lock them and commit the lock: uv lock (or poetry lock).")


def conda(path: str, text: str) -> Iterator[Finding]:
    """The lines of a conda environment that allow more than one version."""
    part, pip, indent = "", False, 0
    for number, line in enumerate(text.splitlines(), 1):
        top = re.match(r"(\w+):", line)
        if top:
            part, pip = top[1], False
        item = re.match(r"(\s*)-\s+(.+?)\s*(?:#.*)?$", line)
        if part != "dependencies" or not item or MARK in line:
            continue
        found, depth = item[2].strip("\"'"), len(item[1])
        if found == "pip:":
            pip, indent = True, depth
            continue
        pip = pip and depth > indent
        if found in ("pip", "pip:"):
            continue
        what = unpinned(found) if pip else None if re.search(r"[^<>!~=]={1,2}\d[^*,<>]*$", found) else \
            f"{re.split('[ <>=!]', found)[0]} is not pinned to one version"
        if what:
            yield Finding("dependency", path, number, what, WHY,
                          "Pin it (conda: name=1.2.3, pip: name==1.2.3), or make a lock with conda-lock.")


def container(path: str, text: str) -> Iterator[Finding]:
    """Base images that are not named by their digest."""
    stages: set[str] = set()
    for number, line in enumerate(text.splitlines(), 1):
        found = re.match(r"\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?", line, re.IGNORECASE)
        if not found or MARK in line:
            continue
        image = found[1]
        fixed = image in stages or image == "scratch" or "@sha256:" in image or image.startswith("$")
        stages.add(found[2] or "")
        if not fixed:
            yield Finding("dependency", path, number, f"the image {image} is not named by its digest",
                          "The tag can lead to another image tomorrow.",
                          f"Write {image}@sha256:…, as docker pull prints it.")
