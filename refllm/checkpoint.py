"""Checkpoints: arrays in safetensors, everything else in JSON, written so that a reader never sees half of one.

    DIR/state.json                                      the description, and which files with which contents make it up
    DIR/weights-00001200-5d41402abc4b2a76.safetensors   a file for each group of arrays, named by step and contents

A save writes new array files, then replaces state.json in one step, then removes the files that nothing names any
more. No file is ever given other contents, since its name tells them: a crash at any moment leaves the previous
checkpoint or the new one, whole. A reader opens all the files at once, so that it has one checkpoint to the end
while the next ones are saved.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy

from refllm.array_file import name_in_numpy, write_arrays
from refllm.backend import Array
from refllm.errors import UserError
from refllm.piecewise import Piecewise, stretches
from refllm.state_file import bytes_of, read_state, sealed

STATE = "state.json"
_OURS = re.compile(r"\w+-\d{8,}(-[0-9a-f]{16})?\.safetensors(\.partial)?|state\.json\.partial", re.ASCII)
_NAME = re.compile(r"[\w.-]+", re.ASCII)
_READING = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)  # a pipe is not waited for
_PART = 1 << 22  # bytes of a file that are read at a time where not all are wanted
_ATTEMPTS = 20  # at opening a checkpoint while others replace it
_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "I16": 16, "U16": 16,
         "BF16": 16, "I8": 8, "U8": 8, "BOOL": 8}  # fmt: skip


@dataclass(frozen=True)
class Declared:
    """What the header of a file says of an array."""

    dtype: str
    shape: tuple[int, ...]
    start: int  # byte of the file


def save(directory: Path, description: dict[str, Any], groups: dict[str, dict[str, Array]], step: int) -> None:
    """Writes a checkpoint. A full disk is a UserError and leaves the previous checkpoint as it was."""
    files: dict[str, Any] = {}
    written: list[Path] = []
    before = _bytes(directory / STATE)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for group, arrays in groups.items():
            files[group] = _write_group(directory, f"{group}-{step:08d}", arrays, written)
        _sync(directory)  # the names are on the disk before the one that names them
        description = {key: value for key, value in description.items() if key not in ("format", "sha256")}
        write_atomically(directory / STATE, sealed({**description, "files": files}))
        _sync(directory)  # and that before what it replaces goes
    except OSError as error:
        named = _named_files(directory)
        for path in written:
            if path.name not in named:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        raise UserError(
            f"cannot save the checkpoint in {directory}: {error.strerror or error}; "
            f"{_left(before, _bytes(directory / STATE))}free some space or choose another --out"
        ) from None
    tidy(directory, kept={path.name for path in written})


def _write_group(directory: Path, name: str, arrays: dict[str, Any], written: list[Path]) -> dict[str, Any]:
    """Writes a group, array after array, into a file that is named when its contents are known; what state.json says of
    it. `written` gets its name before the file does."""
    digest, partial = hashlib.sha256(), directory / f"{name}.safetensors.partial"
    with _partial(partial) as file:

        def write(data: bytes) -> None:
            digest.update(data)
            file.write(data)

        size = write_arrays(arrays, write)
        path = directory / f"{name}-{digest.hexdigest()[:16]}.safetensors"
        written.append(path)
        _give_name(file, partial, path)
    return {"file": path.name, "bytes": size, "sha256": digest.hexdigest()}


def tidy(directory: Path, kept: set[str] | None = None) -> None:
    """Removes what no checkpoint names, such as a process leaves that was killed. Only who holds the directory may."""
    named = _named_files(directory) if kept is None else kept
    with suppress(OSError):  # what cannot be removed now is removed next time
        for path in list(directory.iterdir()):
            if _OURS.fullmatch(path.name) and path.name not in named:
                path.unlink(missing_ok=True)


def is_there(directory: Path) -> bool:
    """Whether a checkpoint has been saved here."""
    return (directory / STATE).exists()


def is_own(name: str) -> bool:
    """Whether a file of that name is part of a checkpoint, or left by a save."""
    return name == STATE or _OURS.fullmatch(name) is not None


def stamp(directory: Path) -> str:
    """Tells one checkpoint from another; empty where there is none."""
    data = _bytes(directory / STATE)
    return "" if data is None else hashlib.sha256(data).hexdigest()


def load(directory: Path) -> tuple[dict[str, Any], Groups]:
    """The description, and what reads a group of arrays; UserError for anything missing or damaged."""
    for _ in range(_ATTEMPTS):
        before, state = stamp(directory), read_state(directory / STATE)
        groups = Groups(directory, state["files"])
        if not groups.missing or stamp(directory) == before:
            break  # else another process has replaced it meanwhile
    return state, groups


class Groups:
    """Reads the groups of one checkpoint, whatever is saved in its directory afterwards."""

    def __init__(self, directory: Path, files: dict[str, Any]) -> None:
        self.directory, self.files = directory, files
        self.missing: dict[str, str] = {}  # group and why
        self._open: dict[str, int] = {}
        weakref.finalize(self, _close_all, self._open)
        for group in files:
            try:
                self._open[group] = os.open(self._path(group), _READING)
            except UserError:
                continue  # it is said when the group is read
            except OSError as error:
                self.missing[group] = error.strerror or str(error)

    def __call__(self, group: str) -> dict[str, Array]:
        """The arrays by name."""
        from safetensors import SafetensorError
        from safetensors.numpy import load as from_bytes

        path = self._path(group)
        data = b"".join(self._contents(group, at_once=True))
        try:
            return dict(from_bytes(data))
        except (SafetensorError, KeyError, ValueError, TypeError) as error:  # KeyError: a dtype that NumPy lacks
            raise UserError(f"{path} is not a safetensors file of arrays ({error}); use another checkpoint") from None

    def piecewise(self, group: str) -> dict[str, Piecewise]:
        """The same arrays, whose numbers are read when they are asked for, so that no more is in memory at a time."""
        for _ in self._contents(group, at_once=False):
            pass  # until the last byte is known to be what was saved
        path, found = self._path(group), {}
        for name, one in self.declared(group).items():
            if (kind := name_in_numpy(one.dtype)) is None:
                raise UserError(f"{path} has an array of {one.dtype}, which NumPy lacks; use another checkpoint")
            found[name] = Piecewise(one.shape, numpy.dtype(kind), partial(self._numbers, group, one, numpy.dtype(kind)))
        return found

    def _numbers(self, group: str, one: Declared, kind: Any) -> Iterator[Array]:
        if not math.prod(one.shape):
            yield numpy.empty(0, kind)
        for n in stretches(slice(0, math.prod(one.shape))):
            size = (n.stop - n.start) * kind.itemsize
            data = self._bytes_of(group, size, start=one.start + n.start * kind.itemsize)
            if len(data) < size:
                raise UserError(f"{self._path(group)} was cut short while it was read; use another checkpoint")
            yield numpy.frombuffer(data, kind.newbyteorder("<")).astype(kind, copy=False)

    def _contents(self, group: str, *, at_once: bool) -> Iterator[bytes]:
        """The bytes of a file, all or a part at a time. UserError, at the end, if they are not what was saved."""
        path, size, digest = self._path(group), self.files[group]["bytes"], self.files[group]["sha256"]
        found = os.fstat(self._descriptor(group)).st_size
        if found != size:
            raise UserError(f"{path} was cut short: {found} of {size} bytes; use another checkpoint")
        seen, step = hashlib.sha256(), max(1, size) if at_once else _PART
        for start in range(0, size, step):
            data = self._bytes_of(group, min(step, size - start), start=start)
            seen.update(data)
            yield data
        if seen.hexdigest() != digest:
            raise UserError(f"{path} is damaged: its contents are not those that were saved; use another checkpoint")

    def _bytes_of(self, group: str, size: int, *, start: int) -> bytes:
        try:
            return _read(self._descriptor(group), size, start)
        except OSError as error:
            raise UserError(
                f"{self._path(group)}: {error.strerror}; the checkpoint is incomplete: use another one"
            ) from None

    def declared(self, group: str) -> dict[str, Declared]:
        """The arrays by name as the file's header declares them, which are within the size of the file; no array is
        read or made."""
        path, descriptor = self._path(group), self._descriptor(group)
        size = os.fstat(descriptor).st_size
        try:
            length = int.from_bytes(_read(descriptor, 8), "little")
            if size < 8 or length > size - 8:
                raise ValueError("its header is longer than the file")
            header = json.loads(_read(descriptor, length, start=8))
            header.pop("__metadata__", None)
            return {name: _declared(entry, size - 8 - length, 8 + length) for name, entry in header.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(f"{path} is not a safetensors file ({error}); use another checkpoint") from None

    def _path(self, group: str) -> Path:
        try:
            entry = self.files[group]
            name, size, digest = entry["file"], entry["bytes"], entry["sha256"]
        except (KeyError, TypeError):
            raise UserError(
                f"{self.directory / STATE} names no {group}; it is damaged: use another checkpoint"
            ) from None
        plain = isinstance(name, str) and _NAME.fullmatch(name) and name not in (".", "..")
        if not plain or type(size) is not int or not isinstance(digest, str):
            raise UserError(
                f"{self.directory / STATE} names no file of its directory for {group}; it is damaged: use another "
                "checkpoint"
            )
        return self.directory / str(name)

    def _descriptor(self, group: str) -> int:
        path = self._path(group)
        if group not in self._open:
            raise UserError(f"{path}: {self.missing[group]}; the checkpoint is incomplete: use another one")
        return self._open[group]


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file under another name, waits until it is on the disk, then gives it its name in one step."""
    partial = path.with_name(path.name + ".partial")
    with _partial(partial) as file:
        file.write(data)
        _give_name(file, partial, path)


@contextmanager
def _partial(path: Path) -> Iterator[Any]:
    """A file to write, which goes again if that fails."""
    try:
        with open(path, "wb") as file:
            yield file
    except BaseException:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def _give_name(file: Any, partial: Path, path: Path) -> None:
    """Once all of it is on the disk."""
    file.flush()
    os.fsync(file.fileno())
    file.close()  # an open file cannot be renamed everywhere
    os.replace(partial, path)


def _sync(directory: Path) -> None:
    """Waits until the names in a directory are on the disk, where a directory can be waited for."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(descriptor: int, size: int, start: int = 0) -> bytes:
    """So many bytes, or as many as there are; a call of the system gives at most 2 GB."""
    os.lseek(descriptor, start, os.SEEK_SET)
    parts = []
    while size > 0 and (part := os.read(descriptor, min(size, 1 << 30))):
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _declared(entry: dict[str, Any], room: int, begin: int) -> Declared:
    """Of one array, of those that begin at that byte. ValueError where its size is not that of its bytes, or these lie
    outside the file."""
    dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if not all(type(n) is int and n >= 0 for n in (*shape, start, end)) or not start <= end <= room:
        raise ValueError("an array lies outside the file")
    if dtype not in _BITS or math.prod(shape) * _BITS[dtype] != 8 * (end - start):
        raise ValueError(f"an array of {dtype} {shape} does not take {end - start} bytes")
    return Declared(dtype, shape, begin + start)


def _close_all(descriptors: dict[str, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)


def _bytes(path: Path) -> bytes | None:
    try:
        return bytes_of(path)
    except UserError:
        return None


def _left(before: bytes | None, now: bytes | None) -> str:
    """What a save that failed has left, in words."""
    if now is None:
        return ""
    return "the one before it is intact; " if now == before else "it is there, but may not outlast a loss of power; "


def _named_files(directory: Path) -> set[str]:
    """The files that the checkpoint on the disk consists of; none if there is no whole one."""
    try:
        return {entry["file"] for entry in read_state(directory / STATE)["files"].values()}
    except (UserError, KeyError, TypeError):
        return set()
