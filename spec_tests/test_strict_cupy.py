"""The tests of the tester: what the strict double of CuPy refuses, what it counts, and that its numbers are NumPy's."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

from spec_tests import strict_cupy
from spec_tests.strict_cupy import counting, limit_bytes

HOST = numpy.array([[3, 1, 2], [-1, 0, 5]], dtype=numpy.float32)


@pytest.fixture
def cupy() -> Iterator[Any]:
    with strict_cupy.installed() as module:
        yield module


@pytest.fixture
def x(cupy: Any) -> Any:
    return cupy.asarray(HOST)


def test_import_finds_the_double_and_only_inside(cupy: Any) -> None:
    special = importlib.import_module("cupyx.scipy.special")
    assert importlib.import_module("cupy") is cupy
    assert numpy.array_equal(special.erf(cupy.zeros(2)).get(), [0, 0])
    with strict_cupy.absent(), pytest.raises(ImportError):
        importlib.import_module("cupy")
    assert importlib.import_module("cupy") is cupy


CONVERSIONS = {
    "asarray": numpy.asarray,
    "array": numpy.array,
    "array of a list": lambda x: numpy.array([x, x]),
    "a NumPy ufunc": numpy.exp,
    "a NumPy function": numpy.sum,
    "assignment into a NumPy array": lambda x: numpy.zeros((2, 3)).__setitem__(slice(None), x),
    "pickle": pickle.dumps,
}
MIXTURES = {
    "array on the right": lambda x: x + HOST,
    "array on the left": lambda x: HOST + x,
    "0-d array": lambda x: x * numpy.array(2.0),
    "list": lambda x: x * [1, 2, 3],
    "in place": lambda x: x.__iadd__(HOST),
    "comparison": lambda x: x == HOST,
    "None": lambda x: x == None,  # noqa: E711
}


@pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
def test_nothing_converts_a_device_array_unasked(x: Any, convert: Any) -> None:
    with counting() as counts, pytest.raises((TypeError, NotImplementedError)):
        convert(x)
    assert counts.device_to_host == 0


@pytest.mark.parametrize("mix", MIXTURES.values(), ids=MIXTURES)
def test_device_arrays_do_not_mix_with_host_arrays(x: Any, mix: Any) -> None:
    with pytest.raises(TypeError, match="Unsupported type"):
        mix(x)


def test_functions_and_indices_take_device_arrays_only(cupy: Any, x: Any) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: cupy.sum(HOST),
        lambda: cupy.exp(HOST),
        lambda: cupy.where(x > 0, x, HOST),
        lambda: cupy.where(True, x, x),
        lambda: cupy.concatenate([x, HOST]),
        lambda: cupy.sum([1, 2]),
        lambda: cupy.einsum("ij,ij->i", x, HOST),
        lambda: cupy.exp(x, out=numpy.empty((2, 3))),
        lambda: x[numpy.array([0])],
        lambda: x[[0, 1]],
        lambda: x.__setitem__(0, HOST[0]),
        lambda: cupy.zeros(cupy.asarray(3)),
        lambda: x.reshape(cupy.asarray(3), 2),
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()


ABSENT: dict[str, dict[str, Any]] = {
    "sum": {"initial": 0}, "max": {"initial": 0}, "min": {"where": True}, "mean": {"where": True},
    "var": {"where": True}, "std": {"where": True}, "sort": {"stable": True}, "count_nonzero": {"keepdims": True},
    "exp": {"where": True}, "clip": {"min": 0, "max": 1}, "argsort": {"stable": True},
    "take": {"indices": 0, "mode": "clip"},
}  # fmt: skip


@pytest.mark.parametrize("name", ABSENT)
def test_keywords_that_cupy_lacks_are_refused_though_numpy_has_them(cupy: Any, x: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"CuPy {strict_cupy.VERSION}: cupy.{name}.*unexpected keyword"):
        getattr(cupy, name)(x, **ABSENT[name])
    if name in {"sum", "max", "min", "mean", "var", "std"}:
        with pytest.raises(TypeError, match="unexpected keyword"):
            getattr(x, name)(**ABSENT[name])


@pytest.mark.parametrize("name", ["erf", "errstate", "vecdot", "add_at", "random", "asmatrix"])
def test_names_that_cupy_lacks_or_that_are_left_out_are_refused(cupy: Any, name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(cupy, name)
    assert not hasattr(cupy, name)


def test_what_cupy_has_and_the_double_does_not_model_is_said_to_exist(cupy: Any, x: Any) -> None:
    with pytest.raises(NotImplementedError, match="exists"):
        _ = cupy.RawKernel
    with pytest.raises(NotImplementedError, match="exists"):
        _ = x.flat


def test_the_array_has_no_public_member_that_cupy_lacks() -> None:
    listed = strict_cupy.SURFACE["ndarray"]
    allowed = {*listed["attributes"], *listed["methods"], *listed["operators"], "__array_priority__", "__getattr__"}
    mine = {name for name in vars(strict_cupy.ndarray) if not hasattr(object, name)}

    class Empty:  # what this version of Python puts into every class with slots and an annotation
        __slots__ = ("__weakref__", "_storage")
        _storage: int

    assert mine - allowed <= vars(Empty).keys()


def test_a_reduction_and_an_integer_index_give_arrays_and_views(cupy: Any, x: Any) -> None:
    assert isinstance(x.sum(), cupy.ndarray)
    first = x[0, 0]
    assert (type(first), first.shape) == (cupy.ndarray, ())
    first += 4
    x[1][2] = 0.5
    assert x.tolist() == [[7, 1, 2], [-1, 0, 0.5]]


def test_types_follow_numpy_2(cupy: Any, x: Any) -> None:
    assert (2.0 * x).dtype == (numpy.float32(2) * x).dtype == numpy.float32
    assert (numpy.float64(2) * x).dtype == numpy.float64
    assert cupy.where(x > 0, x, 0.0).dtype == numpy.float32
    with pytest.raises(TypeError, match="same_kind"):
        cupy.zeros(2, dtype=numpy.int32).__iadd__(0.5)
    with pytest.raises(TypeError, match="casting"):
        x.astype(numpy.float64, casting="safe")


READS = {
    "float": lambda a: float(a[0, 0]), "int": lambda a: int(a[0, 0]), "bool": lambda a: bool(a[0, 0]),
    "if": lambda a: 1 if a.any() else 0, "item": lambda a: a[0, 0].item(), "tolist": lambda a: a.tolist(),
    "get": lambda a: a.get(), "repr": repr, "format": lambda a: f"{a[0, 0]}",
    "in": lambda a: 3 in a[0],
}  # fmt: skip
WAITS = {
    "mask": lambda c, a: a[a > 0], "mask assignment": lambda c, a: a.__setitem__(a > 0, a[0, 0]),
    "nonzero": lambda c, a: c.nonzero(a), "method nonzero": lambda c, a: a.nonzero(),
    "where of one": lambda c, a: c.where(a), "unique": lambda c, a: c.unique(a),
    "bincount": lambda c, a: c.bincount(c.arange(3)), "stream": lambda c, a: c.cuda.Stream.null.synchronize(),
    "device": lambda c, a: c.cuda.Device().synchronize(),
}  # fmt: skip


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_reading_a_value_counts_as_a_transfer_and_a_wait(x: Any, read: Any) -> None:
    with counting() as counts:
        read(x)
    assert (counts.device_to_host, counts.synchronisations) == (1, 1)


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_shape_that_depends_on_values_counts_as_a_wait(cupy: Any, x: Any, wait: Any) -> None:
    with counting() as counts:
        wait(cupy, x)
    assert (counts.device_to_host, counts.synchronisations) == (0, 1)


def test_transfers_are_counted_with_their_bytes(cupy: Any) -> None:
    with counting() as outer:
        x = cupy.asarray(HOST)
        with counting() as inner:
            assert numpy.array_equal(cupy.asnumpy(x), HOST)
        cupy.array([1.0, 2.0])
    assert (inner.host_to_device, inner.device_to_host, inner.bytes) == (0, 1, 24)
    assert (outer.host_to_device, outer.device_to_host, outer.bytes_to_device, outer.bytes_to_host) == (2, 1, 40, 24)


def test_computing_on_the_device_counts_nothing(cupy: Any, x: Any) -> None:
    ids = cupy.arange(2)
    with counting() as counts:
        y = cupy.where(x > 1, cupy.exp(x) * 2.0, 0.0)
        y -= cupy.max(y, axis=-1, keepdims=True)
        y[0], y[:, 1] = 1.0, 0
        y = cupy.concatenate([y, x[ids]]) @ x.mT
        cupy.full((2,), 3.0, dtype=numpy.float32).fill(1)
        cupy.asarray(y)
        assert y.shape == (4, 2)
    assert counts == strict_cupy.Counts()


def test_a_scalar_assigned_through_an_index_array_or_a_mask_is_a_transfer(x: Any) -> None:
    with counting() as counts:
        x[x > 2] = 0.0
    assert (counts.host_to_device, counts.bytes_to_device) == (1, 4)


def test_counts_hold_when_threads_share_the_device(cupy: Any, x: Any) -> None:
    with counting() as counts:
        threads = [threading.Thread(target=lambda: [float(x[0, 0]) for _ in range(200)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts.device_to_host == counts.synchronisations == 800


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32", "uint64", "float16", "float32", "float64"])
def test_scatter_add_adds_every_repetition_in_place(cupy: Any, dtype: str) -> None:
    target = cupy.zeros((3, 2), dtype=dtype)
    importlib.import_module("cupyx").scatter_add(target, cupy.asarray([2, 0, 2]), cupy.ones((3, 2), dtype=dtype))
    cupy.add.at(target, cupy.asarray([0]), cupy.ones((1, 2), dtype=dtype))
    assert target.tolist() == [[2, 2], [0, 0], [2, 2]]


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "complex64"])
def test_scatter_add_refuses_types_without_an_atomic_addition(cupy: Any, dtype: str) -> None:
    with pytest.raises(TypeError, match="only supports"):
        cupy.add.at(cupy.zeros(3, dtype=dtype), cupy.asarray([1]), cupy.ones(1, dtype=dtype))


def test_what_a_device_does_wrong_in_silence_is_an_error(cupy: Any, x: Any) -> None:
    i = cupy.asarray([0, 2])
    calls: list[Callable[[], Any]] = [
        lambda: x[i],
        lambda: cupy.take(x, i, axis=0),
        lambda: cupy.take_along_axis(x, i[:, None], 0),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="wrap it round"):
            call()
    with pytest.raises(RuntimeError, match="occurs twice"):
        x[cupy.asarray([0, 0])] = cupy.zeros((2, 3), dtype=numpy.float32)
    with pytest.raises(IndexError):
        _ = x[2]


def test_only_the_ufunc_methods_that_cupy_implements_work(cupy: Any, x: Any) -> None:
    assert cupy.add.reduce(x).tolist() == [2, 1, 7]
    assert cupy.add.reduceat(x, cupy.asarray([0]), axis=1).tolist() == [[6], [4]]
    calls: list[Callable[[], Any]] = [
        lambda: cupy.maximum.reduce(x),
        lambda: cupy.maximum.accumulate(x),
        lambda: cupy.exp.at(x, 0),
    ]
    for call in calls:
        with pytest.raises(NotImplementedError, match="not supported yet"):
            call()


def test_sorting_is_stable_and_nothing_else(cupy: Any) -> None:
    ties = cupy.asarray(numpy.arange(1000) % 2)
    order = numpy.argsort(numpy.arange(1000) % 2, kind="stable")
    assert numpy.array_equal(cupy.argsort(ties).get(), order)
    assert numpy.array_equal(ties.argsort(kind="stable").get(), order)
    with pytest.raises(ValueError, match="stable"):
        cupy.sort(ties, kind="quicksort")


def test_results_are_numpys_bits_and_overflow_is_silent(cupy: Any, x: Any) -> None:
    assert numpy.array_equal(cupy.exp(x).get(), numpy.exp(HOST))
    assert numpy.array_equal(cupy.einsum("ij,kj->ik", x, x).get(), numpy.einsum("ij,kj->ik", HOST, HOST))
    assert numpy.array_equal((x / 7).mean(axis=0).get(), (HOST / 7).mean(axis=0))
    assert cupy.exp(1000 * x)[0, 0].item() == numpy.inf


def test_out_returns_the_array_that_was_given(cupy: Any, x: Any) -> None:
    y = cupy.empty_like(x)
    assert cupy.multiply(x, 2, out=y) is y
    assert x.sum(axis=0, out=y[0]).tolist() == y[0].tolist() == [2, 1, 7]


def test_an_array_above_the_limit_is_out_of_memory_in_cupys_words(cupy: Any) -> None:
    error = cupy.cuda.memory.OutOfMemoryError
    with limit_bytes(1024), pytest.raises(error, match=r"Out of memory allocating 1,536 bytes .allocated so far: 0 b"):
        cupy.zeros(1025, dtype=numpy.int8)
    assert cupy.zeros(1025, dtype=numpy.int8).nbytes == 1025


def test_without_a_device_everything_but_the_import_fails() -> None:
    with strict_cupy.installed(device=False) as cupy:
        error = cupy.cuda.runtime.CUDARuntimeError
        assert not cupy.is_available()
        for call in (cupy.cuda.runtime.getDeviceCount, lambda: cupy.zeros(3), lambda: cupy.asarray(HOST)):
            with pytest.raises(error, match="CUDA driver version is insufficient"):
                call()
    with strict_cupy.installed() as cupy:
        assert cupy.cuda.runtime.getDeviceCount() == 1


@pytest.mark.oracle
def test_the_stored_list_is_the_list_of_the_installed_cupy() -> None:
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed (pip install cupy-cuda13x; no GPU is needed)")
    script = Path(__file__).resolve().parent.parent / "scripts" / "cupy_surface.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
