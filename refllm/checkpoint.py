"""Checkpoints: arrays in safetensors, everything else in JSON, written so that a reader never sees half of one.

    DIR/state.json                     the description, and which files with which contents belong to it
    DIR/weights-00001200.safetensors   one file for each group of arrays

A save writes new array files, then replaces state.json in one step, then removes the files that nothing names any
more. A crash at any moment leaves the previous checkpoint or the new one, whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from refllm.backend import Array, to_host
from refllm.errors import UserError

FORMAT = 1


def save(directory: Path, description: dict[str, Any], groups: dict[str, dict[str, Array]], step: int) -> None:
    """Writes a checkpoint. A full disk is a UserError and leaves the previous checkpoint as it was."""
    from safetensors.numpy import save as to_bytes

    directory.mkdir(parents=True, exist_ok=True)
    files, written = {}, []
    try:
        for group, arrays in groups.items():
            data = to_bytes({name: _contiguous(x) for name, x in arrays.items()})
            path = directory / f"{group}-{step:08d}.safetensors"
            written.append(path)
            write_atomically(path, data)
            files[group] = {"file": path.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        state = {"format": FORMAT, **description, "files": files}  # in ASCII, which holds any path of a file
        write_atomically(directory / "state.json", json.dumps(state, indent=1).encode())
    except OSError as error:
        named = _named_files(directory)
        for path in written:
            if path.name not in named:
                path.unlink(missing_ok=True)
        before = "the one before it is intact; " if is_there(directory) else ""
        raise UserError(
            f"cannot save the checkpoint in {directory}: {error.strerror or error}; "
            f"{before}free some space or choose another --out"
        ) from None
    for path in directory.glob("*.safetensors*"):  # a process that was killed leaves a .partial
        if path not in written:
            path.unlink(missing_ok=True)


def is_there(directory: Path) -> bool:
    """Whether a checkpoint has been saved here."""
    return (directory / "state.json").exists()


def load(directory: Path) -> tuple[dict[str, Any], Callable[[str], dict[str, Array]]]:
    """The description, and a function that reads a group of arrays; UserError for anything missing or damaged."""
    path = directory / "state.json"
    try:
        state = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no checkpoint in {directory}: {path} does not exist; give the directory of a run") from None
    except PermissionError:
        raise UserError(f"{path} may not be read; give yourself the permission, or another run") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a checkpoint ({error}); it is damaged: use another one") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT or not isinstance(state.get("files"), dict):
        raise UserError(f"{path} is not a checkpoint of format {FORMAT}; it was made by another version or program")

    def read(group: str) -> dict[str, Array]:
        from safetensors import SafetensorError
        from safetensors.numpy import load as from_bytes

        try:
            entry = state["files"][group]
            file, size, digest = directory / Path(entry["file"]).name, entry["bytes"], entry["sha256"]
        except (KeyError, TypeError):
            raise UserError(f"{path} names no {group}; it is damaged: use another checkpoint") from None
        try:
            data = file.read_bytes()
        except OSError as error:
            raise UserError(f"{file}: {error.strerror}; the checkpoint is incomplete: use another one") from None
        if len(data) != size:
            raise UserError(f"{file} was cut short: {len(data)} of {size} bytes; use another checkpoint")
        if hashlib.sha256(data).hexdigest() != digest:
            raise UserError(f"{file} is damaged: its contents are not those that were saved; use another checkpoint")
        try:
            return dict(from_bytes(data))
        except SafetensorError as error:
            raise UserError(f"{file} is not a safetensors file ({error}); use another checkpoint") from None

    return state, read


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file under another name, waits until it is on the disk, then gives it its name in one step."""
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _contiguous(x: Array) -> Array:
    return to_host(x).copy(order="C")


def _named_files(directory: Path) -> set[str]:
    """The files that the checkpoint on the disk consists of; none if there is no whole one."""
    try:
        return {entry["file"] for entry in json.loads((directory / "state.json").read_bytes())["files"].values()}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
