"""A strict double of CuPy over NumPy storage: the same code as on a GPU, proved on a machine without one.

    with installed() as cupy, counting() as counts:
        x = cupy.asarray(host)          # counts.host_to_device == 1
        cupy.sum(x, initial=0)          # TypeError: CuPy's sum has no `initial`
        numpy.asarray(x)                # TypeError: implicit conversion

It has the names and the keywords that `surface.json` lists, taken from a real CuPy by `scripts/cupy_surface.py`, and is
stricter than CuPy where CuPy is silently wrong or silently slow: NumPy arrays and lists as operands or indices (CuPy
transfers some of them), NumPy's functions called on device arrays (CuPy takes most of them over), an index out of range
(CuPy wraps it round), an index that occurs twice in an assignment (CuPy stores any of the values), and a device array
for a shape or an axis. Numbers come from NumPy, so they are its bits. It cannot show a different order of summation, a
different last bit of a device's `exp`, the layout of CuPy's results, nor transfers inside CuPy's own kernels: only a
GPU shows them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from .array import ndarray
from .modules import modules
from .state import STATE, Counts, CUDARuntimeError, OutOfMemoryError, counting, limit_bytes
from .surface import SURFACE, VERSION

__all__ = [
    "SURFACE",
    "VERSION",
    "CUDARuntimeError",
    "Counts",
    "OutOfMemoryError",
    "absent",
    "counting",
    "installed",
    "limit_bytes",
    "ndarray",
]

MODULES = modules()


@contextmanager
def installed(*, device: bool = True) -> Iterator[Any]:
    """`import cupy` finds the double inside, and gets it as the value; without a device everything fails as in CuPy."""
    with _imports(dict(MODULES)), STATE.with_value("device", device):
        yield MODULES["cupy"]


@contextmanager
def absent() -> Iterator[None]:
    """`import cupy` fails inside, as where CuPy is not installed."""
    with _imports(dict.fromkeys(MODULES)):
        yield


@contextmanager
def _imports(found: dict[str, ModuleType | None]) -> Iterator[None]:
    names = {name for name in sys.modules if name.split(".")[0] in {"cupy", "cupyx"}}
    before = {name: sys.modules.pop(name) for name in names}
    sys.modules.update(found)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in found:
            sys.modules.pop(name, None)
        sys.modules.update(before)
