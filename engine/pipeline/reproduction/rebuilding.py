"""The code and the data of a run, as they were, in a folder of their own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from engine.errors import ActionFailed, Conflict, OpsdeckError
from engine.pipeline.reproduction.finding import Found
from engine.reproduce import digests, git
from engine.reproduce.checks import Checked, Places, check
from engine.reproduce.parts import Dataset
from engine.reproduce.rebuild import Step

Say = Callable[[str, str], None]  # the step's name, and a sentence
FIRST = ("commit", "worktree", "patch", "lock")  # what can be looked at before anything is done


class NotAgain(OpsdeckError):
    """It cannot be rebuilt; the message says what is missing."""

    code = "not_again"
    exit_code = 2


def look(steps: Iterable[Step], found: Found, root: Path) -> None:
    """Whether commit, folder, patch, lock and the objects on S3 are there; changes nothing. Raises NotAgain,
    with all that is missing."""
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise NotAgain("The folder to rebuild in is not empty.", where=str(root),
                       hint="Name another: --in DIR")
    at = Places(found.folder, found.folder, found.kept)
    missing = [one for one in (check(step, at) for step in steps if step.kind in FIRST or _remote(step))
               if one.state in ("missing", "differs")]
    if missing:
        raise NotAgain(" ".join(one.sentence for one in missing),
                       where=", ".join(one.step.id for one in missing),
                       hint=" ".join(_hint(one) for one in missing).strip() or None)


def checkout(found: Found, code: Path, say: Say) -> Path:
    """The project's folder as it was, below `code`: the commit with its patch, or a copy of files that are
    still the same. Raises NotAgain where it is not what was recorded."""
    known = found.manifest.known.code
    if known.commit is None:
        shutil.copytree(found.folder, code, symlinks=True, ignore=shutil.ignore_patterns(*git.EXCLUDED))
        say("code", "the project is in no repository; its files are those of the run")
        return code
    git.git(found.folder, "worktree", "add", "--detach", "--force", str(code), known.commit)
    say("code", f"commit {known.commit[:12]} is checked out in {code}")
    if known.dirty is not None:
        patch = found.kept[known.patch or ""].resolve()
        git.git(code, "apply", "--binary", "--whitespace=nowarn", str(patch))
        say("code", f"the {len(known.changed)} uncommitted changes are applied")
    now = git.state(code)
    if now is None or (now.commit, now.dirty) != (known.commit, known.dirty):
        raise NotAgain("The code that was checked out is not that of the run.", where=str(code),
                       hint="Filters of Git change files; look at .gitattributes and `git config --list`.")
    if (code / ".gitmodules").exists():
        say("code", "its submodules are not fetched; training fails where it needs them")
    return code / known.folder if known.folder else code


def leave(found: Found, code: Path) -> None:
    """Have the repository forget a checkout."""
    if found.manifest.known.code.commit is not None and code.exists():
        git.git(found.folder, "worktree", "remove", "--force", "--force", str(code))


def data(found: Found, folder: Path, say: Say) -> None:
    """See that the data of the run is there, before it is read: in the checkout, or on S3 as `look` found.
    Raises NotAgain."""
    for name, entry in sorted(found.manifest.known.data.items()):
        if not entry.versioned:
            raise NotAgain(f"{entry.uri} was recorded without a version or digest.", where=f"data {name}",
                           hint="Nothing can tell whether it is still the same.")
        if entry.kind == "derived":
            _sources(entry, folder, say)
        elif entry.kind == "s3":
            say("data", f"{entry.uri} is there in the version of the run")
        else:
            _local(entry, found.folder, folder, say)


def same(recorded: Dataset, now: Dataset, say: Say) -> None:
    """Raises Conflict where what was read is not what the run read."""
    if (recorded.sha256, recorded.version) != (now.sha256, now.version):
        raise Conflict(f"{now.uri} is not the data of the run: its "
                       f"{'digest' if recorded.sha256 else 'version'} is another.", where="data",
                       hint="It was changed since, or is made otherwise than it was; "
                            f"the run's begins with {(recorded.sha256 or recorded.version or '')[:12]}.")
    say("data", f"{now.uri} is that of the run: {(now.sha256 or now.version or '')[:12]}")


def _sources(entry: Dataset, folder: Path, say: Say) -> None:
    assert entry.derived is not None or entry.sha256
    for path, digest in sorted(entry.derived.sources.items() if entry.derived else ()):
        at = folder / path
        if not at.exists() or digests.local(at).sha256 != digest:
            raise NotAgain(f"{path}, which the data is made from, is not that of the run.", where="data",
                           hint=f"Find the version whose digest begins with {digest[:12]}.")
    say("data", f"{entry.uri} is made again by {' '.join(entry.derived.command) if entry.derived else 'it'}")


def _local(entry: Dataset, before: Path, folder: Path, say: Say) -> None:
    target = folder / entry.uri
    if target.exists() and digests.local(target).sha256 == entry.sha256:
        say("data", f"{entry.uri} is in the checkout, as it was")
        return
    source = before / entry.uri
    if not source.exists():
        raise NotAgain(f"{entry.uri} is neither in the commit nor in {before}.", where="data",
                       hint=f"Put the data there whose digest begins with {(entry.sha256 or '')[:12]}.")
    if digests.local(source).sha256 != entry.sha256:
        raise NotAgain(f"{entry.uri} has other content than at the run.", where=str(source),
                       hint=f"Find the version whose digest begins with {(entry.sha256 or '')[:12]}.")
    try:
        if target.is_dir():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)
    except OSError as error:
        raise ActionFailed(f"The data cannot be copied: {error}", where=str(target)) from error
    say("data", f"{entry.uri} is copied from {before}; its digest is the run's")


def _hint(one: Checked) -> str:
    return f"{one.hint.rstrip('.')}." if one.hint else ""


def _remote(step: Step) -> bool:
    return step.kind == "data" and step.facts["entry"].kind == "s3"
