"""The files: JSON with one tensor a line, safetensors with sorted names, and the manifest. Byte for byte repeatable."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

SPEC_VERSION = "1.2"  # the minor number rises with new cases, conventions and conditions; values stay
NAMES = {"float64": "F64", "int64": "I64", "bool": "BOOL"}  # our names -> those of safetensors


def tensor(array: np.ndarray) -> dict[str, Any]:
    """A tensor as JSON: dtype, shape and row-major data; what JSON has no number for is a string."""
    data = [number(x) for x in array.reshape(-1).tolist()]
    return {"dtype": str(array.dtype), "shape": list(array.shape), "data": data}


def number(x: Any) -> Any:
    """The shortest decimal that reads back as the same float64, or "NaN", "Infinity", "-Infinity"."""
    if isinstance(x, float) and not math.isfinite(x):
        return "NaN" if math.isnan(x) else "Infinity" if x > 0 else "-Infinity"
    return x


def inline(tree: Any) -> Any:
    """Every array of a record as a JSON tensor."""
    return _replace(tree, tensor)


def beside(tree: Any, store: dict[str, np.ndarray]) -> Any:
    """Every array of a record put into `store` under its number; {"tensor": number} stands in its place.

    The JSON file says what each is: a path for a name would take more room than most of the tensors. What is there
    already, bit for bit, is not put there again.
    """
    there = {_bits(array): name for name, array in store.items()}

    def put(array: np.ndarray) -> dict[str, str]:
        name = there.setdefault(_bits(array), str(len(there)))
        store[name] = array
        return {"tensor": name}

    return _replace(tree, put)


def _bits(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return str(array.dtype), array.shape, array.tobytes()


def _replace(tree: Any, replace: Any) -> Any:
    if isinstance(tree, np.ndarray):
        return replace(tree)
    if isinstance(tree, dict):
        return {name: _replace(branch, replace) for name, branch in tree.items()}
    return number(tree)


def dumps(tree: Any) -> str:
    """JSON with an object or a list of objects opened line by line, and a tensor kept on one line, without spaces.

    Nothing is set in: spaces before the lines were a thirtieth of the golden files."""
    if (
        isinstance(tree, dict)
        and tree
        and any(isinstance(branch, dict | list) for branch in tree.values())
        and "dtype" not in tree
    ):
        return "{\n" + ",\n".join(f"{json.dumps(name)}:{dumps(branch)}" for name, branch in tree.items()) + "\n}"
    if isinstance(tree, list) and tree and isinstance(tree[0], dict):
        return "[\n" + ",\n".join(dumps(branch) for branch in tree) + "\n]"
    return json.dumps(tree, allow_nan=False, separators=(",", ":"))


def safetensors(arrays: dict[str, np.ndarray]) -> bytes:
    """The safetensors format: length of the header, header, data; names in order, header padded to 8 bytes."""
    ordered = [(name, arrays[name]) for name in sorted(arrays)]
    return safetensors_raw({name: (NAMES[str(a.dtype)], a.shape, _little_endian(a)) for name, a in ordered})


def _little_endian(a: np.ndarray) -> bytes:
    return a.astype(a.dtype.newbyteorder("<")).tobytes()


def safetensors_raw(tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> bytes:
    """The same from (dtype name of the format, shape, little-endian bytes), in the order given."""
    header, data = {}, bytearray()
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + bytes(data)


def write(path: Path, content: bytes) -> None:
    """Complete or not at all: an interrupted run leaves the file that was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def manifest(entries: list[dict[str, Any]], calibration: float) -> bytes:
    found = {
        "format": 1,
        "spec_version": SPEC_VERSION,
        "license": "CC0-1.0",
        "files": entries,
        "cases": sum(entry["cases"] for entry in entries),
        "calibration": {"C": calibration},
    }
    return (dumps(found) + "\n").encode()


def entry(path: str, level: int, content: bytes, cases: int) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"path": path, "level": level, "sha256": digest, "bytes": len(content), "cases": cases}
