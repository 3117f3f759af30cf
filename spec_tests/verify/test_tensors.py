"""JSON tensors and safetensors: what is written is read back bit for bit, and damage is one clear line."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load as official_load
from safetensors.numpy import save as official_save

from refllm.verify.tensors import (
    MalformedError,
    from_inline,
    from_safetensors,
    parse_json,
    read_file,
    same_bits,
    to_inline,
    to_safetensors,
)

_DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


def _tensors() -> st.SearchStrategy[Any]:
    shape = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    return st.sampled_from(_DTYPES).flatmap(lambda dtype: arrays.arrays(dtype, shape))


@given(_tensors())
def test_a_tensor_survives_both_formats_bit_for_bit_but_for_the_payload_of_nan(x: Any) -> None:
    read = from_inline(json.loads(json.dumps(to_inline(x), allow_nan=False)), "here")
    numpy.testing.assert_array_equal(read, x, strict=True)
    assert numpy.array_equal(numpy.signbit(read), numpy.signbit(x)) or numpy.isnan(x).any() or x.dtype.kind in "bu"
    dtype, read = from_safetensors(to_safetensors({"x": (str(x.dtype), x)}), "here")["x"]
    assert dtype == str(x.dtype)
    assert same_bits(read, x)


@given(_tensors())
def test_safetensors_agree_with_the_official_library(x: Any) -> None:
    assert same_bits(numpy.asarray(official_load(to_safetensors({"x": (str(x.dtype), x)}))["x"]), x)
    assert same_bits(from_safetensors(official_save({"x": x}), "here")["x"][1], x)


def test_bfloat16_is_the_upper_half_of_float32() -> None:
    x = numpy.array([1.0, -0.0, 3.3895313892515355e38, 9.183549615799121e-41, numpy.inf], "float32")
    content = to_safetensors({"x": ("bfloat16", x)})
    assert content.endswith(bytes.fromhex("803f 0080 7f7f 0100 807f"))
    assert same_bits(from_safetensors(content, "here")["x"][1], x)


def _file(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F64", "shape": [1], "data_offsets": [0, 8], **changes}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cut short"),
        (b"\x08\0\0", "cut short"),
        ((1 << 63).to_bytes(8, "little"), "cut short"),
        (_file({"x": _entry()}, bytes(7)), "outside the 7 bytes"),
        (_file({"x": _entry()}, bytes(9)), "1 bytes of data belong to no tensor"),
        (_file({"x": _entry(shape=[1 << 39, 1 << 39])}, bytes(8)), "takes another number of bytes"),
        (_file({"x": _entry(shape=[1 << 70])}, bytes(8)), "shape must be a list of sizes"),
        (_file({"x": _entry(shape=[-1])}, bytes(8)), "shape must be a list of sizes"),
        (_file({"x": _entry(shape=[True])}, bytes(8)), "shape must be a list of sizes"),
        (_file({"x": _entry(shape=[1] * 70)}, bytes(8)), "70 axes"),
        (_file({"x": _entry(shape=[0, 1 << 39, 1 << 39], data_offsets=[0, 0])}), "cannot be"),
        (_file({"x": _entry(data_offsets=[8, 0])}, bytes(8)), "lies at 8 to 0"),
        (_file({"x": _entry(data_offsets=[-8, 0])}, bytes(8)), "lies at -8"),
        (_file({"x": _entry(data_offsets=[0.0, 8])}, bytes(8)), "two integers"),
        (_file({"x": _entry(dtype="F8")}, bytes(8)), "unknown dtype 'F8'"),
        (_file({"x": _entry(dtype=["F64"])}, bytes(8)), "unknown dtype"),
        (_file({"x": 3}, bytes(8)), "needs dtype, shape and data_offsets"),
        (_file({"x": _entry(), "y": _entry()}, bytes(8)), "overlap"),
        (_file({"x": _entry(data_offsets=[8, 16])}, bytes(16)), "gap"),
        (_file({"x": _entry(dtype="BOOL", data_offsets=[0, 1])}, b"\2"), "a bool is 0 or 1"),
        (_file(b'{"x": 1, "x": 2}'), "stands twice"),
        (_file(b"[1]"), "must hold a JSON object"),
        (_file(b"\xff\xfe"), "not JSON"),
        (_file(b'{"x":' + b"[" * 100_000), "too deeply|not JSON"),
    ],
)
def test_a_damaged_safetensors_file_is_one_clear_line(content: bytes, message: str) -> None:
    with pytest.raises(MalformedError, match=message) as caught:
        from_safetensors(content, "some.safetensors")
    assert str(caught.value).startswith("some.safetensors")
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_file_or_a_clear_refusal(data: bytes) -> None:
    whole = to_safetensors({"x": ("float64", numpy.arange(3.0))})
    for content in (data, whole[: len(data)], data + whole[len(data) :]):
        with contextlib.suppress(MalformedError):
            found = from_safetensors(content, "here")
            assert sum(x.nbytes for _, x in found.values()) <= len(content)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ({"dtype": "float64", "shape": [2], "data": [1.0]}, "needs a list of 2 numbers, holds 1 numbers"),
        ({"dtype": "float64", "shape": [10**12], "data": []}, "needs a list"),
        ({"dtype": "float64", "shape": [10**11], "data": [1.0]}, "needs a list of 100000000000"),
        ({"dtype": "float64", "shape": [1], "data": "a"}, "holds str"),
        ({"dtype": "float64", "shape": [1], "data": [True]}, "True is not a float64"),
        ({"dtype": "float64", "shape": [1], "data": ["nan"]}, "'nan' is not a float64"),
        ({"dtype": "float64", "shape": [1], "data": [[1.0]]}, "is not a float64"),
        ({"dtype": "float64", "shape": [1], "data": [10**400]}, "not a float64 tensor"),
        ({"dtype": "int64", "shape": [1], "data": [1.0]}, "1.0 is not a int64"),
        ({"dtype": "int64", "shape": [1], "data": ["NaN"]}, "is not a int64"),
        ({"dtype": "int64", "shape": [1], "data": [1 << 80]}, "not a int64 tensor"),
        ({"dtype": "uint8", "shape": [1], "data": [-1]}, "not a uint8 tensor"),
        ({"dtype": "bool", "shape": [1], "data": [1]}, "1 is not a bool"),
        ({"dtype": "object", "shape": [1], "data": [1]}, "unknown dtype 'object'"),
        ({"dtype": None, "shape": [1], "data": [1]}, "unknown dtype None"),
    ],
)
def test_a_wrong_json_tensor_is_one_clear_line(tensor: Any, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        from_inline(tensor, "here")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": NaN}', 'NaN is not JSON; write it as the string "NaN"'),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": {"b": 1, "b": 2}}', "the name 'b' stands twice"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON"),
        ('{"a": 1', "not JSON"),
        ("3", "must hold a JSON object, holds int"),
    ],
)
def test_wrong_json_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        parse_json(text.encode(), "here")


def test_a_number_beyond_float64_is_refused() -> None:
    tensor = parse_json(b'{"dtype": "float64", "shape": [1], "data": [1e999]}', "here")
    with pytest.raises(MalformedError, match="beyond float64"):
        from_inline(tensor, "here")


def test_a_file_is_read_only_if_it_is_a_regular_one_and_small_enough(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(bytes(11))
    for name, message in (("long", "11 bytes are more than the 10"), ("none", "no such file"), (".", "not a regular")):
        with pytest.raises(MalformedError, match=message):
            read_file(tmp_path / name, 10)
