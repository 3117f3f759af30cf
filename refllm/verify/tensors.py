"""JSON and safetensors read from untrusted bytes, and written.

Nothing larger than the bytes themselves is allocated, and whatever is wrong is one line: a `MalformedError`
whose message begins with where it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy

from refllm.backend import Array
from refllm.errors import UserError

# dtype -> its name in safetensors. bfloat16 is carried by float32, whose upper half it is.
NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
DTYPES = {short: dtype for dtype, short in NAMES.items()}
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_LONGEST_AXIS = 1 << 40
_MOST_AXES = 32


class MalformedError(UserError):
    """A file that is not what it should be."""


def read_file(path: Path, most: int) -> bytes:
    """The bytes of a regular file of at most `most` bytes."""
    try:
        if not path.is_file():
            raise MalformedError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
        size = path.stat().st_size
        if size > most:
            raise MalformedError(f"{path}: {size} bytes are more than the {most} that it may have")
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise MalformedError(f"{path}: cannot be read ({error.strerror or error})") from None


def parse_json(content: bytes, where: str) -> dict[str, Any]:
    """A JSON object: UTF-8, no name twice, no NaN or Infinity outside strings, not nested beyond sense."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            names = [name for name, _ in items]
            twice = next(name for name in names if names.count(name) > 1)
            raise MalformedError(f"{where}: the name {twice!r:.80} stands twice in one object")
        return found

    def constant(name: str) -> Any:
        raise MalformedError(f'{where}: {name} is not JSON; write it as the string "{name}"')

    try:
        found = json.loads(content.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    except MalformedError:
        raise
    except RecursionError:
        raise MalformedError(f"{where}: nested too deeply to be a file of cases") from None
    except ValueError as error:
        raise MalformedError(f"{where}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise MalformedError(f"{where}: must hold a JSON object, holds {type(found).__name__}")
    return found


def is_inline(value: Any) -> bool:
    return isinstance(value, dict) and {"dtype", "shape", "data"} <= value.keys()


def from_inline(value: Mapping[str, Any], where: str) -> Array:
    """An array from {"dtype", "shape", "data"}."""
    dtype, data = value["dtype"], value["data"]
    if not isinstance(dtype, str) or dtype not in NAMES:
        raise MalformedError(f"{where}: unknown dtype {dtype!r:.40}; known are {', '.join(NAMES)}")
    shape = shape_of(value["shape"], where)
    if not isinstance(data, list) or len(data) != math.prod(shape):
        held = f"{len(data)} numbers" if isinstance(data, list) else type(data).__name__
        raise MalformedError(f"{where}: shape {list(shape)} needs a list of {math.prod(shape)} numbers, holds {held}")
    carrier = "float32" if dtype == "bfloat16" else dtype
    if dtype == "float64" and set(map(type, data)) <= {float}:
        x = numpy.array(data, dtype=dtype).reshape(shape)
        if numpy.isfinite(x).all():
            return x  # as almost always: nothing is left to be found
    _require_kinds(data, dtype, where)
    numbers = [_SPECIAL.get(x, x) if isinstance(x, str) and "float" in dtype else x for x in data]
    try:
        with numpy.errstate(over="ignore"):
            return numpy.array(numbers, dtype=carrier).reshape(shape)
    except (OverflowError, ValueError) as error:
        raise MalformedError(f"{where}: not a {dtype} tensor of shape {list(shape)} ({error})") from None


def _require_kinds(data: list[Any], dtype: str, where: str) -> None:
    """MalformedError unless these are numbers of that dtype; of floating-point ones some may be texts."""
    floating = "float" in dtype
    kinds = {bool} if dtype == "bool" else {int, float} if floating else {int}
    for written in data:
        special = floating and isinstance(written, str) and written in _SPECIAL
        if type(written) not in kinds and not special:
            raise MalformedError(f"{where}: {written!r:.40} is not a {dtype}")
        if type(written) is float and math.isinf(written):
            raise MalformedError(f'{where}: a number beyond float64; infinity is the string "Infinity"')


def to_inline(x: Array, dtype: str | None = None) -> dict[str, Any]:
    """An array as {"dtype", "shape", "data"}."""
    data = [
        v if not isinstance(v, float) or math.isfinite(v) else "NaN" if math.isnan(v) else f"{'-' * (v < 0)}Infinity"
        for v in x.reshape(-1).tolist()
    ]
    return {"dtype": dtype or str(x.dtype), "shape": list(x.shape), "data": data}


def from_safetensors(content: bytes, where: str) -> dict[str, tuple[str, Array]]:
    """name -> (dtype, array) of a safetensors file: header, offsets and sizes agree with the length of the file."""
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > len(content) - 8:
        raise MalformedError(f"{where}: cut short, or not a safetensors file ({len(content)} bytes)")
    header, body = parse_json(content[8 : 8 + size], f"{where}, header"), memoryview(content)[8 + size :]
    found, places = {}, []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        at = f"{where}, tensor {name!r:.100}"
        if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
            raise MalformedError(f"{at}: needs dtype, shape and data_offsets")
        if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
            raise MalformedError(f"{at}: unknown dtype {entry['dtype']!r:.40}")
        dtype, shape = DTYPES[entry["dtype"]], shape_of(entry["shape"], at)
        offsets = entry["data_offsets"]
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int for n in offsets):
            raise MalformedError(f"{at}: data_offsets must be two integers")
        start, end = offsets
        if not 0 <= start <= end <= len(body):
            raise MalformedError(f"{at}: lies at {start} to {end}, outside the {len(body)} bytes of data")
        width = 2 if dtype == "bfloat16" else numpy.dtype(dtype).itemsize
        if end - start != width * math.prod(shape):
            raise MalformedError(f"{at}: {dtype} {list(shape)} takes another number of bytes than {end - start}")
        places.append((start, end))
        found[name] = (dtype, from_bytes(body[start:end], dtype, shape, at))
    _require_tiling(sorted(places), len(body), where)
    return found


def _require_tiling(places: list[tuple[int, int]], size: int, where: str) -> None:
    """No gap and no overlap, as the format asks."""
    reached = 0
    for start, end in places:
        if start != reached:
            raise MalformedError(f"{where}: a gap or an overlap at byte {min(start, reached)} of the data")
        reached = end
    if reached != size:
        raise MalformedError(f"{where}: {size - reached} bytes of data belong to no tensor")


def from_bytes(data: memoryview, dtype: str, shape: tuple[int, ...], where: str) -> Array:
    try:
        if dtype == "bfloat16":
            halves = numpy.frombuffer(data, "<u2").astype("uint32")
            return (halves << 16).view("float32").reshape(shape)
        if dtype == "bool":
            flags = numpy.frombuffer(data, "uint8")
            if (flags > 1).any():
                raise MalformedError(f"{where}: a bool is 0 or 1, found {flags.max()}")
            return flags.astype("bool").reshape(shape)
        little = numpy.dtype(dtype).newbyteorder("<")
        return numpy.frombuffer(data, little).astype(dtype).reshape(shape)
    except ValueError as error:
        raise MalformedError(f"{where}: shape {list(shape)} cannot be ({error})") from None


def to_safetensors(tensors: Mapping[str, tuple[str, Array]]) -> bytes:
    """The bytes of a safetensors file from name -> (dtype, array)."""
    header, data = {}, bytearray()
    for name, (dtype, x) in tensors.items():
        start = len(data)
        data += bytes_of(x, dtype)
        header[name] = {"dtype": NAMES[dtype], "shape": list(x.shape), "data_offsets": [start, len(data)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + bytes(data)


def bytes_of(x: Array, dtype: str) -> bytes:
    if dtype == "bfloat16":
        return (numpy.ascontiguousarray(x, "float32").view("uint32") >> 16).astype("<u2").tobytes()
    return x.astype(numpy.dtype(dtype).newbyteorder("<")).tobytes()


def shape_of(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(n) is int and 0 <= n < _LONGEST_AXIS for n in value):
        raise MalformedError(f"{where}: the shape must be a list of sizes, is {value!r:.60}")
    if len(value) > _MOST_AXES:
        raise MalformedError(f"{where}: a shape of {len(value)} axes; at most {_MOST_AXES} are possible")
    return tuple(value)


def same_bits(x: Array, y: Array) -> bool:
    """Equal in dtype, shape and every bit: NaN equals NaN, +0 is not -0."""
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
