"""Sums in accumulators of a narrow type, and values that are stored in one, are named with the type and with how many
numbers are added before it is rounded: on the way forward and in the gradient alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.adapter import Functions
from refllm.verify.explanation import Explanation
from refllm.verify.kernels.machine import narrow
from refllm.verify.stored import stored_matmul, stored_scatter_add, stored_sum
from spec_tests.verify.kernels.test_diagnosis import told

TEXT = plain.operations()
Kernel = Callable[..., Any]
KERNELS: dict[str, tuple[str, str, Kernel, str]] = {}


def wrong(operation: str, dtype: str, said: str) -> Callable[[Kernel], Kernel]:
    def noted(function: Kernel) -> Kernel:
        KERNELS[function.__name__] = operation, dtype, function, said
        return function

    return noted


def added(x: Array, dtype: str, n: int) -> Any:
    """The sum over the first axis, rounded after every n."""
    total = numpy.zeros(x.shape[1:], "float32")
    for first in range(0, len(x), n):
        total = narrow(total + x[first : first + n].sum(axis=0, dtype="float32"), dtype)
    return total


def wide(*arrays: Array) -> list[Array]:
    return [x.astype("float32") for x in arrays]


@wrong("softmax", "float32", "whose gradient adds up sum(p * dp) in float16, rounded after every 8 numbers")
def product_in_float16(x: Array) -> Any:
    y, _ = TEXT["softmax"](x)

    def back(dy: Array) -> Any:
        dot = added(numpy.moveaxis(y * dy, -1, 0), "float16", 8)
        return y * (dy - dot[..., None])

    return y, back


@wrong("linear", "float32", "whose gradient adds up rows(dy) in bfloat16, rounded after every 16 numbers")
def bias_gradient_in_bfloat16(x: Array, W: Array, b: Array) -> Any:
    y, right = TEXT["linear"](x, W, b)

    def back(dy: Array) -> Any:
        dx, dW, _ = right(dy)
        return dx, dW, added(dy.reshape(-1, dy.shape[-1]), "bfloat16", 16).astype(b.dtype)

    return y, back


@wrong("layer_norm", "bfloat16", "whose gradient adds up rows(dy * n) in bfloat16, rounded after every number")
def gain_gradient_in_bfloat16(x: Array, g: Array, b: Array, *, eps: float) -> Any:
    x, g, b = wide(x, g, b)
    y, right = TEXT["layer_norm"](x, g, b, eps=eps)
    n = TEXT["layer_norm"](x, 0 * g + 1, 0 * b, eps=eps)[0]

    def back(dy: Array) -> Any:
        dx, _, db = right(wide(dy)[0])
        dg = added((dy.astype("float32") * n).reshape(-1, len(g)), "bfloat16", 1)
        return tuple(narrow(d, "bfloat16") for d in (dx, dg, db))

    return narrow(y, "bfloat16"), back


@wrong(
    "embedding", "float32", "whose gradient adds up scatter_add(ids, dy, len(E)) in bfloat16, rounded after every row"
)
def table_gradient_in_bfloat16(E: Array, *, ids: Array) -> Any:
    def back(dy: Array) -> Array:
        dE, flat, given = numpy.zeros_like(E), ids.reshape(-1), dy.reshape(-1, E.shape[-1])
        for token, row in enumerate(flat):
            dE[row] = narrow(dE[row] + given[token], "bfloat16")
        return dE

    return E[ids], back


@wrong("log_softmax", "float32", "whose gradient reads y as it is stored in bfloat16")
def logarithms_kept_in_bfloat16(x: Array) -> Any:
    y, _ = TEXT["log_softmax"](x)
    kept = narrow(y, "bfloat16")
    return y, lambda dy: dy - numpy.exp(kept) * dy.sum(axis=-1, keepdims=True)


@wrong("rms_norm", "float32", "whose gradient reads dn as it is stored in float16")
def scaled_gradient_in_float16(x: Array, g: Array, *, eps: float) -> Any:
    y, right = TEXT["rms_norm"](x, g, eps=eps)
    r = 1 / numpy.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)

    def back(dy: Array) -> Any:
        dn, n = narrow(dy * g, "float16"), x * r
        return r * (dn - n * (dn * n).mean(axis=-1, keepdims=True)), right(dy)[1]

    return y, back


@wrong("layer_norm", "float16", "takes mean(c * c) of terms that are stored in float16, whose numbers end at 65,504")
def squares_in_float16(x: Array, g: Array, b: Array, *, eps: float) -> Any:
    x, g, b = wide(x, g, b)
    c = x - x.mean(axis=-1, keepdims=True)
    r = 1 / numpy.sqrt(narrow(c * c, "float16").mean(axis=-1, keepdims=True) + numpy.float32(eps))
    n = c * r

    def back(dy: Array) -> Any:
        dy = dy.astype("float32")
        dn, rows = dy * g, (-1, len(g))
        dx = r * (dn - dn.mean(axis=-1, keepdims=True) - n * (dn * n).mean(axis=-1, keepdims=True))
        db, dg = dy.reshape(rows).sum(axis=0), (dy * n).reshape(rows).sum(axis=0)
        return dx.astype("float16"), dg.astype("float16"), db.astype("float16")

    return (g * n + b).astype("float16"), back


@wrong("matmul", "float32", "adds up x @ W in bfloat16, rounded after every 16 products")
def accumulator_of_sixteen(x: Array, W: Array) -> Any:
    total = numpy.zeros((*x.shape[:-1], W.shape[1]), x.dtype)
    for first in range(0, len(W), 16):
        total = narrow(total + x[..., first : first + 16] @ W[first : first + 16], "bfloat16")
    return total, TEXT["matmul"](x, W)[1]


@wrong("expert_matmul", "float32", "adds up x @ W in float16, rounded after every 32 products, as their sum is")
def accumulator_of_experts(x: Array, W: Array) -> Any:
    total = numpy.zeros((*x.shape[:-1], W.shape[-1]), x.dtype)
    for first in range(0, W.shape[-2], 32):
        part = x[..., first : first + 32] @ W[..., first : first + 32, :]
        total = narrow(total + narrow(part, "float16"), "float16")
    return total, TEXT["expert_matmul"](x, W)[1]


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", KERNELS)
def test_a_narrow_sum_is_named_with_its_type_and_how_often_it_is_rounded(name: str) -> None:
    operation, dtype, kernel, said = KERNELS[name]
    found = told(Functions(name, {operation: kernel}, {}, (dtype, "float64")), operation, dtype)
    firsts = [line for result in found for line in result.diagnosis[:1] if isinstance(line, Explanation)]
    assert firsts, [line for result in found for line in result.diagnosis]
    assert all(said in line for line in firsts), firsts


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_sum_is_rounded_after_so_many_numbers(dtype: str) -> None:
    x = numpy.array([[1.0, 2.0**-9, 2.0**-9, 2.0**-12, 2.0**-12]])
    each = numpy.float64(0)
    for number in x[0]:
        each = narrow(each + number, dtype)
    assert stored_sum(x, dtype, 1) == each
    assert stored_sum(x, dtype, 9) == narrow(x.sum(), dtype)
    W = numpy.ones((5, 1))
    assert stored_matmul(x, W, dtype, 1) == each
    assert stored_matmul(x, W, dtype, 2) == narrow(
        narrow(narrow(x[0, :2].sum(), dtype) + x[0, 2:4].sum(), dtype) + x[0, 4], dtype
    )
    assert stored_scatter_add(numpy.array([1, 1, 1, 2, 1, 1])[:5], x.T, 2, dtype).shape == (2, 1)
    assert stored_scatter_add(numpy.ones(5, int), x.T, 2, dtype)[1] == each


def test_what_is_too_large_for_float16_is_infinite() -> None:
    x = numpy.array([[300.0, 300.0]])
    assert numpy.isposinf(stored_sum(x * x, "float16", 1)).all()
    assert stored_sum(x, "float16", 1) == 600
