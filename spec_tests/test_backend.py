"""What the operations ask of NumPy or CuPy."""

import importlib
import sys
from typing import Any

import mpmath
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm import backend
from refllm.errors import UserError


def _ulps(x: float, exact: Any, dtype: str) -> Any:
    return abs(float(x) - exact) / float(numpy.spacing(numpy.asarray(abs(exact), dtype)))


@given(x=st.floats(-30, 26))
def test_erfc_agrees_with_mpmath_to_a_few_ulp(x: float) -> None:
    with mpmath.workdps(50):
        exact = float(mpmath.erfc(x))
    # exp(-x²) turns the half ulp of x² into x² half ulps
    assert _ulps(backend.erfc(numpy.array([x]))[0], exact, "float64") <= 8 + x * x


@given(x=st.floats(-10, 9, width=32))
def test_erfc_of_float32_agrees_with_mpmath_to_a_few_ulp(x: float) -> None:
    with mpmath.workdps(50):
        exact = float(mpmath.erfc(x))
    y = backend.erfc(numpy.array([x], "float32"))
    assert y.dtype == numpy.float32
    assert _ulps(y[0], exact, "float32") <= 8 + x * x


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_erfc_has_its_limits(dtype: str) -> None:
    x = numpy.array([1e30, numpy.inf, -1e30, -numpy.inf, 100], dtype)
    assert backend.erfc(x).tolist() == [0, 0, 2, 2, 0]


@given(index=st.lists(st.integers(0, 3), max_size=10))
def test_scatter_add_adds_every_row_to_its_place_and_keeps_what_was_there(index: list[int]) -> None:
    rows = numpy.arange(2.0 * len(index)).reshape(-1, 2) + 1
    target = numpy.full((4, 2), 100.0)
    expected = target.copy()
    for i, row in zip(index, rows, strict=True):
        expected[i] += row
    backend.scatter_add(target, numpy.array(index, dtype=int), rows)
    assert (target == expected).all()


@given(x=st.lists(st.floats(allow_nan=False), min_size=1, max_size=9))
def test_the_running_maximum_is_the_maximum_so_far(x: list[float]) -> None:
    assert backend.running_maximum(numpy.array(x)).tolist() == [max(x[: i + 1]) for i in range(len(x))]


@pytest.mark.parametrize(("rows", "width"), [(0, 3), (1, 1), (700, 200), (5, 10**6), (4, 0)])
def test_blocks_cover_every_row_once_and_in_order(rows: int, width: int) -> None:
    x, number = numpy.broadcast_to(0.0, (rows, width)), numpy.arange(rows)
    covered = [(len(block), *numbers) for block, numbers in backend.row_blocks(x, number)]
    assert [n for _, *numbers in covered for n in numbers] == list(range(rows))
    assert all(length == len(numbers) for length, *numbers in covered)


def test_blocks_are_written_into_the_arrays_themselves() -> None:
    x, y = numpy.arange(700 * 200.0).reshape(700, 200), numpy.zeros((700, 1))
    for xi, yi in backend.row_blocks(x, y):
        yi += xi[:, :1]
    assert (y == x[:, :1]).all()


def test_the_vector_of_equal_entries_is_nobodys_to_change() -> None:
    x = backend.equal_entries(numpy, 3, 0.5, numpy.dtype("f4"))
    assert x.tolist() == [0.5, 0.5, 0.5]
    assert x.dtype == "f4"
    with pytest.raises(ValueError, match="read-only"):
        x += 1


@pytest.mark.parametrize(("dtype", "digits", "exponent"), [("f4", 23, 127), ("f8", 52, 1023)])
def test_the_least_number_has_all_digits_and_the_largest_exponent(dtype: str, digits: int, exponent: int) -> None:
    assert backend.least(numpy, numpy.dtype(dtype)) == -(2 - 2.0**-digits) * 2.0**exponent


def test_a_seed_and_a_stream_name_one_sequence_of_draws() -> None:
    draws = [backend.generator(*key).random(4).tolist() for key in ((0,), (0, 0), (0, 1), (1, 0))]
    assert draws[0] == draws[1]
    assert len({tuple(d) for d in draws}) == 3


def test_what_is_no_array_is_refused_with_the_remedy() -> None:
    with pytest.raises(TypeError, match=r"expected a NumPy or CuPy array, got list; convert it first"):
        backend.namespace([1.0])  # type: ignore[arg-type]


def test_arrays_and_scalars_of_numpy_live_on_the_host() -> None:
    things: tuple[Any, ...] = (numpy.zeros(2), numpy.float32(1))
    for x in things:
        assert backend.namespace(x) is numpy
        assert not backend.on_device(x)
    assert backend.known(numpy.bool_(True)) is True
    assert backend.known(False) is False


def test_the_cpu_needs_no_transfer() -> None:
    x = numpy.zeros(2)
    assert backend.to_device(x, "cpu") is x
    assert backend.to_host(x) is x


def test_an_unknown_device_is_refused_with_the_choice() -> None:
    with pytest.raises(UserError, match="unknown device 'tpu': use cpu or cuda"):
        backend.device_namespace("tpu")


def test_cuda_without_cupy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)  # import cupy now fails
    with pytest.raises(
        UserError, match=r"--device cuda needs CuPy, which is not installed: .* -m pip install"
    ) as caught:
        backend.device_namespace("cuda")
    assert "\n" not in str(caught.value)


def test_exhausted_memory_is_told_from_other_errors() -> None:
    assert backend.is_out_of_memory(MemoryError())
    assert not backend.is_out_of_memory(ValueError())


@pytest.mark.gpu
def test_erfc_and_scatter_add_agree_on_the_device() -> None:
    cupy = importlib.import_module("cupy")
    backend.device_namespace("cuda")
    x = numpy.linspace(-6, 6, 99)
    numpy.testing.assert_allclose(backend.to_host(backend.erfc(cupy.asarray(x))), backend.erfc(x), rtol=1e-13)
    target, index, rows = numpy.zeros((3, 2)), numpy.array([2, 0, 2]), numpy.arange(6.0).reshape(3, 2)
    on_device = cupy.zeros((3, 2))
    backend.scatter_add(on_device, cupy.asarray(index), cupy.asarray(rows))
    backend.scatter_add(target, index, rows)
    assert (backend.to_host(on_device) == target).all()
    saw = x[::-1] % 2
    assert (backend.to_host(backend.running_maximum(cupy.asarray(saw))) == backend.running_maximum(saw)).all()
