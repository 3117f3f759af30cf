"""Writing a file of arrays in safetensors, a piece at a time: byte for byte what the library of the format writes.

The library takes all arrays at once and makes one string of bytes of them. Here the file is written while the arrays
come, so that one of them may lie in pieces with several processes (refllm/moments.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from refllm.backend import Array, to_host

# The types of the format by those of NumPy, in the order in which the library writes them.
_TYPES = {
    "uint64": "U64", "int64": "I64", "float64": "F64", "complex64": "C64", "float32": "F32", "uint32": "U32",
    "int32": "I32", "float16": "F16", "uint16": "U16", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
_ORDER = {name: n for n, name in enumerate(_TYPES)}


def write_arrays(arrays: dict[str, Any], write: Callable[[bytes], object]) -> int:
    """Gives `write` the bytes of a file with these arrays, one piece after the other; how many they were.

    An array has a shape and a dtype, and is a whole one or has `pieces`, an iterator over the numbers in C order.
    """
    ordered = sorted(arrays.items(), key=lambda item: (_ORDER[_kind(item[1])], item[0]))
    header, size = {}, 0
    for name, x in ordered:
        end = size + math.prod(x.shape) * x.dtype.itemsize
        header[name] = {"dtype": _TYPES[_kind(x)], "shape": list(x.shape), "data_offsets": [size, end]}
        size = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write(len(text).to_bytes(8, "little") + text)
    for _, x in ordered:
        for piece in _pieces(x):
            write(piece.astype(piece.dtype.newbyteorder("<"), copy=False).tobytes())
    return 8 + len(text) + size


def name_in_numpy(kind: str) -> str | None:
    """What NumPy calls a type of the format, None where it has none."""
    return next((name for name, other in _TYPES.items() if other == kind), None)


def _kind(x: Any) -> str:
    kind = str(x.dtype.newbyteorder("="))
    if kind not in _ORDER:
        raise ValueError(f"a file holds no array of {x.dtype}; convert it to one of {', '.join(_TYPES)}")
    return kind


def _pieces(x: Any) -> Iterator[Array]:
    return x.pieces() if hasattr(x, "pieces") else iter([to_host(x)])
