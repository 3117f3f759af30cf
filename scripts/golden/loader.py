"""L0: tensors of every dtype given by their bits, to prove a reader and a writer. Nothing is computed."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from golden import writer

# our dtype -> (name in safetensors, bytes, struct code of the value, None for bfloat16: the upper half of a float32)
DTYPES: dict[str, tuple[str, int, str | None]] = {
    "float64": ("F64", 8, "d"),
    "float32": ("F32", 4, "f"),
    "float16": ("F16", 2, "e"),
    "bfloat16": ("BF16", 2, None),
    "int64": ("I64", 8, "q"),
    "int32": ("I32", 4, "i"),
    "int16": ("I16", 2, "h"),
    "int8": ("I8", 1, "b"),
    "uint8": ("U8", 1, "B"),
    "bool": ("BOOL", 1, "?"),
}


@dataclass(frozen=True)
class Stored:
    """One tensor: its elements as unsigned integers that hold their bits."""

    id: str
    about: str
    dtype: str
    shape: tuple[int, ...]
    bits: tuple[int, ...]

    @property
    def content(self) -> bytes:
        return b"".join(bits.to_bytes(DTYPES[self.dtype][1], "little") for bits in self.bits)

    @property
    def values(self) -> list[Any]:
        _, size, code = DTYPES[self.dtype]
        raw = [bits.to_bytes(size, "little") for bits in self.bits]
        if code is None:
            return [struct.unpack("<f", bytes(2) + x)[0] for x in raw]
        return [struct.unpack("<" + code, x)[0] for x in raw]


def cases() -> list[Stored]:
    specials = {
        "float64": (52, 1023),
        "float32": (23, 127),
        "float16": (10, 15),
        "bfloat16": (7, 127),
    }
    found = [
        Stored(
            f"LOAD/{dtype}-special",
            "+0 -0 1 -1, the next number after 1, largest, least normal, largest and least subnormal, +inf -inf, NaN",
            dtype,
            (12,),
            _specials(DTYPES[dtype][1] * 8, mantissa, bias),
        )
        for dtype, (mantissa, bias) in specials.items()
    ]
    found += [
        Stored(
            f"LOAD/{dtype}-range",
            "least, greatest, 0, 1, -1 (an unsigned type: the greatest again)",
            dtype,
            (5,),
            _integers(DTYPES[dtype][1] * 8, signed=dtype != "uint8"),
        )
        for dtype in ("int64", "int32", "int16", "int8", "uint8")
    ]
    one, two = 0x3FF0000000000000, 0x4000000000000000
    return [
        *found,
        Stored("LOAD/bool", "one byte each, 0 or 1", "bool", (2, 3), (1, 0, 0, 0, 1, 1)),
        Stored("LOAD/float64-scalar", "shape []: one element, no axis", "float64", (), (one,)),
        Stored("LOAD/int64-scalar", "shape []: one element, no axis", "int64", (), (7,)),
        Stored("LOAD/float32-empty", "shape [0]: no element", "float32", (0,), ()),
        Stored("LOAD/float64-empty-axis", "shape [2, 0, 3]: no element, three axes", "float64", (2, 0, 3), ()),
        Stored("LOAD/int32-row-major", "the last axis runs fastest", "int32", (2, 3, 2), tuple(range(12))),
        Stored("LOAD/float64-column", "one column: (2, 1) is not (2,)", "float64", (2, 1), (one, two)),
    ]


def _specials(width: int, mantissa: int, bias: int) -> tuple[int, ...]:
    sign, infinity, one = 1 << (width - 1), (2 * bias + 1) << mantissa, bias << mantissa
    normal = 1 << mantissa
    return (
        0,
        sign,
        one,
        sign | one,
        one + 1,
        infinity - 1,
        normal,
        normal - 1,
        1,
        infinity,
        sign | infinity,
        infinity | normal >> 1,
    )


def _integers(width: int, *, signed: bool) -> tuple[int, ...]:
    every = (1 << width) - 1
    return (1 << (width - 1), every >> 1, 0, 1, every) if signed else (0, every, 0, 1, every)


def contents(path: str, head: dict[str, Any], stored: list[Stored]) -> dict[str, bytes]:
    """The JSON file and the safetensors file with the same tensors."""
    records, tensors = [], {}
    for case in sorted(stored, key=lambda case: case.id):
        name = f"{case.id}/inputs/x"
        tensors[name] = (DTYPES[case.dtype][0], case.shape, case.content)
        data = [writer.number(x) for x in case.values]
        digits = DTYPES[case.dtype][1] * 2
        x = {
            "dtype": case.dtype,
            "shape": list(case.shape),
            "data": data,
            "bits": [f"{bits:0{digits}x}" for bits in case.bits],
            "tensor": name,
        }
        records.append(
            {
                "id": case.id,
                "spec": "LOAD",
                "section": "identity",
                "operation": "identity",
                "about": case.about,
                "level": 0,
                "order": ["x"],
                "inputs": {"x": x},
                "keywords": {},
                "outputs": {"y": {"value": x}},
            }
        )
    return {
        path: (writer.dumps({**head, "cases": records}) + "\n").encode(),
        str(Path(path).with_suffix(".safetensors")): writer.safetensors_raw(tensors),
    }
