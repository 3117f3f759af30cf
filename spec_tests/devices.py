"""The devices that the tests know, a strict double of CuPy and a GPU, and what agreement with NumPy means on each.

On the double every result has NumPy's bits. Where the host computes by another formula than a device (`REPLACED`), the
host's side of a comparison uses the device's formula; what the two formulas differ by is a test of its own. On a GPU
sums have another order and functions another last bit, so agreement is to rounding.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy
import pytest

from refllm import backend
from refllm.errors import UserError
from spec_tests import strict_cupy
from spec_tests.strict_cupy import Counts

NOTHING = Counts()
TOLERANCE = {"float64": 1e-9, "float32": 1e-3}  # of a GPU, relative to 1 + the largest entry


@contextmanager
def _real_cupy() -> Iterator[Any]:
    backend.allow_tf32(False, "cuda")
    yield backend.device_namespace("cuda")


@contextmanager
def _uncounted() -> Iterator[Counts]:
    yield Counts()


@dataclass(frozen=True)
class Device:
    """`present`: inside, CuPy is there. `counting`: what is transferred inside, as far as the device tells."""

    name: str
    exact: bool
    present: Callable[[], AbstractContextManager[Any]]
    counting: Callable[[], AbstractContextManager[Counts]]


DOUBLE = Device("double", True, strict_cupy.installed, strict_cupy.counting)
CUDA = Device("cuda", False, _real_cupy, _uncounted)
every_device = pytest.mark.parametrize(
    "device", [DOUBLE, pytest.param(CUDA, marks=pytest.mark.gpu)], ids=lambda device: device.name
)


def why_no_gpu() -> str | None:
    """Why the tests marked gpu cannot run here; None if they can."""
    try:
        backend.device_namespace("cuda")
    except UserError as error:
        return str(error)
    return None


def _add_one_by_one(target: Any, index: Any, rows: Any) -> None:
    numpy.add.at(target, index, rows)


def _erfc_of_each(x: Any) -> Any:
    return numpy.vectorize(math.erfc, otypes=[float])(x).astype(x.dtype)


def _all_rows(*arrays: Any) -> tuple[tuple[Any, ...], ...]:
    return (arrays,) if len(arrays[0]) else ()


# What a host computes otherwise than a device, the device's way for NumPy arrays, and the reason.
REPLACED: dict[str, tuple[Callable[..., Any], str]] = {
    "scatter_add": (_add_one_by_one, "a host sums the rows of an index at once, a device one by one"),
    "erfc": (_erfc_of_each, "a host computes it by refllm's own formula, a device by CuPy's"),
    "row_blocks": (_all_rows, "a host sums block by block, a device all rows at once"),
}


@contextmanager
def replaced(*names: str) -> Iterator[None]:
    """Inside, the host computes these functions of the backend as a device does; all of `REPLACED` if none is named."""
    with pytest.MonkeyPatch.context() as patch:
        for name in names or REPLACED:
            original, ours = getattr(backend, name), REPLACED[name][0]
            chosen = _by_device(original, ours)
            for module in [m for n, m in sys.modules.items() if n.startswith("refllm.")]:
                if getattr(module, name, None) is original:
                    patch.setattr(module, name, chosen)
        yield


def _by_device(original: Callable[..., Any], on_host: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, *rest: (original if backend.on_device(x) else on_host)(x, *rest)


def moved(tree: Any) -> Any:
    """Every NumPy array in a nest of dicts, lists and tuples, on the device."""

    def move(x: Any) -> Any:
        return backend.to_device(x, "cuda") if isinstance(x, numpy.ndarray | numpy.generic) else x  # type: ignore[arg-type]

    return _each(tree, move)


def brought_back(tree: Any) -> Any:
    """Every array of such a nest on the host; AssertionError if one has been there all the time."""

    def bring(x: Any) -> Any:
        assert not isinstance(x, numpy.ndarray | numpy.generic), "a result lives on the host: the device was left"
        return backend.to_host(x)

    return _each(tree, bring)


def _each(tree: Any, f: Callable[[Any], Any]) -> Any:
    if isinstance(tree, dict):
        return {key: _each(child, f) for key, child in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_each(child, f) for child in tree)
    return f(tree)


def assert_agrees(device: Device, compute: Callable[..., Any], *arguments: Any) -> None:
    """compute(*arguments) on the device is what it is on the host, and nothing is transferred or waited for."""
    with replaced():
        expected = compute(*arguments)
    with device.present():
        there = moved(arguments)
        with device.counting() as counts:
            results = compute(*there)
        assert counts == NOTHING, f"inside the computation: {counts}"
        assert_same(device, expected, brought_back(results))


def transferred(device: Device, compute: Callable[..., Any], *arguments: Any) -> Counts:
    """As `assert_agrees` for what ends on the host, as chosen tokens do: what it transfers and waits for on the way."""
    with replaced():
        expected = compute(*arguments)
    with device.present():
        there = moved(arguments)
        with device.counting() as counts:
            got = compute(*there)
    assert_same(device, expected, got)
    return counts


def assert_same(device: Device, expected: Any, got: Any, path: str = "result") -> None:
    """Two nests of host arrays: to the bit, or to rounding on a GPU."""
    if isinstance(expected, dict):
        assert list(expected) == list(got), f"{path}: {list(got)} instead of {list(expected)}"
        expected, got = list(expected.items()), list(got.items())
        expected, got = [v for _, v in expected], [v for _, v in got]
    if isinstance(expected, list | tuple):
        assert len(expected) == len(got)
        for i, (a, b) in enumerate(zip(expected, got, strict=True)):
            assert_same(device, a, b, f"{path}[{i}]")
        return
    a, b = numpy.asarray(expected), numpy.asarray(got)
    assert (a.shape, a.dtype) == (b.shape, b.dtype), f"{path}: {b.shape} {b.dtype} instead of {a.shape} {a.dtype}"
    if device.exact or a.dtype.kind != "f":
        assert a.tobytes() == b.tobytes(), f"{path} has other bits: {b} instead of {a}"
        return
    error = float(numpy.max(numpy.abs(a - b), initial=0))
    bound = TOLERANCE[a.dtype.name] * (1 + float(numpy.max(numpy.abs(a), initial=0)))
    assert error <= bound, f"{path} is off by {error:.3g}, at most {bound:.3g} is rounding"


def value_and_gradients(f: Callable[..., Any], arrays: Any, keywords: Any, dy: Any) -> Any:
    """The value and what the pullback gives for dy, a tuple with a gradient for each value."""
    y, back = f(*arrays, **keywords)
    return y, back(*dy)
