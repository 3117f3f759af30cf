"""Laws of writing arrays: the bytes are those of the library of the format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from refllm.array_file import write_arrays

KINDS = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "bool", "c8"]
names = st.text(st.characters(codec="utf-8"), max_size=3).filter(lambda name: name != "__metadata__")
arrays = st.dictionaries(
    names, st.tuples(st.sampled_from(KINDS), st.lists(st.integers(0, 3), max_size=3)), max_size=6
)  # fmt: skip


class InPieces:
    """An array that comes two numbers at a time."""

    def __init__(self, x: Any) -> None:
        self.shape, self.dtype, self.x = x.shape, x.dtype, x

    def pieces(self) -> Iterator[Any]:
        flat = self.x.reshape(-1)
        return (flat[n : n + 2] for n in range(0, len(flat), 2))


@given(arrays=arrays)
@settings(max_examples=30)
def test_the_bytes_are_those_of_the_library(arrays: Any) -> None:
    random = numpy.random.default_rng(0)
    wanted = {
        name: numpy.array(random.standard_normal(shape) * 9).astype(kind) for name, (kind, shape) in arrays.items()
    }
    for held in (wanted, {name: InPieces(x) for name, x in wanted.items()}):
        written: list[bytes] = []
        size = write_arrays(held, written.append)
        assert b"".join(written) == save({name: numpy.array(x, order="C") for name, x in wanted.items()})
        assert size == len(b"".join(written))


def test_a_type_that_the_format_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no array of complex128"):
        write_arrays({"x": numpy.zeros(2, "complex128")}, lambda _: None)
