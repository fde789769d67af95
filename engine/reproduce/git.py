"""The Git state of a project: which commit, and a digest of every uncommitted change.

The digest is of contents, not of a diff's text: what `git diff` prints depends on its version and on
settings. It covers changed, deleted and added files, staged or not, untracked ones that are not ignored,
the executable bit, links by their target, and submodules in the same way. Paths that somebody marked
`assume-unchanged` or `skip-worktree` are hidden from Git, and so from this.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ActionFailed, UsageError
from engine.reproduce import canonical, digests
from engine.reproduce.parts import Code

PATCH_LIMIT = 64 << 20
TIMEOUT_S = 120.0
# Whatever the user's settings say: no program is started, and nothing is left out.
SETTINGS = ["-c", "core.fsmonitor=false", "-c", "core.quotePath=false", "-c", "core.hooksPath=/dev/null"]

# What is not the project's own, where no Git tells.
EXCLUDED = (".git", ".venv", "__pycache__", "*.pyc", ".mypy_cache", ".pytest_cache", ".ruff_cache", "mlruns")


@dataclass(frozen=True)
class Change:
    """One uncommitted change: `mark` is `deleted`, or what the path is now, with its digest."""

    path: str
    mark: str


def state(folder: Path) -> Code | None:
    """The state of the repository that holds `folder`, or None if there is none. Blocking.

    Raises UsageError where Git is missing, the repository has no commit yet, or Git refuses it.
    """
    top = toplevel(folder)
    if top is None:
        return None
    done = git(top, "rev-parse", "--verify", "--quiet", "HEAD^{commit}", ok=(0, 1, 128))
    if done.returncode:
        raise UsageError("The repository has no commit yet.", where=str(top),
                         hint="Commit the project first: git add, git commit.")
    found = changes(top)
    listed = [[change.path, change.mark] for change in found]
    inside = folder.resolve().relative_to(top).as_posix()
    return Code(commit=done.stdout.decode().strip(), dirty=canonical.digest(listed) if found else None,
                changed=[change.path for change in found], remote=_remote(top),
                folder="" if inside == "." else inside)


def code(folder: Path, aside: Sequence[str] = ()) -> Code:
    """The project's Git state, or outside a repository the digest of its files but those that match `aside`,
    as `digests.folder` excludes them. Blocking. Raises as `state` and `digests.folder` do."""
    return state(folder) or Code(sources=digests.folder(folder, [*EXCLUDED, *aside]).sha256,
                                 aside=list(aside))


def toplevel(folder: Path) -> Path | None:
    """The root of the working tree around `folder`; None outside any. Raises UsageError as `state` does."""
    if not folder.is_dir():
        raise UsageError("There is no such folder.", where=str(folder), hint="Name the project's folder.")
    done = git(folder, "rev-parse", "--show-toplevel", ok=(0, 128))
    if done.returncode == 0:
        return Path(os.fsdecode(done.stdout.rstrip(b"\n"))).resolve()
    told = done.stderr.decode(errors="replace")
    if "not a git repository" in told:
        return None
    owned = re.search(r"dubious ownership in repository at '(.+)'", told)
    if owned is None:
        raise UsageError(f"Git does not read this repository: {_first(told)}.", where=str(folder))
    raise UsageError("Git does not read this repository: it belongs to another user, whose settings could "
                     f"have programs run as {_user()}.", where=owned[1],
                     hint=f"A clone that belongs to {_user()} is safe; or let {_user()} trust it: git config "
                          f"--global --add safe.directory {owned[1]}")


def changes(top: Path) -> list[Change]:
    """Every uncommitted change of the working tree at `top`, sorted by path. Blocking."""
    done = git(top, "status", "--porcelain=v2", "-z", "--untracked-files=all", "--no-renames",
               "--ignore-submodules=none", "--ignored=no")
    found = {}
    for entry in filter(None, done.stdout.split(b"\0")):
        if entry[:1] in (b"1", b"u"):
            path, submodule = entry.split(b" ", 8 if entry[:1] == b"1" else 10)[-1], entry[5:6] == b"S"
        elif entry[:1] == b"?":
            path, submodule = entry[2:], entry.endswith(b"/")
        else:
            continue
        name = path.decode(errors="backslashreplace").rstrip("/")
        found[name] = Change(name, _mark(top / os.fsdecode(path), submodule))
    return [found[name] for name in sorted(found)]


def patch(folder: Path, limit: int = PATCH_LIMIT) -> bytes:
    """What `git apply` needs to make the uncommitted changes anew on the commit; empty when clean. Blocking.

    The repository is not touched: index and objects of the work are kept in a folder aside. Raises
    UsageError outside a repository, ActionFailed when the patch would be larger than `limit` bytes.
    """
    top = toplevel(folder)
    if top is None:
        raise UsageError("This folder is not in a Git repository.", where=str(folder))
    objects = os.fsdecode(git(top, "rev-parse", "--git-path", "objects").stdout.rstrip(b"\n"))
    sizes = sum(_size(top / change.path) for change in changes(top))
    if sizes > limit:
        raise _too_large(top, limit)
    with tempfile.TemporaryDirectory(prefix="opsdeck-patch-") as aside:
        variables = {"GIT_INDEX_FILE": f"{aside}/index", "GIT_OBJECT_DIRECTORY": f"{aside}/objects",
                     "GIT_ALTERNATE_OBJECT_DIRECTORIES": str((top / objects).resolve())}
        Path(aside, "objects").mkdir()
        git(top, "read-tree", "HEAD", variables=variables)
        git(top, "add", "--all", variables=variables)
        made = git(top, "diff", "--cached", "--binary", "--full-index", "--no-renames", "--no-color",
                   "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/", "HEAD",
                   variables=variables).stdout
    if len(made) > limit:
        raise _too_large(top, limit)
    return made


def tracked(folder: Path) -> frozenset[str]:
    """The paths under `folder` that Git tracks, relative to it; none outside a repository. Blocking."""
    if toplevel(folder) is None:
        return frozenset()
    listed = git(folder, "ls-files", "-z").stdout.split(b"\0")
    return frozenset(os.fsdecode(path) for path in listed if path)


def has_commit(folder: Path, commit: str) -> bool:
    """Whether the repository around `folder` holds the commit. Blocking."""
    return git(folder, "cat-file", "-e", f"{commit}^{{commit}}", ok=(0, 1, 128)).returncode == 0


def content(folder: Path, commit: str, path: str) -> bytes | None:
    """A file's bytes at a commit, `path` from the repository's root; None if it is not there. Blocking."""
    done = git(folder, "cat-file", "blob", f"{commit}:{path}", ok=(0, 1, 128))
    return done.stdout if done.returncode == 0 else None


def git(folder: Path, *arguments: str, ok: tuple[int, ...] = (0,), variables: dict[str, str] | None = None
        ) -> subprocess.CompletedProcess[bytes]:
    """Git's answer, from `folder`, past the caller's GIT_* variables and settings that change output.

    Raises UsageError without Git, ActionFailed for an exit code that is not in `ok` or after two minutes.
    """
    scrubbed = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    scrubbed |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", **(variables or {})}
    try:
        done = subprocess.run(["git", "--no-pager", *SETTINGS, *arguments], cwd=folder, env=scrubbed,
                              stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=TIMEOUT_S)
    except FileNotFoundError as error:
        raise UsageError("Git is not installed, so the code's version is not known.",
                         hint="Install Git.") from error
    except subprocess.TimeoutExpired as error:
        raise ActionFailed(f"Git did not answer within {TIMEOUT_S:.0f} s to git {arguments[0]}.",
                           where=str(folder), hint="Look at the repository's filesystem.") from error
    if done.returncode not in ok:
        raise ActionFailed(f"Git failed: {_first(done.stderr.decode(errors='replace'))}.", where=str(folder),
                           hint=f"Try it by hand: git {' '.join(arguments[:2])}")
    return done


def _mark(path: Path, submodule: bool) -> str:
    try:
        about = path.lstat()
    except FileNotFoundError:
        return "deleted"
    if stat.S_ISLNK(about.st_mode):
        return "link " + hashlib.sha256(os.fsencode(path.readlink())).hexdigest()
    if stat.S_ISDIR(about.st_mode):
        if not submodule or toplevel(path) != path.resolve():
            return "folder"
        head = git(path, "rev-parse", "--verify", "--quiet", "HEAD", ok=(0, 1, 128)).stdout.decode().strip()
        return "repository " + canonical.digest([head, [[one.path, one.mark] for one in changes(path)]])
    executable = "executable " if about.st_mode & stat.S_IXUSR else "file "
    return executable + digests.file(path).sha256


def _remote(top: Path) -> str | None:
    done = git(top, "config", "--get", "remote.origin.url", ok=(0, 1))
    address = done.stdout.decode(errors="replace").strip()
    return re.sub(r"(?<=://)[^/@]*@", "", address) or None


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def _first(told: str) -> str:
    lines = told.strip().splitlines()
    return lines[0].removeprefix("fatal: ").rstrip(".") if lines else "it gave no reason"


def _too_large(top: Path, limit: int) -> ActionFailed:
    return ActionFailed(f"The uncommitted changes come to more than {limit >> 20} MiB, so no patch is kept.",
                        where=str(top), hint="Commit them, or put large files into .gitignore.")
