"""The members of zip, tar and compressed files, found by their first bytes, each as a file to read."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import IO, BinaryIO, TypeVar, cast

from engine.errors import ActionFailed

IN_MEMORY = 16 << 20  # a larger member goes through a file
FIRST = "schema.json"  # comes before the others: it names them
UNPACKED = "content"  # the name of what a gzip, bzip2 or xz file holds
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError,
           NotImplementedError)
Opens = Callable[[BinaryIO, str, "Budget"], Iterator[tuple[str, BinaryIO]]]

T = TypeVar("T")


@dataclass
class Budget:
    """How much all archives of one payload may expand to, against those made to fill a disk."""

    bytes: int = 64 << 30
    members: int = 200_000

    def spend(self, size: int, where: str) -> None:
        self.bytes -= size
        if self.bytes < 0:
            raise ActionFailed("This archive expands to more than 64 GiB.", where=where,
                               hint="Look at what it holds before you use it.")


def members(content: BinaryIO, where: str, budget: Budget) -> Iterator[tuple[str, BinaryIO]] | None:
    """Names and contents in the order of the names, or None if `content` cannot be opened as an archive.

    Of two members with one name the second is called `name#2`. Each content is closed when the next is
    asked for. Raises ActionFailed for an archive that turns out damaged or encrypted, and past the budget.
    """
    content.seek(0)
    start = content.read(512)
    content.seek(0)
    opening = next((opens for begins, opens in _KINDS if begins(start)), None)
    if opening is None:
        return None
    try:
        found = opening(content, where, budget)
    except DAMAGED:
        return None  # it only begins like one
    return _guarded(found, where)


def _guarded(found: Iterator[tuple[str, BinaryIO]], where: str) -> Iterator[tuple[str, BinaryIO]]:
    try:
        yield from found
    except DAMAGED as error:
        raise ActionFailed(f"This archive is damaged: {error or type(error).__name__}.", where=where,
                           hint="Make or fetch the file again.") from error


def _zip(content: BinaryIO, where: str, budget: Budget) -> Iterator[tuple[str, BinaryIO]]:
    archive = zipfile.ZipFile(content)
    infos = [one for one in archive.infolist() if not one.is_dir()]
    infos.sort(key=lambda one: (one.filename != FIRST, one.filename))

    def found() -> Iterator[tuple[str, BinaryIO]]:
        for name, info in _named([(one.filename, one) for one in infos], where, budget):
            if info.flag_bits & 1:
                raise ActionFailed("A member of this archive is encrypted, so it cannot be compared.",
                                   where=f"{where}!/{info.filename}")
            with closing(_aside(archive.open(info), where, budget)) as member:
                yield name, member

    return found()


def _tar(content: BinaryIO, where: str, budget: Budget) -> Iterator[tuple[str, BinaryIO]]:
    archive = tarfile.open(fileobj=content, mode="r:")  # noqa: SIM115
    infos = sorted((one for one in archive.getmembers() if not one.isdir()), key=lambda one: one.name)

    def found() -> Iterator[tuple[str, BinaryIO]]:
        for name, info in _named([(one.name.removeprefix("./"), one) for one in infos], where, budget):
            held = archive.extractfile(info) if info.isfile() else None
            if held is None:
                told = f"type {info.type!r} {info.linkname}".encode(errors="surrogateescape")
                yield name, io.BytesIO(hashlib.sha256(told).digest())
                continue
            with closing(_aside(held, where, budget)) as member:
                yield name, member

    return found()


def _unpacking(opens: Callable[[BinaryIO], IO[bytes]]) -> Opens:
    def opened(content: BinaryIO, where: str, budget: Budget) -> Iterator[tuple[str, BinaryIO]]:
        opens(content).read(1)
        content.seek(0)

        def found() -> Iterator[tuple[str, BinaryIO]]:
            with closing(_aside(opens(content), where, budget)) as member:
                yield UNPACKED, member

        return found()

    return opened


def _named(found: list[tuple[str, T]], where: str, budget: Budget) -> Iterator[tuple[str, T]]:
    budget.members -= len(found)
    if budget.members < 0:
        raise ActionFailed("This archive has more members than 200,000.", where=where,
                           hint="Look at what it holds before you use it.")
    seen: dict[str, int] = {}
    for name, one in found:
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}#{seen[name]}", one


def _aside(source: IO[bytes], where: str, budget: Budget) -> BinaryIO:
    """A copy that can be read twice and out of order; the source is closed."""
    copy = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
    try:
        with source:
            while block := source.read(1 << 20):
                budget.spend(len(block), where)
                copy.write(block)
    except BaseException:
        copy.close()
        raise
    return cast(BinaryIO, copy)


# How each begins, and what opens it: at once, so that what cannot be opened is told from what is damaged.
_KINDS: tuple[tuple[Callable[[bytes], bool], Opens], ...] = (
    (lambda start: start[:4] in (b"PK\x03\x04", b"PK\x05\x06"), _zip),
    (lambda start: start[257:262] == b"ustar", _tar),
    (lambda start: start[:3] == b"\x1f\x8b\x08",
     _unpacking(lambda content: cast(IO[bytes], gzip.GzipFile(fileobj=content, mode="rb")))),
    (lambda start: start[:3] == b"BZh" and start[4:10] == b"1AY&SY", _unpacking(bz2.BZ2File)),
    (lambda start: start[:6] == b"\xfd7zXZ\0", _unpacking(lzma.LZMAFile)),
)
