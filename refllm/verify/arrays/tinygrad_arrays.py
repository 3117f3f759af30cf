"""tinygrad's tensors, and its gradient where a function gives only the value. `DEV` chooses the device, as always."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy
from tinygrad import Tensor

from refllm.backend import Array

DTYPES = ("float64", "float32", "float16")


def given(x: Array, dtype: str, device: str | None) -> Any:
    return Tensor(numpy.array(x, order="C"), device=device)


def taken(x: Any) -> Array:
    return x.numpy()


def dtype_of(x: Any) -> str:
    return {"float": "float32", "double": "float64", "half": "float16"}.get(name := x.dtype.name, name)


def watched(x: Any) -> Any:
    return x


def pullback(f: Any, inputs: list[Any], outputs: list[Any]) -> Any:
    def back(dy: list[Any]) -> list[Any]:
        total = sum((y * d).sum() for y, d in zip(outputs, dy, strict=True))
        return [_gradient(total, x) for x in inputs]

    return back


def _gradient(total: Any, x: Any) -> Any:
    try:
        return total.gradient(x)[0]
    except RuntimeError:  # nothing leads to it
        return Tensor(numpy.zeros(x.shape, x.numpy().dtype))


def using(dtype: str) -> Any:
    return contextlib.nullcontext()
