"""What a release needs of the files: the staged model checked against what was registered, production's lock
and image, the model's folder put in place, and the tag of the commit. Blocking, without heavy imports."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ActionFailed, Conflict, OpsdeckError
from engine.pipeline.building import places
from engine.pipeline.project.model import Project, Release, Slot
from engine.pipeline.project.reading import read
from engine.reproduce import digests, git
from engine.reproduce import manifest as manifests
from engine.reproduce.manifest import Manifest
from engine.reproduce.parity import Side, require
from engine.reproduce.parts import Image, Lock
from engine.serving import manifest as serving

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of fcntl.h and linux/fs.h
RUN = "run.json"  # beside a served model: the manifest of the run that made it


@dataclass(frozen=True)
class Ready:
    """A run's model that may be released. `source` is the staged folder, `digest` its manifest's SHA-256,
    `made` the manifest of the run."""

    project: Project
    folder: Path
    plan: Release
    version: str
    source: Path
    digest: str
    made: Manifest

    @property
    def tag(self) -> str:
        return f"release/{self.project.model}-{self.version}"

    @property
    def about(self) -> str:
        return f"{self.project.model} version {self.version}"


def ready(home: Path, folder: Path, run: str, *, version: str, manifest_sha256: str, model_manifest: str
          ) -> Ready:
    """The model that a run has registered and staged, if it is byte for byte the one that was approved.

    Raises ActionFailed or Conflict for what is missing, or is something else by now.
    """
    project = read(folder)
    if project.release is None:
        raise ActionFailed("The project says nothing of a release.", where=str(folder),
                           hint="Add `release` to opsdeck.pipeline.yaml: service, folder and process.")
    at = places.of(home, project.project)
    found = at.results(run)
    for stage in ("register", "staging"):
        if stage not in found or not found[stage].get("passed"):
            raise ActionFailed(f"This run has not passed its stage {stage}.", where=f"run {run}",
                               hint="A release is for a model that is registered and was staged.")
        if str(found[stage]["result"].get("version")) != version:
            raise _other(f"stage {stage} is of version {found[stage]['result'].get('version')}", version)
    registered, staged = at.output_of(found["register"]), at.output_of(found["staging"]) / "model"
    made = manifests.read(_bytes(registered / "manifest.json"), str(registered / "manifest.json"))
    if made.sha256 != manifest_sha256:
        raise _other("the manifest of the run is another", version)
    served = serving.verify(staged, model_manifest)
    known = made.known.artifacts.get(serving.MODEL)
    if served.version != version or known is None or served.files.get(serving.MODEL) != known.sha256:
        raise _other("the staged model is not the one that was registered", version)
    return Ready(project, folder, project.release, version, staged, model_manifest, made)


def production(plan: Release, folder: Path, champion: Path | None) -> tuple[Side | None, str]:
    """What production has installed, and how that is known; None where nothing says it.

    `champion` is the manifest.json beside the model that has the traffic, which has the run that made it
    beside it. Raises ActionFailed or UsageError for files that cannot be read.
    """
    if plan.lock is not None or plan.image is not None:
        lock = Lock(plan.lock, digests.file(folder / plan.lock).sha256) if plan.lock is not None else None
        reference, _, digest = (plan.image or "").partition("@")
        return Side(lock, Image(reference, digest) if digest else None), "the project's `release`"
    beside = None if champion is None else champion.with_name(RUN)
    if beside is None or not beside.is_file():
        return None, "nothing"
    made = manifests.read(_bytes(beside), str(beside)).known
    return Side(made.lock, made.image), "the champion's manifest"


def same_installed(of: Ready, champion: Path | None) -> str:
    """How production's lock and image are known to be staging's. Raises Conflict where they are not."""
    side, by = production(of.plan, of.folder, champion)
    if side is None:
        return "production's lock is not recorded yet, so it was compared with nothing"
    require(Side(of.made.known.lock, of.made.known.image), side)
    return f"production's lock and image are staging's, by {by}"


def choose(plan: Release, weights: Mapping[str, float]) -> Slot:
    """The slot whose variant has the least traffic. Raises ActionFailed where each has most of it, or the
    router does not know it."""
    for slot in plan.slots():
        if slot.variant not in weights:
            raise ActionFailed(f"The router of {plan.service} has no variant {slot.variant}.",
                               hint=f"It has {', '.join(sorted(weights))}.")
    slot = min(plan.slots(), key=lambda one: weights[one.variant])
    if weights[slot.variant] >= max(share for name, share in weights.items() if name != slot.variant):
        raise ActionFailed(
            f"{slot.variant} has {weights[slot.variant]:g} % of the traffic of {plan.service}, and a release "
            "would replace what it serves.",
            hint="Name a second place in opsdeck.pipeline.yaml, `release: other`, or move the traffic first.")
    return slot


def laid_out(target: Path) -> str | None:
    """The version that a slot's folder holds, None where it holds none that is whole."""
    try:
        return serving.verify(target).version
    except OpsdeckError:
        return None


def lay_out(of: Ready, target: Path) -> bool:
    """Put a copy of the staged folder in place by a rename; False where it is there already.

    A server that starts meanwhile finds the old model or the new one. Raises ActionFailed.
    """
    try:
        if serving.verify(target).sha256 == of.digest:
            return False
    except OpsdeckError:
        pass  # it holds another model, a damaged one or none: it is replaced
    fresh = target.with_name(f".{target.name}.fresh")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not target.exists() and _old(target).exists():  # killed between two renames
            _old(target).rename(target)
        shutil.rmtree(fresh, ignore_errors=True)  # of one that was killed
        shutil.copytree(of.source, fresh, symlinks=True)
        serving.verify(fresh, of.digest)
        _exchange(fresh, target)
        shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise ActionFailed(f"The model cannot be laid out: {error.strerror or error}.", where=str(target),
                           hint="Look at the folder's permissions and the disk's space.") from error
    return True


def _exchange(fresh: Path, target: Path) -> None:
    """Put a folder in another's place, which takes its own, in one call of the kernel; see renameat2(2).

    By two renames on a filesystem that knows no such call, such as NFS. Raises OSError.
    """
    if not target.exists():
        fresh.rename(target)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, os.fsencode(fresh), AT_FDCWD, os.fsencode(target), RENAME_EXCHANGE) == 0:
        return
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(number, os.strerror(number), str(target))
    target.rename(_old(target))
    fresh.rename(target)
    _old(target).rename(fresh)


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def taggable(of: Ready) -> str | None:
    """The commit that the release's tag is for, None outside a repository. Raises Conflict where the tag is
    another commit's, ActionFailed where the repository does not have the commit."""
    commit = of.made.known.code.commit
    if commit is None or git.toplevel(of.folder) is None:
        return None
    name = f"refs/tags/{of.tag}^{{commit}}"
    held = git.git(of.folder, "rev-parse", "--verify", "--quiet", name, ok=(0, 1, 128))
    at = held.stdout.decode().strip()
    if at and at != commit:
        raise Conflict(f"The tag {of.tag} is at commit {at[:12]}, and this model was made of {commit[:12]}.",
                       where=str(of.folder), hint="A tag of a release is never moved. Look at where it comes "
                                                  "from; git tag -d takes a wrong one away.")
    if not git.has_commit(of.folder, commit):
        raise ActionFailed(f"The repository does not have the commit {commit[:12]} of this model.",
                           where=str(of.folder), hint="Fetch it: git fetch --all")
    return None if at else commit


def tag(of: Ready, run: str) -> None:
    """Tag the commit, unless it is. Raises as `taggable` does."""
    commit = taggable(of)
    if commit is None:
        return
    dirty = of.made.known.code.dirty
    message = (f"{of.about}, released by run {run}\n\nmanifest {of.made.sha256}"
               + (f"\nwith uncommitted changes {dirty}" if dirty else ""))
    git.git(of.folder, "-c", "user.name=Opsdeck", "-c", "user.email=opsdeck@localhost", "-c",
            "tag.gpgSign=false", "tag", "--annotate", "--message", message, of.tag, commit)


def _other(what: str, version: str) -> Conflict:
    return Conflict(f"What would be released is not version {version} as it was approved: {what}.",
                    hint="Run the pipeline again; nothing was changed.")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ActionFailed(f"The file cannot be read: {error.strerror}.", where=str(path)) from error
