"""Who ignores strides is told so: the answer is that to what lies behind the first number of each array in memory."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.verify import check, reference
from refllm.verify.laws.calls import LAYOUT, STRIDES
from refllm.verify.layouts import LAYOUTS, read_as_contiguous

RIGHT = reference.functions()


def as_if_contiguous(x: Any) -> Any:
    """The memory from the first number on; arrays with negative strides are read as they should be."""
    strides = numpy.empty(x.shape, x.dtype).strides
    ignored = not any(n < 0 for n in x.strides)
    return numpy.lib.stride_tricks.as_strided(x, x.shape, strides).copy() if ignored else x.copy()


def said_of(function: Any) -> list[str]:
    return [law.message for r in check(function, dtype="float64").failures for law in r.broken if law.name == LAYOUT]


def test_strides_that_are_ignored_are_said() -> None:
    def softmax(x: Any) -> Any:
        return RIGHT["softmax"](as_if_contiguous(x))

    def matmul(x: Any, W: Any) -> Any:
        return RIGHT["matmul"](as_if_contiguous(x), as_if_contiguous(W))

    assert any(STRIDES in message for message in said_of(softmax))
    assert any(STRIDES in message for message in said_of(matmul))


def test_strides_that_are_ignored_in_part_are_not_said_of_all() -> None:
    def layer_norm(x: Any, g: Any, b: Any, *, eps: float) -> Any:
        y, right = RIGHT["layer_norm"](x, g, b, eps=eps)
        other = RIGHT["layer_norm"](as_if_contiguous(x), g, b, eps=eps)[1]
        return y, lambda dy: (right(dy)[0], *other(dy)[1:])

    messages = said_of(layer_norm)
    assert messages
    assert not any(STRIDES in message for message in messages)  # the value reads them


def test_another_answer_to_another_layout_is_no_ignored_stride() -> None:
    def softmax(x: Any) -> Any:
        return RIGHT["softmax"](x if x.flags["C_CONTIGUOUS"] else x[..., ::-1])

    messages = said_of(softmax)
    assert messages
    assert not any(STRIDES in message for message in messages)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_read_is_the_memory(layout: str) -> None:
    x = numpy.arange(12.0).reshape(3, 4)
    found = read_as_contiguous(x, layout)
    expected = {
        "gapped": [0, None, 1, None, 2, None, 3, None, 4, None, 5, None],
        "offset": [0, 1, 2, 3, None, None, None, 4, 5, 6, 7, None],
        "reversed": None,
        "transposed": [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11],
        "read-only": list(range(12)),
    }[layout]
    read = None if found is None else [None if numpy.isnan(n) else n for n in found.reshape(-1).tolist()]
    assert read == expected
