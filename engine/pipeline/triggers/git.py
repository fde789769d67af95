"""Commits: a branch is looked at, and what it holds is laid out in a folder of its own for a run.

The repository is copied into a bare mirror in the engine's home. Nothing of it is run: no hook, no filter
and no setting of it holds, and only `https`, `http`, `ssh`, `git` and local paths are taken. Credentials are
those of the engine's user (a helper, an SSH agent or key); where an address has some, they are not shown.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ActionFailed, NotFound, UsageError
from engine.pipeline.triggers import commands
from engine.procedures.output import harmless

LOOK_WITHIN = 60.0
FETCH_WITHIN = 600.0
KEPT_FOLDERS = 8  # of a project, beside those in use
_SETTINGS = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "gc.auto=0",
             "-c", "maintenance.auto=false", "-c", "protocol.ext.allow=never",
             "-c", "submodule.recurse=false", "-c", "fetch.recurseSubmodules=false")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_KEEP = ("PATH", "HOME", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "SSL_CERT_FILE", "HTTPS_PROXY",
         "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "TMPDIR", "XDG_CONFIG_HOME")


@dataclass(frozen=True)
class Commit:
    """`changed`: whether anything under the paths that count differs from the commit before."""

    id: str
    summary: str
    changed: bool


class Mirror:
    """One branch of one repository, mirrored under `home` (a folder of the engine's own)."""

    def __init__(self, home: Path, repository: str, branch: str, environ: Mapping[str, str] = os.environ
                 ) -> None:
        """Raises UsageError for an address or a branch that Git could take for something else."""
        if repository.startswith("-") or "::" in repository.split("/")[0] or "\n" in repository:
            raise UsageError(f"{shown(repository)} is not a repository's address",
                             hint="write a path, or an address such as https://host/team/project.git")
        if branch.startswith("-") or not re.fullmatch(r"[^\x00-\x20~^:?*\[\\]+", branch) or ".." in branch:
            raise UsageError(f"{branch!r} is not a branch's name")
        self.repository = repository
        self.branch = branch
        self._bare = home / "repository.git"
        self._folders = home / "commits"
        self._environ = {name: environ[name] for name in _KEEP if name in environ} | {
            "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "/bin/false",
            "SSH_ASKPASS": "/bin/false",
            "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh", "GIT_PROTOCOL_FROM_USER": "0",
            "GIT_CONFIG_NOSYSTEM": "1", "GIT_LFS_SKIP_SMUDGE": "1", "GIT_NO_LAZY_FETCH": "1"}
        self._environ.setdefault("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=15")

    async def head(self) -> str:
        """The branch's commit as the repository has it now; nothing is fetched.

        Raises NotFound where the branch is not there, ActionFailed where the repository does not answer.
        """
        ref = f"refs/heads/{self.branch}"
        told = await self._git("ls-remote", "--", self.repository, ref, within=LOOK_WITHIN)
        for line in told.decode(errors="replace").splitlines():
            id, _, name = line.partition("\t")
            if name == ref and _COMMIT.fullmatch(id):
                return id
        raise NotFound(f"there is no branch {self.branch} in {shown(self.repository)}",
                       hint="look at `commits: branch:` of the project, or push the branch again")

    async def take(self, id: str, before: str | None, paths: list[str]) -> Commit:
        """Fetch a commit that `head` gave, and compare it with the one that was taken before.

        With `paths` (Git's pathspecs, from the repository's root) a commit that changes nothing under them
        is not `changed`. After a force-push the two are compared all the same. Raises as `head` does.
        """
        await self._fetch(id)
        changed = id != before
        if changed and before is not None and paths and await self._has(before):
            done = await self._run("diff", "--quiet", "--no-ext-diff", "--no-textconv", before, id, "--",
                                   *paths, within=LOOK_WITHIN, git_dir=True)
            if done.code not in (0, 1):
                raise self._failed(done)
            changed = done.code == 1
        said = await self._git("log", "-1", "--no-show-signature", "--format=%s", id, within=LOOK_WITHIN,
                               git_dir=True)
        return Commit(id, " ".join(harmless(said.decode(errors="replace")).split())[:100], changed)

    async def folder(self, id: str) -> Path:
        """Where the commit is laid out, whole. Made if it is not there. Raises ActionFailed."""
        if not _COMMIT.fullmatch(id):
            raise UsageError(f"{id[:80]!r} is not a commit")
        folder, ready = self._folders / id, self._folders / f"{id}.ready"
        if ready.exists() and folder.is_dir():
            return folder
        if not await self._has(id):
            await self._fetch(id)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        self._folders.mkdir(parents=True, exist_ok=True)
        self._folders.chmod(0o755)  # a system engine's steps are another user's, and read it
        await self._git("worktree", "prune", within=LOOK_WITHIN, git_dir=True)
        await self._git("worktree", "add", "--force", "--force", "--detach", "--quiet", str(folder), id,
                        within=FETCH_WITHIN, git_dir=True)
        ready.touch()
        return folder

    async def overlook(self, path: str) -> None:
        """Have a path, from the repository's root, not count as a change of the folders laid out."""
        await self._prepare()
        listed = self._bare / "info" / "exclude"
        before = listed.read_text() if listed.exists() else ""
        if f"/{path}" not in before.splitlines():
            listed.parent.mkdir(exist_ok=True)
            listed.write_text(f"{before}/{path}\n")

    async def forget(self, used: set[str]) -> None:
        """Remove the folders of old commits, but for those in use and the newest few. Raises OSError."""
        await asyncio.to_thread(self._forget, used)

    def _forget(self, used: set[str]) -> None:
        if not self._folders.is_dir():
            return
        ready = sorted(self._folders.glob("*.ready"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in ready[KEPT_FOLDERS:]:
            if path.stem not in used:
                path.unlink()
                shutil.rmtree(self._folders / path.stem)

    async def _fetch(self, id: str) -> None:
        await self._prepare()
        if await self._has(id):
            return
        # A ref for each commit keeps what a force-push throws away: a run may have been made of it.
        await self._git("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance",
                        "--", self.repository, f"+refs/heads/{self.branch}:refs/heads/watched",
                        within=FETCH_WITHIN, git_dir=True)
        if not await self._has(id):
            raise ActionFailed(f"{shown(self.repository)} does not hold {id[:12]} any more",
                               hint="it was probably pushed over; the next look finds the new one")
        await self._git("update-ref", f"refs/opsdeck/{id}", id, within=LOOK_WITHIN, git_dir=True)

    async def _prepare(self) -> None:
        if not (self._bare / "HEAD").exists():
            self._bare.parent.mkdir(parents=True, exist_ok=True)
            await self._git("init", "--quiet", "--bare", "--template=", str(self._bare), within=LOOK_WITHIN)

    async def _has(self, id: str) -> bool:
        if not (self._bare / "HEAD").exists():
            return False
        done = await self._run("cat-file", "-e", f"{id}^{{commit}}", within=LOOK_WITHIN, git_dir=True)
        return done.code == 0

    async def _git(self, *arguments: str, within: float, git_dir: bool = False) -> bytes:
        done = await self._run(*arguments, within=within, git_dir=git_dir)
        if done.code != 0:
            raise self._failed(done)
        return done.stdout

    async def _run(self, *arguments: str, within: float, git_dir: bool = False) -> commands.Finished:
        where = ("--git-dir", str(self._bare)) if git_dir else ()
        try:
            return await commands.run(["git", "--no-pager", *_SETTINGS, *where, *arguments],
                                      environ=self._environ, within=within,
                                      cwd=self._bare if git_dir else None)
        except ActionFailed as error:
            raise ActionFailed(f"{shown(self.repository)}: {error.message}",
                               hint="look at the network, and at the repository's server") from error

    def _failed(self, done: commands.Finished) -> ActionFailed:
        lines = [shown(line) for line in done.stderr.splitlines() if line.strip()]
        fatal = [line for line in lines if line.startswith("fatal: ")]
        text = (fatal or lines or ["no reason"])[0].removeprefix("fatal: ").rstrip(".")
        owned = re.search(r"dubious ownership in repository at '(.+)'", text)
        if owned is not None:  # Git asks for the folder and, where another fetches from it, for .git in it
            return ActionFailed(f"{shown(self.repository)} belongs to another user, and Git does not read it",
                                hint="let the engine's user trust it, as that user: "
                                     f"git config --global --add safe.directory {owned[1]}")
        return ActionFailed(f"{shown(self.repository)} cannot be read: {text}",
                            hint="try `git ls-remote` with its address, as the engine's user")


def shown(text: str) -> str:
    """A text without the credentials of the addresses in it."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", text)
