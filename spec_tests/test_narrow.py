"""Matrices in 16 and 8 bits compute what the numbers that they stand for compute, however they are cut into blocks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm import own_threads, widening
from refllm.backend import Array
from refllm.finetune.stored import quantised
from refllm.narrow import Narrow, in_8_bits, in_bfloat16, is_finite, joined
from refllm.ops.embedding import embedding
from refllm.ops.linear import heads, linear, matmul

pytestmark = pytest.mark.host
SIZES = st.integers(1, 9)


def kept(form: str, shape: tuple[int, int], *, turned: bool, seed: int = 0) -> tuple[Any, Any]:
    """A random matrix in that form, and what it stands for."""
    x = numpy.random.default_rng(seed).standard_normal(shape).astype(numpy.float32)
    if form == "float16":
        stored: Array = x.astype(numpy.float16)
        wide = stored.astype(numpy.float32)
    elif form == "bfloat16":
        stored = (x.view(numpy.uint32) >> 16).astype(numpy.uint16)
        wide = (stored.astype(numpy.uint32) << 16).view(numpy.float32)
    else:
        stored, scale = quantised(x, axis=1)
        wide = stored * scale
        return Narrow(stored, form=form, turned=turned, scale=scale), wide.T if turned else wide
    return Narrow(stored, form=form, turned=turned), wide.T if turned else wide


@pytest.fixture(params=["in one", "in blocks", "by two threads"])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param != "in one":
        monkeypatch.setattr(widening, "BLOCK", 8)
    if request.param == "by two threads":
        monkeypatch.setattr(own_threads, "SHARED", 1)
        with two_threads():
            yield
    else:
        yield


def two_threads() -> Any:
    """A BLAS of two threads, whatever the machine has; what is shared out goes by what BLAS has."""
    threadpoolctl: Any = pytest.importorskip("threadpoolctl")
    return threadpoolctl.threadpool_limits(2, user_api="blas")


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("form", widening.FORMS)
def test_every_operation_computes_with_the_numbers_that_the_matrix_stands_for(form: str) -> None:
    generator = numpy.random.default_rng(1)
    for shape in ((1, 1), (1, 6), (6, 1), (8, 6), (7, 5), (20, 4)):
        for turned in (False, True):
            W, wide = kept(form, shape, turned=turned)
            assert (W.shape, W.dtype, len(W)) == (wide.shape, wide.dtype, len(wide))
            numpy.testing.assert_array_equal(numpy.asarray(W), wide)
            numpy.testing.assert_array_equal(W.T.widened(), wide.T)
            x = generator.standard_normal((2, 3, wide.shape[0])).astype(numpy.float32)
            b = generator.standard_normal(wide.shape[1]).astype(numpy.float32)
            for ours, truth in (
                (matmul(x, W), matmul(x, wide)),
                (linear(x, W, b), linear(x, wide, b)),
            ):
                numpy.testing.assert_allclose(ours[0], truth[0], rtol=1e-5, atol=1e-5)
                for one, other in zip(ours[1](truth[0]), truth[1](truth[0]), strict=True):
                    numpy.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)
            (one,), _ = heads(x, W, b, heads=1, parts=1)
            (other,), _ = heads(x, wide, b, heads=1, parts=1)
            numpy.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
            ids = generator.integers(0, len(wide), (2, 4))
            numpy.testing.assert_array_equal(embedding(W, ids=ids)[0], wide[ids])


@given(rows=SIZES, columns=SIZES, turned=st.booleans(), seed=st.integers(0, 99), first=st.integers(0, 3))
def test_a_product_does_not_depend_on_where_in_a_file_the_matrix_lies(
    rows: int, columns: int, turned: bool, seed: int, first: int
) -> None:
    W, wide = kept("bfloat16", (rows, columns), turned=turned, seed=seed)
    memory = bytearray(first + W.nbytes)
    memory[first:] = W.stored.tobytes()
    placed = numpy.frombuffer(memory, numpy.uint16, W.size, first).reshape(W.stored.shape)
    x = numpy.random.default_rng(seed).standard_normal((2, len(wide))).astype(numpy.float32)
    found = Narrow(placed, form="bfloat16", turned=turned).after(x)
    numpy.testing.assert_allclose(found, x @ wide, rtol=1e-5, atol=1e-5)


@given(rows=SIZES, columns=SIZES, axis=st.sampled_from([-2, -1]), turned=st.booleans(), seed=st.integers(0, 99))
def test_8_bits_are_those_of_quantisation(rows: int, columns: int, axis: int, turned: bool, seed: int) -> None:
    W, wide = kept("bfloat16", (rows, columns), turned=turned, seed=seed)
    q, s = quantised(wide, axis=axis)
    for source in (W, wide):
        found = in_8_bits(source, axis=axis)
        numpy.testing.assert_array_equal(found.widened(), q * s)
        assert found.stored.dtype == numpy.int8


def test_rounding_to_bfloat16_takes_the_nearest_and_of_two_the_even_one() -> None:
    x = numpy.random.default_rng(0).standard_normal((50, 40)).astype(numpy.float32)
    ties = numpy.array([[1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8), 0.0, -0.0, 3.4e38]], numpy.float32)
    for wide in (x, ties, x.T):
        found = in_bfloat16(wide).widened().astype(float)
        below = wide.view(numpy.uint32) if wide.flags.c_contiguous else numpy.ascontiguousarray(wide).view(numpy.uint32)
        low = (below & 0xFFFF0000).view(numpy.float32).astype(float)
        high = ((below & 0xFFFF0000) + 0x10000).view(numpy.float32).astype(float)
        high[~numpy.isfinite(high)] = low[~numpy.isfinite(high)]
        nearest = numpy.minimum(abs(wide - low), abs(wide - high))
        numpy.testing.assert_array_equal(abs(found - wide), nearest)
    numpy.testing.assert_array_equal(
        in_bfloat16(ties).widened(), numpy.array([[1, 1 + 2**-6, -1, 0, -0.0, 3.3895314e38]], numpy.float32)
    )
    assert in_bfloat16(kept("bfloat16", (2, 2), turned=True)[0]).turned


@pytest.mark.parametrize("form", ["bfloat16", "float16"])
@pytest.mark.parametrize("value", [numpy.inf, -numpy.inf, numpy.nan])
def test_a_number_that_is_not_finite_is_found(form: str, value: float) -> None:
    W, _ = kept(form, (5, 3), turned=False)
    assert is_finite(W.stored, form)
    odd = numpy.float32(value)
    stored = W.stored.copy()
    stored[4, 1] = odd.astype(numpy.float16) if form == "float16" else odd.view(numpy.uint32) >> 16
    assert not is_finite(stored, form)


def test_matrices_side_by_side_are_one() -> None:
    for turned in (False, True):
        parts = [kept("int8", (4, 4), turned=turned, seed=seed)[0] for seed in range(3)]
        if not turned:  # a scale for each output, as published maps have it
            parts = [in_8_bits(part.widened(), axis=-2) for part in parts]
        wide = numpy.concatenate([part.widened() for part in parts], axis=-1)
        numpy.testing.assert_array_equal(joined(parts).widened(), wide)


def test_products_at_the_same_time_leave_blas_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_threads, "SHARED", 1)
    threadpoolctl: Any = pytest.importorskip("threadpoolctl")
    limits = two_threads()
    before = [one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"]
    W, wide = kept("bfloat16", (64, 32), turned=True)
    x = numpy.ones((3, 32), numpy.float32)
    wrong: list[Any] = []

    def work() -> None:
        for _ in range(50):
            if not numpy.allclose(W.after(x), x @ wide, atol=1e-4):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    after = [one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"]
    limits.restore_original_limits()
    assert (wrong, after) == ([], before)
