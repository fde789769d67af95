"""Where a journal may live: not on a network filesystem."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import JournalUnavailable
from engine.journal.filesystems import mount_of, parse, refuse_network

MOUNTINFO = r"""
22 27 0:21 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 22 0:40 / /srv/shared rw,relatime - nfs4 server:/export rw,vers=4.2
31 30 0:41 / /srv/shared/local rw,relatime - xfs /dev/vdb rw
32 22 0:42 / /mnt/with\040space rw - fuse.sshfs me@host: rw,user_id=0
33 22 0:43 / /mnt/c rw,noatime - 9p C:\134 rw,dirsync,aname=drvfs;path=C:\;uid=0,trans=fd,rfd=4
34 22 0:44 / /sandbox rw - 9p none rw,trans=fd,rfdno=4,aname=/
35 22 0:45 / /vm rw - 9p share rw,trans=virtio
36 22 0:46 / /srv/over rw - nfs server:/a rw
37 22 0:47 / /srv/over rw - tmpfs tmpfs rw
38 22 0:48 / /win rw - cifs //server/share rw
not a mount
"""


@pytest.mark.parametrize(("path", "fstype", "refused"), [
    ("/home/me/x", "ext4", False), ("/srv/shared/opsdeck", "nfs4", True), ("/srv/shared", "nfs4", True),
    ("/srv/shared/local/home", "xfs", False), ("/srv/sharedness", "ext4", False),
    ("/mnt/with space/x", "fuse.sshfs", True), ("/mnt/c/home", "9p", True), ("/sandbox/home", "9p", False),
    ("/vm/home", "9p", True), ("/srv/over/home", "tmpfs", False), ("/win/home", "cifs", True)])
def test_the_innermost_mount_decides(path: str, fstype: str, refused: bool, tmp_path: Path) -> None:
    mount = mount_of(Path(path), parse(MOUNTINFO))
    assert mount is not None
    assert (mount.fstype, mount.network) == (fstype, refused)
    listed = tmp_path / "mountinfo"
    listed.write_text(MOUNTINFO)
    if not refused:
        refuse_network(Path(path), listed)
        return
    with pytest.raises(JournalUnavailable, match="network filesystem") as error:
        refuse_network(Path(path), listed)
    assert fstype in error.value.message and "local disk" in str(error.value.hint)


def test_where_the_kernel_does_not_say_nothing_is_refused(tmp_path: Path) -> None:
    refuse_network(tmp_path, tmp_path / "no such file")
