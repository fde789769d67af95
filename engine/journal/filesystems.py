"""Which filesystem a path lies on, and whether a journal may live there.

SQLite relies on POSIX locks and on fsync; over a network filesystem neither can be trusted
(https://sqlite.org/faq.html#q5), so such a home is refused instead of corrupted some night.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from engine.errors import JournalUnavailable

NETWORK = frozenset({
    "nfs", "nfs3", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "ncpfs", "afs", "ceph", "coda",
    "glusterfs", "lustre", "gpfs", "beegfs", "davfs", "prl_fs", "vboxsf", "fuse.sshfs", "fuse.s3fs",
    "fuse.goofys", "fuse.rclone", "fuse.glusterfs", "fuse.ceph-fuse", "fuse.davfs2", "fuse.gcsfuse",
    "fuse.vmhgfs-fuse", "fuse.smbnetfs", "fuse.juicefs",
})
MOUNTS = Path("/proc/self/mountinfo")


class Mount(NamedTuple):
    """One line of mountinfo: where it is mounted, its type and its super options."""

    point: str
    fstype: str
    options: frozenset[str]

    @property
    def network(self) -> bool:
        """9p is local when a sandbox's own root comes through it, and not when it is a shared drive."""
        if self.fstype == "9p":
            remote = {"trans=tcp", "trans=virtio", "trans=rdma", "trans=xen"}
            return bool(self.options & remote) or any("drvfs" in o for o in self.options)
        return self.fstype in NETWORK


def parse(mountinfo: str) -> list[Mount]:
    """The mounts of a `/proc/self/mountinfo` text (proc(5)), in its order; odd lines are left out."""
    mounts = []
    for line in mountinfo.splitlines():
        left, found, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if not found or len(fields) < 5 or not tail:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[4])
        options = frozenset(",".join(tail[2:]).replace(";", ",").split(","))
        mounts.append(Mount(point, tail[0], options))
    return mounts


def mount_of(path: Path, mounts: list[Mount]) -> Mount | None:
    """The mount that holds an absolute, resolved path: the longest prefix, the latest among equals."""
    best = None
    for mount in mounts:
        inside = mount.point == "/" or path == Path(mount.point) or path.is_relative_to(mount.point)
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def refuse_network(path: Path, mountinfo: Path = MOUNTS) -> None:
    """Raise JournalUnavailable when `path` would lie on a network filesystem.

    Where the kernel does not say what is mounted, nothing is refused.
    """
    try:
        text = mountinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    mount = mount_of(path.resolve(), parse(text))
    if mount is not None and mount.network:
        raise JournalUnavailable(
            f"the journal cannot live on a network filesystem: {mount.point} is {mount.fstype}",
            where=str(path), hint="point --home or OPSDECK_HOME at a local disk")
