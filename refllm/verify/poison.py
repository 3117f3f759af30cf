"""Memory that was freed, filled with numbers that nobody wrote there: what reads memory before it writes shows.

with poisoned([1024, 4096]): ...    blocks of these sizes hold NaN; those of the C library hold huge numbers
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

import numpy

_PERTURB = -6  # M_PERTURB of glibc's mallopt: what is allocated is filled with the complement of this byte
BYTE = 1  # fills with 0xFE: -1.7e38 in float32 and bfloat16, -5e303 in float64, NaN in float16
_BLOCKS = 8  # of each size: an operation has some arrays of one size in hand
_SMALL = range(16, 1040, 16)  # sizes of which glibc keeps what was freed as it was, up to seven blocks each
ENVIRONMENT = {"MALLOC_PERTURB_": str(BYTE), "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}  # for other processes


@contextlib.contextmanager
def poisoned(sizes: Collection[int]) -> Iterator[None]:
    """In this context new memory holds what nobody would write; `sizes` in bytes are those of the arrays at hand."""
    for size in {size for size in sizes if size}:
        blocks = [numpy.full(size, 0xFF, "uint8") for _ in range(_BLOCKS)]  # NaN in every dtype
        del blocks  # NumPy keeps small blocks, and the C library large ones, for who asks next
    library = _glibc()
    if library is not None:
        _fill_small(library)
        library.mallopt(_PERTURB, BYTE)
    try:
        yield
    finally:
        if library is not None:
            library.mallopt(_PERTURB, 0)


def _fill_small(library: Any) -> None:
    """What fills memory when it is allocated leaves out the small blocks that were freed just before."""
    for size in _SMALL:
        blocks = [library.malloc(size) for _ in range(_BLOCKS)]
        for block in filter(None, blocks):
            ctypes.memset(block, 0xFF, size)
            library.free(block)


@cache
def _glibc() -> Any:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return None
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]
    return library
