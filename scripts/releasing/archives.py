"""Archives with the same bytes on every machine: sorted names, given modes, no owner, one date, a packer of our own."""

from __future__ import annotations

import binascii
import struct
import tarfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from releasing.deflate import END, deflated

FIXED = 315532800  # 1980-01-01, in what depends on the golden files alone: the same files make the same bytes


@dataclass(frozen=True)
class Entry:
    """A file of an archive."""

    path: str
    content: bytes
    executable: bool = False

    @property
    def mode(self) -> int:
        return 0o755 if self.executable else 0o644


def entries(files: Mapping[str, bytes], folder: str = "") -> list[Entry]:
    return [Entry(f"{folder}{path}", files[path]) for path in sorted(files)]


def tar_gz(files: Iterable[Entry], moment: int = FIXED) -> bytes:
    """A tar (POSIX, no owner) in gzip without name and date."""
    parts: list[bytes] = []
    for entry in files:
        info = tarfile.TarInfo(entry.path)
        info.size, info.mode, info.mtime = len(entry.content), entry.mode, moment
        parts += [info.tobuf(tarfile.PAX_FORMAT, "utf-8"), entry.content, b"\0" * (-len(entry.content) % 512)]
    parts.append(b"\0" * 1024)
    checked = 0
    for part in parts:
        checked = binascii.crc32(part, checked)
    size = sum(map(len, parts)) & 0xFFFFFFFF
    packed = b"".join(deflated(part) for part in parts if part)
    return b"\x1f\x8b\x08\x00" + b"\0\0\0\0" + b"\x02\xff" + packed + END + struct.pack("<II", checked, size)


def zipped(files: Iterable[Entry], moment: int = FIXED) -> bytes:
    """A zip in the order given."""
    at = time.gmtime(moment)
    date = (at.tm_year - 1980) << 25 | at.tm_mon << 21 | at.tm_mday << 16 | at.tm_hour << 11 | at.tm_min << 5
    date |= at.tm_sec // 2
    body, directory, count = bytearray(), bytearray(), 0
    for entry in files:
        packed, name = deflated(entry.content) + END, entry.path.encode("utf-8")
        checked = binascii.crc32(entry.content)
        common = struct.pack(
            "<HHHIIIIHH", 20, 0x800, 8, date, checked, len(packed), len(entry.content), len(name), 0
        )  # version, names in UTF-8, deflate
        unix = (0o100000 | entry.mode) << 16
        directory += b"PK\x01\x02" + struct.pack("<H", 3 << 8 | 20) + common
        directory += struct.pack("<HHHII", 0, 0, 0, unix, len(body)) + name
        body += b"PK\x03\x04" + common + name + packed
        count += 1
    end = struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), len(body), 0)
    return bytes(body + directory) + b"PK\x05\x06" + end
