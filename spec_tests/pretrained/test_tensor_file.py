"""A file of tensors: numbers are widened without rounding, and a header is believed only where it fits the file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from refllm.errors import UserError
from refllm.pretrained.export import file_of
from refllm.pretrained.tensor_file import narrowed, tensors_of, widened

BITS = arrays.arrays(numpy.uint16, st.integers(0, 40))


@given(bits=BITS)
def test_both_types_of_sixteen_bits_are_widened_exactly_and_narrowed_back(bits: Any) -> None:
    half = widened(bits.view(numpy.float16), "F16")
    assert half.dtype == numpy.float32
    assert half.astype(numpy.float16).tobytes() == bits.tobytes() or numpy.isnan(half).any()
    brain = widened(bits, "BF16")
    sign, exponent = numpy.where(bits >> 15, -1.0, 1.0), (bits >> 7 & 0xFF).astype(int)
    mantissa = (bits & 0x7F) / 128.0
    with numpy.errstate(all="ignore"):
        value = sign * numpy.where(exponent == 0, mantissa * 2.0**-126, (1 + mantissa) * 2.0 ** (exponent - 127))
    finite = exponent < 255
    assert numpy.array_equal(brain[finite], value[finite].astype(numpy.float32))
    assert narrowed(brain, "BF16") == bits.astype("<u2").tobytes()


@given(numbers=arrays.arrays(numpy.float32, st.integers(1, 20)))
def test_numbers_that_a_type_does_not_hold_are_not_rounded(numbers: Any) -> None:
    for dtype, back in (("BF16", lambda b: widened(numpy.frombuffer(b, "<u2"), "BF16")),
                        ("F16", lambda b: numpy.frombuffer(b, "<f2").astype(numpy.float32))):  # fmt: skip
        with numpy.errstate(all="ignore"):
            data = narrowed(numbers, dtype)
        if data is not None:
            assert numpy.array_equal(back(data), numbers, equal_nan=True)


def test_a_file_is_what_the_library_of_the_format_writes_and_reads(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    numbers = {"a": numpy.arange(6, dtype="float32").reshape(2, 3), "b": numpy.zeros((0, 4), "float16"),
               "c": numpy.array(2.5)}  # fmt: skip
    save_file(numbers, tmp_path / "theirs.safetensors")
    theirs = tensors_of(tmp_path / "theirs.safetensors")
    for name, x in numbers.items():
        assert numpy.array_equal(theirs[name].read(), x)
    ours = {name: (tensor.dtype, tensor.shape, tensor.raw()) for name, tensor in theirs.items()}
    (tmp_path / "ours.safetensors").write_bytes(file_of(ours))
    for name, x in load_file(tmp_path / "ours.safetensors").items():
        assert numpy.array_equal(x, numbers[name])


def test_an_array_of_float32_is_a_view_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(file_of({"a": ("F32", (1000,), bytes(4000))}))
    x = tensors_of(tmp_path / "x.safetensors")["a"].read()
    assert not x.flags.owndata
    assert not x.flags.writeable


def packed(header: Any, data: bytes = bytes(16), *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def one(dtype: Any = "F32", shape: Any = (4,), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "longer than the file"),
    "seven bytes": (b"1234567", "longer than the file"),
    "a header longer than the file": (packed({"a": one()}, length=1 << 40), "longer than the file"),
    "a header of 2^64 - 1 bytes": (packed({"a": one()}, length=(1 << 64) - 1), "longer than the file"),
    "no JSON": (packed(b"\x80\x02pickle"), "JSON"),
    "a list": (packed([]), "must hold an object"),
    "deep nesting": (packed(b'{"a":' + b"[" * 100_000), "deeply|JSON"),
    "a name twice": (packed(b'{"a": {}, "a": {}}'), "occurs twice"),
    "beyond the end": (packed({"a": one(shape=(8,), offsets=(0, 32))}), "outside the file"),
    "before the beginning": (packed({"a": one(offsets=(-16, 0))}), "whole numbers"),
    "backwards": (packed({"a": one(offsets=(16, 0))}), "does not take"),
    "overlapping": (packed({"a": one(), "b": one(shape=(2,), offsets=(8, 16))}), "overlaps"),
    "the same bytes twice": (packed({"a": one(), "b": one()}), "overlaps"),
    "a gap": (packed({"a": one(shape=(1,), offsets=(0, 4)), "b": one(shape=(2,), offsets=(8, 16))}), "behind it"),
    "bytes left over": (packed({"a": one(shape=(1,), offsets=(0, 4))}), "belong to no tensor"),
    "another size": (packed({"a": one(shape=(5,))}), "does not take 16 bytes"),
    "a product that overflows": (packed({"a": one(shape=[1 << 40] * 4)}), "does not take"),
    "an absurd number": (packed({"a": one(shape=[1 << 100])}), "whole numbers"),
    "many axes": (packed({"a": one(shape=[1] * 100)}), "whole numbers"),
    "a negative size": (packed({"a": one(shape=(-4,))}), "whole numbers"),
    "a size that is true": (packed({"a": one(shape=(True,))}), "whole numbers"),
    "an unknown type": (packed({"a": one(dtype="C64")}), "not known"),
    "a type that is a list": (packed({"a": one(dtype=["F32"])}), "whole numbers"),
    "no offsets": (packed({"a": {"dtype": "F32", "shape": [4]}}), "declared wrongly"),
    "three offsets": (packed({"a": one(offsets=(0, 8, 16))}), "declared wrongly"),
    "a tensor that is a number": (packed({"a": 3}), "declared wrongly"),
}


@pytest.mark.parametrize("which", HOSTILE)
def test_a_header_that_does_not_belong_to_its_file_is_one_line(which: str, tmp_path: Path) -> None:
    data, message = HOSTILE[which]
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(UserError, match=message) as refused:
        tensors_of(tmp_path / "x.safetensors")
    assert "\n" not in str(refused.value)


@given(place=st.integers(0, 400), value=st.integers(0, 255), cut=st.integers(0, 500))
def test_a_damaged_file_is_refused_or_read_never_more(place: int, value: int, cut: int) -> None:
    import tempfile

    data = bytearray(file_of({f"name {i}": ("F32", (2, i), bytes(8 * i)) for i in range(6)}))
    data[place % len(data)] = value
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.safetensors"
        path.write_bytes(data[: max(1, len(data) - cut)] if cut < len(data) else data)
        try:
            found = tensors_of(path)
        except UserError:
            return
        for tensor in found.values():
            if tensor.dtype == "F32":
                assert tensor.read().shape == tensor.shape


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    for odd in (tmp_path / "model.safetensors", tmp_path, Path(os.devnull)):
        with pytest.raises(UserError, match="is not a file"):
            tensors_of(odd)
